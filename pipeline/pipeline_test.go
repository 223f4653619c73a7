package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"noroshi/detect"
	"noroshi/event"
	"noroshi/finding"
	"noroshi/source"
)

const start event.Time = 1e18

// flows returns n flows a microsecond apart from as many sources, the same in
// every run.
func flows(n int, sources uint32) []event.Flow {
	r := rand.New(rand.NewPCG(1, 2))
	fs := make([]event.Flow, n)
	for i := range fs {
		f := &fs[i]
		f.First = start + event.Time(i)*1000
		f.Last, f.Seen = f.First+500, f.First+800
		s := r.Uint32N(sources)
		f.Src = event.AddrOf4([4]byte{10, byte(s >> 8), 0, byte(s)})
		f.Dst = event.AddrOf4([4]byte{198, 18, byte(r.Uint32()), byte(r.Uint32())})
		f.Bytes, f.Packets, f.Sampling, f.Proto = 1500, 1, 1, event.TCP
	}
	return fs
}

// recorded is a source that plays fs in batches of size.
type recorded struct {
	fs   []event.Flow
	size int
	err  error
}

func (s *recorded) Run(_ context.Context, emit func(*event.Batch)) error {
	var pool event.Pool
	for part := range slices.Chunk(s.fs, s.size) {
		b := pool.Get()
		b.Flows = append(b.Flows, part...)
		emit(b)
	}
	return s.err
}

func (s *recorded) Counts() iter.Seq[source.Count] { return func(func(source.Count) bool) {} }

// counter is a detector that reports each source's hundredth flow and each
// destination's /16's thousandth.
type counter struct {
	src, dst map[event.Addr]int
	advances []event.Time
	fail     bool
}

func (d *counter) Detect(b *event.Batch, report func(*finding.Finding)) {
	for i := range b.Flows {
		f := &b.Flows[i]
		if d.fail && f.Src.Four()&0xff == 7 {
			panic("seven")
		}
		say := func(what string, a event.Addr) {
			report(&finding.Finding{ID: finding.NewID(what, a, "", f.Seen), Rule: what, Subject: finding.Host(a, "", "")})
		}
		if f.Has(event.ForSrc) {
			if d.src[f.Src]++; d.src[f.Src] == 100 {
				say("source", f.Src)
			}
		}
		if net := f.Dst.Masked(16); f.Has(event.ForDst) {
			if d.dst[net]++; d.dst[net]%1000 == 0 {
				say("destination", net)
			}
		}
	}
}

func (d *counter) Advance(now event.Time, _ func(*finding.Finding)) {
	d.advances = append(d.advances, now)
}
func (d *counter) Finish(func(*finding.Finding)) {}
func (d *counter) Usage() detect.Usage           { return detect.Usage{Entries: len(d.src) + len(d.dst)} }

type knobs struct{ Fail bool }

func spec(made *[]*counter) *detect.Spec {
	return &detect.Spec{
		Name:   "counter",
		Config: func() any { return &knobs{} },
		New: func(e detect.Env) (detect.Detector, error) {
			d := &counter{src: map[event.Addr]int{}, dst: map[event.Addr]int{}, fail: e.Config.(*knobs).Fail}
			if made != nil {
				*made = append(*made, d)
			}
			return d, nil
		},
	}
}

func play(t *testing.T, fs []event.Flow, shards, size int) string {
	t.Helper()
	var got []string
	p := Pipeline{Detectors: []Detector{{Spec: spec(nil)}}, Shards: shards,
		Report: func(f *finding.Finding) { got = append(got, fmt.Sprint(f.ID, f.Rule, f.Subject)) }}
	if err := p.Run(context.Background(), &recorded{fs, size, nil}); err != nil {
		t.Fatal(err)
	}
	if s := p.Stats(); s.Flows != uint64(len(fs)) || s.Findings != uint64(len(got)) || s.Detectors["counter"].Entries == 0 {
		t.Errorf("stats %+v after %d flows and %d findings", s, len(fs), len(got))
	}
	slices.Sort(got)
	return strings.Join(got, "\n")
}

// Neither the number of shards nor the size of batches changes what is found.
func TestSameFindings(t *testing.T) {
	fs := flows(100_000, 512)
	want := play(t, fs, 1, 1024)
	if n := strings.Count(want, "source"); n != 512 {
		t.Fatalf("%d sources found, want 512", n)
	}
	for _, shards := range []int{1, 2, 8} {
		for _, size := range []int{1000, 77} {
			if play(t, fs, shards, size) != want {
				t.Errorf("%d shards with batches of %d found something else", shards, size)
			}
		}
	}
}

// The watermark ticks once a second of event time, trails the latest record by
// the lateness, and never runs back when a record is late.
func TestClock(t *testing.T) {
	var made []*counter
	var fs []event.Flow
	for _, at := range []int{0, 1, 2, 3, 9, 4, 10, 5} { // the last is late: the end is 10
		fs = append(fs, event.Flow{Seen: start + event.Time(at)*event.Time(time.Second)})
	}
	p := Pipeline{Detectors: []Detector{{Spec: spec(&made)}}, Shards: 1, Lateness: 2 * time.Second, Report: func(*finding.Finding) {}}
	if err := p.Run(context.Background(), &recorded{fs, 1, nil}); err != nil {
		t.Fatal(err)
	}
	d := made[len(made)-1]
	var got []int
	for _, now := range d.advances {
		got = append(got, int((now-start)/event.Time(time.Second)))
	}
	if want := []int{-2, -1, 0, 1, 7, 8, 10}; !slices.Equal(got, want) {
		t.Errorf("clock told %v, want %v", got, want)
	}
}

// A silent live source doesn't stop the clock.
func TestLiveClock(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	told := make(chan event.Time, 10)
	p := Pipeline{Detectors: []Detector{{Spec: spec(nil)}}, Shards: 2, Live: true, Report: func(*finding.Finding) {},
		Clock: func(now event.Time) {
			select {
			case told <- now:
			default:
			}
		}}
	done := make(chan error)
	go func() { done <- p.Run(ctx, silent{}) }()
	select {
	case now := <-told:
		if now > event.TimeOf(time.Now()) {
			t.Error("the clock runs ahead")
		}
	case <-time.After(30 * time.Second):
		t.Error("the clock stands still")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

type silent struct{}

func (silent) Run(ctx context.Context, _ func(*event.Batch)) error { <-ctx.Done(); return nil }
func (silent) Counts() iter.Seq[source.Count]                      { return func(func(source.Count) bool) {} }

// A source's error doesn't lose what it had emitted, nor the other sources.
func TestSourceError(t *testing.T) {
	broken := errors.New("broken")
	p := Pipeline{Detectors: []Detector{{Spec: spec(nil)}}, Report: func(*finding.Finding) {}}
	err := p.Run(context.Background(), &recorded{flows(1000, 9), 100, broken}, &recorded{flows(500, 9), 100, nil})
	if !errors.Is(err, broken) || p.Stats().Flows != 1500 {
		t.Errorf("%v after %d flows", err, p.Stats().Flows)
	}
}

// A detector that panics is begun anew and counted; the others see every event.
func TestPanic(t *testing.T) {
	found := map[string]int{}
	p := Pipeline{Detectors: []Detector{{Spec: spec(nil), Config: &knobs{Fail: true}}, {Spec: spec(nil)}}, Shards: 1,
		Report: func(f *finding.Finding) { found[f.Rule]++ }}
	if err := p.Run(context.Background(), &recorded{flows(100_000, 512), 1000, nil}); err != nil {
		t.Fatal(err)
	}
	if p.Stats().Panics == 0 || found["source"] < 512 {
		t.Errorf("%d panics, found %v", p.Stats().Panics, found)
	}
}

func TestCheck(t *testing.T) {
	p := Pipeline{Shards: 3, Detectors: []Detector{{Spec: &detect.Spec{Name: "bad", Config: func() any { return nil },
		New: func(detect.Env) (detect.Detector, error) { return nil, errors.New("no knobs") }}}}}
	err := p.Run(context.Background())
	if err == nil || !strings.Contains(err.Error(), "bad: no knobs") || !strings.Contains(err.Error(), "power of two") {
		t.Errorf("Run said %v, want both mistakes", err)
	}
}

func BenchmarkPipeline(b *testing.B) {
	fs := flows(1<<20, 1<<16)
	none := &detect.Spec{Name: "none", Config: func() any { return nil }, New: func(detect.Env) (detect.Detector, error) { return nothing{}, nil }}
	for _, shards := range []int{1, 2} {
		b.Run(fmt.Sprintf("shards=%d", shards), func(b *testing.B) {
			b.ReportAllocs()
			for range b.N / len(fs) {
				p := Pipeline{Detectors: []Detector{{Spec: none}}, Shards: shards, Report: func(*finding.Finding) {}}
				if err := p.Run(context.Background(), &recorded{fs, event.BatchSize, nil}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

type nothing struct{}

func (nothing) Finish(func(*finding.Finding))               {}
func (nothing) Detect(*event.Batch, func(*finding.Finding)) {}
func (nothing) Advance(event.Time, func(*finding.Finding))  {}
func (nothing) Usage() detect.Usage                         { return detect.Usage{} }

// seen is a detector of the whole network: it reports each flow it gets.
type seen struct{}

func (seen) Detect(b *event.Batch, report func(*finding.Finding)) {
	for i := range b.Flows {
		f := &b.Flows[i]
		report(&finding.Finding{ID: finding.NewID("seen", f.Src, b.Text(f.Payload), f.Seen), Subject: finding.Host(f.Src, "", ""), Said: f.Seen, Title: finding.Text{En: b.CloneText(f.Payload)}})
	}
}
func (seen) Advance(event.Time, func(*finding.Finding)) {}
func (seen) Finish(func(*finding.Finding))              {}
func (seen) Usage() detect.Usage                        { return detect.Usage{} }

// A detector with Select is alone, sees what it selects of all shards' hosts in
// the order in which it came, and nothing else.
func TestSelect(t *testing.T) {
	spec := &detect.Spec{
		Name: "seen", Config: func() any { return nil },
		New:    func(detect.Env) (detect.Detector, error) { return seen{}, nil },
		Select: func(b *event.Batch, f *event.Flow) bool { return b.Text(f.Payload) == "yes" },
	}
	var b event.Batch
	b.Flows = flows(3000, 60_000)
	for i := range b.Flows {
		switch {
		case i%100 == 7:
			b.Flows[i].Payload = b.AddText([]byte("yes"))
		case i%10 == 0:
			b.Flows[i].Payload = b.AddText([]byte("no"))
		}
	}
	for _, shards := range []int{1, 4} {
		var got []event.Time
		p := &Pipeline{Detectors: []Detector{{Spec: spec}}, Shards: shards, Report: func(f *finding.Finding) {
			got = append(got, f.Said)
			if f.Title.En != "yes" {
				t.Errorf("it got %q", f.Title.En)
			}
		}}
		if err := p.Run(context.Background(), &emitter{&b}); err != nil {
			t.Fatal(err)
		}
		if len(got) != 30 || !slices.IsSorted(got) {
			t.Errorf("%d shards: %d flows, in order: %v; want 30", shards, len(got), slices.IsSorted(got))
		}
	}
}

// emitter emits the flows of a batch, with their text, seven at a time.
type emitter struct{ b *event.Batch }

func (s *emitter) Run(_ context.Context, emit func(*event.Batch)) error {
	for part := range slices.Chunk(s.b.Flows, 7) {
		b := new(event.Batch)
		for i := range part {
			b.AppendFlow(s.b, &part[i])
		}
		emit(b)
	}
	return nil
}

func (s *emitter) Counts() iter.Seq[source.Count] { return func(func(source.Count) bool) {} }

// teller is a detector that says something of each flow, in its own time.
type teller struct{ slow time.Duration }

func (d *teller) Detect(b *event.Batch, report func(*finding.Finding)) {
	time.Sleep(d.slow)
	for i := range b.Flows {
		if f := &b.Flows[i]; f.Has(event.ForSrc) {
			report(&finding.Finding{Said: f.Seen})
		}
	}
}
func (*teller) Advance(event.Time, func(*finding.Finding)) {}
func (*teller) Finish(func(*finding.Finding))              {}
func (*teller) Usage() detect.Usage                        { return detect.Usage{} }

// The clock waits for the slowest shard: behind it comes nothing of before.
func TestClockOfAllShards(t *testing.T) {
	fs := flows(5000, 1<<16)
	for i := range fs {
		fs[i].Seen = start + event.Time(i)*event.Time(10*time.Millisecond)
	}
	n := 0
	s := &detect.Spec{Name: "teller", Config: func() any { return nil }, New: func(detect.Env) (detect.Detector, error) {
		if n++; n <= 2 { // Run tries one before those it uses: the first shard is quick
			return &teller{}, nil
		}
		return &teller{300 * time.Microsecond}, nil
	}}
	var clock event.Time
	ticks, late := 0, 0
	p := Pipeline{Detectors: []Detector{{Spec: s}}, Shards: 8,
		Report: func(f *finding.Finding) {
			if f.Said < clock {
				late++
			}
		},
		Clock: func(now event.Time) {
			if now <= clock {
				t.Errorf("the clock went from %v to %v", clock, now)
			}
			clock = now
			ticks++
		},
	}
	if err := p.Run(context.Background(), &recorded{fs, 10, nil}); err != nil {
		t.Fatal(err)
	}
	if late > 0 || ticks < 40 {
		t.Errorf("%d findings came behind the clock, which ticked %d times", late, ticks)
	}
}

// pupil is a detector that remembers how many flows it ever saw.
type pupil struct {
	nothing
	n int
}

func (p *pupil) Detect(b *event.Batch, report func(*finding.Finding)) {
	p.n += b.Len()
	report(&finding.Finding{Samples: float64(p.n)})
}
func (p *pupil) Save(w io.Writer) error { _, err := fmt.Fprintln(w, p.n); return err }
func (p *pupil) Load(r io.Reader) error {
	n := 0
	_, err := fmt.Fscan(r, &n)
	p.n += n
	return err
}

// clumsy is a pupil that fails at each batch.
type clumsy struct{ pupil }

func (*clumsy) Detect(*event.Batch, func(*finding.Finding)) { panic("clumsy") }

// What was learned outlives the run, with any number of shards; a damaged file
// costs its own knowledge only.
func TestLearned(t *testing.T) {
	spec := &detect.Spec{Name: "pupil", Config: func() any { return nil }, New: func(detect.Env) (detect.Detector, error) { return &pupil{}, nil }}
	path := filepath.Join(t.TempDir(), "learned")
	run := func(shards int) (most float64) {
		p := &Pipeline{Detectors: []Detector{{Spec: spec}}, Shards: shards, Learned: path, Report: func(f *finding.Finding) { most = max(most, f.Samples) }}
		if err := p.Run(context.Background(), &recorded{flows(1000, 1), 100, nil}); err != nil {
			t.Fatal(err)
		}
		return most
	}
	if a, b := run(1), run(1); a != 1000 || b != 2000 {
		t.Errorf("%v flows, then %v", a, b)
	}
	if n := run(2); n < 2500 {
		t.Errorf("with two shards %v", n)
	}
	// One that fails begins with what was kept, and writes no less.
	before := run(1)
	failing := *spec
	failing.New = func(detect.Env) (detect.Detector, error) { return &clumsy{}, nil }
	p := &Pipeline{Detectors: []Detector{{Spec: &failing}}, Shards: 1, Learned: path, Report: func(*finding.Finding) {}}
	if err := p.Run(context.Background(), &recorded{flows(1000, 1), 100, nil}); err != nil || p.Stats().Panics == 0 {
		t.Fatalf("%v, %d panics", err, p.Stats().Panics)
	}
	if n := run(1); n < before {
		t.Errorf("after a failure %v, before it %v", n, before)
	}
	if err := os.WriteFile(path+".pupil.0", []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := run(1); n < 1000 {
		t.Errorf("after damage %v", n)
	}
}
