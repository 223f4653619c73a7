package recording

import (
	"cmp"
	"slices"
	"sync/atomic"

	"noroshi/event"
)

// window puts records in the order of Seen. It holds back as many as its size,
// and so mends what lies no farther apart.
type window struct {
	size  int
	emit  func(*event.Batch)
	late  *atomic.Uint64
	pool  event.Pool
	batch event.Batch
	last  event.Time // of what was emitted
}

// maxText bounds the payloads held back, in octets.
const maxText = 32 << 20

// grew is called after records were added.
func (w *window) grew() {
	if w.batch.Len() >= w.size || w.batch.TextLen() >= maxText {
		w.flush(w.batch.Len() / 2)
	}
}

// finish emits all that is held back.
func (w *window) finish() { w.flush(w.batch.Len()) }

// flush emits the n earliest records.
func (w *window) flush(n int) {
	flows := w.batch.Flows
	bySeen := func(a, b event.Flow) int { return cmp.Compare(a.Seen, b.Seen) }
	if !slices.IsSortedFunc(flows, bySeen) {
		slices.SortStableFunc(flows, bySeen)
	}
	w.copy(flows[:n], w.send)
	// What stays behind moves to a fresh batch, so that the text of what was
	// emitted goes.
	var rest event.Batch
	if n < len(flows) {
		rest.Flows = make([]event.Flow, 0, w.size)
		copyTo(&rest, &w.batch, flows[n:])
	}
	w.batch = rest
}

// copy hands flows on in batches of the usual size.
func (w *window) copy(flows []event.Flow, send func(*event.Batch)) {
	for part := range slices.Chunk(flows, event.BatchSize) {
		b := w.pool.Get()
		copyTo(b, &w.batch, part)
		send(b)
	}
}

func (w *window) send(b *event.Batch) {
	for i := range b.Flows {
		if f := &b.Flows[i]; f.Seen < w.last {
			w.late.Add(1)
		} else {
			w.last = f.Seen
		}
	}
	w.emit(b)
}

// copyTo appends flows of from, with their text, to b.
func copyTo(b, from *event.Batch, flows []event.Flow) {
	for i := range flows {
		b.AppendFlow(from, &flows[i])
	}
}
