package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
	"noroshi/internal/config"
	"noroshi/internal/terminal"
	"noroshi/pipeline"
	"noroshi/source/packet"
	"noroshi/source/recording"
	"noroshi/store/history"
	"noroshi/store/memory"
	"noroshi/store/state"
)

var replayCommand = command{
	name: "replay", synopsis: "[flags] PATH...",
	short: "Read recorded telemetry and say what is in it",
	long: `PATH is a file, a folder with all that is in it, or - for standard input.
Content decides what a file is: captures (pcap, pcapng; plain, gzip, zstd or xz)
of packets or of recorded NetFlow, IPFIX and sFlow, or one such datagram.

Incidents go to standard output in the order in which they began, at the end;
findings as they are made. Progress and a summary go to standard error.

  noroshi replay capture.pcap
  noroshi replay --json folder/ | jq .title
  noroshi replay --config noroshi.yaml --lang ja flows.pcap.zst
  tcpdump -w - -i eth0 | noroshi replay -
  noroshi replay --history case7 flows.pcap && noroshi history --folder case7 incident ID
`,
	run: replay,
}

func replay(ctx context.Context, c *call) int {
	var asJSON, findings bool
	var lang, path, folder string
	paths, code, ok := c.parse(func(fs *flag.FlagSet) {
		fs.StringVar(&path, "config", "", "configuration `file`: networks and knobs (default: noroshi's own values)")
		fs.BoolVar(&asJSON, "json", false, "one JSON object per line")
		fs.BoolVar(&findings, "findings", false, "findings in place of incidents, one JSON object per line")
		fs.StringVar(&folder, "history", "", "remember all events in this `folder`, and the incidents: to ask noroshi history --folder FOLDER")
		fs.StringVar(&lang, "lang", "", "`language` of the text: en or ja (default: the locale's)")
	})
	if !ok {
		return code
	}
	l, err := languageOf(lang)
	if err != nil {
		return c.wrong("%v", err)
	}
	if len(paths) == 0 {
		return c.wrong("name a file or a folder, or - for standard input")
	}
	file, code := c.configuration(path)
	if file == nil {
		return code
	}
	out := bufio.NewWriterSize(c.stdout, 1<<15)
	r := newReplayer(file, c, paths)
	r.show = func(v any) { // at once: somebody may be waiting for it
		_ = writeLine(out, v)
		_ = out.Flush()
	}
	if !asJSON && !findings {
		text := terminal.New(c.stdout)
		text.Writer = out
		r.show = func(v any) { showIncident(text, l, v.(*incident.Incident)) }
	}
	remembered := func() error { return nil }
	if folder != "" {
		c.quiet()
		if remembered, err = r.remember(file, folder); err != nil {
			return c.failed(err)
		}
	}
	stop := c.progress(l, r.rec)
	r.onlyFindings = findings
	err = r.run(ctx)
	stop()
	if err := remembered(); err != nil {
		return c.failed(err)
	}
	if out.Flush() != nil {
		return exitFailed
	}
	if err == nil || r.rec.Progress().Packets > 0 {
		r.summary(l, c.stderr, ctx.Err() != nil)
	}
	return c.verdict(ctx, l, r.rec, err)
}

// verdict says which files could not be read and returns the exit code.
func (c *call) verdict(ctx context.Context, l language, rec *recording.Recording, err error) int {
	var files *recording.FileError
	switch {
	case err != nil && !errors.As(err, &files):
		return c.failed(err)
	case err != nil:
		for _, err := range each(err) {
			hint := ""
			if rec.Progress().Packets > 0 && (errors.Is(err, packet.ErrTruncated) || errors.Is(err, packet.ErrDamaged)) {
				hint = l.say("; what came before that was read", "(それより前は読み取り済み)")
			}
			fmt.Fprintf(c.stderr, "noroshi %s: %s%s\n", c.name, terminal.Clean(err.Error()), hint)
		}
	case rec.Files() == 0 || skipped(rec) > 0 && rec.Progress().Packets == 0:
		return c.failed(errors.New(l.say("there is no recorded telemetry in it", "記録されたテレメトリが見つかりません")))
	case ctx.Err() != nil:
		return exitPartial
	default:
		return exitOK
	}
	if rec.Progress().Packets == 0 {
		return exitFailed
	}
	return exitPartial
}

// each returns the errors that errors.Join has put together.
func each(err error) []error {
	var list []error
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range many.Unwrap() {
			list = append(list, each(err)...)
		}
		return list
	}
	return []error{err}
}

func skipped(rec *recording.Recording) (n uint64) {
	for c := range rec.Counts() {
		if c.Name == "files" {
			n += c.Value
		}
	}
	return n
}

// replayer is one replay.
type replayer struct {
	rec        *recording.Recording
	pipeline   *pipeline.Pipeline
	correlator *incident.Correlator
	pile       map[finding.ID]*incident.Incident // not shown yet
	gap        time.Duration
	show       func(any)
	looked     event.Time // when the correlator's changes were last taken
	state      *state.DB  // nil: incidents aren't kept
	unsaved    error      // why they could not be

	onlyFindings        bool // findings are shown in place of incidents
	incidents, findings int  // shown; findings as often as they were said
}

// maxPile bounds the incidents kept until the end. When there are more, those
// that are over are shown before it.
const maxPile = 4096

func newReplayer(f *config.File, c *call, paths []string) *replayer {
	return &replayer{
		rec:      recording.New(paths, recording.Config{Stdin: c.stdin, Export: exportConfig(f)}),
		pipeline: newPipeline(f), correlator: incident.NewCorrelator(f.Incident),
		pile: map[finding.ID]*incident.Incident{}, gap: f.Incident.Gap,
	}
}

func (r *replayer) run(ctx context.Context) error {
	o := &ordered{to: func(f *finding.Finding) {
		r.findings++
		if r.onlyFindings {
			r.show(f)
			return
		}
		r.correlator.Add(f)
	}}
	r.pipeline.Report = o.add
	r.pipeline.Clock = func(now event.Time) {
		o.until(now)
		r.correlator.Advance(now)
		if now.Sub(r.looked) >= time.Minute {
			r.looked = now
			r.look(now)
		}
	}
	err := r.pipeline.Run(ctx, r.rec)
	o.finish()
	r.look(0)
	r.showAll(func(*incident.Incident) bool { return true })
	return err
}

// remember makes a history of what is replayed, in a folder of its own, kept for
// ever, with the incidents beside it. The function that is returned ends it.
func (r *replayer) remember(f *config.File, folder string) (end func() error, err error) {
	c := memory.Config{History: f.History, Engine: f.Engine, Recording: true}
	c.History.URL, c.History.Folder, c.History.Keep = "", folder, history.Keep{}
	m, err := memory.Open(c, nil)
	if err != nil {
		return nil, err
	}
	if r.state, err = state.Open(filepath.Join(folder, stateInFolder)); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	r.pipeline.Keep = m.Keep
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	return func() error {
		cancel()
		return errors.Join(<-ended, r.unsaved, r.state.Close())
	}, nil
}

// stateInFolder is the file of incidents in the folder of a replay's history.
const stateInFolder = "noroshi.db"

// look takes what changed, and makes room when too much is piled up.
func (r *replayer) look(now event.Time) {
	changes := r.correlator.Changes()
	if r.state != nil && r.unsaved == nil {
		r.unsaved = r.state.Save(context.Background(), changes)
	}
	for _, in := range changes {
		in.NewMembers = nil
		r.pile[in.ID] = in
	}
	if len(r.pile) > maxPile {
		r.showAll(func(in *incident.Incident) bool { return now.Sub(in.Last) > r.gap })
	}
}

// showAll shows the piled incidents for which over holds, in the order in which
// they began.
func (r *replayer) showAll(over func(*incident.Incident) bool) {
	var list []*incident.Incident
	for id, in := range r.pile {
		if in.Merged != nil { // another goes on with it
			delete(r.pile, id)
		} else if over(in) {
			list = append(list, in)
			delete(r.pile, id)
		}
	}
	inOrder(list)
	for _, in := range list {
		r.incidents++
		r.show(in)
	}
}

// summary says what was read, what was not, and how much was found.
func (r *replayer) summary(l language, w io.Writer, interrupted bool) {
	p := r.pipeline.Stats()
	found := l.say(plural(r.incidents, "incident", "incidents"), fmt.Sprintf("インシデント%d件", r.incidents))
	if r.onlyFindings {
		found = l.say(plural(r.findings, "finding", "findings"), fmt.Sprintf("検知%d件", r.findings))
	}
	fmt.Fprintf(w, l.say("read %d packets: %d records, %s\n", "パケット%d、レコード%d、%s\n"), r.rec.Progress().Packets, p.Flows, found)
	counts := map[string]uint64{}
	for c := range r.rec.Counts() {
		if c.Reason != "" {
			counts[c.Name+", "+c.Reason] += c.Value
		}
	}
	if len(counts) > 0 {
		var list []string
		for what, n := range counts {
			list = append(list, fmt.Sprintf("%s: %d", what, n))
		}
		slices.Sort(list)
		fmt.Fprintf(w, "%s%s\n", l.say("of note: ", "特記: "), strings.Join(list, "; "))
	}
	if p.Panics > 0 {
		fmt.Fprintf(w, l.say("%d times a detector failed and began anew; please report it\n", "検知器が%d回異常終了し再開しました。ご報告ください\n"), p.Panics)
	}
	if interrupted {
		fmt.Fprintln(w, l.say("interrupted: the rest was not read", "中断: 残りは読んでいません"))
	} else if r.findings == 0 {
		fmt.Fprintln(w, l.say("nothing found", "検知なし"))
	}
}

// progress shows how far the reading has come: on a terminal as it goes,
// elsewhere in a line every half minute.
func (c *call) progress(l language, rec *recording.Recording) (stop func()) {
	every, begin, end, clear := 30*time.Second, "", "\n", ""
	if term.IsTerminal(int(c.stderr.Fd())) {
		every, begin, end, clear = 200*time.Millisecond, "\r\x1b[K", "", "\r\x1b[K"
	}
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-done:
				fmt.Fprint(c.stderr, clear)
				return
			case <-t.C:
				p := rec.Progress()
				text := fmt.Sprintf(l.say("%d packets, %d MB", "パケット%d、%d MB"), p.Packets, p.Octets>>20)
				if p.Total > 0 {
					text += fmt.Sprintf(l.say(" of %d MB", " / %d MB"), p.Total>>20)
				}
				fmt.Fprint(c.stderr, begin+text+end)
			}
		}
	}()
	return func() { close(done); <-gone }
}
