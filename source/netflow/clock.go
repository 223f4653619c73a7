package netflow

import (
	"time"

	"noroshi/event"
)

const (
	// tolerance is the difference within which an exporter's clock is taken to
	// agree with ours.
	tolerance = event.Time(10 * time.Second)
	// longest is the longest duration of a flow that is believed, and the
	// greatest age of its end. Routers' active timeouts are 30 minutes at most;
	// some firewalls report sessions when they end.
	longest = event.Time(24 * time.Hour)
)

// clock estimates how far an exporter's clock is from ours. Headers of v9 and
// IPFIX have whole seconds, rounded down, and datagrams take time to arrive: the
// smallest difference is nearest the truth. It is believed until a datagram
// shows one smaller, or greater by two seconds: then the clock was set.
type clock struct {
	behind event.Time // ours less theirs
	known  bool
}

// shift returns what to add to the exporter's times: 0 where the clocks agree.
func (c *clock) shift(seen, export event.Time) event.Time {
	if off := seen - export; !c.known || off < c.behind || off > c.behind+event.Time(2*time.Second) {
		c.behind, c.known = off, true
	}
	if -tolerance <= c.behind && c.behind <= tolerance {
		return 0
	}
	return c.behind
}

// header is what the header of a datagram says about times.
type header struct {
	seen    event.Time // when the flows become known: Flow.Seen
	arrived event.Time // when the datagram came; before seen if it was held
	export  event.Time // by the exporter's clock
	shift   event.Time // what to add to the exporter's times
	uptime  uint32     // ms since boot at export; wraps in 49.7 days
	booted  bool       // uptime is known
}

// sinceBoot turns milliseconds of uptime into a time by the exporter's clock. A
// difference is right across a wrap of the counter, and up to 24.8 days.
func (h *header) sinceBoot(ms uint32) event.Time {
	return h.export - event.Time(int32(h.uptime-ms))*1e6
}

// timesOf completes the times of f, moves them to our clock, and makes
// First <= Last <= Seen true. It reports whether they had been impossible.
func (h *header) timesOf(f *event.Flow) (clamped bool) {
	first, last := f.First+h.shift, f.Last+h.shift
	// As unsigned numbers, negative differences are large ones.
	if uint64(last-first) <= uint64(longest) && uint64(h.arrived-last) <= uint64(longest) && f.First != 0 && f.Last != 0 {
		f.First, f.Last = first, last
		return false
	}
	if f.Last == 0 {
		f.Last = f.First
	}
	if f.Last == 0 {
		f.Last = h.export
	}
	if f.First == 0 {
		f.First = f.Last
	}
	f.First += h.shift
	f.Last += h.shift
	return h.clamp(f)
}

// clamp moves impossible times. An end after the arrival, or over a day before
// it, becomes the arrival, and the start moves along; a start after the end
// becomes the end, and a duration over a day becomes a day. An end after the
// arrival by less than the clocks' tolerance is moved, but not called impossible.
func (h *header) clamp(f *event.Flow) (clamped bool) {
	if f.First > f.Last {
		f.First, clamped = f.Last, true
	}
	duration := f.Last - f.First
	if duration < 0 || duration > longest { // negative: the difference overflowed
		duration, clamped = longest, true
	}
	ahead := f.Last - h.arrived
	if ahead > 0 || -ahead > longest {
		clamped = clamped || ahead > tolerance || ahead < 0
		f.Last = h.arrived
	}
	f.First = f.Last - duration
	return clamped
}

// fromNTP turns dateTimeMicroseconds and dateTimeNanoseconds (RFC 7011, 6.1.9
// and 6.1.10), which are NTP timestamps (RFC 5905, 6), into a time. Seconds with
// the highest bit clear are of the era that begins in 2036; 0 is unknown.
func fromNTP(v uint64) event.Time {
	const from1900 = 2208988800
	if v == 0 {
		return 0
	}
	sec := int64(v >> 32)
	if sec < 1<<31 {
		sec += 1 << 32
	}
	return event.Time((sec-from1900)*1e9 + int64(v&0xffffffff*1e9>>32))
}
