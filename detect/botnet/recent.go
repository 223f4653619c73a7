package botnet

import (
	"iter"
	"slices"
)

// recent is a map of at most max entries; the one that was put first goes when
// another comes.
type recent[K comparable, V any] struct {
	max     int
	entries map[K]V
	queue   []K // in the order in which they were put
	evicted uint64
	keep    func(V) bool // if set: those that stay as long as others can go
	gone    func(V)      // if set: is told what went
}

func newRecent[K comparable, V any](max int) recent[K, V] {
	return recent[K, V]{max: max, entries: map[K]V{}}
}

func (r *recent[K, V]) get(k K) (V, bool) {
	v, ok := r.entries[k]
	return v, ok
}

// put sets the value of k. One that was there keeps its turn.
func (r *recent[K, V]) put(k K, v V) {
	if _, known := r.entries[k]; !known {
		if len(r.entries) >= r.max {
			r.evict()
		}
		r.queue = append(r.queue, k)
	}
	r.entries[k] = v
}

// evict removes the first entry that need not be kept, of a few, or the first.
func (r *recent[K, V]) evict() {
	for range min(64, len(r.queue)) {
		k := r.queue[0]
		if r.keep == nil || !r.keep(r.entries[k]) {
			break
		}
		r.queue = append(r.queue[1:], k)
	}
	r.remove(r.queue[0])
	r.queue = r.queue[1:]
	r.evicted++
}

func (r *recent[K, V]) len() int { return len(r.entries) }

// all yields the entries in the order in which they were put.
func (r *recent[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for _, k := range r.queue {
			if !yield(k, r.entries[k]) {
				return
			}
		}
	}
}

// drop removes the entries for which gone is true.
func (r *recent[K, V]) drop(gone func(K, V) bool) {
	r.queue = slices.DeleteFunc(r.queue, func(k K) bool {
		if !gone(k, r.entries[k]) {
			return false
		}
		r.remove(k)
		return true
	})
}

func (r *recent[K, V]) remove(k K) {
	if r.gone != nil {
		r.gone(r.entries[k])
	}
	delete(r.entries, k)
}

// values yields the values in the order in which they were put.
func values[K comparable, V any](r recent[K, V]) iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, v := range r.all() {
			if !yield(v) {
				return
			}
		}
	}
}
