package scenario

import (
	"encoding/binary"
	"hash/fnv"
	"os"
	"strings"
	"testing"
	"time"

	"noroshi/event"
	"noroshi/network"
)

// tiny returns a scenario of a few subscribers' ordinary life and more.
func tiny(p *Provider, length time.Duration, more func(w *world)) *Scenario {
	return &Scenario{Name: "tiny", Provider: p, Length: length, Hour: evening, play: func(w *world) {
		w.ordinaryLife(ordinary{homes: 150, mobile: 80, offices: 20, behindNAT: 50, servers: true, unasked: true, rate: 2})
		if more != nil {
			more(w)
		}
	}}
}

// digest plays s and returns a hash of all it tells.
func digest(t *testing.T, s *Scenario, seed uint64) (sum uint64, n int) {
	h := fnv.New64a()
	last := event.Time(0)
	s.Play(seed, s.Start(), func(b *event.Batch) bool {
		for i := range b.Flows {
			f := b.Flows[i]
			if f.Seen < last {
				t.Fatalf("a record of %v after one of %v", f.Seen, last)
			}
			if f.First > f.Last || f.Last > f.Seen {
				t.Fatalf("times out of order: %s", b.Line(&f))
			}
			last = f.Seen
			h.Write([]byte(b.Text(f.Payload)))
			f.Payload = event.Text{}
			_ = binary.Write(h, binary.LittleEndian, &f)
			n++
		}
		return true
	})
	return h.Sum64(), n
}

func TestDeterminism(t *testing.T) {
	for _, s := range []*Scenario{Find("mirai-roles"), Find("dns-amplification"), Find("own-reflectors"), tiny(newProvider(50), 5*time.Minute, nil)} {
		s.Length = min(s.Length, time.Minute)
		a, n := digest(t, s, 1)
		if b, _ := digest(t, s, 1); a != b {
			t.Errorf("%s: two plays with one seed differ", s.Name)
		}
		if b, _ := digest(t, s, 2); a == b {
			t.Errorf("%s: plays with different seeds are equal", s.Name)
		}
		if n < 1000 {
			t.Errorf("%s: only %d records in a minute", s.Name, n)
		}
	}
}

// Names, texts and targets are complete.
func TestCatalogue(t *testing.T) {
	names := map[string]bool{}
	for _, s := range All() {
		if names[s.Name] || s.Name == "" || s.Doc.En == "" || s.Doc.Ja == "" || len(s.Requirements) == 0 || s.Length <= 0 {
			t.Errorf("%+v", s)
		}
		names[s.Name] = true
		if _, err := network.New(s.Provider.Networks); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
	if len(names) < 40 {
		t.Errorf("%d scenarios", len(names))
	}
	if Find("ordinary-day") == nil || Find("no-such") != nil {
		t.Error("Find")
	}
}

// What a detector sees of ordinary life has the usual proportions.
func TestOrdinaryProportions(t *testing.T) {
	p := newProvider(1)
	p.Exporters[2] = p.Exporters[0] // flows from everywhere
	p.Exporters[2].Name, p.Exporters[2].Addr = "second", event.AddrOf4([4]byte{192, 0, 2, 3})
	s := tiny(p, 20*time.Minute, nil)
	s.play = func(w *world) { w.ordinaryLife(ordinary{homes: 150, mobile: 80, offices: 20, servers: true, rate: 2}) }
	table, _ := network.New(p.Networks)
	type conn struct {
		a, b   event.Addr
		pa, pb uint16
	}
	opened, answered := map[conn]bool{}, map[conn]bool{}
	var tcp, udp, octets, packets, six, flows float64
	s.Play(3, s.Start(), func(b *event.Batch) bool {
		table.Annotate(b)
		for i := range b.Flows {
			f := &b.Flows[i]
			flows++
			octets += float64(f.Bytes)
			packets += float64(f.Packets)
			if !f.Src.Is4() {
				six++
			}
			if f.SrcNet == 0 && f.DstNet == 0 {
				t.Errorf("not ours: %s", b.Line(f))
			}
			switch f.Proto {
			case event.TCP:
				tcp += float64(f.Bytes)
				switch {
				case f.TCPFlags&event.SYN != 0 && f.TCPFlags&event.RST == 0 && (f.DstPort < 1024 || f.DstPort == 8080):
					opened[conn{f.Src, f.Dst, f.SrcPort, f.DstPort}] = true
				case f.TCPFlags&event.ACK != 0 && f.TCPFlags&event.SYN != 0:
					answered[conn{f.Dst, f.Src, f.DstPort, f.SrcPort}] = true
				}
			case event.UDP:
				udp += float64(f.Bytes)
			}
		}
		return true
	})
	done := 0
	for c := range opened {
		if answered[c] {
			done++
		}
	}
	within := func(what string, v, least, most float64) {
		if v < least || v > most {
			t.Errorf("%s: %.3f, want %v to %v", what, v, least, most)
		}
	}
	if len(opened) < 2000 {
		t.Errorf("only %d connections", len(opened))
	}
	within("share of connections that are answered", float64(done)/float64(len(opened)), .97, .996)
	within("share of TCP in the octets", tcp/octets, .3, .85)
	within("share of UDP in the octets", udp/octets, .1, .7)
	within("octets of a packet", octets/packets, 400, 1200)
	within("share of IPv6", six/flows, .1, .6)
}

// Probes are as the published Mirai's: marked, from one port, nine to one, never
// to a skipped range, at most 160 a second; and all of them are in the truth.
func TestMiraiProbes(t *testing.T) {
	s := tiny(tapped(100), 90*time.Second, func(w *world) {
		w.infect(mirai(160), w.botsAt(w.someHosts(homes, 5, 100), time.Second, time.Second))
		w.infect(mirai(4), w.botsAt(w.someHosts(homes, 5, 100), time.Second, time.Second))
	})
	probes := map[event.Addr]uint64{}
	ports := map[uint16]int{}
	source := map[event.Addr]uint16{}
	second := map[event.Addr]map[int64]int{}
	truth := s.Play(1, s.Start(), func(b *event.Batch) bool {
		for i := range b.Flows {
			f := &b.Flows[i]
			if !f.Has(event.SeqIsDst) {
				continue
			}
			probes[f.Src]++
			ports[f.DstPort]++
			if skipped(f.Dst.Four()) || f.Bytes != 40 || !f.Has(event.NoOptions) || f.TCPFlags != event.SYN {
				t.Fatalf("no probe of Mirai's: %s", b.Line(f))
			}
			if p, known := source[f.Src]; known && p != f.SrcPort {
				t.Fatal("the source port changes")
			}
			source[f.Src] = f.SrcPort
			if second[f.Src] == nil {
				second[f.Src] = map[int64]int{}
			}
			second[f.Src][int64(f.First/1e9)]++
		}
		return true
	})
	if len(truth.Bots) == 0 || len(truth.Bots) != len(probes) {
		t.Fatalf("%d bots in truth, %d in records", len(truth.Bots), len(probes))
	}
	for a, b := range truth.Bots {
		if b.Seen != probes[a] || b.Sent < b.Seen || b.Sent > b.Seen+50 { // the last step's may come after the end
			t.Errorf("%v: %d sent, %d seen, %d in records", a, b.Sent, b.Seen, probes[a])
		}
	}
	if share := float64(ports[2323]) / float64(ports[23]+ports[2323]); len(ports) != 2 || share < .095 || share > .105 {
		t.Errorf("ports %v", ports)
	}
	for a, of := range second {
		sum := 0
		for _, n := range of {
			sum += n
			if n > 220 { // Poisson around 160
				t.Errorf("%v: %d in a second", a, n)
			}
		}
		if mean := float64(sum) / float64(len(of)); mean > 165 {
			t.Errorf("%v: %.0f SYN/s", a, mean)
		}
	}
}

// Sampled or not, what is told adds up to what was sent.
func TestSamplingIsFair(t *testing.T) {
	for _, rate := range []uint32{1, 10, 100, 1000} {
		p := newProvider(rate)
		s := &Scenario{Provider: p, Length: 2 * time.Minute, play: func(w *world) {
			r := w.chance()
			for i := range 4000 {
				n := uint64(1 + r.IntN(2000))
				at := w.start + event.Time(i)*1e7
				w.at(at, func() {
					w.send(stream{src: groups[homes].addr(uint32(i), false), dst: content(r, false), proto: event.TCP, first: at, last: at + seconds(r, 0, 90), packets: n, size: 1000, open: 60, end: 40,
						opening: event.SYN, flags: event.ACK, closing: event.FIN, trace: w.truth.bot(event.Addr{}, "", "").trace()})
				})
			}
		}}
		var packets, octets uint64
		truth := s.Play(5, s.Start(), func(b *event.Batch) bool {
			for _, f := range b.Flows {
				packets += f.Packets
				octets += f.Bytes
				if f.Sampling != rate || f.Packets%uint64(rate) != 0 || f.Bytes%uint64(rate) != 0 {
					t.Fatalf("%+v", f)
				}
			}
			return true
		})
		sent := truth.Bots[event.Addr{}].Sent
		// Up to an eighth lies beyond the end of the play.
		if got := float64(packets) / float64(sent); got < .8 || got > 1.02 || rate == 1 && got > 1 {
			t.Errorf("1:%d: %d packets told of %d", rate, packets, sent)
		}
		if size := float64(octets) / float64(packets); size < 960 || size > 1000 {
			t.Errorf("1:%d: %.0f octets a packet", rate, size)
		}
	}
}

func (b *Bot) trace() *Trace { return &b.Trace }

// A flow is told when it ends, when it is silent and when it is old, in parts
// that add up.
func TestFlowCache(t *testing.T) {
	s := &Scenario{Provider: newProvider(1), Length: 10 * time.Minute, play: func(w *world) {
		at := w.start + 1e9
		one := func(first, last event.Time, packets uint64, closing uint8) {
			w.send(stream{src: groups[homes].addr(1, false), dst: four(contentNet), sport: 1, dport: 2, proto: event.TCP, first: first, last: last, packets: packets, size: 100,
				opening: event.SYN, flags: event.ACK, closing: closing})
		}
		w.at(at, func() {
			one(at, at+150e9, 1501, event.FIN|event.ACK) // three parts
			one(at, at+10e9, 101, event.ACK)             // silent then
		})
	}}
	var parts []event.Flow
	s.Play(1, s.Start(), func(b *event.Batch) bool { parts = append(parts, b.Flows...); return true })
	if len(parts) != 4 {
		t.Fatalf("%d records: %+v", len(parts), parts)
	}
	silent, long := parts[0], parts[1:]
	if silent.Packets != 101 || silent.Seen.Sub(silent.Last) < 5*time.Second || silent.TCPFlags != event.SYN|event.ACK {
		t.Errorf("%+v", silent)
	}
	sum := uint64(0)
	for i, f := range long {
		sum += f.Packets
		if f.Last.Sub(f.First) > time.Minute || f.Seen.Sub(f.Last) > time.Second || (f.TCPFlags&event.SYN != 0) != (i == 0) || (f.TCPFlags&event.FIN != 0) != (i == 2) {
			t.Errorf("part %d: %+v", i, f)
		}
	}
	if sum != 1501 {
		t.Errorf("%d packets in the parts", sum)
	}
}

// The manual lists every scenario with its requirements.
func TestManual(t *testing.T) {
	data, err := os.ReadFile("../docs/scenarios.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range All() {
		name := s.Name
		switch {
		case strings.Contains(name, "-amplification"):
			name = "*-amplification"
		case strings.HasPrefix(name, "flood-"):
			name = "flood-*"
		}
		found := false
		for line := range strings.Lines(string(data)) {
			if strings.HasPrefix(line, "| `"+name+"` |") {
				found = strings.HasSuffix(strings.TrimSpace(line), "| "+strings.Join(s.Requirements, " ")+" |")
			}
		}
		if !found {
			t.Errorf("docs/scenarios.md has no row of %s with %v", name, s.Requirements)
		}
	}
}
