package botnet

import "iter"

// recent is a map of at most max entries; the one that was put first goes when
// another comes.
type recent[K comparable, V any] struct {
	max     int
	entries map[K]V
	queue   []K // in the order in which they were put; some may be gone
	evicted uint64
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
		for len(r.entries) >= r.max {
			if _, there := r.entries[r.queue[0]]; there {
				delete(r.entries, r.queue[0])
				r.evicted++
			}
			r.queue = r.queue[1:]
		}
		r.queue = append(r.queue, k)
	}
	r.entries[k] = v
}

func (r *recent[K, V]) len() int { return len(r.entries) }

// all yields the entries in the order in which they were put.
func (r *recent[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for _, k := range r.queue {
			if v, ok := r.entries[k]; ok && !yield(k, v) {
				return
			}
		}
	}
}

// drop removes the entries for which gone is true.
func (r *recent[K, V]) drop(gone func(K, V) bool) {
	queue := r.queue[:0:0]
	for k, v := range r.all() {
		if gone(k, v) {
			delete(r.entries, k)
		} else {
			queue = append(queue, k)
		}
	}
	r.queue = queue
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
