// Package pipeline carries batches from sources to detectors. It is the only
// place where the stages meet a goroutine, a queue and a clock.
//
//	source ─emit─► annotate ─► keep ─► deal ─► queue ─► shard 0: detector, detector, ...
//	                                       ├─► queue ─► shard 1: detector, detector, ...
//	                                       └─ select ─► queue ─► a detector that sees all shards' hosts
//
// The clock is Flow.Seen: when a record reached noroshi, or the recorder of a
// capture. No exporter can write it, so none can stall or rush the others; the
// times that exporters do write were held against Seen by the decoder. The
// watermark is the latest Seen of all sources less [Pipeline.Lateness], and in
// a live run it follows the wall clock while sources are silent.
//
// Queues are bounded. A full queue holds its source back: a file waits, and a
// socket's kernel buffer fills until the kernel drops datagrams, which the
// listener counts.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"noroshi/detect"
	"noroshi/event"
	"noroshi/finding"
	"noroshi/network"
	"noroshi/source"
)

// Pipeline is the wiring. Its fields are set before Run and not changed after.
type Pipeline struct {
	// Detectors run in every shard, each with its knobs.
	Detectors []Detector
	Network   *network.Table // the provider's own networks; may be nil
	// Shards is the number of goroutines that detect; a power of two.
	// 0 means DefaultShards. Findings don't depend on it.
	Shards int
	// Live makes the clock follow the wall clock while sources are silent.
	Live bool
	// Lateness is how far records may come out of the order of Seen, as they do
	// between two sockets. 0 means one second.
	Lateness time.Duration
	// Report receives each finding, from one goroutine at a time. It must be
	// quick: detection waits for it.
	Report func(*finding.Finding)
	// Clock, if set, is called about once a second of event time with the
	// watermark that all shards have reached, never while Report runs: whatever
	// the number of shards, no finding about records seen before it will come.
	Clock func(now event.Time)
	// Keep, if set, sees each batch once, annotated, before any detector: it is
	// how events are remembered. It is called by several goroutines, must be quick,
	// and must not keep or change the batch.
	Keep func(*event.Batch)
	// Seed keys the detectors' hash tables.
	Seed uint64
	// Learned is the beginning of the names of the files in which what detectors
	// learned outlives the program; empty means it doesn't.
	Learned string

	stats stats
}

// Detector is a detector's Spec with the knobs to run it with.
type Detector struct {
	Spec   *detect.Spec
	Config any // nil means Spec.Config()
}

// DefaultShards is the greatest power of two that leaves a core to the sources,
// at least 1.
func DefaultShards() int {
	return 1 << (bits.Len(uint(max(runtime.GOMAXPROCS(0)-1, 1))) - 1)
}

// queueBatches is how many batches wait before a shard: 9 MB of flows, or 40 ms
// at 1.5 million flows a second.
const queueBatches = 64

// tick is how often, in event time, detectors are told the clock.
const tick = event.Time(time.Second)

type stats struct {
	batches, flows, findings, panics atomic.Uint64
	clock                            atomic.Int64

	mu    sync.Mutex
	usage map[usageKey]detect.Usage
}

type usageKey struct {
	detector string
	shard    int
}

// Stats are the pipeline's counters since Run began.
type Stats struct {
	Batches, Flows, Findings uint64
	Panics                   uint64     // detectors that failed and were begun anew
	Clock                    event.Time // the latest Seen; 0 before the first record
	// Detectors is the state held, by detector, over all shards.
	Detectors map[string]detect.Usage
}

// Stats returns the counters as they stand. It may be called while Run runs.
func (p *Pipeline) Stats() Stats {
	s := Stats{
		Batches: p.stats.batches.Load(), Flows: p.stats.flows.Load(), Findings: p.stats.findings.Load(),
		Panics: p.stats.panics.Load(), Clock: event.Time(p.stats.clock.Load()), Detectors: map[string]detect.Usage{},
	}
	p.stats.mu.Lock()
	defer p.stats.mu.Unlock()
	for key, u := range p.stats.usage {
		sum := s.Detectors[key.detector]
		sum.Entries += u.Entries
		sum.Bytes += u.Bytes
		sum.Evicted += u.Evicted
		s.Detectors[key.detector] = sum
	}
	return s
}

// work is what a lane receives: events, the watermark, or both.
type work struct {
	b   *event.Batch // may be nil
	now event.Time   // no record seen before now will come; 0 = no news
}

// Check reports whether the detectors can be made from their knobs, all
// mistakes at once. Run does the same first.
func (p *Pipeline) Check() error {
	var errs []error
	for _, d := range p.Detectors {
		if _, err := p.make(d); err != nil {
			errs = append(errs, err)
		}
	}
	if n := p.shards(); n < 1 || n > 256 || n&(n-1) != 0 {
		errs = append(errs, fmt.Errorf("pipeline: %d shards; want a power of two, 1 to 256", n))
	}
	return errors.Join(errs...)
}

func (p *Pipeline) shards() int {
	if p.Shards == 0 {
		return DefaultShards()
	}
	return p.Shards
}

func (p *Pipeline) make(d Detector) (detect.Detector, error) {
	config := d.Config
	if config == nil {
		config = d.Spec.Config()
	}
	made, err := d.Spec.New(detect.Env{Config: config, Network: p.Network, Seed: p.Seed})
	if err != nil {
		return nil, fmt.Errorf("detector %s: %w", d.Spec.Name, err)
	}
	return made, nil
}

// Run reads every source to its end, or until ctx ends, and returns when all
// that was emitted has passed through every detector. The error joins those of
// the sources; what they had emitted before was examined all the same.
func (p *Pipeline) Run(ctx context.Context, sources ...source.Source) error {
	if err := p.Check(); err != nil {
		return err
	}
	r := &run{Pipeline: p, lateness: event.Time(p.Lateness)}
	if r.lateness == 0 {
		r.lateness = event.Time(time.Second)
	}
	var dealt []Detector
	for _, d := range p.Detectors {
		if d.Spec.Select == nil {
			dealt = append(dealt, d)
		}
	}
	var shards sync.WaitGroup
	for range p.shards() {
		r.shards = append(r.shards, r.lane(dealt))
	}
	for _, d := range p.Detectors {
		if d.Spec.Select != nil {
			r.whole = append(r.whole, r.lane([]Detector{d}))
		}
	}
	for _, l := range r.lanes {
		shards.Go(l.loop)
	}
	stopClock := r.startClock(ctx)

	errs := make([]error, len(sources))
	var reading sync.WaitGroup
	for i, s := range sources {
		reading.Go(func() { errs[i] = s.Run(ctx, r.emit) })
	}
	reading.Wait()
	stopClock()
	for _, s := range r.lanes {
		close(s.queue)
	}
	shards.Wait()
	return errors.Join(errs...)
}

// run is one Run of a Pipeline.
type run struct {
	*Pipeline
	lateness event.Time
	lanes    []*lane // all: shards, then whole
	shards   []*lane // each with the hosts dealt to it
	whole    []*lane // each with one detector that sees all hosts
	pool     event.Pool

	mu      sync.Mutex // orders batches: all shards get them, and the clock, in one order
	told    event.Time // the watermark last sent
	telling sync.Mutex // one finding, or the clock, at a time
	clock   event.Time // what Clock was last told; guarded by telling
}

// emit takes a batch from a source to the shards.
func (r *run) emit(b *event.Batch) {
	if b.Len() == 0 {
		b.Release()
		return
	}
	r.Network.Annotate(b)
	r.stats.batches.Add(1)
	r.stats.flows.Add(uint64(len(b.Flows)))
	if r.Keep != nil {
		r.Keep(b)
	}
	var latest event.Time
	for i := range b.Flows {
		latest = max(latest, b.Flows[i].Seen)
	}
	for i := range b.DNS {
		latest = max(latest, b.DNS[i].Seen)
	}
	for i := range b.Sessions {
		latest = max(latest, b.Sessions[i].Seen)
	}
	for i := range b.Logs {
		latest = max(latest, b.Logs[i].Seen)
	}
	parts := make([]*event.Batch, len(r.lanes))
	for i, l := range r.whole {
		parts[len(r.shards)+i] = r.choose(b, l.specs[0].Spec.Select)
	}
	if len(r.shards) == 1 {
		b.Deal(nil)
		parts[0] = b
	} else {
		for i := range r.shards {
			parts[i] = r.pool.Get()
		}
		b.Deal(parts[:len(r.shards)])
		b.Release()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.watermark(latest)
	for i, l := range r.lanes {
		if parts[i] != nil || now != 0 {
			l.queue <- work{parts[i], now} // blocks while the lane is behind
		}
	}
}

// choose copies the records of b that a detector of the whole network wants;
// nil if there are none.
func (r *run) choose(b *event.Batch, wanted func(*event.Batch, *event.Flow) bool) (part *event.Batch) {
	for i := range b.Flows {
		if f := &b.Flows[i]; wanted(b, f) {
			if part == nil {
				part = r.pool.Get()
			}
			part.AppendFlow(b, f).Marks |= event.ForSrc | event.ForDst
		}
	}
	return part
}

// lane adds a goroutine's worth of detectors.
func (r *run) lane(specs []Detector) *lane {
	l := &lane{run: r, index: len(r.lanes), specs: specs, queue: make(chan work, queueBatches)}
	for _, d := range specs {
		made, _ := r.make(d) // Check has made one like it
		l.detectors = append(l.detectors, made)
		l.recall(len(l.detectors) - 1)
	}
	r.lanes = append(r.lanes, l)
	return l
}

// watermark moves the clock to latest and returns the watermark if a tick has
// passed since it was last told, else 0. The caller holds r.mu.
func (r *run) watermark(latest event.Time) event.Time {
	clock := max(event.Time(r.stats.clock.Load()), latest)
	r.stats.clock.Store(int64(clock))
	now := clock - r.lateness
	if now < r.told+tick {
		return 0
	}
	r.told = now - now%tick
	return r.told
}

// startClock moves the clock by the wall while a live run's sources are silent.
func (r *run) startClock(ctx context.Context) (stop func()) {
	if !r.Live {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(time.Duration(tick))
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case wall := <-t.C:
				r.mu.Lock()
				if now := r.watermark(event.TimeOf(wall)); now != 0 {
					for _, s := range r.lanes {
						select {
						case s.queue <- work{nil, now}:
						default: // a full queue isn't silent
						}
					}
				}
				r.mu.Unlock()
			}
		}
	}()
	return func() { cancel(); <-done }
}

// lane is one goroutine with detectors of its own.
type lane struct {
	*run
	index     int // among all lanes
	specs     []Detector
	queue     chan work
	detectors []detect.Detector
	reached   event.Time // the watermark; guarded by telling
	kept      event.Time // when what was learned was last written
}

// loop runs until the queue is closed and empty.
func (s *lane) loop() {
	s.noteUsage()
	for w := range s.queue {
		for i := range s.detectors {
			s.guard(i, func(d detect.Detector) {
				if w.b != nil {
					d.Detect(w.b, s.found)
				}
				if w.now != 0 {
					d.Advance(w.now, s.found)
				}
			})
		}
		if w.b != nil {
			w.b.Release()
		}
		if w.now != 0 {
			s.noteUsage()
			s.tellClock(w.now)
			s.keep(w.now, false)
		}
	}
	s.keep(0, true)
	end := event.Time(s.stats.clock.Load()) + 1
	for i := range s.detectors {
		s.guard(i, func(d detect.Detector) {
			d.Advance(end, s.found)
			d.Finish(s.found)
		})
	}
	s.noteUsage()
	s.tellClock(end)
}

// guard calls f with the i-th detector. One that panics is replaced by a new
// one: hostile input that finds a mistake in one detector must not end the
// others. What it knew is lost, which the counter says, and the log of the 1st,
// 2nd, 4th, 8th ... time.
func (s *lane) guard(i int, f func(detect.Detector)) {
	defer func() {
		if why := recover(); why != nil {
			if n := s.stats.panics.Add(1); n&(n-1) == 0 {
				slog.Error("detector failed and begins anew", "detector", s.specs[i].Spec.Name, "shard", s.index,
					"times", n, "why", why, "stack", string(debug.Stack()))
			}
			s.detectors[i], _ = s.make(s.specs[i])
			s.recall(i)
		}
	}()
	f(s.detectors[i])
}

func (s *lane) found(f *finding.Finding) {
	s.stats.findings.Add(1)
	s.telling.Lock()
	defer s.telling.Unlock()
	s.Report(f)
}

// tellClock passes on the watermark that all lanes have reached.
func (s *lane) tellClock(now event.Time) {
	if s.Clock == nil {
		return
	}
	s.telling.Lock()
	defer s.telling.Unlock()
	s.reached = now
	for _, o := range s.lanes {
		now = min(now, o.reached)
	}
	if now > s.clock {
		s.clock = now
		s.Clock(now)
	}
}

func (s *lane) noteUsage() {
	s.stats.mu.Lock()
	defer s.stats.mu.Unlock()
	if s.stats.usage == nil {
		s.stats.usage = map[usageKey]detect.Usage{}
	}
	for i, d := range s.detectors {
		s.stats.usage[usageKey{s.specs[i].Spec.Name, s.index}] = d.Usage()
	}
}
