// Package flood finds denial of service by volume: towards the provider's own
// hosts and prefixes, and from its subscribers towards one victim outside.
//
// It works in two steps. Each own address, each own prefix and each address
// outside that own hosts send suspicious packets to has a small entry with a
// leaking counter. Only when a counter runs ahead of a fraction of its limit
// does the object become a suspect with full books: rates by class of packet in
// buckets of event time, distinct sources, ports, senders. From those a test of
// quickest change decides how sure it is that a limit is passed, and the
// composition of the traffic decides whether it is an attack: what is answered,
// comes from few, or follows completed handshakes is not.
package flood

import (
	"errors"
	"time"

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
	HostPPS float64 `yaml:"host_pps"`
	HostBPS float64 `yaml:"host_bps"`
	// Window is how long traffic at twice the limit lasts before it is
	// reported; at five times the limit, a quarter of it.
	Window time.Duration `yaml:"window"`
	// MinSamples is how many sampled packets beyond the limit a report needs.
	MinSamples float64 `yaml:"min_samples"`
	// MinSources is how many distinct sources a flood needs whose kind of packet
	// single hosts send in quantity too (UDP, GRE, ACK, amplification).
	MinSources uint64 `yaml:"min_sources"`
	// Reflectors is how many distinct amplifiers answering one address at once
	// are reported whatever their rate.
	Reflectors uint64 `yaml:"reflectors"`
	// Quiet is how long a flood must have been below its limit to be over.
	Quiet time.Duration `yaml:"quiet"`
	// Update is how often a flood that goes on is reported again.
	Update time.Duration `yaml:"update"`
	// MaxPerMinute is how many floods may begin in a minute; more are counted
	// and reported as one "sampling suspect".
	MaxPerMinute int `yaml:"max_per_minute"`
	// MaxHosts, MaxSuspects and MaxSenders bound memory: entries of addresses
	// (32 octets each), suspects (about 20 kB each), and senders told apart in
	// one flood from inside.
	MaxHosts    int `yaml:"max_hosts"`
	MaxSuspects int `yaml:"max_suspects"`
	MaxSenders  int `yaml:"max_senders"`
}

func defaults() any {
	return &Config{
		HostPPS: 20_000, HostBPS: 2e9, Window: 500 * time.Millisecond, MinSamples: 20, MinSources: 10, Reflectors: 300,
		Quiet: 30 * time.Second, Update: 5 * time.Second, MaxPerMinute: 60,
		MaxHosts: 10_000_000, MaxSuspects: 2048, MaxSenders: 131_072,
	}
}

func (c *Config) check() error {
	switch {
	case c.HostPPS <= 0 || c.HostBPS <= 0:
		return errors.New("host_pps and host_bps must be above 0")
	case c.Window < 100*time.Millisecond || c.Window > 10*time.Second:
		return errors.New("window must be 100ms to 10s")
	case c.MaxHosts < 1 || c.MaxSuspects < 1 || c.MaxSenders < 1:
		return errors.New("max_hosts, max_suspects and max_senders must be above 0")
	}
	return nil
}

// side is on which end of an object its traffic is watched.
type side uint8

const (
	inbound  side = iota // an own address, or any when own networks aren't known
	prefix               // an own prefix
	outbound             // an address outside, for what own hosts send it
)

// Detector is the flood detector of one shard.
type Detector struct {
	cfg    *Config
	net    *network.Table
	limits []limit // by network index; 0 is the default

	hosts, prefixes, outside *hosttable.Table
	suspects                 []*suspect // by slot; 0 is none
	free                     []int32
	suspected                bitmap // which addresses may be suspects
	wide                     [2][len(levels4)]int

	now     event.Time
	refused uint64 // suspects there was no room for
	swept   event.Time
	begun   []event.Time // when the latest floods began, within a minute
	crowd   *crowd
}

type limit struct{ pps, bps float64 }

// levels4 and levels6 are the prefixes watched, narrowest first, and factors
// their limits in terms of a host's: many households share what one may use.
var (
	levels4 = [...]int{24, 22, 20, 16}
	levels6 = [...]int{56, 48, 40, 32}
	factors = [...]float64{2, 4, 8, 16}
)

func newDetector(env detect.Env) (detect.Detector, error) {
	cfg := env.Config.(*Config)
	if err := cfg.check(); err != nil {
		return nil, err
	}
	const idle = 3000 // ticks: five minutes
	d := &Detector{
		cfg: cfg, net: env.Network,
		hosts:    hosttable.New(cfg.MaxHosts, idle, env.Seed),
		prefixes: hosttable.New(max(cfg.MaxHosts/8, 1024), idle, env.Seed),
		outside:  hosttable.New(max(cfg.MaxHosts/8, 1024), idle, env.Seed),
		suspects: []*suspect{nil},
	}
	for i := range uint32(env.Network.Len()) {
		l := limit{cfg.HostPPS, cfg.HostBPS}
		if n := env.Network.At(i); n != nil {
			if n.HostPPS > 0 {
				l.pps = float64(n.HostPPS)
			}
			if n.HostBPS > 0 {
				l.bps = float64(n.HostBPS)
			}
		}
		d.limits = append(d.limits, l)
	}
	return d, nil
}

// tick is the clock of entries, in buckets; never 0.
func tick(t event.Time) uint32 { return uint32(bucketOf(t)) | 1 }

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
		f := &b.Flows[i]
		if f.Marks&event.Tunnelled != 0 {
			continue
		}
		d.now = max(d.now, f.Seen)
		if f.Marks&event.ForDst != 0 {
			switch {
			case !known || f.DstNet != 0:
				d.inwards(b, f, report)
			case f.SrcNet != 0:
				d.outwards(b, f, report)
			}
		}
		if f.Marks&event.ForSrc != 0 {
			key := hostKey(&f.Src)
			if d.suspected.has(&key) {
				d.answer(&key, f)
			}
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

// drain lets level leak at half the limit since it was last touched.
func drain(level float32, perBucket float64, before, now uint32) float32 {
	if now > before {
		level -= float32(perBucket / 2 * float64(now-before))
	}
	return max(level, 0)
}

// amplifiedWeight makes an object suspect early when amplifiers answer it: a
// real attack of 4,000 packets is over in a fortieth of a second.
const amplifiedWeight = 40

// weight is what a flow counts towards suspicion.
func weight(c class, f *event.Flow) float32 {
	switch {
	case c.ordinary():
		return 0
	case c >= amplified:
		return amplifiedWeight * float32(f.Packets)
	}
	return float32(f.Packets)
}

// inwards counts a flow towards an own address and its prefixes.
func (d *Detector) inwards(b *event.Batch, f *event.Flow, report func(*finding.Finding)) {
	c, now := classify(f), tick(d.now)
	l := d.limits[f.DstNet]
	key := hostKey(&f.Dst)
	w := weight(c, f)
	e, before := d.hosts.Get(&key, now)
	e.Level = drain(e.Level, l.pps*bucketSeconds, before, now) + w
	e.Bits = drain(e.Bits, l.bps*bucketSeconds, before, now) + float32(f.Bytes*8)
	if e.Slot == 0 && (float64(e.Level) > d.trigger(l.pps, f) || float64(e.Bits) > 2*l.bps*bucketSeconds && e.Bits > float32(f.Bytes*8)) {
		e.Slot = d.suspect(key, 0, inbound, f.DstNet, l)
	}
	if e.Slot != 0 {
		d.add(e.Slot, c, b, f, report)
	}
	if w > 0 {
		d.inPrefix(b, f, c, w, l, report)
	}
}

// trigger is the level at which an object becomes a suspect: a tenth of a
// second at the limit, and at least a few samples.
func (d *Detector) trigger(pps float64, f *event.Flow) float64 {
	return max(pps*bucketSeconds, 4*float64(f.Sampling))
}

// prefixKey is the key of the i-th level's prefix of a.
func prefixKey(a *event.Addr, i int) (event.Addr, int) {
	if a.Is4() {
		k := a.Masked(levels4[i])
		k[0] = byte(levels4[i])
		return k, levels4[i]
	}
	k := a.Masked(levels6[i])
	k[15] = byte(levels6[i])
	return k, levels6[i]
}

// inPrefix counts a flow towards the prefixes of its destination. The narrowest
// is counted for each flow; the wider ones get its sum once in a bucket.
func (d *Detector) inPrefix(b *event.Batch, f *event.Flow, c class, w float32, l limit, report func(*finding.Finding)) {
	now := tick(d.now)
	family := 0
	if !f.Dst.Is4() {
		family = 1
	}
	key, bits := prefixKey(&f.Dst, 0)
	e, before := d.prefixes.Get(&key, now)
	pending := e.Bits
	if before != now {
		e.Bits = 0
	}
	e.Bits += w
	pl := limit{l.pps * factors[0], l.bps * factors[0]}
	e.Level = drain(e.Level, pl.pps*bucketSeconds, before, now) + w
	if e.Slot == 0 && float64(e.Level) > d.trigger(pl.pps, f) {
		e.Slot = d.suspect(f.Dst.Masked(bits), bits, prefix, f.DstNet, pl)
	}
	if e.Slot != 0 {
		d.add(e.Slot, c, b, f, report)
	}
	for i := 1; i < len(factors); i++ {
		if before == now && d.wide[family][i] == 0 {
			continue
		}
		key, bits := prefixKey(&f.Dst, i)
		pl := limit{l.pps * factors[i], l.bps * factors[i]}
		e, last := d.prefixes.Get(&key, now)
		if before != now && before != 0 {
			e.Level = drain(e.Level, pl.pps*bucketSeconds, last, now) + pending
			if e.Slot == 0 && float64(e.Level) > d.trigger(pl.pps, f) {
				if e.Slot = d.suspect(f.Dst.Masked(bits), bits, prefix, f.DstNet, pl); e.Slot != 0 {
					d.wide[family][i]++
				}
			}
		}
		if e.Slot != 0 {
			d.add(e.Slot, c, b, f, report)
		}
	}
}

// outwards counts a flow from an own host to an address outside.
func (d *Detector) outwards(b *event.Batch, f *event.Flow, report func(*finding.Finding)) {
	c := classify(f)
	w := weight(c, f)
	if w == 0 && f.Proto != event.TCP {
		return
	}
	key := hostKey(&f.Dst)
	l, now := d.limits[0], tick(d.now)
	if w == 0 { // ordinary TCP only matters beside SYNs to the same address
		if d.suspected.has(&key) {
			if e := d.outside.Find(&key); e != nil && e.Slot != 0 {
				d.add(e.Slot, c, b, f, report)
			}
		}
		return
	}
	e, before := d.outside.Get(&key, now)
	e.Level = drain(e.Level, l.pps*bucketSeconds, before, now) + w
	if e.Slot == 0 && float64(e.Level) > d.trigger(l.pps, f) {
		e.Slot = d.suspect(key, 0, outbound, 0, l)
	}
	if e.Slot != 0 {
		d.add(e.Slot, c, b, f, report)
	}
}

// answer notes what a suspect sends. Resets and ICMP errors are no answers:
// they are what a victim's stack says to strangers.
func (d *Detector) answer(key *event.Addr, f *event.Flow) {
	if f.Proto == event.TCP && f.TCPFlags&event.RST != 0 && f.TCPFlags&(event.SYN|event.FIN|event.PSH) == 0 || f.Proto == event.ICMP && f.DstPort>>8 == 3 {
		return
	}
	for _, t := range []*hosttable.Table{d.hosts, d.outside} {
		if e := t.Find(key); e != nil && e.Slot != 0 {
			s := d.suspects[e.Slot]
			s.age(d.now)
			s.outPackets += float64(f.Packets)
			s.outBytes += float64(f.Bytes)
		}
	}
}

// suspect opens the books of an object and returns their slot, or 0 when there
// is no room.
func (d *Detector) suspect(key event.Addr, bits int, at side, net uint32, l limit) int32 {
	if len(d.free) == 0 && len(d.suspects) > d.cfg.MaxSuspects {
		if d.sweep(5 * time.Second); len(d.free) == 0 {
			d.refused++
			return 0
		}
	}
	s := &suspect{key: key, bits: bits, side: at, net: net, limit: l, since: d.now, touched: d.now}
	if bits == 0 {
		d.suspected.set(&key)
	}
	if n := len(d.free); n > 0 {
		slot := d.free[n-1]
		d.free = d.free[:n-1]
		d.suspects[slot] = s
		return slot
	}
	d.suspects = append(d.suspects, s)
	return int32(len(d.suspects) - 1)
}

// sweep closes the books of suspects that did nothing remarkable for a while.
func (d *Detector) sweep(idle time.Duration) {
	if d.now.Sub(d.swept) < time.Second {
		return
	}
	d.swept = d.now
	closed := false
	for slot, s := range d.suspects {
		if s == nil || s.alarmed() || d.now.Sub(s.touched) < idle && d.now.Sub(max(s.remarkable, s.since)) < 10*idle {
			continue
		}
		d.close(int32(slot), s)
		closed = true
	}
	if closed { // the bitmap can't forget one by one
		d.suspected = bitmap{}
		for _, s := range d.suspects {
			if s != nil && s.bits == 0 {
				d.suspected.set(&s.key)
			}
		}
	}
}

func (d *Detector) close(slot int32, s *suspect) {
	var e *hosttable.Entry
	switch s.side {
	case inbound:
		e = d.hosts.Find(&s.key)
	case outbound:
		e = d.outside.Find(&s.key)
	case prefix:
		family, levels := 0, levels4[:]
		if !s.key.Is4() {
			family, levels = 1, levels6[:]
		}
		for i, bits := range levels {
			if bits == s.bits {
				key, _ := prefixKey(&s.key, i)
				e = d.prefixes.Find(&key)
				if i > 0 {
					d.wide[family][i]--
				}
			}
		}
	}
	if e != nil {
		e.Slot, e.Level = 0, 0
	}
	d.suspects[slot] = nil
	d.free = append(d.free, slot)
}

// Advance reports what has ended and forgets what is idle.
func (d *Detector) Advance(now event.Time, report func(*finding.Finding)) {
	for _, s := range d.suspects {
		if s == nil {
			continue
		}
		for _, v := range s.vectors {
			if v.id != (finding.ID{}) && !v.ended && now.Sub(v.over) > d.cfg.Quiet {
				v.ended = true
				d.report(s, v, v.last, report)
			}
		}
	}
	d.sweep(30 * time.Second)
	d.tellCrowd(now, report)
}

// Usage returns the state held.
func (d *Detector) Usage() detect.Usage {
	u := detect.Usage{
		Entries: d.hosts.Len() + d.prefixes.Len() + d.outside.Len(),
		Bytes:   d.hosts.Bytes() + d.prefixes.Bytes() + d.outside.Bytes(),
		Evicted: d.hosts.Evicted() + d.prefixes.Evicted() + d.outside.Evicted() + d.refused,
	}
	for _, s := range d.suspects {
		if s != nil {
			u.Bytes += s.size()
		}
	}
	return u
}
