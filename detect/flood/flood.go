// Package flood finds denial of service by volume: towards the provider's own
// hosts, prefixes and networks, and from its subscribers towards one victim
// outside.
//
// It works in three steps. Each own address, each own prefix and each address
// outside that own hosts send suspicious packets to has a small entry with a
// leaking counter. Only when a counter runs ahead of a fraction of its limit
// does the object become a suspect with full books. A suspect's packets that
// belong to a conversation, because it has been sending to their source, are set
// aside; the rates of the others, by class of packet in buckets of event time,
// face a test of quickest change, and what has passed it is an attack unless
// its composition says otherwise: few sources, a crowd whose conversations begin,
// the part of a flood on something wider.
package flood

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
	"time"
	"unsafe"

	"noroshi/detect"
	"noroshi/event"
	"noroshi/finding"
	"noroshi/internal/hosttable"
	"noroshi/network"
)

// Config are the knobs.
type Config struct {
	// HostPPS and HostBPS are the limits towards one address (IPv6: one /64), in
	// packets/s and bits/s, unless its network has its own. Traffic of an
	// ordinary kind (TCP with data, QUIC, ESP) counts only against HostBPS.
	// Prefixes have multiples of them: /24 twice, /22 4, /20 8, /16 16 times.
	HostPPS float64 `yaml:"host_pps"`
	HostBPS float64 `yaml:"host_bps"`
	// LearnFactor times what is usual at this hour of the week is the limit of
	// an object for which that is more than the limit above, and of each own
	// network without a limit in total. 0 learns nothing.
	LearnFactor float64 `yaml:"learn_factor"`
	// Window is how long traffic at twice the limit lasts before it is
	// reported; at five times the limit, a quarter of it.
	Window time.Duration `yaml:"window"`
	// MinSamples is how many sampled packets beyond the limit a report needs.
	MinSamples float64 `yaml:"min_samples"`
	// MinSources is how many distinct sources a flood needs whose kind of packet
	// single hosts send in quantity too (UDP, GRE, ACK, amplification).
	MinSources uint64 `yaml:"min_sources"`
	// Reflectors is how many distinct amplifiers answering one address that
	// asked none of them are reported whatever their rate.
	Reflectors uint64 `yaml:"reflectors"`
	// Quiet is how long a flood must have been below its limit to be over.
	Quiet time.Duration `yaml:"quiet"`
	// Update is how often a flood that goes on is reported again; one that has
	// grown by half is at once.
	Update time.Duration `yaml:"update"`
	// MaxPerMinute is how many floods may begin in a minute within one /16 (IPv6:
	// /32); more are counted and reported as one "sampling suspect".
	MaxPerMinute int `yaml:"max_per_minute"`
	// MaxHosts, MaxSuspects, MaxSenders and MaxLearned bound memory: entries of
	// addresses, suspects, senders told apart in one flood from inside, and
	// objects of which it is learned what is usual. See Spec.Memory.
	MaxHosts    int `yaml:"max_hosts"`
	MaxSuspects int `yaml:"max_suspects"`
	MaxSenders  int `yaml:"max_senders"`
	MaxLearned  int `yaml:"max_learned"`
}

func defaults() any {
	return &Config{
		HostPPS: 20_000, HostBPS: 2e9, LearnFactor: 3, Window: 500 * time.Millisecond, MinSamples: 16, MinSources: 10, Reflectors: 300,
		Quiet: 30 * time.Second, Update: 5 * time.Second, MaxPerMinute: 20,
		MaxHosts: 10_000_000, MaxSuspects: 2048, MaxSenders: 131_072, MaxLearned: 4096,
	}
}

func (c *Config) check() error {
	switch {
	case c.HostPPS <= 0 || c.HostBPS <= 0:
		return errors.New("host_pps and host_bps must be above 0")
	case c.LearnFactor != 0 && c.LearnFactor < 1:
		return errors.New("learn_factor must be 0 (off) or at least 1")
	case c.Window < 100*time.Millisecond || c.Window > 10*time.Second:
		return errors.New("window must be 100ms to 10s")
	case c.Quiet < time.Second || c.Update < time.Second:
		return errors.New("quiet and update must be at least 1s")
	case c.MaxPerMinute < 1:
		return errors.New("max_per_minute must be above 0")
	case c.MaxHosts < 1 || c.MaxSuspects < 1 || c.MaxSenders < 1 || c.MaxLearned < 1:
		return errors.New("max_hosts, max_suspects, max_senders and max_learned must be above 0")
	}
	return nil
}

// side is on which end of an object its traffic is watched.
type side uint8

const (
	inbound  side = iota // an own address, or any when own networks aren't known
	prefix               // an own prefix
	outbound             // an address outside, for what own hosts send it
	whole                // an own network
)

// load is an object's leaking counter of packets, and beside it the bits of a
// host, or the packets of a prefix in the running bucket.
type load struct{ level, more float32 }

// echo says which amplifiers answered a host that hadn't asked, in the running
// second and the one before: a bit for each of 32 parts of all addresses.
type echo struct{ now, before uint32 }

// Detector is the flood detector of one shard.
type Detector struct {
	cfg    *Config
	net    *network.Table
	limits []limit // by network index; 0 is the default
	groups []group // by network index; 0 is none

	hosts, prefixes, outside *hosttable.Table[load]
	echoes                   *hosttable.Table[echo]
	talks                    *hosttable.Table[struct{}] // who lately sent to whom

	suspects  []*suspect // by slot; 0 is none
	free      []int32
	suspected bitmap               // which addresses and prefixes may be suspects
	open      [2][len(levels4)]int // suspect prefixes by family and level
	// The same of prefixes that get much small TCP.
	suspectedTCP bitmap
	openTCP      [2][len(levels4)]int
	senders      int                  // told apart by all suspects
	profiles     map[object]*profile  // what has been learned, but of networks
	floods       map[event.Addr]tally // by neighbourhood

	now     event.Time
	warmed  uint32 // of no meaning
	refused uint64 // suspects and profiles there was no room for
	swept   event.Time
	crowd   *crowd
}

// limit is what traffic is held against; infinite where there is none.
type limit struct {
	pps, bps float64
	fixed    bool // by the operator for this very object: never learned
}

// group is an own network as a whole.
type group struct {
	load
	last          uint32 // tick
	slot          int32
	minute        int64 // that packets and bits are of
	packets, bits float64
	static, limit limit
	usual         rate
	learned       bool
	profile       profile
}

const (
	groupSize   = int(unsafe.Sizeof(group{}))
	profileSize = int(unsafe.Sizeof(profile{})) + 64 // and its place in the map
)

// levels4 and levels6 are the prefixes watched, narrowest first, and factors
// their limits in terms of a host's: many households share what one may use.
var (
	levels4 = [...]int{24, 22, 20, 16}
	levels6 = [...]int{56, 48, 40, 32}
	factors = [...]float64{2, 4, 8, 16}
)

const (
	idle   = 3000 // ticks after which an entry is forgotten: five minutes
	memory = 3000 // ticks for which a conversation is remembered
)

func newDetector(env detect.Env) (detect.Detector, error) {
	cfg := env.Config.(*Config)
	if err := cfg.check(); err != nil {
		return nil, err
	}
	few := max(cfg.MaxHosts/8, 1024)
	d := &Detector{
		cfg: cfg, net: env.Network,
		hosts:    hosttable.New[load](cfg.MaxHosts, idle, env.Seed),
		prefixes: hosttable.New[load](few, idle, env.Seed),
		outside:  hosttable.New[load](few, idle, env.Seed),
		echoes:   hosttable.New[echo](few, idle, env.Seed),
		talks:    hosttable.New[struct{}](2*few, memory, env.Seed),
		suspects: []*suspect{nil},
		groups:   make([]group, env.Network.Len()),
		profiles: map[object]*profile{},
		floods:   map[event.Addr]tally{},
	}
	for i := range uint32(env.Network.Len()) {
		n := env.Network.At(i)
		l := limit{pps: cfg.HostPPS, bps: cfg.HostBPS, fixed: n.HostPPS > 0 || n.HostBPS > 0}
		if n.HostPPS > 0 {
			l.pps = float64(n.HostPPS)
		}
		if n.HostBPS > 0 {
			l.bps = float64(n.HostBPS)
		}
		d.limits = append(d.limits, l)
		g := &d.groups[i]
		g.static = limit{pps: math.Inf(1), bps: math.Inf(1)}
		if n.TotalPPS > 0 {
			g.static.pps, g.static.fixed = float64(n.TotalPPS), true
		}
		if n.TotalBPS > 0 {
			g.static.bps, g.static.fixed = float64(n.TotalBPS), true
		}
		g.limit = g.static
	}
	return d, nil
}

// tick is the clock of entries, in buckets; never 0.
func tick(t event.Time) uint32 { return max(uint32(bucketOf(t)), 1) }

// bitmap says quickly which addresses are surely no suspects.
type bitmap [1 << 10]uint64

func (m *bitmap) place(a *event.Addr) (int, uint64) {
	h := a.Hash(0)
	return int(h>>6) & (len(m) - 1), 1 << (h & 63)
}

func (m *bitmap) has(a *event.Addr) bool { i, bit := m.place(a); return m[i]&bit != 0 }
func (m *bitmap) set(a *event.Addr)      { i, bit := m.place(a); m[i] |= bit }

// Detect examines the flows of b.
func (d *Detector) Detect(b *event.Batch, report func(*finding.Finding)) {
	known := d.net.Known()
	for i := range b.Flows {
		if i%ahead == 0 {
			d.warm(b.Flows[i:min(i+ahead, len(b.Flows))], known)
		}
		f := &b.Flows[i]
		if f.Marks&event.Tunnelled != 0 || f.Bytes > 0 && f.Bytes/minLength < f.Packets {
			continue
		}
		d.now = max(d.now, f.Seen)
		if f.Marks&event.ForSrc != 0 {
			d.speak(f, !known || f.SrcNet != 0)
		}
		if f.Marks&event.ForDst != 0 {
			switch {
			case !known || f.DstNet != 0:
				d.inwards(b, f, report)
			case f.SrcNet != 0:
				d.outwards(b, f, report)
			}
		}
		if f.Marks&event.ForNet != 0 && f.DstNet != 0 {
			d.within(b, f, report)
		}
	}
}

// minLength is the length of the shortest IP packet, in octets; a record that
// claims shorter ones is wrong.
const minLength = 20

// ahead is for how many flows memory is asked for at once.
const ahead = 16

// warm touches what examining flows will need of the large tables.
func (d *Detector) warm(flows []event.Flow, known bool) {
	for i := range flows {
		f := &flows[i]
		if f.Marks&event.ForDst != 0 {
			key := hostKey(&f.Dst)
			switch {
			case !known || f.DstNet != 0:
				d.warmed += d.hosts.Warm(&key)
			case f.Proto == event.UDP: // TCP has an entry there only by its small packets
				d.warmed += d.outside.Warm(&key)
			}
		}
		if f.Proto != event.UDP {
			continue
		}
		if f.Marks&event.ForDst != 0 && amplifierOf[f.SrcPort] != 0 {
			key := talkKey(&f.Dst, &f.Src)
			d.warmed += d.talks.Warm(&key)
		}
		if f.Marks&event.ForSrc != 0 && amplifierOf[f.DstPort] != 0 {
			key := talkKey(&f.Src, &f.Dst)
			d.warmed += d.talks.Warm(&key)
		}
	}
}

// hostKey is the unit that counts as one host: an IPv4 address, an IPv6 /64.
func hostKey(a *event.Addr) event.Addr {
	k := *a
	if !k.Is4() {
		clear(k[8:])
	}
	return k
}

// talkKey is the key of what from sends to to: both addresses where they fit,
// else hashes of both.
func talkKey(from, to *event.Addr) (k event.Addr) {
	if from.Is4() && to.Is4() {
		copy(k[4:8], from[12:])
		copy(k[12:], to[12:])
		return k
	}
	f, t := hostKey(from), hostKey(to)
	binary.LittleEndian.PutUint64(k[:8], f.Hash(1)|1)
	binary.LittleEndian.PutUint64(k[8:], t.Hash(2))
	return k
}

// answers reports whether f belongs to a conversation: its destination has been
// sending to its source.
func (d *Detector) answers(f *event.Flow) bool {
	k := talkKey(&f.Dst, &f.Src)
	e := d.talks.Find(&k)
	return e != nil && tick(f.Seen) <= e.Last+memory
}

// speak remembers that f's source sends to its destination, where that may
// matter: requests of own hosts to services that are abused as amplifiers, and
// what suspects send.
func (d *Detector) speak(f *event.Flow, own bool) {
	key := hostKey(&f.Src)
	ask := own && f.Proto == event.UDP && amplifierOf[f.DstPort] != 0
	watched := len(d.suspects)-len(d.free) > 1 && (d.suspected.has(&key) || d.inSuspect(&key, f))
	if !watched && !ask || !speech(f) {
		return
	}
	now, k := tick(f.Seen), talkKey(&f.Src, &f.Dst)
	_, before := d.talks.Get(&k, now)
	if watched {
		d.spoken(&key, f, before == 0 || now > before+memory)
	}
}

// inSuspect reports whether key may be in a suspect prefix for which f matters:
// of TCP only where small packets make it one, of data by QUIC never.
func (d *Detector) inSuspect(key *event.Addr, f *event.Flow) bool {
	open, may := &d.open, &d.suspected
	switch {
	case f.Proto == event.TCP:
		open, may = &d.openTCP, &d.suspectedTCP
	case f.Proto == event.UDP && web(f.DstPort):
		return false
	}
	for i, n := range open[family(key)] {
		if n > 0 {
			if k, _ := prefixKey(key, i); may.has(&k) {
				return true
			}
		}
	}
	return false
}

func web(port uint16) bool { return port == 443 || port == 80 }

// spoken tells the suspects that key belongs to what it sends.
func (d *Detector) spoken(key *event.Addr, f *event.Flow, begins bool) {
	tell := func(e *hosttable.Entry[load]) {
		if e != nil && e.Slot != 0 {
			d.suspects[e.Slot].spoke(f, begins)
		}
	}
	tell(d.hosts.Find(key))
	tell(d.outside.Find(key))
	for i, n := range d.open[family(key)] {
		if n > 0 {
			k, _ := prefixKey(key, i)
			tell(d.prefixes.Find(&k))
		}
	}
}

// drain lets level leak at half the limit since it was last touched.
func drain(level float32, perBucket float64, before, now uint32) float32 {
	if now > before {
		level -= float32(perBucket / 2 * float64(now-before))
	}
	return max(level, 0)
}

// fill adds w to a drained level, which never holds more than what takes two
// seconds to leak.
func fill(level, w float32, perBucket float64) float32 {
	return min(level+w, max(float32(perBucket*10), w))
}

// weight is what a flow counts towards suspicion.
func weight(c class, f *event.Flow) float32 {
	if c.ordinary() {
		return 0
	}
	return float32(f.Packets)
}

// live returns the books of e's object, or nil if it is no suspect, or no longer.
func (d *Detector) live(slot int32, seen event.Time, report func(*finding.Finding)) *suspect {
	if slot == 0 {
		return nil
	}
	s := d.suspects[slot]
	d.settle(s, seen, report)
	if s.stale(seen) {
		d.close(slot, s)
		return nil
	}
	return s
}

// inwards counts a flow towards an own address and its prefixes.
func (d *Detector) inwards(b *event.Batch, f *event.Flow, report func(*finding.Finding)) {
	c, now := classify(f), tick(f.Seen)
	l := d.limits[f.DstNet]
	key := hostKey(&f.Dst)
	w, unasked := weight(c, f), false
	if c >= amplified {
		if unasked = !d.answers(f); !unasked {
			w = 0
		}
	}
	e, before := d.hosts.Get(&key, now)
	perP, perB, bits := l.pps*bucketSeconds, l.bps*bucketSeconds, float32(f.Bytes*8)
	e.V.level = fill(drain(e.V.level, perP, before, now), w, perP)
	e.V.more = fill(drain(e.V.more, perB, before, now), bits, perB)
	busy := float64(e.V.level) > trigger(l.pps, f) || float64(e.V.more) > 2*perB && e.V.more > bits
	if unasked && d.echoed(&key, f) {
		busy = true
	}
	s := d.live(e.Slot, f.Seen, report)
	if s == nil && busy {
		e.Slot, s = d.suspect(suspect{key: key, side: inbound, net: f.DstNet, static: l}, f.Seen)
	}
	if s != nil {
		d.add(s, c, busy, b, f, report)
	}
	if w > 0 && !(c == udp && web(f.SrcPort)) { // small QUIC packets make up hosts' floods only
		d.inPrefix(b, f, c, w, l, report)
	}
}

// echoed notes that an amplifier answered key, which didn't ask it, and reports
// whether at least some twenty have within two seconds: a real attack of 4,000
// packets is over in a fortieth of one.
func (d *Detector) echoed(key *event.Addr, f *event.Flow) bool {
	now := tick(f.Seen)
	e, before := d.echoes.Get(key, now)
	switch passed := now/10 - before/10; {
	case now <= before, passed == 0:
	case passed == 1:
		e.V = echo{before: e.V.now}
	default:
		e.V = echo{}
	}
	e.V.now |= 1 << (f.Src.Hash(0) >> 59)
	return bits.OnesCount32(e.V.now|e.V.before) >= 16 // of 32, half are hit by 22 sources
}

// trigger is the level at which an object becomes a suspect: a tenth of a
// second at the limit, and at least a few samples.
func trigger(pps float64, f *event.Flow) float64 {
	return max(pps*bucketSeconds, 4*float64(f.Sampling))
}

func family(a *event.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// prefixKey is the key of the i-th level's prefix of a, and its length.
func prefixKey(a *event.Addr, i int) (k event.Addr, bits int) {
	if a.Is4() {
		bits = levels4[i]
		binary.BigEndian.PutUint32(k[12:], a.Four()&(^uint32(0)<<(32-bits)))
		k[0] = byte(bits)
		return k, bits
	}
	bits = levels6[i]
	binary.BigEndian.PutUint64(k[:8], binary.BigEndian.Uint64(a[:8])&(^uint64(0)<<(64-bits)))
	k[15] = byte(bits)
	return k, bits
}

// inPrefix counts a flow towards the prefixes of its destination. The narrowest
// is counted for each flow; the wider ones get its sum once in a bucket.
func (d *Detector) inPrefix(b *event.Batch, f *event.Flow, c class, w float32, l limit, report func(*finding.Finding)) {
	now, family := tick(f.Seen), family(&f.Dst)
	var pending float32
	fresh := false // the narrowest has just begun a bucket
	for i, factor := range factors {
		if i > 0 && !fresh && d.open[family][i] == 0 {
			continue
		}
		key, bits := prefixKey(&f.Dst, i)
		pl := limit{pps: l.pps * factor, bps: l.bps * factor, fixed: l.fixed}
		e, before := d.prefixes.Get(&key, now)
		perP := pl.pps * bucketSeconds
		switch {
		case i == 0:
			if before != now {
				fresh, pending = before != 0, e.V.more
				e.V.more = 0
			}
			e.V.more += w
			e.V.level = fill(drain(e.V.level, perP, before, now), w, perP)
		case fresh:
			e.V.level = fill(drain(e.V.level, perP, before, now), pending, perP)
		}
		busy := float64(e.V.level) > trigger(pl.pps, f)
		s := d.live(e.Slot, f.Seen, report)
		if s == nil && busy {
			e.Slot, s = d.suspect(suspect{key: f.Dst.Masked(bits), bits: bits, level: i, side: prefix, net: f.DstNet, static: pl}, f.Seen)
		}
		if s != nil {
			d.add(s, c, busy, b, f, report)
		}
	}
}

// outwards counts a flow from an own host to an address outside.
func (d *Detector) outwards(b *event.Batch, f *event.Flow, report func(*finding.Finding)) {
	c := classify(f)
	w := weight(c, f)
	if w == 0 {
		return
	}
	key := hostKey(&f.Dst)
	l, now := d.limits[0], tick(f.Seen)
	e, before := d.outside.Get(&key, now)
	perP := l.pps * bucketSeconds
	e.V.level = fill(drain(e.V.level, perP, before, now), w, perP)
	busy := float64(e.V.level) > trigger(l.pps, f)
	s := d.live(e.Slot, f.Seen, report)
	if s == nil && busy {
		e.Slot, s = d.suspect(suspect{key: key, side: outbound, static: l}, f.Seen)
	}
	if s != nil {
		d.add(s, c, busy, b, f, report)
	}
}

// within counts a flow towards the own network it goes to. What is answered
// isn't known here, in the network's shard: all that is not of an ordinary kind
// counts, and the limit is the operator's or learned.
func (d *Detector) within(b *event.Batch, f *event.Flow, report func(*finding.Finding)) {
	c := classify(f)
	w := weight(c, f)
	if w == 0 {
		return
	}
	g := &d.groups[f.DstNet]
	s := d.live(g.slot, f.Seen, report)
	d.minute(g, f, s)
	if math.IsInf(g.limit.pps, 1) && math.IsInf(g.limit.bps, 1) {
		return
	}
	now := tick(f.Seen)
	perP, perB, bits := g.limit.pps*bucketSeconds, g.limit.bps*bucketSeconds, float32(f.Bytes*8)
	g.level = fill(drain(g.level, perP, g.last, now), w, perP)
	g.more = fill(drain(g.more, perB, g.last, now), bits, perB)
	g.last = max(g.last, now)
	busy := float64(g.level) > trigger(g.limit.pps, f) || float64(g.more) > perB && g.more > bits
	if s == nil && busy {
		g.slot, s = d.suspect(suspect{side: whole, net: f.DstNet, static: g.static}, f.Seen)
	}
	if s != nil {
		d.add(s, c, busy, b, f, report)
	}
}

// minute adds f to the minute's sums of g; when a minute is over, it is learned.
func (d *Detector) minute(g *group, f *event.Flow, s *suspect) {
	now := minuteOf(f.Seen)
	if now > g.minute {
		pps, bps := g.packets/60, g.bits/60
		switch {
		case g.minute == 0 || d.cfg.LearnFactor == 0:
		case s != nil && (s.attacked || s.alarms > 0), pps > g.limit.pps, bps > g.limit.bps:
			g.profile.spoil(g.minute)
		default:
			g.profile.note(g.minute, pps, bps)
		}
		if now/60 != g.minute/60 && d.cfg.LearnFactor > 0 {
			if g.usual, g.learned = g.profile.usual(now); g.learned && !g.static.fixed {
				least := d.limits[f.DstNet]
				g.limit.pps = max(factors[1]*least.pps, d.cfg.LearnFactor*float64(g.usual.pps))
				g.limit.bps = max(factors[1]*least.bps, d.cfg.LearnFactor*float64(g.usual.bps))
			}
		}
		g.minute, g.packets, g.bits = now, 0, 0
	}
	g.packets += float64(f.Packets)
	g.bits += float64(f.Bytes * 8)
}

// suspect opens the books of an object and returns them with their slot, or 0
// and nil when there is no room.
func (d *Detector) suspect(s suspect, seen event.Time) (int32, *suspect) {
	if len(d.free) == 0 && len(d.suspects) > d.cfg.MaxSuspects {
		if d.sweep(d.now, 5*time.Second); len(d.free) == 0 {
			d.refused++
			return 0, nil
		}
	}
	s.busy, s.remarkable, s.aged = seen, seen, seen
	s.clock(d, seen)
	d.mark(&s)
	if s.side == prefix {
		d.open[family(&s.key)][s.level]++
	}
	if n := len(d.free); n > 0 {
		slot := d.free[n-1]
		d.free = d.free[:n-1]
		d.suspects[slot] = &s
		return slot, &s
	}
	d.suspects = append(d.suspects, &s)
	return int32(len(d.suspects) - 1), &s
}

func (d *Detector) mark(s *suspect) {
	switch s.side {
	case prefix:
		k, _ := prefixKey(&s.key, s.level)
		d.suspected.set(&k)
		if s.tcp {
			d.suspectedTCP.set(&k)
		}
	case inbound, outbound:
		d.suspected.set(&s.key)
	}
}

// sweep closes the books of suspects that weren't busy for a while.
func (d *Detector) sweep(now event.Time, quiet time.Duration) {
	closed := false
	for slot, s := range d.suspects {
		if s != nil && s.alarms == 0 && now.Sub(max(s.busy, s.remarkable)) >= quiet {
			d.close(int32(slot), s)
			closed = true
		}
	}
	if closed { // the bitmap can't forget one by one
		d.suspected, d.suspectedTCP = bitmap{}, bitmap{}
		for _, s := range d.suspects {
			if s != nil {
				d.mark(s)
			}
		}
	}
}

func (d *Detector) close(slot int32, s *suspect) {
	var e *hosttable.Entry[load]
	switch s.side {
	case inbound:
		e = d.hosts.Find(&s.key)
	case outbound:
		e = d.outside.Find(&s.key)
	case prefix:
		d.open[family(&s.key)][s.level]--
		if s.tcp {
			d.openTCP[family(&s.key)][s.level]--
		}
		key, _ := prefixKey(&s.key, s.level)
		e = d.prefixes.Find(&key)
	case whole:
		d.groups[s.net].slot = 0
	}
	if e != nil {
		e.Slot = 0
	}
	for _, v := range s.vectors {
		d.senders -= len(v.senders)
	}
	d.suspects[slot] = nil
	d.free = append(d.free, slot)
}

// Advance reports what has ended, and what is new of floods since they were
// last reported where nothing more has come; and forgets what is idle.
func (d *Detector) Advance(now event.Time, report func(*finding.Finding)) {
	for _, s := range d.suspects {
		if s == nil || s.alarms == 0 && !s.waiting {
			continue
		}
		d.settle(s, now, report)
		if now > s.now {
			for _, v := range s.vectors {
				if v.alarmed() && v.packets != v.told {
					d.report(s, v, report)
				}
			}
		}
	}
	if now.Sub(d.swept) >= time.Second {
		d.swept = now
		d.sweep(now, forget)
	}
	d.tellCrowd(report)
}

// Finish reports the latest numbers of floods that go on.
func (d *Detector) Finish(report func(*finding.Finding)) {
	for _, s := range d.suspects {
		if s == nil {
			continue
		}
		for _, v := range s.vectors {
			if v.alarmed() && v.packets != v.told {
				d.report(s, v, report)
			}
		}
	}
}

// Usage returns the state held.
func (d *Detector) Usage() detect.Usage {
	u := detect.Usage{
		Entries: d.hosts.Len() + d.prefixes.Len() + d.outside.Len() + d.echoes.Len() + d.talks.Len(),
		Bytes: d.hosts.Bytes() + d.prefixes.Bytes() + d.outside.Bytes() + d.echoes.Bytes() + d.talks.Bytes() +
			len(d.groups)*groupSize + len(d.profiles)*profileSize,
		Evicted: d.hosts.Evicted() + d.prefixes.Evicted() + d.outside.Evicted() + d.echoes.Evicted() + d.talks.Evicted() + d.refused,
	}
	for _, s := range d.suspects {
		if s != nil {
			u.Bytes += s.size()
		}
	}
	return u
}
