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
	over          event.Time // end of the last bucket above the limit; 0 = none
	peakPPS       float64    // highest mean of a second
	peakBPS       float64
	ratePPS       float64 // mean since the excess began to grow; 0 without one
	rateBPS       float64
}

// test runs the change detection up to now. One bucket counts for at most five
// times the limit, so that a single record can't decide.
func (r *ring) test(now event.Time, pps, bps float64) (c change) {
	packets := cusum{per: pps * bucketSeconds}
	bits := cusum{per: bps * bucketSeconds}
	rateP, rateB := r.carryP, r.carry
	end := bucketOf(now)
	if last := r.start + ringSize - 1; end > last { // nothing was added since
		end, now = last, event.Time(last+1)*bucket-1
	}
	for k := r.start; k <= end; k++ {
		rateP += r.packets[k%ringSize]
		rateB += r.bits[k%ringSize]
		part := 1.0
		if k == end { // it isn't over yet
			part = float64(now%bucket+1) / float64(bucket)
		}
		over := packets.step(k, rateP, part)
		if bits.step(k, rateB, part) || over {
			c.over = event.Time(k+1) * bucket
		}
	}
	c.packets, c.peakPPS, c.ratePPS = packets.most, packets.peak, packets.rate
	c.bits, c.peakBPS, c.rateBPS = bits.most, bits.peak, bits.rate
	if c.packets > 0 {
		c.onset = event.Time(packets.onset) * bucket
	} else if c.bits > 0 {
		c.onset = event.Time(bits.onset) * bucket
	}
	return c
}

// cusum is the sum by which traffic runs ahead of per a bucket.
type cusum struct {
	per    float64
	second [10]float64 // the latest buckets
	inSec  float64

	excess, since float64 // since it was last 0: the excess and all traffic
	begun         int64
	length        float64

	most, rate, peak float64 // the most excess; the mean rate until then; the highest mean of a second
	onset            int64   // of that excess
}

// step adds bucket k, of which a part is over, and reports whether it was above.
func (c *cusum) step(k int64, got, part float64) (above bool) {
	if got < 1e-6 { // what rounding left of rates that ended
		got = 0
	}
	s := &c.second[k%10]
	c.inSec += got - *s
	*s = got
	c.peak = max(c.peak, c.inSec)
	if c.excess == 0 {
		c.begun, c.since, c.length = k, 0, 0
	}
	c.since += got
	c.length += part
	c.excess = max(c.excess+min(got, 5*c.per)-c.per*part, 0)
	if c.excess > c.most {
		c.most, c.onset = c.excess, c.begun
		c.rate = c.since / max(c.length, 1) / bucketSeconds
	}
	return got > c.per
}

// lately returns the packets of the last second up to now.
func (r *ring) lately(now event.Time) (sum float64) {
	rate, end := r.carryP, bucketOf(now)
	for k := r.start; k <= min(end, r.start+ringSize-1); k++ {
		if rate += r.packets[k%ringSize]; k > end-10 {
			sum += max(rate, 0)
		}
	}
	return sum
}

// halfWidth returns the half-width of the 95 % interval of a rate that rests on
// n sampled packets, as a part of the rate: 1.96/√n.
func halfWidth(n float64) float64 { return 1.96 / math.Sqrt(max(n, 1)) }
