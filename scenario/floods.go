package scenario

import (
	"math/rand/v2"
	"slices"
	"time"

	"noroshi/event"
	"noroshi/intel"
)

// vector is one kind of packet that a flood is made of.
type vector struct {
	name         string // the family of a finding
	proto        uint8
	flags        uint8
	sport, dport uint16 // 0 = any
	size         uint16
	fragment     bool
	bare         bool
	// sources is from how many hosts it comes; 0 means forged addresses, each
	// of them used once.
	sources uint32
	// share is its part of the flood's packets; 0 means all.
	share float64
}

// vectors of floods that aren't amplified.
var vectors = []vector{
	{name: "syn", proto: event.TCP, flags: event.SYN, dport: 443, size: rstSize, bare: true},
	{name: "syn-ack-reflection", proto: event.TCP, flags: event.SYN | event.ACK, sport: 443, size: 44, sources: 7000},
	{name: "ack", proto: event.TCP, flags: event.ACK, dport: 443, size: rstSize},
	{name: "rst", proto: event.TCP, flags: event.RST, dport: 443, size: rstSize},
	{name: "udp", proto: event.UDP, size: 540, sources: 5000},
	{name: "icmp", proto: event.ICMP, dport: 8 << 8, size: 84, sources: 5000},
	{name: "gre", proto: event.GRE, size: 560, sources: 3000},
	{name: "fragments", proto: event.UDP, size: 1480, fragment: true, sources: 3000},
}

func vectorOf(name string) vector {
	i := slices.IndexFunc(vectors, func(v vector) bool { return v.name == name })
	return vectors[i]
}

// amplified returns the vectors of an amplification flood: answers a third
// larger than the least that is suspicious, and for the services whose answers
// exceed a packet, fragments beside them.
func amplified(a *intel.Amplifier) []vector {
	v := vector{name: a.Vector, proto: event.UDP, sport: a.Port, size: uint16(min(a.MinSize*4/3, 1480)), sources: 4000, share: 1}
	switch a.Vector {
	case "dns-amplification", "cldap-amplification", "slp-amplification":
		v.share = .45
		f := vectorOf("fragments")
		f.share, f.sources = .55, v.sources
		return []vector{v, f}
	}
	return []vector{v}
}

// attack is a flood from outside.
type attack struct {
	target   event.Addr
	bits     int // of the prefix that is the target; 0 = the one host
	vectors  []vector
	pps      float64
	from, to time.Duration
}

func hostBits(a event.Addr) int {
	if a.Is4() {
		return 32
	}
	return 128
}

func (w *world) flood(a attack) *Flood {
	bits := a.bits
	if bits == 0 {
		bits = hostBits(a.target)
	}
	truth := &Flood{Rule: "flood.inbound", Within: time.Second, Target: a.target, Bits: bits}
	for _, v := range a.vectors {
		truth.Vectors = append(truth.Vectors, v.name)
	}
	slices.Sort(truth.Vectors)
	w.truth.Floods = append(w.truth.Floods, truth)
	o := w.watching(a.target, a.target)
	r := w.chance()
	const step = 20 * time.Millisecond
	w.every(w.start.Add(a.from), w.start.Add(a.to), step, func(now event.Time) {
		for i := range a.vectors {
			v := &a.vectors[i]
			share := v.share
			if share == 0 {
				share = 1
			}
			for range poisson(r, a.pps*share*step.Seconds()/float64(max(o.Sampling, 1))) {
				s := v.packet(r, now+event.Time(r.Int64N(int64(step))))
				s.dst = within(r, a.target, bits)
				if !s.dst.Is4() {
					s.src = sixOf(outsideSix|3<<8|uint64(r.Uint32N(4000))<<16, 9)
				}
				s.trace = &truth.Trace
				w.chosen(s)
			}
		}
	})
	return truth
}

// packet is one packet of the vector, with its source and ports drawn.
func (v *vector) packet(r *rand.Rand, at event.Time) stream {
	s := stream{
		sport: v.sport, dport: v.dport, proto: v.proto, opening: v.flags, first: at, last: at, packets: 1, size: v.size, bare: v.bare,
		fragment: v.fragment, window: 5840, ttl: uint8(44 + r.IntN(12)),
	}
	if v.sources > 0 {
		n := r.Uint32N(v.sources)
		s.src = four(peopleNet + n*13%(1<<16))
	} else {
		s.src, s.ttl = anybody(r), 243
	}
	if v.proto == event.TCP || v.proto == event.UDP {
		if s.sport == 0 {
			s.sport = uint16(1024 + r.IntN(60000))
		}
		if s.dport == 0 {
			s.dport = uint16(1024 + r.IntN(60000))
		}
	}
	return s
}

// anybody draws a forged source: any address but an own or a private one.
func anybody(r *rand.Rand) event.Addr {
	for {
		n := r.Uint32()
		switch top := n >> 24; {
		case top == 0, top == 10, top == 127, top >= 224, n>>22 == 100<<2|1:
		default:
			return four(n)
		}
	}
}

// within draws an address of a prefix.
func within(r *rand.Rand, a event.Addr, bits int) event.Addr {
	if a.Is4() {
		if bits == 32 {
			return a
		}
		return four(a.Four() + r.Uint32N(1<<(32-bits)))
	}
	if bits < 128 {
		for i := bits / 8; i < 16; i++ {
			a[i] = byte(r.Uint32())
		}
	}
	return a
}

// outbound is a flood from own hosts on one address outside, each host at pps.
// They begin within the spread.
type outbound struct {
	victim   event.Addr
	senders  []event.Addr
	vector   vector
	pps      float64
	from, to time.Duration
	spread   time.Duration
}

func (w *world) floodFrom(a outbound) *Flood {
	truth := &Flood{Rule: "flood.outbound", Within: time.Second, Target: a.victim, Bits: hostBits(a.victim), Vectors: []string{a.vector.name}, Senders: map[event.Addr]*Trace{}}
	w.truth.Floods = append(w.truth.Floods, truth)
	r := w.chance()
	for _, src := range a.senders {
		trace := new(Trace)
		truth.Senders[src] = trace
		from := w.start.Add(a.from) + event.Time(r.Float64()*float64(a.spread))
		to := w.start.Add(a.to)
		w.at(from, func() {
			s := a.vector.packet(r, from)
			s.src, s.dst, s.last, s.flags, s.closing, s.trace = src, a.victim, to, s.opening, s.opening, trace
			s.packets = max(uint64(a.pps*to.Sub(from).Seconds()), 1)
			w.send(s)
		})
	}
	w.whole(truth)
	return truth
}

// whole sums up the senders' traces at the end of the play.
func (w *world) whole(f *Flood) {
	w.finish = append(w.finish, func() {
		for _, t := range f.Senders {
			if t.First != 0 {
				f.Trace.sent(t.First, t.Sent)
			}
			if t.FirstSeen != 0 {
				f.Trace.told(t.FirstSeen, t.Seen)
			}
		}
	})
}

// reflect lets own hosts be abused as amplifiers: forged requests come in, and
// large answers go to the victim.
func (w *world) reflect(victim event.Addr, reflectors []event.Addr, a *intel.Amplifier, pps float64, from, to time.Duration) {
	truth := &Flood{Rule: "flood.reflector", Within: 3 * time.Second, Target: victim, Bits: hostBits(victim), Vectors: []string{a.Vector}, Senders: map[event.Addr]*Trace{}}
	w.truth.Floods = append(w.truth.Floods, truth)
	r := w.chance()
	for _, own := range reflectors {
		trace := new(Trace)
		truth.Senders[own] = trace
		first, last := w.start.Add(from)+event.Time(r.Int64N(2e9)), w.start.Add(to)
		port := uint16(1024 + r.IntN(60000))
		n := uint64(pps * last.Sub(first).Seconds())
		w.at(first, func() {
			w.send(stream{src: victim, dst: own, sport: port, dport: a.Port, proto: event.UDP, first: first, last: last, packets: n, size: 60, ttl: 240})
			w.send(stream{src: own, dst: victim, sport: a.Port, dport: port, proto: event.UDP, first: first + 1e6, last: last + 1e6, packets: n * 4,
				size: uint16(min(a.MinSize*4/3, 1480)), ttl: 63, trace: trace})
		})
	}
	w.whole(truth)
}
