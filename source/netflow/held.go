package netflow

import (
	"bytes"
	"cmp"
	"container/list"
	"slices"

	"noroshi/event"
)

// heldOverhead is what a held set costs beside its octets, roughly.
const heldOverhead = 256

// heldSets are the data sets that wait for a template, the oldest in front. The
// zero heldSets is empty. It is changed under Decoder.mu.
type heldSets struct {
	queue list.List // of *heldSet
	bytes int
}

// heldSet is one data set that waits.
type heldSet struct {
	dom   *domain
	id    uint16
	h     header // of its datagram
	p     []byte // eight octets of nothing, as before any record, and the records
	place *list.Element
}

// waiting are the sets that wait for one template, in order of arrival.
type waiting struct {
	sets  []*heldSet
	bytes int
}

// maxReleased bounds how many flows one template can set free at once, 71 MB of
// them. As many records of 32 octets fit in the default room; only templates
// made to fill memory have records so short that more come.
const maxReleased = 1 << 19

// lead is the room before the records of a held set: an op reads eight octets.
const lead = 8

func (s *heldSet) size() int { return len(s.p) + heldOverhead }

// hold keeps the records in p until their template comes. The oldest sets of
// any exporter make room.
func (d *Decoder) hold(dom *domain, id uint16, p []byte, h *header) {
	dom.counts.add(setsHeld, 1)
	s := &heldSet{dom: dom, id: id, h: *h, p: append(make([]byte, lead, lead+len(p)), p...)}
	d.mu.Lock()
	defer d.mu.Unlock()
	s.place = d.held.queue.PushBack(s)
	d.held.bytes += s.size()
	w := dom.waiting[id]
	if w == nil {
		if dom.waiting == nil {
			dom.waiting = map[uint16]*waiting{}
		}
		w = &waiting{}
		dom.waiting[id] = w
	}
	w.sets = append(w.sets, s)
	w.bytes += len(p)
	for d.held.bytes > max(d.cfg.PendingBytes, 0) {
		d.held.drop(d.held.queue.Front().Value.(*heldSet), lostEvicted)
	}
}

// expire drops what has waited for too long.
func (d *Decoder) expire(seen event.Time) {
	front := d.held.queue.Front()
	if front == nil || seen.Sub(front.Value.(*heldSet).h.arrived) <= d.cfg.PendingAge {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for front != nil && seen.Sub(front.Value.(*heldSet).h.arrived) > d.cfg.PendingAge {
		d.held.drop(front.Value.(*heldSet), lostExpired)
		front = d.held.queue.Front()
	}
}

// drop counts s as lost. It is the first that waits for its template.
func (q *heldSets) drop(s *heldSet, why counter) {
	s.dom.counts.add(why, 1)
	q.remove(s)
}

// remove takes out s, the first that waits for its template.
func (q *heldSets) remove(s *heldSet) {
	q.queue.Remove(s.place)
	q.bytes -= s.size()
	w := s.dom.waiting[s.id]
	w.sets[0] = nil
	w.sets = w.sets[1:]
	w.bytes -= len(s.p) - lead
	if len(w.sets) == 0 {
		delete(s.dom.waiting, s.id)
	}
}

// release decodes what waited for t.
func (d *Decoder) release(t *template, seen event.Time, b *event.Batch) {
	w := t.dom.waiting[t.id]
	if w == nil {
		return
	}
	d.mu.Lock()
	sets := slices.Clone(w.sets)
	for _, s := range sets {
		d.held.remove(s)
	}
	d.mu.Unlock()
	before := len(b.Flows)
	for i, s := range sets {
		if len(b.Flows)-before > maxReleased {
			t.dom.counts.add(lostCrowd, uint64(len(sets)-i))
			return
		}
		s.h.seen = seen
		d.data(t, s.p, lead, len(s.p), &s.h, b)
	}
}

// Waiting is data that can't be read until its template comes.
type Waiting struct {
	Exporter event.Addr
	Version  uint16 // 9 or 10
	Domain   uint32 // source id in v9
	Template uint16
	Since    event.Time // arrival of the oldest set that is still held
	Sets     int
	Bytes    int
}

// Waiting returns who waits for which template, in the order of exporter,
// domain and template. It may be called at any time from any goroutine.
func (d *Decoder) Waiting() []Waiting {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []Waiting
	for _, e := range d.exporters {
		for key, dom := range e.domains {
			for id, w := range dom.waiting {
				all = append(all, Waiting{e.addr, key.version, key.id, id, w.sets[0].h.arrived, len(w.sets), w.bytes})
			}
		}
	}
	slices.SortFunc(all, func(a, b Waiting) int {
		return cmp.Or(bytes.Compare(a.Exporter[:], b.Exporter[:]), cmp.Compare(a.Version, b.Version),
			cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.Template, b.Template))
	})
	return all
}
