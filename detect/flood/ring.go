package flood

import (
	"math"

	"noroshi/event"
)

// bucket is the resolution of rates.
const (
	bucket        = event.Time(100e6)
	bucketSeconds = 0.1
)

// ringSize is how many buckets are remembered: 32 s.
const ringSize = 320

// ring is the traffic of one vector over the last buckets, by the time it was
// sent and not by the time it was reported: a record's packets and bits are
// spread evenly over the buckets from its First to its Last, however long that
// is, by noting only where the rate changes.
type ring struct {
	start         int64   // first bucket remembered
	carryP, carry float64 // packets and bits per bucket before it
	packets, bits [ringSize]float64
	started       bool
}

func bucketOf(t event.Time) int64 { return int64(t / bucket) }

// add spreads packets and bits from first to last; now is not before last.
func (r *ring) add(first, last, now event.Time, packets, bits float64) {
	r.advance(now)
	from, to := bucketOf(first), bucketOf(last)
	n := float64(to - from + 1)
	if to < r.start {
		return // all of it before what is remembered: history
	}
	from = max(from, r.start)
	r.packets[from%ringSize] += packets / n
	r.bits[from%ringSize] += bits / n
	r.packets[(to+1)%ringSize] -= packets / n
	r.bits[(to+1)%ringSize] -= bits / n
}

// advance forgets buckets so that the one after now's has room.
func (r *ring) advance(now event.Time) {
	start := bucketOf(now) - ringSize + 2
	if !r.started || start-r.start >= ringSize {
		*r = ring{start: start, started: true}
		return
	}
	for ; r.start < start; r.start++ {
		i := r.start % ringSize
		r.carryP += r.packets[i]
		r.carry += r.bits[i]
		r.packets[i], r.bits[i] = 0, 0
	}
}

// change is what a quickest-change test (Page's CUSUM) says about a ring: how
// far traffic has run ahead of the limit, at most, and where.
type change struct {
	packets, bits float64    // the most by which traffic exceeded what the limit allows
	onset         event.Time // when the excess began to grow
	over          event.Time // end of the last bucket in which the excess was above half of need
	peakPPS       float64    // highest mean of a second
	peakBPS       float64
	above         int // buckets above the limit
}

// test runs the change detection up to now. One bucket counts for at most five
// times the limit, so that a single record can't decide.
func (r *ring) test(now event.Time, pps, bps float64) (c change) {
	perP, perB := pps*bucketSeconds, bps*bucketSeconds
	var sp, sb float64
	rateP, rateB := r.carryP, r.carry
	onset := r.start
	var second [10]struct{ p, b float64 }
	var sumP, sumB float64
	end := bucketOf(now)
	for k := r.start; k <= end; k++ {
		rateP += r.packets[k%ringSize]
		rateB += r.bits[k%ringSize]
		p, b := max(rateP, 0), max(rateB, 0)
		if p < 1e-6 { // what rounding left of rates that ended
			p, b = 0, 0
		}
		s := &second[k%10]
		sumP += p - s.p
		sumB += b - s.b
		s.p, s.b = p, b
		c.peakPPS, c.peakBPS = max(c.peakPPS, sumP), max(c.peakBPS, sumB)
		if sp == 0 && sb == 0 {
			onset = k
		}
		// The last bucket isn't over yet.
		part := 1.0
		if k == end {
			part = float64(now%bucket+1) / float64(bucket)
		}
		sp = max(sp+min(p, 5*perP)-perP*part, 0)
		sb = max(sb+min(b, 5*perB)-perB*part, 0)
		if p > perP || b > perB {
			c.above++
			c.over = event.Time(k+1) * bucket
		}
		if sp > c.packets {
			c.packets = sp
			c.onset = event.Time(onset) * bucket
		}
		if sb > c.bits {
			c.bits = sb
			if c.packets == 0 {
				c.onset = event.Time(onset) * bucket
			}
		}
	}
	return c
}

// halfWidth returns the half-width of the 95 % interval of a rate that rests on
// n sampled packets, as a part of the rate: 1.96/√n.
func halfWidth(n float64) float64 { return 1.96 / math.Sqrt(max(n, 1)) }
