package scenario

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"noroshi/event"
	"noroshi/network"
)

// quantum is how often routers send what they have: records told within one
// go out together at its end.
const quantum = event.Time(100e6)

// world is one play of a scenario: the clock, chance, and the exporters, which
// turn packets that pass into records.
type world struct {
	start, end, now event.Time
	seed            uint64
	actors          uint64
	truth           *Truth
	table           *network.Table
	watchOf         []*watch // of each own network
	watches         []*watch

	agenda agenda
	finish []func() // called at the end
	order  uint64

	pending map[int64]*moment // records by the quantum in which they are told
	next    int64             // the earliest quantum not yet told
	spare   []*moment
	batch   *event.Batch
	emit    func(*event.Batch) bool
	stopped bool
}

// moment is all that is told in one quantum.
type moment struct{ of [][]record }

type record struct {
	flow    event.Flow
	payload string
}

func newWorld(p *Provider, seed uint64, start event.Time, length time.Duration, emit func(*event.Batch) bool) *world {
	table, err := network.New(p.Networks)
	if err != nil {
		panic(err) // the networks of scenarios are written here
	}
	w := &world{
		start: start, now: start, end: start.Add(length), seed: seed, truth: newTruth(), table: table,
		pending: map[int64]*moment{}, next: int64(start / quantum), emit: emit,
	}
	for i := range p.Exporters {
		e := &p.Exporters[i]
		w.watches = append(w.watches, &watch{
			Exporter: e, index: i, chance: w.chance(), active: event.Time(e.Active), inactive: event.Time(e.Inactive),
		})
		if e.Protocol.packets() {
			w.watches[i].active = event.Time(10 * time.Second) // how far ahead packets are worked out
		}
		w.watches[i].meanGap = -1 / math.Log1p(-1/float64(e.Sampling))
		w.watches[i].skip = w.watches[i].gap()
	}
	w.watchOf = make([]*watch, len(p.watched))
	for i, x := range p.watched {
		if i > 0 {
			w.watchOf[i] = w.watches[x]
		}
	}
	return w
}

// chance returns a source of chance of its own for each actor, so that one
// actor's draws don't change another's.
func (w *world) chance() *rand.Rand {
	w.actors++
	return rand.New(rand.NewPCG(w.seed, w.actors))
}

// at calls f at t, or now if that is past; not at all after the end.
func (w *world) at(t event.Time, f func()) {
	if t >= w.end {
		return
	}
	w.order++
	heap.Push(&w.agenda, item{max(t, w.now), w.order, f})
}

// every calls f at from and then each step until to.
func (w *world) every(from, to event.Time, step time.Duration, f func(now event.Time)) {
	var again func()
	again = func() {
		f(w.now)
		if next := w.now.Add(step); next < to {
			w.at(next, again)
		}
	}
	w.at(from, again)
}

// run plays to the end and tells what is still pending then: caches are
// emptied, so the last records come after the end.
func (w *world) run() {
	for len(w.agenda) > 0 && !w.stopped {
		i := heap.Pop(&w.agenda).(item)
		w.now = i.at
		w.tell(int64(w.now / quantum))
		i.f()
	}
	w.now = w.end
	last := int64(w.end/quantum) + int64(60*time.Second)/int64(quantum)
	for q := range w.pending {
		last = max(last, q+1)
	}
	w.tell(last)
	w.flush()
	for _, f := range w.finish {
		f()
	}
}

// tell emits the records of all quanta before q.
func (w *world) tell(q int64) {
	for ; w.next < q && !w.stopped; w.next++ {
		m := w.pending[w.next]
		if m == nil {
			continue
		}
		delete(w.pending, w.next)
		for i, list := range m.of {
			if w.watches[i].Protocol == Packets {
				slices.SortStableFunc(list, func(a, b record) int { return int(a.flow.Seen - b.flow.Seen) })
			}
		}
		for pass := range 2 { // packets of a tap have times within the quantum, so they come first
			for i, list := range m.of {
				if (w.watches[i].Protocol == Packets) == (pass == 0) {
					for j := range list {
						w.put(&list[j])
					}
				}
			}
		}
		for i := range m.of {
			clear(m.of[i])
			m.of[i] = m.of[i][:0]
		}
		if len(w.spare) < 64 {
			w.spare = append(w.spare, m)
		}
	}
}

func (w *world) put(r *record) {
	if w.batch == nil {
		w.batch = new(event.Batch)
	}
	f := w.batch.NewFlow()
	*f = r.flow
	if r.payload != "" {
		f.Payload = w.batch.AddText([]byte(r.payload))
	}
	w.truth.Records++
	if w.batch.Len() >= event.BatchSize {
		w.flush()
	}
}

func (w *world) flush() {
	if w.batch != nil && w.batch.Len() > 0 {
		w.stopped = w.stopped || !w.emit(w.batch)
		w.batch = nil
	}
}

// keep holds a record until it is told at the end of the quantum of export. It
// returns the time at which that is.
func (w *world) keep(o *watch, export event.Time, payload string) (*event.Flow, event.Time) {
	q := max(int64(export/quantum), w.next)
	seen := event.Time(q+1) * quantum
	if o.Protocol == Packets {
		seen = export
	}
	m := w.pending[q]
	if m == nil {
		if n := len(w.spare); n > 0 {
			m, w.spare = w.spare[n-1], w.spare[:n-1]
		} else {
			m = &moment{of: make([][]record, len(w.watches))}
		}
		w.pending[q] = m
	}
	list := append(m.of[o.index], record{payload: payload})
	m.of[o.index] = list
	f := &list[len(list)-1].flow
	f.Seen, f.Exporter, f.Sampling = seen, o.Addr, o.Rate()
	return f, seen
}

type item struct {
	at    event.Time
	order uint64
	f     func()
}

type agenda []item

func (a agenda) Len() int      { return len(a) }
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].order < a[j].order
}
func (a *agenda) Push(x any) { *a = append(*a, x.(item)) }
func (a *agenda) Pop() any {
	old := *a
	x := old[len(old)-1]
	old[len(old)-1] = item{}
	*a = old[:len(old)-1]
	return x
}

// poisson draws how many of many rare things happen, where mean is usual.
func poisson(r *rand.Rand, mean float64) int {
	if mean > 30 {
		return max(int(math.Round(mean+math.Sqrt(mean)*r.NormFloat64())), 0)
	}
	n := 0
	for p := r.Float64(); p > math.Exp(-mean); p *= r.Float64() {
		n++
	}
	return n
}

// seconds draws a time between a and b seconds.
func seconds(r *rand.Rand, a, b float64) event.Time {
	return event.Time((a + (b-a)*r.Float64()) * 1e9)
}

// between draws a number from a to b, both included.
func between(r *rand.Rand, a, b int) int { return a + r.IntN(b-a+1) }

// heavy draws a number from least to most in which few are large: the tail of
// sizes on the internet (Pareto with index 1.2).
func heavyTail(r *rand.Rand, least, most float64) float64 {
	return min(least*math.Pow(1-r.Float64(), -1/1.2), most)
}

// ephemeral draws a client's port.
func ephemeral(r *rand.Rand) uint16 { return uint16(32768 + r.IntN(28000)) }
