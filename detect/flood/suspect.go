package flood

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"time"
	"unsafe"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/network"
)

// suspect is an object with full books.
type suspect struct {
	key    event.Addr // the address, or the prefix's first; zero for a network
	bits   int        // of a prefix in its own family; 0 = one host
	level  int        // of a prefix, in levels4 and levels6
	side   side
	net    uint32
	static limit

	limit   limit // static, or learned
	usual   rate
	learned bool // usual is known

	now        event.Time // its own clock
	busy       event.Time // when its counter was last ahead
	remarkable event.Time // when the change test last had something to say
	alarms     int        // vectors that are floods now
	waiting    bool       // some vector is above its limit and not yet a flood
	tcp        bool       // of a prefix: it gets so much small TCP that its answers matter

	// Packets outside of conversations, and how many of them are excused by
	// conversations that begin, by kind; forgotten with a time constant of ten
	// seconds.
	unasked, excused [talks]float64
	told, heard      float64 // octets it sent, and got from own amplifiers
	aged             event.Time

	// What has been received in the running minute, outside of conversations.
	minute              int64
	gotPackets, gotBits float64
	attacked            bool // the minute was part of a flood

	vectors []*vector
}

const (
	// maxVectors bounds the classes told apart for one suspect.
	maxVectors = 8
	// forget is after how long the books of an object that isn't busy close, and
	// those of a class that is no flood begin anew.
	forget = 30 * time.Second
	// testEvery is how often, in event time, a suspect's rates are tested; also
	// when its packets have doubled, for attacks that are over sooner.
	testEvery = event.Time(20e6)
	// fewRecords is how many records a flood rests on at least: one may be wrong.
	fewRecords = 3
	// excuses is how many packets outside of conversations one that begins
	// excuses, where each packet is seen.
	excuses = 8
	// manySenders, times Config.MaxSenders, bounds the senders of all suspects.
	manySenders = 8
)

// vector is one class of traffic to a suspect, outside of conversations.
type vector struct {
	class   class
	ring    ring
	since   event.Time
	tested  event.Time
	due     float64                // packets at which the next test is due
	sources distinct               // 4 kB, beside 5 kB of ring
	senders map[event.Addr]float64 // packets by sender; only from inside
	missed  uint64                 // packets of senders there was no room for
	peers   heavy[event.Addr]
	targets []heavy[event.Addr] // a prefix's hosts or next narrower prefixes; a network's hosts and prefixes of all levels
	sports  heavy[uint16]
	dports  heavy[uint16]
	ttls    heavy[uint8]

	packets, bytes, samples float64
	seconds                 float64 // that records last, times their packets
	sampling                uint32
	unsampled               bool // some exporter did not say
	flows                   int
	evidence                []string
	first, last             event.Time

	id               finding.ID // zero: no flood
	onset, said      event.Time
	above            event.Time // end of the last bucket above the limit
	over             event.Time // when that was seen, or the latest amplifiers
	waits            event.Time // since when it has been above its limit for longer than allowed; 0 = it isn't
	ripe             bool       // and that was decided upon
	reported         event.Time
	told             float64 // packets when it was reported
	peakPPS, peakBPS float64
	confidence       float64
	muted            bool
}

func (v *vector) alarmed() bool { return v.id != (finding.ID{}) && !v.muted }

func (s *suspect) size() int {
	n := int(unsafe.Sizeof(*s))
	for _, v := range s.vectors {
		n += int(unsafe.Sizeof(*v)) + 48*len(v.senders) + len(v.targets)*int(unsafe.Sizeof(v.peers)) + 600
	}
	return n
}

// stale reports whether the books should be closed: nothing happens.
func (s *suspect) stale(now event.Time) bool {
	return s.alarms == 0 && now.Sub(max(s.busy, s.remarkable)) >= forget
}

// clock moves the suspect's time on: what was counted fades, a minute ends, the
// limit is that of the hour.
func (s *suspect) clock(d *Detector, now event.Time) {
	if now <= s.now {
		return
	}
	s.now = now
	if now-s.aged >= 1e9 {
		keep := math.Exp(-now.Sub(s.aged).Seconds() / 10)
		for i := range s.unasked {
			s.unasked[i] *= keep
			s.excused[i] *= keep
		}
		s.told, s.heard = s.told*keep, s.heard*keep
		s.aged = now
	}
	if m := minuteOf(now); m != s.minute {
		if s.minute != 0 {
			d.learn(s, s.minute)
		}
		if m/60 != s.minute/60 {
			d.relimit(s, m)
		}
		s.minute, s.gotPackets, s.gotBits, s.attacked = m, 0, 0, s.alarms > 0
	}
}

// spoke notes what the suspect sends; begins says that it hadn't been sending to
// that address. Then some packets of strangers were the beginning of a
// conversation, before it answered: of single packets a few for each, of records
// that sum up many as many as it sent, twice, since a router may tell the two
// directions of a conversation in either order.
func (s *suspect) spoke(f *event.Flow, begins bool) {
	s.told += float64(f.Bytes)
	if !begins {
		return
	}
	excused := 2 * float64(f.Packets)
	if f.Has(event.OnePacket) {
		excused = excuses * float64(max(f.Sampling, 1))
	}
	switch f.Proto {
	case event.TCP:
		s.excused[connections] += excused
		s.excused[bulk] += excused
	case event.UDP:
		s.excused[datagrams] += excused
		s.excused[bulk] += excused
		if amplifierOf[f.DstPort] != 0 {
			s.excused[asking] += excused
		}
	case event.ICMP, event.ICMPv6:
		s.excused[pings] += excused
	default:
		s.excused[others] += excused
	}
}

// vector returns the books of class c, or nil when there is no room for another.
func (s *suspect) vector(c class) *vector {
	v := s.find(c)
	if v == nil && len(s.vectors) < maxVectors {
		v = &vector{class: c, since: s.now}
		s.vectors = append(s.vectors, v)
	}
	return v
}

func (s *suspect) find(c class) *vector {
	for _, v := range s.vectors {
		if v.class == c {
			return v
		}
	}
	return nil
}

// conversing reports whether f may be part of a conversation, and not count. What
// an own reflector answers was asked, in the victim's name; echo requests are
// answered by every stack; a network's answers aren't dealt to its shard.
func (s *suspect) conversing(c class, f *event.Flow) bool {
	switch {
	case s.side == whole, s.side == outbound && c >= amplified:
		return false
	case c == icmp:
		return f.DstPort>>8 != 8 && f.DstPort>>8 != 128
	}
	return true
}

// add enters a flow into a suspect's books and tests whether it is a flood.
func (d *Detector) add(s *suspect, c class, busy bool, b *event.Batch, f *event.Flow, report func(*finding.Finding)) {
	s.clock(d, f.Seen)
	if busy {
		s.busy = s.now
	}
	if s.conversing(c, f) && d.answers(f) {
		return
	}
	s.unasked[c.talk()] += float64(f.Packets)
	if c >= amplified {
		s.heard += float64(f.Bytes)
	}
	if s.side == prefix && !s.tcp && s.unasked[connections] > s.static.pps { // a tenth, for the ten seconds it fades in
		s.tcp = true
		d.openTCP[family(&s.key)][s.level]++
		d.mark(s)
	}
	s.gotPackets += float64(f.Packets)
	s.gotBits += float64(f.Bytes * 8)
	d.count(s, c, b, f, report)
	// Several kinds together may pass the limit that none of them does.
	if !c.ordinary() && len(s.vectors) > 1 {
		d.count(s, total, b, f, report)
	}
}

func (d *Detector) count(s *suspect, c class, b *event.Batch, f *event.Flow, report func(*finding.Finding)) {
	v := s.vector(c)
	if v == nil {
		return
	}
	if v.id == (finding.ID{}) && s.now.Sub(v.since) >= forget {
		d.senders -= len(v.senders)
		*v = vector{class: c, since: s.now, ring: v.ring, tested: v.tested, above: v.above}
	}
	d.enter(s, v, b, f)
	v.ring.add(f.First, f.Last, max(f.Last, s.now), float64(f.Packets), float64(f.Bytes*8))
	if s.now-v.tested >= testEvery || v.packets >= v.due {
		v.tested, v.due = s.now, 2*v.packets
		d.test(s, v, report)
	}
}

func (d *Detector) enter(s *suspect, v *vector, b *event.Batch, f *event.Flow) {
	packets := float64(f.Packets)
	v.flows++
	v.packets += packets
	v.bytes += float64(f.Bytes)
	v.samples += f.Samples()
	v.seconds += packets * f.Last.Sub(f.First).Seconds()
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
		v.target(0, 1, s.part(&f.Dst, s.level), packets)
	case whole:
		for i := range 1 + len(factors) {
			v.target(i, 1+len(factors), s.part(&f.Dst, i), packets)
		}
	case outbound:
		if v.senders == nil {
			v.senders = map[event.Addr]float64{}
		}
		n, known := v.senders[f.Src]
		if !known && (len(v.senders) >= d.cfg.MaxSenders || d.senders >= manySenders*d.cfg.MaxSenders) {
			v.missed++
			break
		}
		if !known {
			d.senders++
		}
		v.senders[f.Src] = n + packets
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

// part returns the host (level 0) or the prefix (from 1 on) of a.
func (s *suspect) part(a *event.Addr, level int) event.Addr {
	switch {
	case level == 0:
		return hostKey(a)
	case a.Is4():
		return a.Masked(levels4[level-1])
	}
	return a.Masked(levels6[level-1])
}

func (v *vector) target(i, of int, a event.Addr, packets float64) {
	if v.targets == nil {
		v.targets = make([]heavy[event.Addr], of)
	}
	v.targets[i].add(a, a.Hash(0), packets)
}

// settle decides what was due by now, whether anything has come since or not: it
// begins the floods whose patience has run out, and ends those that are over.
func (d *Detector) settle(s *suspect, now event.Time, report func(*finding.Finding)) {
	if s.waiting {
		d.ripen(s, now, report)
	}
	if s.alarms == 0 {
		return
	}
	for _, v := range s.vectors {
		if v.id == (finding.ID{}) || now.Sub(v.over) <= d.cfg.Quiet {
			continue
		}
		if !v.muted {
			d.say(s, v, true, report)
		}
		s.alarms--
		d.senders -= len(v.senders)
		*v = vector{class: v.class, since: s.now, above: v.above}
	}
}

// ripen makes floods of what was above its limit for as long as it is waited for.
// Routers with a flow cache tell of a flood once a minute, so the next record may
// be long in coming.
func (d *Detector) ripen(s *suspect, now event.Time, report func(*finding.Finding)) {
	s.waiting = false
	for _, v := range s.vectors {
		if v.waits == 0 || v.id != (finding.ID{}) {
			continue
		}
		due := v.waits.Add(v.patience())
		if now < due {
			s.waiting = true
			continue
		}
		if v.ripe {
			continue
		}
		v.ripe = true
		if ch := s.measure(v, s.limit); d.attack(s, v) && d.ownCause(s, v, ch) {
			d.begin(s, v, ch)
			v.said = max(due, s.now)
			if v.alarmed() {
				d.report(s, v, report)
			}
		}
	}
}

// measure holds the vector's rates against the limits l.
func (s *suspect) measure(v *vector, l limit) change {
	ch := v.ring.test(max(s.now, v.last), l.pps, l.bps)
	v.peakPPS, v.peakBPS = max(v.peakPPS, ch.peakPPS), max(v.peakBPS, ch.peakBPS)
	return ch
}

// test holds the vector's rates against the limits, and reports.
func (d *Detector) test(s *suspect, v *vector, report func(*finding.Finding)) {
	l := s.limit
	if v.class.ordinary() {
		l.pps = math.Inf(1)
	}
	ch := s.measure(v, l)
	enough := d.cfg.MinSamples * float64(max(v.sampling, 1))
	need := max(l.pps*d.cfg.Window.Seconds(), enough)
	needBits := max(l.bps*d.cfg.Window.Seconds(), enough*v.bytes*8/max(v.packets, 1))
	if ch.packets > need/4 || ch.bits > needBits/4 {
		s.remarkable = s.now
	}
	alarm := ch.packets >= need || ch.bits >= needBits
	if alarm {
		v.peakPPS, v.peakBPS = max(v.peakPPS, ch.ratePPS), max(v.peakBPS, ch.rateBPS)
		if ch.over > v.above {
			v.above, v.over = ch.over, s.now
		}
		alarm = s.now.Sub(v.over) <= d.cfg.Quiet
	}
	switch {
	case !alarm:
		v.waits, v.ripe = 0, false
	case v.waits == 0:
		v.waits, s.waiting = s.now, true
	}
	reflected := d.reflected(s, v)
	if reflected {
		s.remarkable, v.over = s.now, s.now
	}
	switch {
	case v.id != (finding.ID{}):
	case alarm && s.now.Sub(v.waits) >= v.patience() && d.attack(s, v) && d.ownCause(s, v, ch), reflected && d.attack(s, v):
		d.begin(s, v, ch)
	}
	if v.alarmed() && (v.packets >= 1.5*v.told || s.now.Sub(v.reported) >= d.cfg.Update) {
		d.report(s, v, report)
	}
}

// reflected reports whether so many amplifiers answer a host that asked none
// of them that the rate doesn't matter. Resolvers and shared addresses ask
// everybody, and some of it may leave by a router that doesn't tell.
func (d *Detector) reflected(s *suspect, v *vector) bool {
	if v.class < amplified || s.side != inbound || v.packets < float64(d.cfg.Reflectors) {
		return false
	}
	switch d.net.At(s.net).Kind {
	case network.Resolver, network.Shared:
		return false
	}
	return v.sources.count() >= d.cfg.Reflectors
}

// patience is how long v must be above its limit before it is a flood: as long
// as its records last, since the router tells what was sent back in others, and
// at most two seconds, which is little beside its timeout.
func (v *vector) patience() time.Duration {
	return time.Duration(min(v.seconds/max(v.packets, 1), 2) * 1e9)
}

// begin makes v a flood.
func (d *Detector) begin(s *suspect, v *vector, ch change) {
	v.onset, v.said = ch.onset, s.now
	if v.onset == 0 || v.onset < v.first {
		v.onset = v.first
	}
	part := v.class.String()
	if s.side == whole {
		part += " " + d.net.At(s.net).Name
	}
	v.id = finding.NewID(d.rule(s, v), s.key, part, v.onset)
	v.muted = d.tooMany(s, v)
	s.alarms++
	s.attacked = true
}

// confidence is the probability that the true rate is above the limit when one
// that is excess times the limit was measured with n samples, times how often
// the composition rules are right (0.99). What is reported for other reasons
// than its rate rests on those alone.
func confidence(n, excess float64) float64 {
	z := 3.0
	if excess > 1 {
		z = (1 - 1/excess) * math.Sqrt(max(n, 1))
	}
	return 0.99 * (1 - 0.5*math.Erfc(z/math.Sqrt2))
}

// attack decides by the composition of the traffic whether what stands out is
// an attack.
func (d *Detector) attack(s *suspect, v *vector) bool {
	sources := v.sources.count()
	few := sources < d.cfg.MinSources
	excused, unasked := 0.0, 0.0
	for t := range talks {
		if v.class == total && t != bulk || v.class != total && t == v.class.talk() {
			excused += s.excused[t]
			unasked += s.unasked[t]
		}
	}
	crowd := excused >= unasked
	switch c := v.class; {
	case v.flows < fewRecords:
		return false
	case c >= amplified && s.side == outbound:
		return s.heard >= 4*s.told // reflectors answer with more than they are asked
	case c == icmp:
		return !few || s.side == inbound || s.side == outbound // a host that pings a prefix scans it
	case crowd, c == esp:
		return false
	case c.ordinary():
		return s.side == inbound && sources >= 64
	case c == syn:
		return !few || s.side == inbound || s.side == outbound
	case c == total:
		return !few && d.mixed(s, v)
	}
	return !few
}

// mixed reports whether a flood of several kinds is more than one of them.
func (d *Detector) mixed(s *suspect, v *vector) bool {
	for _, o := range s.vectors {
		if o != v && (o.id != (finding.ID{}) || o.ring.lately(s.now) > v.ring.lately(s.now)/2) {
			return false
		}
	}
	return true
}

// The share of a prefix's packets from which a part of it is a victim of its
// own: a host from a quarter on, a narrower prefix above a half.
const hostShare, prefixShare = 0.25, 0.5

// ownCause reports whether what is above its limit is a flood on this object,
// and neither one on a part of it nor a part of one on something wider. Since a
// prefix has twice the limit of the next narrower one, what has too small a share
// to be reported on its own puts the wider one above its limit.
func (d *Detector) ownCause(s *suspect, v *vector, ch change) bool {
	if s.side == inbound || s.side == prefix {
		share, level := hostShare, 0
		if s.side == prefix {
			share, level = prefixShare, s.level+1
		}
		if level < len(factors) {
			key, _ := prefixKey(&s.key, level)
			if e := d.prefixes.Find(&key); e != nil && e.Slot != 0 {
				if w := d.suspects[e.Slot].find(v.class); w != nil && v.ring.lately(s.now) < share*w.ring.lately(s.now) {
					return false
				}
			}
		}
	}
	// Less what parts get that are above limits of their own.
	theirs := 0.0
	for i := range v.targets {
		level, share := i, hostShare
		if s.side == prefix {
			level = s.level
		}
		l := d.limits[s.net]
		if level > 0 {
			share = prefixShare
			l.pps, l.bps = l.pps*factors[level-1], l.bps*factors[level-1]
		}
		if s.side == whole {
			share = 0
		}
		sum := 0.0
		for _, part := range v.targets[i].top(64, compareAddr) {
			if p := part.sum / v.packets; p >= share && (p*ch.ratePPS >= l.pps || p*ch.rateBPS >= l.bps) {
				sum += p
			}
		}
		theirs = max(theirs, sum)
	}
	return theirs == 0 || (1-theirs)*ch.ratePPS >= s.limit.pps || (1-theirs)*ch.rateBPS >= s.limit.bps
}

func compareAddr(a, b event.Addr) int {
	return cmp.Or(cmp.Compare(binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(b[:8])),
		cmp.Compare(binary.BigEndian.Uint64(a[8:]), binary.BigEndian.Uint64(b[8:])))
}

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

// tally counts floods that begin in a minute.
type tally struct {
	minute int64
	floods int
}

// maxTallies bounds the neighbourhoods with floods in a minute.
const maxTallies = 4096

// tooMany counts floods that begin, and reports whether there are too many in a
// minute for each to be believed. It counts by neighbourhood, as dealt to shards:
// what other shards see must not matter.
func (d *Detector) tooMany(s *suspect, v *vector) bool {
	k, minute := s.key, minuteOf(s.now)
	if k.Is4() {
		k = k.Masked(16)
	} else {
		k = k.Masked(32)
	}
	t := d.floods[k]
	if t.minute != minute {
		t = tally{minute: minute}
	}
	t.floods++
	if len(d.floods) >= maxTallies {
		clear(d.floods)
	}
	d.floods[k] = t
	if t.floods <= d.cfg.MaxPerMinute {
		return false
	}
	d.crowded(s, v, t.floods)
	return true
}

// top returns the heaviest sources or senders as subjects.
func (v *vector) top(role string) []finding.Subject {
	list := v.peers.top(finding.MaxPeers, compareAddr)
	if v.senders != nil {
		list = list[:0]
		for a, n := range v.senders {
			r := ranked[event.Addr]{a, n}
			if len(list) == finding.MaxPeers && n < list[finding.MaxPeers-1].sum {
				continue
			}
			i, _ := slices.BinarySearchFunc(list, r, func(a, b ranked[event.Addr]) int {
				return cmp.Or(-cmp.Compare(a.sum, b.sum), compareAddr(a.key, b.key))
			})
			if i < finding.MaxPeers {
				list = slices.Insert(list[:min(len(list), finding.MaxPeers-1)], i, r)
			}
		}
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
