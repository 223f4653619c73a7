package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"noroshi/detect"
	"noroshi/detect/flood"
	"noroshi/event"
	"noroshi/finding"
	"noroshi/network"
	"noroshi/source"
	"noroshi/source/export"
)

// exporters is a source of NetFlow v5 datagrams as routers send them: each is
// decoded as if it had just come.
type exporters struct {
	datagrams []datagram
	decoder   *export.Decoder
}

type datagram struct {
	from  byte       // 192.0.2.from
	at    event.Time // when it came
	clock event.Time // what the exporter says the time is
	last  event.Time // what it says the flow's end was, by its clock
}

func (s *exporters) Run(_ context.Context, emit func(*event.Batch)) error {
	var pool event.Pool
	for _, d := range s.datagrams {
		be := binary.BigEndian
		const uptime = 86_400_000 // ms
		p := make([]byte, 24+48)
		be.PutUint16(p, 5)
		be.PutUint16(p[2:], 1)
		be.PutUint32(p[4:], uptime)
		be.PutUint32(p[8:], uint32(d.clock/1e9))
		be.PutUint32(p[12:], uint32(d.clock%1e9))
		r := p[24:]
		copy(r, []byte{10, 0, 0, d.from, 192, 0, 2, 1})
		be.PutUint32(r[16:], 1)
		be.PutUint32(r[20:], 64)
		end := uint32(uptime + int64(d.last-d.clock)/1e6)
		be.PutUint32(r[24:], end-100)
		be.PutUint32(r[28:], end)
		b := pool.Get()
		if _, err := s.decoder.Decode(p, event.AddrOf4([4]byte{192, 0, 2, d.from}), d.at, b); err != nil {
			return err
		}
		emit(b)
	}
	return nil
}

func (s *exporters) Counts() iter.Seq[source.Count] { return s.decoder.Counts() }

// noted is a detector that notes when records come and what the clock says.
type noted struct {
	advances []event.Time
	flows    []event.Flow
}

func (d *noted) Detect(b *event.Batch, _ func(*finding.Finding)) {
	d.flows = append(d.flows, b.Flows...)
}
func (d *noted) Advance(now event.Time, _ func(*finding.Finding)) {
	d.advances = append(d.advances, now)
}
func (*noted) Finish(func(*finding.Finding)) {}
func (d *noted) Usage() detect.Usage         { return detect.Usage{} }

// An exporter whose clock is a century ahead or decades behind, or whose flows
// ended an hour ago or end tomorrow, neither stalls nor rushes the watermark, nor
// moves another exporter's flows in time.
func TestLyingExporters(t *testing.T) {
	const second = event.Time(time.Second)
	start := event.Time(1_700_000_000e9)
	honest := func(lies bool) (advances []event.Time, flows []event.Flow) {
		var all []datagram
		for i := range event.Time(20) {
			at := start + i*second
			all = append(all, datagram{1, at, at, at - second})
			if lies {
				all = append(all,
					datagram{2, at + 1, event.Time(4_200_000_000e9), event.Time(4_200_000_000e9)}, // 2103
					datagram{3, at + 2, 1e9, 1e9},              // 1970
					datagram{4, at + 3, at, at - 3600*second},  // told an hour late
					datagram{5, at + 4, at, at + 86400*second}) // ends tomorrow
			}
		}
		d := &noted{}
		p := Pipeline{Shards: 1, Report: func(*finding.Finding) {}, Detectors: []Detector{{Spec: &detect.Spec{Name: "noted",
			Config: func() any { return nil }, New: func(detect.Env) (detect.Detector, error) { return d, nil }}}}}
		if err := p.Run(context.Background(), &exporters{all, export.NewDecoder(export.Config{})}); err != nil {
			t.Fatal(err)
		}
		for i := range d.flows {
			f := &d.flows[i]
			if f.First > f.Last || f.Last > f.Seen || f.Seen > start+20*second || f.Seen.Sub(f.Last) > 24*time.Hour {
				t.Errorf("a record from %v: %v to %v, seen %v", f.Exporter, f.First, f.Last, f.Seen)
			}
			if f.Exporter.Four()&0xff == 1 {
				flows = append(flows, *f)
			}
		}
		return d.advances[:len(d.advances)-1], flows // the last is the end
	}
	advances, flows := honest(false)
	advancesToo, flowsToo := honest(true)
	if len(advances) < 18 || !slices.Equal(advances, advancesToo) {
		t.Errorf("beside liars the clock tells\n%v, alone\n%v", advancesToo, advances)
	}
	if len(flows) != 20 || !slices.Equal(flows, flowsToo) {
		t.Error("beside liars the honest exporter's flows differ")
	}
}

// stuck is a detector that waits until it is let go.
type stuck struct{ free chan struct{} }

func (d stuck) Detect(*event.Batch, func(*finding.Finding)) { <-d.free }
func (stuck) Advance(event.Time, func(*finding.Finding))    {}
func (stuck) Finish(func(*finding.Finding))                 {}
func (stuck) Usage() detect.Usage                           { return detect.Usage{} }

// counting is a source that counts what it could hand on.
type counting struct {
	recorded
	emitted atomic.Int64
}

func (s *counting) Run(ctx context.Context, emit func(*event.Batch)) error {
	return s.recorded.Run(ctx, func(b *event.Batch) {
		emit(b)
		s.emitted.Add(1)
	})
}

// A shard that is behind holds the source back: what waits is bounded, and
// nothing is lost once it goes on.
func TestBackPressure(t *testing.T) {
	for _, shards := range []int{1, 2} {
		d := stuck{make(chan struct{})}
		p := Pipeline{Shards: shards, Report: func(*finding.Finding) {}, Detectors: []Detector{{Spec: &detect.Spec{Name: "stuck",
			Config: func() any { return nil }, New: func(detect.Env) (detect.Detector, error) { return d, nil }}}}}
		s := &counting{recorded: recorded{flows(400*100, 512), 100, nil}}
		done := make(chan error)
		go func() { done <- p.Run(context.Background(), s) }()
		// One batch is in the detector, so many wait, and one is being handed on.
		const room = queueBatches + 1
		for s.emitted.Load() < room {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(50 * time.Millisecond)
		if n := s.emitted.Load(); n != room {
			t.Errorf("%d shards: %d batches were taken from the source, want %d", shards, n, room)
		}
		close(d.free)
		if err := <-done; err != nil || p.Stats().Flows != 400*100 {
			t.Errorf("%d shards: %d flows, %v", shards, p.Stats().Flows, err)
		}
	}
}

// A detector that panics again and again is begun anew each time, and leaves the
// log readable.
func TestPanicsAreCounted(t *testing.T) {
	bad := &detect.Spec{Name: "bad", Config: func() any { return nil }, New: func(detect.Env) (detect.Detector, error) { return panics{}, nil }}
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(before)
	found := 0
	p := Pipeline{Shards: 1, Report: func(*finding.Finding) { found++ }, Detectors: []Detector{{Spec: bad}, {Spec: spec(nil)}}}
	if err := p.Run(context.Background(), &recorded{flows(100*1000, 512), 1000, nil}); err != nil {
		t.Fatal(err)
	}
	if n := p.Stats().Panics; n != 100 || found < 512 {
		t.Errorf("%d panics, want 100; the other detector found %d", n, found)
	}
	if n := strings.Count(log.String(), "detector=bad"); n != 7 {
		t.Errorf("%d lines in the log, want 7", n)
	}
}

type panics struct{ nothing }

func (panics) Detect(*event.Batch, func(*finding.Finding)) { panic("always") }

// attack is ordinary traffic with floods over it, in the order of Seen, which
// begins at start and lasts for length: a DNS amplification, a SYN flood with
// forged sources, and carpet bombing.
func attack(start event.Time, length time.Duration) []event.Flow {
	var b event.Batch
	line := func(format string, args ...any) {
		if err := b.AppendLine(fmt.Sprintf(format, args...), start); err != nil {
			panic(err)
		}
	}
	step := func(n int) time.Duration { return length / time.Duration(n) }
	line("flow +0s 198.18.0.[1-250]:443 > 10.1.0.[1-250]:[5000-5099] tcp PA 10p 14000B x100 /%v", step(25_000))
	line("flow +0s 10.1.0.[1-250]:[5000-5099] > 198.18.0.[1-250]:443 tcp A 5p 300B x100 /%v", step(25_000))
	line("flow +0s 203.0.113.[1-250]:53 > 10.2.0.7:[1024-1123] udp 20p 28000B x80 /%v", step(20_000))
	line("flow +0s 203.0.114.[1-250]:[1024-1123] > 10.3.0.9:80 tcp S 10p 400B x100 /%v", step(25_000))
	line("flow +0s 203.0.115.[1-250]:123 > 10.4.0.[1-250]:[1024-1123] udp 20p 9360B x60 /%v", step(15_000))
	slices.SortStableFunc(b.Flows, func(x, y event.Flow) int { return cmp.Compare(x.Seen, y.Seen) })
	return b.Flows
}

// detectFloods runs the flood detector and returns its findings as text, sorted.
func detectFloods(t *testing.T, s source.Source, shards int, live bool) string {
	t.Helper()
	own, err := network.New([]network.Network{{Name: "own", Kind: "residential", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}})
	if err != nil {
		t.Fatal(err)
	}
	last := map[finding.ID]string{}
	p := Pipeline{Detectors: []Detector{{Spec: &flood.Spec}}, Network: own, Shards: shards, Live: live, Report: func(f *finding.Finding) {
		text, err := json.Marshal(f)
		if err != nil {
			t.Error(err)
		}
		last[f.ID] = string(text)
	}}
	if err := p.Run(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, text := range last {
		all = append(all, text)
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// paced is a source that hands on its records when their time has come, and
// after each a silence in which the wall clock moves the watermark.
type paced struct{ recorded }

func (s *paced) Run(ctx context.Context, emit func(*event.Batch)) error {
	return s.recorded.Run(ctx, func(b *event.Batch) {
		if wait := time.Until(b.Flows[b.Len()-1].Seen.Std()); wait > 0 {
			time.Sleep(wait)
		}
		emit(b)
	})
}

// A real detector finds the same, word for word, live and replayed, with 1, 2 and
// 8 shards and batches of any size.
func TestSameFloods(t *testing.T) {
	const length = 3 * time.Second
	fs := attack(event.TimeOf(time.Now()), length)
	want := detectFloods(t, &paced{recorded{fs, 997, nil}}, 2, true)
	for _, rule := range []string{"10.2.0.7", "10.3.0.9", "10.4.0.0"} {
		if !strings.Contains(want, rule) {
			t.Errorf("nothing was found about %s in\n%s", rule, want)
		}
	}
	for _, shards := range []int{1, 2, 8} {
		for _, size := range []int{1024, 77} {
			if got := detectFloods(t, &recorded{fs, size, nil}, shards, false); got != want {
				t.Errorf("replayed, %d shards, batches of %d:\n%s\nlive:\n%s", shards, size, got, want)
			}
		}
	}
}
