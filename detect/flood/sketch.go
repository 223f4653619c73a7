package flood

import (
	"cmp"
	"math"
	"math/bits"
	"slices"

	"noroshi/event"
)

// distinct estimates the number of distinct addresses, with a standard error of
// 1.6 % (HyperLogLog, Flajolet et al. 2007, with 4,096 registers; linear counting
// while it is better).
type distinct [4096]uint8

func (d *distinct) add(a *event.Addr) {
	h := a.Hash(0) // the estimate is part of a finding, so the seed is fixed
	i, r := h>>52, uint8(bits.LeadingZeros64(h<<12|1<<11))+1
	if r > d[i] {
		d[i] = r
	}
}

func (d *distinct) count() uint64 {
	const m = float64(len(d))
	var of [64]int // registers by value
	for _, r := range d {
		of[r&63]++
	}
	sum, zeros := 0.0, float64(of[0])
	for r, n := range of {
		sum += math.Ldexp(float64(n), -r)
	}
	e := 0.7213 / (1 + 1.079/m) * m * m / sum
	if e <= 2.5*m && zeros > 0 {
		e = m * math.Log(m/zeros)
	}
	return uint64(e + 0.5)
}

// heavy finds what occurs most among keys, roughly: each key has a place by its
// hash, and whoever weighs more in the end keeps it (Boyer and Moore's majority
// vote, by place).
type heavy[K comparable] [64]struct {
	key   K
	votes float64 // of the holder over the others
	sum   float64 // of the holder since it came
}

func (h *heavy[K]) add(k K, hash uint64, weight float64) {
	s := &h[hash%uint64(len(h))]
	switch {
	case s.key == k && s.votes > 0:
		s.votes += weight
		s.sum += weight
	case s.votes >= weight:
		s.votes -= weight
	default:
		s.key, s.votes, s.sum = k, weight-s.votes, weight
	}
}

// ranked is a key with its weight.
type ranked[K comparable] struct {
	key K
	sum float64
}

// top returns the heaviest keys, at most n; less orders equals.
func (h *heavy[K]) top(n int, less func(a, b K) int) []ranked[K] {
	var list []ranked[K]
	for _, s := range h {
		if s.votes > 0 {
			list = append(list, ranked[K]{s.key, s.sum})
		}
	}
	slices.SortFunc(list, func(a, b ranked[K]) int { return cmp.Or(-cmp.Compare(a.sum, b.sum), less(a.key, b.key)) })
	return list[:min(n, len(list))]
}
