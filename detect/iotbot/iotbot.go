// Package iotbot finds hosts that look for others: infected devices first of
// all, and beside them scanners, surveys, and the echo of other people's floods,
// which all look alike from afar.
//
// Whoever tries one service on several addresses without an answer becomes a
// suspect, with books of what it tried. One probe with Mirai's mark is enough.
// The books are judged by evidence combined: marks, the mix of ports, the ranges
// left out, the share of answers, the spread over the address space, text known
// from exploits. A port found closed clears nobody, because bots close the
// doors they came in by.
package iotbot

import (
	"errors"
	"math/bits"
	"net/netip"
	"time"

	"github.com/gaissmai/bart"

	"noroshi/detect"
	"noroshi/event"
	"noroshi/finding"
	"noroshi/intel"
	"noroshi/internal/hosttable"
	"noroshi/network"
)

// Config are the knobs.
type Config struct {
	// MinTargets is how many distinct addresses a host must have tried in vain
	// on services of devices or servers; MinTargetsWeb on ports everybody uses,
	// and MinTargetsOther on any other single port.
	MinTargets      int `yaml:"min_targets"`
	MinTargetsWeb   int `yaml:"min_targets_web"`
	MinTargetsOther int `yaml:"min_targets_other"`
	// MinPorts is how many ports of one or two addresses make a vertical scan.
	MinPorts int `yaml:"min_ports"`
	// FailShare is the least share of the addresses tried that did not answer.
	FailShare float64 `yaml:"fail_share"`
	// MinEchoes is how many addresses must get answers they did not ask for.
	MinEchoes int `yaml:"min_echoes"`
	// Surveys are prefixes of known scanners beside those of package intel.
	Surveys []netip.Prefix `yaml:"surveys"`
	// Update is how often a host that goes on is reported again.
	Update time.Duration `yaml:"update"`
	// MaxQuiet is how long a host must be silent, at most, to have stopped; one
	// that was seen often has after 50 times its usual gap.
	MaxQuiet time.Duration `yaml:"max_quiet"`
	// MaxHosts and MaxSuspects bound memory: hosts that tried something (32
	// octets each), and suspects (about 1.5 kB each).
	MaxHosts    int `yaml:"max_hosts"`
	MaxSuspects int `yaml:"max_suspects"`
}

func defaults() any {
	return &Config{
		MinTargets: 9, MinTargetsWeb: 200, MinTargetsOther: 100, MinPorts: 8, FailShare: 0.8, MinEchoes: 50,
		Update: time.Minute, MaxQuiet: 6 * time.Hour, MaxHosts: 4_000_000, MaxSuspects: 131_072,
	}
}

func (c *Config) check() error {
	switch {
	case c.MinTargets < 4 || c.MinTargetsWeb < 4 || c.MinTargetsOther < 4 || c.MinPorts < 4 || c.MinEchoes < 12:
		return errors.New("min_targets, min_targets_web, min_targets_other and min_ports must be at least 4, min_echoes at least 12")
	case c.MinTargetsWeb > 4000 || c.MinTargetsOther > 4000 || c.MinTargets > 4000:
		return errors.New("min_targets, min_targets_web and min_targets_other must be at most 4000: more can't be told apart")
	case c.FailShare <= 0 || c.FailShare > 1:
		return errors.New("fail_share must be above 0 and at most 1")
	case c.MaxHosts < 1 || c.MaxSuspects < 1:
		return errors.New("max_hosts and max_suspects must be above 0")
	case c.Update < time.Second || c.MaxQuiet < 10*time.Second:
		return errors.New("update must be at least 1s, max_quiet at least 10s")
	}
	return nil
}

// Detector looks for searching hosts in one shard.
type Detector struct {
	cfg     *Config
	net     *network.Table
	known   bool // own networks are
	surveys bart.Table[string]

	probers *hosttable.Table[trace] // who sent SYNs
	echoes  *hosttable.Table[trace] // who answered without being asked

	suspects  []*suspect // by slot; 0 is none
	free      []int32
	hand      int // where the search for a place goes on
	suspected filter

	swept   event.Time
	refused uint64
}

func newDetector(env detect.Env) (detect.Detector, error) {
	cfg := env.Config.(*Config)
	if err := cfg.check(); err != nil {
		return nil, err
	}
	// What a host did an hour ago is forgotten; the table must keep it for a little
	// longer, because records of others may run ahead of it.
	const kept = memory + 300
	d := &Detector{
		cfg: cfg, net: env.Network, known: env.Network.Known(),
		probers:  hosttable.New[trace](cfg.MaxHosts, kept, env.Seed),
		echoes:   hosttable.New[trace](max(cfg.MaxHosts/8, 1024), kept, env.Seed),
		suspects: []*suspect{nil},
	}
	for _, s := range intel.Surveys() {
		for _, p := range s.Prefixes {
			d.surveys.Insert(p, s.Name)
		}
	}
	for _, p := range cfg.Surveys {
		d.surveys.Insert(p.Masked(), "configured")
	}
	return d, nil
}

// memory is for how many ticks what a host without books did is remembered.
const memory = 3600

// trace is what is remembered of a host without books.
type trace struct {
	places uint32 // of targets, by hash
	level  uint16 // of suspicion
	strong uint16 // targets on services of devices or servers
}

// watch is what is known of a TCP port as a target.
type watch uint8

const (
	other watch = iota
	device
	server
	web
	watches
)

// strong reports whether hardly any subscriber tries the service on many hosts.
func (w watch) strong() bool { return w == device || w == server }

// watched is the kind and the name of each TCP port's service.
var watched = func() (w [1 << 16]struct {
	kind watch
	name string
}) {
	kinds := map[string]watch{"device": device, "server": server, "web": web}
	for _, s := range intel.Services() {
		for _, p := range s.Ports {
			w[p].kind, w[p].name = kinds[s.Watch], s.Service
		}
	}
	return w
}()

// suspicion is what one new target adds to a host's level; at full it becomes a
// suspect: for strangers after four addresses on a service of devices, or a
// dozen websites.
var suspicion = [watches]uint16{other: 1, device: 3, server: 3, web: 1}

const full = 12

// isRaw reports whether a SYN has no options, as no ordinary stack sends it.
func isRaw(f *event.Flow) bool { return f.Marks&event.NoOptions != 0 || f.Bytes == 40*f.Packets }

// isMarked reports whether a SYN is one of Mirai's scanner: the mark in a packet
// without options. Ordinary SYNs, which have options, bear it by chance, one in
// 2^32.
func isMarked(f *event.Flow) bool {
	return f.Marks&event.SeqIsDst != 0 && (isRaw(f) || f.Marks&event.BadOffset != 0)
}

// isBare reports whether a flow has no room for more than TCP headers: some
// routers export the flags of the first packet only, and then whole
// conversations look like attempts.
func isBare(f *event.Flow) bool { return f.Bytes <= 100*f.Packets }

// tick is the clock of the tables, in seconds; never 0.
func tick(t event.Time) uint32 { return uint32(t/1e9) | 1 }

// filter says quickly which addresses are surely no suspects. It is emptied and
// filled again when suspects go.
type filter [1 << 14]uint64

func (m *filter) place(a *event.Addr) (int, uint64) {
	h := a.Hash(1)
	return int(h>>6) & (len(m) - 1), 1 << (h & 63)
}

func (m *filter) has(a *event.Addr) bool { i, bit := m.place(a); return m[i]&bit != 0 }
func (m *filter) set(a *event.Addr)      { i, bit := m.place(a); m[i] |= bit }

// Detect examines the flows of b.
func (d *Detector) Detect(b *event.Batch, report func(*finding.Finding)) {
	for i := range b.Flows {
		f := &b.Flows[i]
		switch f.Proto {
		case event.TCP:
			if f.Marks&event.Fragment == 0 {
				d.tcp(b, f, report)
			}
		case event.UDP:
			if f.Marks&event.ForSrc != 0 && d.suspected.has(&f.Src) {
				if s := d.suspectOf(&f.Src, f.Seen, d.probers); s != nil {
					s.chatter(f)
				}
			}
		case event.ICMP:
			if f.Marks&(event.QuoteSeqIsDst|event.ForDst) == event.QuoteSeqIsDst|event.ForDst {
				d.quote(b, f, report)
			}
		}
	}
}

// tcp examines a flow by its flags. SYN without ACK is a probe, though a reset
// may follow: raw scanners' machines send one when they are answered.
func (d *Detector) tcp(b *event.Batch, f *event.Flow, report func(*finding.Finding)) {
	const handshake = event.SYN | event.ACK
	switch {
	case f.TCPFlags&handshake == event.SYN:
		if f.Marks&event.ForSrc != 0 && f.Samples() <= 8 && isBare(f) {
			d.probe(b, f, report)
		}
		if f.Marks&event.ForDst != 0 && d.suspected.has(&f.Dst) {
			if s := d.suspectOf(&f.Dst, f.Seen, d.echoes); s != nil {
				s.solicited++
			}
		}
	case f.Marks&event.ForSrc == 0:
	case f.TCPFlags&(event.FIN|event.PSH) == 0 && f.SrcNet == 0 && (f.TCPFlags&handshake == handshake || f.TCPFlags&(event.RST|event.SYN) == event.RST) && f.Samples() <= 8:
		d.echo(b, f, report)
	case d.suspected.has(&f.Src):
		if s := d.suspectOf(&f.Src, f.Seen, d.probers); s != nil {
			d.conversation(s, b, f, report)
		}
		if s := d.suspectOf(&f.Src, f.Seen, d.echoes); s != nil {
			s.busy++
		}
	}
}

// suspectOf returns the books of a host that is not over at the time, or nil.
func (d *Detector) suspectOf(a *event.Addr, at event.Time, in *hosttable.Table[trace]) *suspect {
	if e := in.Find(a); e != nil && e.Slot != 0 {
		if s := d.suspects[e.Slot]; !s.over(at, d.cfg) {
			return s
		}
	}
	return nil
}

// probe notes an attempt to connect.
func (d *Detector) probe(b *event.Batch, f *event.Flow, report func(*finding.Finding)) {
	now := tick(f.Seen)
	e, touched := d.probers.Get(&f.Src, now)
	if e.Slot != 0 {
		d.expire(e.Slot, f, report)
	}
	if e.Slot == 0 {
		if touched != 0 && now > touched+memory {
			e.V = trace{}
		}
		before := bits.OnesCount32(e.V.places)
		earlier, strong := before, int(e.V.strong)
		bit := uint32(1) << ((f.Dst.Hash(2) + event.Mix(uint64(f.DstPort))) % 32)
		if e.V.places&bit == 0 {
			e.V.places |= bit
			kind := watched[f.DstPort].kind
			e.V.level += suspicion[kind]
			if kind.strong() {
				e.V.strong++
			}
			if isRaw(f) {
				e.V.level += 2
			}
			if kind.strong() && (!d.known || f.SrcNet != 0) {
				// Few subscribers ever do: every target counts, and none before.
				e.V.level, before, strong = full, 0, 0
			}
		}
		if e.V.level < full && !isMarked(f) {
			return
		}
		if e.Slot = d.open(f.Src, f.SrcNet, f.Seen, false); e.Slot == 0 {
			return
		}
		s := d.suspects[e.Slot]
		if s.earlier = earlier; e.V.level >= full {
			s.before, s.beforeStrong = before, strong
		}
	}
	s := d.suspects[e.Slot]
	if s.probe(b, f) && (watched[f.DstPort].kind.strong() || isRaw(f)) && d.isDark(f) {
		s.dark++
	}
	d.judge(s, report)
}

// quote notes an ICMP error that quotes a packet with Mirai's mark: its
// destination sent that packet.
func (d *Detector) quote(b *event.Batch, f *event.Flow, report func(*finding.Finding)) {
	e, _ := d.probers.Get(&f.Dst, tick(f.Seen))
	if e.Slot != 0 {
		d.expire(e.Slot, f, report)
	}
	if e.Slot == 0 {
		if e.Slot = d.open(f.Dst, f.DstNet, f.Seen, false); e.Slot == 0 {
			return
		}
	}
	s := d.suspects[e.Slot]
	s.quotes++
	s.seen(f)
	s.note(b, f)
	d.judge(s, report)
}

// conversation notes an answered attempt of a suspect, and what it says there.
func (d *Detector) conversation(s *suspect, b *event.Batch, f *event.Flow, report func(*finding.Finding)) {
	if kind := watched[f.DstPort].kind; kind != other || s.tried(f.DstPort) {
		h := f.Dst.Hash(3)
		s.answered[kind][h>>6&3] |= 1 << (h & 63)
	}
	if f.Payload.Len > 0 && s.exploit == nil {
		if x := exploitOf(b.Text(f.Payload), f.DstPort); x != nil {
			s.exploit = x
			s.note(b, f)
			d.judge(s, report)
		}
	}
}

// echo notes an answer that may not have been asked for.
func (d *Detector) echo(b *event.Batch, f *event.Flow, report func(*finding.Finding)) {
	e, before := d.echoes.Get(&f.Src, tick(f.Seen))
	if e.Slot != 0 {
		d.expire(e.Slot, f, report)
	}
	if e.Slot == 0 {
		if before != 0 && tick(f.Seen) > before+memory {
			e.V = trace{}
		}
		e.V.places |= 1 << (f.Dst.Hash(2) % 32)
		if bits.OnesCount32(e.V.places) < 12 {
			return
		}
		if e.Slot = d.open(f.Src, 0, f.Seen, true); e.Slot == 0 {
			return
		}
		d.suspects[e.Slot].before = 11
	}
	s := d.suspects[e.Slot]
	s.echo(b, f)
	d.judge(s, report)
}

// open gives a host books and returns their slot, or 0 when there is no room.
func (d *Detector) open(a event.Addr, net uint32, at event.Time, echo bool) int32 {
	slot := int32(len(d.suspects))
	switch {
	case len(d.free) > 0:
		slot = d.free[len(d.free)-1]
		d.free = d.free[:len(d.free)-1]
	case len(d.suspects) <= d.cfg.MaxSuspects:
		d.suspects = append(d.suspects, nil)
	default:
		if slot = d.makeRoom(); slot == 0 {
			d.refused++
			return 0
		}
	}
	d.suspects[slot] = &suspect{addr: a, isEcho: echo, net: net, network: d.net.At(net), start: at, last: at}
	d.suspected.set(&a)
	return slot
}

// makeRoom closes the books of the least suspicious of the next few hosts that
// were not reported, and returns their slot, or 0.
func (d *Detector) makeRoom() int32 {
	best := int32(0)
	for range 64 {
		d.hand = d.hand%(len(d.suspects)-1) + 1
		s := d.suspects[d.hand]
		if s != nil && !s.reported() && (best == 0 || s.probes < d.suspects[best].probes) {
			best = int32(d.hand)
		}
	}
	if best != 0 {
		d.forget(best)
		d.free = d.free[:len(d.free)-1]
	}
	return best
}

func (d *Detector) forget(slot int32) {
	s := d.suspects[slot]
	table := d.probers
	if s.isEcho {
		table = d.echoes
	}
	if e := table.Find(&s.addr); e != nil {
		e.Slot, e.V = 0, trace{}
	}
	d.suspects[slot] = nil
	d.free = append(d.free, slot)
}

// tries is how long evidence is gathered before a host that came to nothing is
// forgotten: not for ever.
const tries = 2 * time.Hour

// over reports whether the host had stopped, or come to nothing, by now.
func (s *suspect) over(now event.Time, c *Config) bool {
	return now.Sub(s.last) > s.quiet(c) || !s.reported() && now.Sub(s.start) > tries
}

// expire closes the books of a host that was over before f came.
func (d *Detector) expire(slot int32, f *event.Flow, report func(*finding.Finding)) {
	if s := d.suspects[slot]; s.over(f.Seen, d.cfg) {
		d.end(s, report)
		d.forget(slot)
	}
}

// Advance reports what has ended and forgets what came to nothing.
func (d *Detector) Advance(now event.Time, report func(*finding.Finding)) {
	if now.Sub(d.swept) < 2*time.Second {
		return
	}
	d.swept = now
	gone := false
	for slot, s := range d.suspects {
		if s != nil && s.over(now, d.cfg) {
			d.end(s, report)
			d.forget(int32(slot))
			gone = true
		}
	}
	if gone {
		d.suspected = filter{}
		for _, s := range d.suspects {
			if s != nil {
				d.suspected.set(&s.addr)
			}
		}
	}
}

// Finish reports the latest numbers of hosts that go on.
func (d *Detector) Finish(report func(*finding.Finding)) {
	for _, s := range d.suspects {
		if s == nil || !s.reported() {
			continue
		}
		if v, ok := d.verdict(s); ok {
			s.judged, s.reportedAt = v, s.last
			report(d.finding(s, false))
		}
	}
}

// Usage returns the state held.
func (d *Detector) Usage() detect.Usage {
	return detect.Usage{
		Entries: d.probers.Len() + d.echoes.Len(),
		Bytes:   d.probers.Bytes() + d.echoes.Bytes() + (len(d.suspects)-1-len(d.free))*suspectSize,
		Evicted: d.probers.Evicted() + d.echoes.Evicted() + d.refused,
	}
}
