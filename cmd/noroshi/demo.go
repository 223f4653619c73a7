package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
	"noroshi/internal/terminal"
	"noroshi/network"
	"noroshi/pipeline"
	"noroshi/scenario"
	"noroshi/scenario/score"
	"noroshi/scenario/wire"
	"noroshi/source/udp"
)

var demoCommand = command{
	name: "demo", synopsis: "[flags]",
	short: "Play a provider's network under attack, live, and show what is found",
	long: `It listens on free UDP ports of this machine's loopback address, sends itself
what the routers of a small provider would, as sFlow, IPFIX and NetFlow v9 and v5,
and shows the incidents as they are found. It takes 50 seconds, needs no network
and writes no file. Ctrl-C ends it early.
`,
	run: demo,
}

func demo(ctx context.Context, c *call) int {
	var lang string
	var seed uint64
	rest, code, ok := c.parse(func(fs *flag.FlagSet) {
		fs.StringVar(&lang, "lang", "", "`language` of the text: en or ja (default: the locale's)")
		fs.Uint64Var(&seed, "seed", 1, "`number` from which all chance is drawn")
	})
	if !ok {
		return code
	}
	l, err := languageOf(lang)
	switch {
	case err != nil:
		return c.wrong("%v", err)
	case len(rest) > 0:
		return c.wrong("unexpected argument %q", rest[0])
	}
	s := scenario.Demo()
	listener, err := udp.Listen(udp.Config{Addresses: []string{"127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"}, Buffer: 208 << 10}) // what any system gives
	if err != nil {
		return c.failed(err)
	}
	at := listener.Addrs()
	sender, err := wire.NewSender(s.Provider, map[scenario.Protocol]netip.AddrPort{
		scenario.NetFlow5: at[0], scenario.NetFlow9: at[0], scenario.IPFIX: at[1], scenario.SFlow: at[2],
	})
	if err != nil {
		return c.failed(errors.Join(err, listener.Close()))
	}
	defer sender.Close()
	table, err := network.New(s.Provider.Networks)
	if err != nil {
		return c.failed(errors.Join(err, listener.Close()))
	}

	start := event.TimeOf(time.Now().Add(200 * time.Millisecond))
	v := &viewer{w: terminal.New(c.stdout), l: l, start: start, shown: map[finding.ID]shown{}}
	v.heading(s, at)
	detectors := score.AllDetectors()
	rec := score.NewRecorder(s, detectors)
	acts := s.Acts
	p := &pipeline.Pipeline{
		Detectors: detectors, Network: table, Live: true, Report: rec.Report,
		Clock: func(now event.Time) {
			for len(acts) > 0 && start.Add(acts[0].At) <= now+event.Time(time.Second) { // the clock is a second behind
				v.act(&acts[0])
				acts = acts[1:]
			}
			for _, in := range rec.Clock(now) {
				v.incident(in, now)
			}
		},
	}
	// The listener goes on for a moment after the last datagram, and longer than
	// the play where that was interrupted.
	listening, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- p.Run(listening, listener) }()
	truth, err := sender.Play(ctx, s, seed, start)
	if ctx.Err() == nil {
		time.Sleep(time.Second)
	}
	stop()
	if perr := <-done; perr != nil {
		return c.failed(perr)
	}
	if err != nil && ctx.Err() == nil {
		return c.failed(err)
	}
	v.closing(rec.Result(truth), ctx.Err() != nil)
	v.counters(sender, listener, p)
	return exitOK
}

// viewer prints the demo.
type viewer struct {
	w     *terminal.Writer
	l     language
	start event.Time
	shown map[finding.ID]shown
}

// shown is how an incident was last shown.
type shown struct {
	title string
	at    event.Time
}

func (v *viewer) since(t event.Time) string {
	return fmt.Sprintf("%5.1f s", max(t.Sub(v.start).Seconds(), 0))
}

func (v *viewer) heading(s *scenario.Scenario, at []netip.AddrPort) {
	fmt.Fprintf(v.w, "%s\n%s\n", v.w.Styled(terminal.Bold, "noroshi demo"), v.l.of(s.Doc))
	for i := range s.Provider.Exporters {
		x := &s.Provider.Exporters[i]
		port := map[scenario.Protocol]int{scenario.IPFIX: 1, scenario.SFlow: 2}[x.Protocol]
		fmt.Fprintf(v.w, "  %s\n", v.w.Styled(terminal.Dim, fmt.Sprintf("%-13s %-10s 1:%-3d → udp %v", x.Name, x.Protocol, x.Sampling, at[port])))
	}
	fmt.Fprintln(v.w)
}

func (v *viewer) act(a *scenario.Act) {
	fmt.Fprintf(v.w, "%s\n", v.w.Styled(terminal.Cyan, fmt.Sprintf("%s  ▶ %s %s", v.since(v.start.Add(a.At)), v.l.say("played:", "再生:"), v.l.of(a.Text))))
}

// incident shows one when it is new, and in a line when its title has changed.
func (v *viewer) incident(in *incident.Incident, now event.Time) {
	title := v.l.of(in.Title)
	old, known := v.shown[in.ID]
	switch {
	case in.Merged != nil || in.Severity == finding.Informational:
		return
	case !known:
		fmt.Fprintf(v.w, "%s  %s %s  %s\n", v.since(in.Said), v.w.Styled(severityStyle[in.Severity], "■ "+v.l.severity(in.Severity)),
			v.w.Styled(terminal.Bold, title), v.w.Styled(terminal.Dim, in.Kind))
		for _, row := range [][2]string{
			{v.l.say("why", "根拠"), v.l.of(in.Why)}, {v.l.say("with", "相手"), people(v.l, in.Peers, in.PeerCount)}, {v.l.say("next", "次の手順"), v.l.of(in.Next)},
		} {
			if row[1] != "" {
				fmt.Fprintf(v.w, "           %s %s\n", v.w.Styled(terminal.Dim, pad(row[0], 8)), terminal.Clean(row[1]))
			}
		}
	case title == old.title || now.Sub(old.at) < 4*time.Second:
		return
	default:
		fmt.Fprintf(v.w, "%s  %s %s\n", v.since(now), v.w.Styled(severityStyle[in.Severity], "□"), terminal.Clean(title))
	}
	v.shown[in.ID] = shown{title, now}
}

// closing says of each thing that was played how it was found.
func (v *viewer) closing(r *score.Result, early bool) {
	l := v.l
	fmt.Fprintf(v.w, "\n%s\n", v.w.Styled(terminal.Bold, l.say("What was played, and what was found", "再生した内容と検知結果")))
	if early {
		fmt.Fprintln(v.w, l.say("  (interrupted: what had not begun is missing)", "  (中断: まだ始まっていない攻撃は含まれません)"))
	}
	line := func(found bool, what, how string) {
		mark, style := "✓", terminal.Dim
		if !found {
			mark, style = "✗", terminal.Yellow
		}
		fmt.Fprintf(v.w, "  %s %s  %s\n", mark, terminal.Clean(what), v.w.Styled(style, how))
	}
	if all, found, first := r.BotsFound(); all > 0 {
		how := fmt.Sprintf(l.say("%d of %d found", "%d/%d台を検知"), found, all)
		if found > 0 {
			how += fmt.Sprintf(l.say(", the first after %.1f s", "(最初は%.1f秒後)"), first.Seconds())
		}
		line(found > 0, l.say("infected homes", "感染した家庭"), how)
	}
	floods := slices.Clone(r.Truth.Floods)
	slices.SortFunc(floods, func(a, b *scenario.Flood) int { return cmp.Compare(a.First, b.First) })
	for _, f := range floods {
		if f.FirstSeen == 0 {
			continue
		}
		what := fmt.Sprintf("%s %s → %v", f.Rule, strings.Join(f.Vectors, "+"), finding.Subject{Addr: f.Target, Bits: uint8(f.Bits)})
		if after, ok := r.FloodFound(f); ok {
			line(true, what, fmt.Sprintf(l.say("found %.1f s after its first datagram", "最初のデータグラムから%.1f秒後に検知"), after.Seconds()))
		} else {
			line(false, what, l.say("not found", "未検知"))
		}
	}
	wrong := r.FalseIncidents()
	line(len(wrong) == 0, l.say("false incidents", "誤検知"), fmt.Sprint(len(wrong)))
	for _, in := range wrong {
		fmt.Fprintf(v.w, "      %s\n", terminal.Clean(l.of(in.Title)))
	}
}

// counters prints what went through, and where anything was lost.
func (v *viewer) counters(s *wire.Sender, listener *udp.Listener, p *pipeline.Pipeline) {
	received := uint64(0)
	lost := map[string]uint64{}
	for c := range listener.Counts() {
		switch {
		case c.Name == "received":
			received += c.Value
		case c.Name == "lost" || c.Name == "refused":
			lost[c.Name+", "+c.Reason] += c.Value
		}
	}
	fmt.Fprintf(v.w, v.l.say("\n%d datagrams sent, %d received; %d records examined\n", "\n送信%dデータグラム、受信%dデータグラム、検査%dレコード\n"), s.Sent(), received, p.Stats().Flows)
	nothing := true
	for _, reason := range sortedKeys(lost) {
		if lost[reason] > 0 {
			nothing = false
			fmt.Fprintf(v.w, "  %s: %d\n", reason, lost[reason])
		}
	}
	if nothing {
		fmt.Fprintln(v.w, v.l.say("nothing lost, nothing refused", "損失なし、拒否なし"))
	}
}

func sortedKeys(m map[string]uint64) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
