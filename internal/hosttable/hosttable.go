// Package hosttable keeps a few numbers for each of millions of addresses.
//
// A Go map of ten million entries stops its owner for a hundred milliseconds
// when it grows, and keeps the collector busy if it holds pointers. This table
// is open addressing without pointers, cut into segments that grow one at a
// time, so that the longest pause is that of one segment. It is never swept:
// an entry that has been idle gives its place to the next newcomer that meets
// it, and the rest of the idle go when their segment would grow.
package hosttable

import (
	"unsafe"

	"noroshi/event"
)

// Entry is what is known of one key. V, the owner's numbers, holds no pointers.
type Entry[V any] struct {
	Key event.Addr
	// Last is when the entry was touched, in the owner's ticks, never 0 in use.
	Last uint32
	// Slot is the owner's reference to more; an entry with a Slot other than 0
	// is not given up.
	Slot int32
	V    V // zero at first
}

const (
	segmentBits = 8
	segments    = 1 << segmentBits
	smallest    = 16 // slots of a segment at first
	window      = 16 // slots looked at for one to give up when the table is full
)

// Table finds entries by key. Make one with New.
type Table[V any] struct {
	segs    [segments]segment[V]
	seed    uint64
	idle    uint32 // ticks after which an entry may be given up
	most    int    // slots of a segment
	n       int
	evicted uint64
}

type segment[V any] struct {
	slots []Entry[V] // power of two; free where Last is 0
	used  int
	tried uint32 // when making room last failed
}

// New returns a table for at most max entries, rounded up to what its segments
// hold. Entries not touched for idle ticks may be given up for others; at the
// maximum, those are that were touched longest ago.
func New[V any](max int, idle uint32, seed uint64) *Table[V] {
	t := &Table[V]{seed: seed, idle: idle, most: smallest}
	for t.most*3/4*segments < max { // 3/4 full it grows, if it may, and else evicts
		t.most *= 2
	}
	return t
}

// Len returns the number of entries.
func (t *Table[V]) Len() int { return t.n }

// Bytes returns the memory of the table.
func (t *Table[V]) Bytes() int {
	n := 0
	for i := range t.segs {
		n += len(t.segs[i].slots)
	}
	return n * int(unsafe.Sizeof(Entry[V]{}))
}

// Evicted returns how many entries that were not idle had to go.
func (t *Table[V]) Evicted() uint64 { return t.evicted }

// Find returns the entry of key, or nil. The pointer is valid until Get.
func (t *Table[V]) Find(key *event.Addr) *Entry[V] {
	h := key.Hash(t.seed)
	s := &t.segs[h>>(64-segmentBits)]
	mask := uint64(len(s.slots) - 1)
	if len(s.slots) == 0 {
		return nil
	}
	for i := h & mask; s.slots[i].Last != 0; i = (i + 1) & mask {
		if s.slots[i].Key == *key {
			return &s.slots[i]
		}
	}
	return nil
}

// Warm touches the memory where key's entry would be, and changes nothing.
// Calling it for several keys before Get or Find for each lets the processor
// wait for all of them at once, where a table is larger than its caches. The
// result has no meaning; use it, so that the compiler keeps the call.
func (t *Table[V]) Warm(key *event.Addr) uint32 {
	h := key.Hash(t.seed)
	s := &t.segs[h>>(64-segmentBits)]
	if len(s.slots) == 0 {
		return 0
	}
	return s.slots[h&uint64(len(s.slots)-1)].Last
}

// growAt is how many of a segment's slots are in use when it grows: from five
// eighths for the first to three quarters for the last, so that segments that
// fill alike don't all grow at one time.
func growAt(slots, segment int) int { return slots * (160 + segment/8) / 256 }

// Get returns the entry of key, a new one if there is none, touched at now,
// which is not 0. The pointer is valid until the next Get. before is when the
// entry was touched last; 0 for a new one.
func (t *Table[V]) Get(key *event.Addr, now uint32) (e *Entry[V], before uint32) {
	h := key.Hash(t.seed)
	n := h >> (64 - segmentBits)
	s := &t.segs[n]
	if s.used >= growAt(len(s.slots), int(n)) && s.tried != now {
		t.grow(s, now)
	}
	mask := uint64(len(s.slots) - 1)
	i := h & mask
	var spare *Entry[V]
	for ; s.slots[i].Last != 0; i = (i + 1) & mask {
		e := &s.slots[i]
		if e.Key == *key {
			before = e.Last
			e.Last = max(before, now)
			return e, before
		}
		if spare == nil && t.isIdle(e, now) {
			spare = e
		}
	}
	if spare == nil {
		if s.used >= len(s.slots)*3/4 { // full, and as large as it may be: longer searches cost more than entries are worth
			t.evict(s, h&mask)
			for i = h & mask; s.slots[i].Last != 0; i = (i + 1) & mask {
			}
		}
		spare = &s.slots[i]
		s.used++
		t.n++
	}
	*spare = Entry[V]{Key: *key, Last: now}
	return spare, 0
}

// evict removes the entry touched longest ago of the few that stand from slot
// i on. The owner keeps few slots in use (Slot), so there is one.
func (t *Table[V]) evict(s *segment[V], i uint64) {
	mask := uint64(len(s.slots) - 1)
	best, found := uint64(0), false
	for n := uint64(0); n <= mask && (n < window || !found); n++ {
		j := (i + n) & mask
		if e := &s.slots[j]; e.Last != 0 && e.Slot == 0 && (!found || e.Last < s.slots[best].Last) {
			best, found = j, true
		}
	}
	t.evicted++
	s.used--
	t.n--
	// Close the gap: move back each entry that would not be found behind it.
	gap := best
	for j := (gap + 1) & mask; s.slots[j].Last != 0; j = (j + 1) & mask {
		home := s.slots[j].Key.Hash(t.seed) & mask
		if (j-home)&mask >= (j-gap)&mask {
			s.slots[gap] = s.slots[j]
			gap = j
		}
	}
	s.slots[gap] = Entry[V]{}
}

// grow makes room in a segment: it drops the idle, and doubles the segment if
// they were few and it may.
func (t *Table[V]) grow(s *segment[V], now uint32) {
	live := 0
	for i := range s.slots {
		if e := &s.slots[i]; e.Last != 0 && !t.isIdle(e, now) {
			live++
		}
	}
	size := max(len(s.slots), smallest)
	if live > size/2 {
		size *= 2
	}
	if size > t.most || live == s.used && size == len(s.slots) {
		s.tried = now // not for every newcomer again
		return
	}
	old := s.slots
	s.slots = make([]Entry[V], size)
	mask := uint64(size - 1)
	for i := range old {
		e := &old[i]
		if e.Last == 0 || t.isIdle(e, now) {
			continue
		}
		j := e.Key.Hash(t.seed) & mask
		for s.slots[j].Last != 0 {
			j = (j + 1) & mask
		}
		s.slots[j] = *e
	}
	t.n -= s.used - live
	s.used = live
}

func (t *Table[V]) isIdle(e *Entry[V], now uint32) bool {
	return e.Slot == 0 && now > e.Last && now-e.Last > t.idle
}
