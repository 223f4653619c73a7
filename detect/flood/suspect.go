package flood

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"unsafe"

	"noroshi/event"
	"noroshi/finding"
)

// suspect is an object with full books.
type suspect struct {
	key     event.Addr // the address, or the prefix's first
	bits    int        // of a prefix in its own family; 0 = one host
	side    side
	net     uint32
	limit   limit
	since   event.Time
	touched event.Time // by suspicious traffic
	// remarkable is when the change test last had something to say.
	remarkable event.Time

	// What was received and sent, forgotten with a time constant of ten
	// seconds: whether it is answered.
	in                   [amplified]float64 // packets by class; amplifiers count as total only
	inPackets, inBytes   float64
	outPackets, outBytes float64
	aged                 event.Time

	vectors []*vector
}

// maxVectors bounds the classes told apart for one suspect.
const maxVectors = 12

// vector is one class of traffic to a suspect.
type vector struct {
	class   class
	ring    ring
	tested  event.Time
	due     float64 // packets at which the next test is due
	sources distinct
	senders map[event.Addr]float64 // packets by sender; only from inside
	missed  uint64                 // senders beyond MaxSenders
	peers   heavy[event.Addr]
	targets heavy[event.Addr] // of a prefix
	sports  heavy[uint16]
	dports  heavy[uint16]
	ttls    heavy[uint8]

	packets, bytes, samples float64
	sampling                uint32
	unsampled               bool // some exporter did not say
	flows                   int
	evidence                []string
	first, last             event.Time

	id               finding.ID // zero: no alarm
	onset, said      event.Time
	over             event.Time // when it was last above its limit
	reported         event.Time
	peakPPS, peakBPS float64
	confidence       float64
	ended, muted     bool
}

func (s *suspect) alarmed() bool {
	return slices.ContainsFunc(s.vectors, func(v *vector) bool { return v.id != (finding.ID{}) && !v.ended && !v.muted })
}

func (s *suspect) size() int {
	n := int(unsafe.Sizeof(*s))
	for _, v := range s.vectors {
		n += int(unsafe.Sizeof(*v)) + 48*len(v.senders) + 600
	}
	return n
}

// age forgets a part of what was counted, by the time that has passed.
func (s *suspect) age(now event.Time) {
	const step = event.Time(1e9)
	if now-s.aged < step {
		return
	}
	keep := math.Exp(-now.Sub(s.aged).Seconds() / 10)
	for i := range s.in {
		s.in[i] *= keep
	}
	s.inPackets, s.inBytes, s.outPackets, s.outBytes = s.inPackets*keep, s.inBytes*keep, s.outPackets*keep, s.outBytes*keep
	s.aged = now
}

// vector returns the books of class c, or nil when there is no room for another.
func (s *suspect) vector(c class) *vector {
	for _, v := range s.vectors {
		if v.class == c {
			return v
		}
	}
	if len(s.vectors) >= maxVectors {
		return nil
	}
	v := &vector{class: c}
	s.vectors = append(s.vectors, v)
	return v
}

// testEvery is how often, in event time, a suspect's rates are tested; also
// when its packets have doubled, for attacks that are over sooner.
const testEvery = event.Time(20e6)

// add enters a flow into a suspect's books and tests whether it is a flood.
func (d *Detector) add(slot int32, c class, b *event.Batch, f *event.Flow, report func(*finding.Finding)) {
	s := d.suspects[slot]
	s.age(d.now)
	packets, octets := float64(f.Packets), float64(f.Bytes)
	s.inPackets += packets
	s.inBytes += octets
	if c < amplified {
		s.in[c] += packets
	}
	if !c.ordinary() {
		s.touched = d.now
	}
	if s.side == outbound && c == tcp {
		return // counted for the share of SYNs
	}
	v := s.vector(c)
	if v == nil {
		return
	}
	v.add(s, b, f, d.cfg.MaxSenders)
	v.ring.add(f.First, f.Last, max(f.Last, d.now), packets, octets*8)
	if d.now-v.tested >= testEvery || v.packets >= v.due {
		v.tested, v.due = d.now, 2*v.packets
		d.test(s, v, report)
	}
}

func (v *vector) add(s *suspect, b *event.Batch, f *event.Flow, maxSenders int) {
	packets := float64(f.Packets)
	v.flows++
	v.packets += packets
	v.bytes += float64(f.Bytes)
	v.samples += f.Samples()
	v.sampling = max(v.sampling, f.Sampling)
	v.unsampled = v.unsampled || f.Sampling == 0
	if v.first == 0 || f.First < v.first {
		v.first = f.First
	}
	v.last = max(v.last, f.Last)
	v.sources.add(&f.Src)
	v.peers.add(f.Src, f.Src.Hash(0), packets)
	v.sports.add(f.SrcPort, event.Mix(uint64(f.SrcPort)), packets)
	v.dports.add(f.DstPort, event.Mix(uint64(f.DstPort)), packets)
	if f.TTL != 0 {
		v.ttls.add(f.TTL, uint64(f.TTL), packets)
	}
	switch s.side {
	case prefix:
		v.targets.add(f.Dst, f.Dst.Hash(0), packets)
	case outbound:
		if v.senders == nil {
			v.senders = map[event.Addr]float64{}
		}
		if n, known := v.senders[f.Src]; known || len(v.senders) < maxSenders {
			v.senders[f.Src] = n + packets
		} else {
			v.missed++
		}
	}
	// Samples of the flood, and not only of its first moment: the 1st, 2nd, 4th,
	// 8th ... flow, the latest few.
	if v.flows&(v.flows-1) == 0 {
		if len(v.evidence) == 5 {
			v.evidence = slices.Delete(v.evidence, 0, 1)
		}
		v.evidence = append(v.evidence, b.Line(f))
	}
}

// test holds the vector's rates against the limits, and reports.
func (d *Detector) test(s *suspect, v *vector, report func(*finding.Finding)) {
	l := s.limit
	if v.class.ordinary() {
		l.pps = math.Inf(1)
	}
	ch := v.ring.test(max(d.now, v.last), l.pps, l.bps)
	enough := d.cfg.MinSamples * float64(max(v.sampling, 1))
	need := max(l.pps*d.cfg.Window.Seconds(), enough)
	needBits := max(l.bps*d.cfg.Window.Seconds(), enough*v.bytes*8/max(v.packets, 1))
	v.peakPPS, v.peakBPS = max(v.peakPPS, ch.peakPPS), max(v.peakBPS, ch.peakBPS)
	if ch.packets > need/4 || ch.bits > needBits/4 {
		s.remarkable = d.now
	}
	reflected := v.class >= amplified && s.side == inbound && v.sources.count() >= d.cfg.Reflectors
	alarm := ch.packets >= need || ch.bits >= needBits
	if alarm {
		v.over = max(v.over, ch.over)
	} else if reflected {
		v.over = max(v.over, v.last)
	}
	if (alarm || reflected) && v.over > v.last-event.Time(d.cfg.Quiet) {
		d.alarm(s, v, ch, report)
	}
}

func (d *Detector) alarm(s *suspect, v *vector, ch change, report func(*finding.Finding)) {
	if !d.attack(s, v) {
		return
	}
	if v.id == (finding.ID{}) || v.ended { // a new one
		if v.ended {
			*v = vector{class: v.class, ring: v.ring, tested: v.tested, sources: v.sources, peers: v.peers, senders: v.senders,
				packets: v.packets, bytes: v.bytes, samples: v.samples, sampling: v.sampling, first: ch.onset, last: v.last,
				over: v.over, evidence: v.evidence, flows: v.flows, sports: v.sports, dports: v.dports, targets: v.targets}
		}
		v.onset = ch.onset
		if v.onset == 0 || v.onset < v.first {
			v.onset = v.first
		}
		v.said = d.now
		v.id = finding.NewID(d.rule(s, v), s.key, v.class.String(), v.onset)
		v.muted = d.tooMany(s)
	}
	if v.muted || v.reported != 0 && d.now.Sub(v.reported) < d.cfg.Update {
		return
	}
	v.reported = d.now
	excess := ch.peakPPS / s.limit.pps
	v.confidence = max(v.confidence, confidence(v.samples, excess))
	d.report(s, v, d.now, report)
}

// confidence is the probability that the true rate is above the limit when one
// that is excess times the limit was measured with n samples, times how often
// the composition rules are right (0.99).
func confidence(n, excess float64) float64 {
	z := 3.0
	if !math.IsInf(excess, 0) && excess > 1 {
		z = (1 - 1/excess) * math.Sqrt(max(n, 1))
	}
	return 0.99 * (1 - 0.5*math.Erfc(z/math.Sqrt2))
}

// attack decides by the composition of the traffic whether what is above its
// limit is an attack.
func (d *Detector) attack(s *suspect, v *vector) bool {
	sources := v.sources.count()
	answered := s.outPackets / max(s.inPackets, 1)
	few := sources < d.cfg.MinSources
	if s.side == prefix {
		// One address of a prefix that has most of the traffic is a victim of
		// its own, and is found as one.
		targets := v.targets.top(1, compareAddr)
		if len(targets) > 0 && targets[0].sum > v.packets/2 {
			return false
		}
		answered = 0 // what a prefix sends isn't in its books
	}
	if n := d.net.At(s.net); s.side == inbound && n != nil && (n.Kind == "resolver" || n.Kind == "shared") && answered > 0.02 {
		return false // talks to everybody, and is answered by everybody
	}
	tcpIn := s.in[syn] + s.in[synACK] + s.in[ack] + s.in[rst] + s.in[tcp]
	switch c := v.class; {
	case c >= amplified && s.side == outbound:
		return v.bytes >= 4*s.outBytes // reflectors answer with more than they are asked
	case c >= amplified, c == synACK:
		return !few && answered < 0.25
	case c == syn:
		return s.in[syn] > tcpIn/2
	case c == icmp:
		return answered < 0.5 || s.side == prefix
	case c == fragments, c == gre, c == other:
		return !few && answered < 0.25
	case c == ack, c == rst, c == udp:
		return !few && answered < 0.1
	case c == tcp, c == quic:
		return sources >= 64 && answered < 0.02
	}
	return false // ESP: a VPN
}

func compareAddr(a, b event.Addr) int { return bytes.Compare(a[:], b[:]) }

// rule returns the name of the rule that the vector falls under.
func (d *Detector) rule(s *suspect, v *vector) string {
	switch {
	case s.side != outbound:
		return "flood.inbound"
	case v.class >= amplified:
		return "flood.reflector"
	}
	return "flood.outbound"
}

// tooMany counts floods that begin, and reports whether there are too many in a
// minute for each to be believed.
func (d *Detector) tooMany(s *suspect) bool {
	d.begun = slices.DeleteFunc(d.begun, func(t event.Time) bool { return d.now.Sub(t).Minutes() > 1 })
	if len(d.begun) >= d.cfg.MaxPerMinute {
		d.crowded(s)
		return true
	}
	d.begun = append(d.begun, d.now)
	return false
}

// share returns top sources or senders as subjects.
func (v *vector) top(s *suspect, role string) []finding.Subject {
	var list []ranked[event.Addr]
	if v.senders != nil {
		for a, n := range v.senders {
			list = append(list, ranked[event.Addr]{a, n})
		}
		slices.SortFunc(list, func(a, b ranked[event.Addr]) int {
			return cmp.Or(-cmp.Compare(a.sum, b.sum), compareAddr(a.key, b.key))
		})
		list = list[:min(len(list), finding.MaxPeers)]
	} else {
		list = v.peers.top(finding.MaxPeers, compareAddr)
	}
	peers := make([]finding.Subject, len(list))
	for i, r := range list {
		peers[i] = finding.Host(r.key, role, "")
		if share := r.sum / max(v.packets, 1); share >= 0.01 {
			peers[i].Share = math.Round(share*1000) / 1000
		}
	}
	return peers
}
