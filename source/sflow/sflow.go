// Package sflow decodes sFlow version 5 (sflow.org, "sFlow Version 5", 2004): the
// headers of sampled packets, which package packet reads as it reads captures.
// That is what makes sFlow valuable here: the marks of bots are in headers, and
// a router's flow summary has lost them.
//
// An agent is known by the address in its datagrams and not by that of the
// socket: it may send from several addresses, and relays forward for many.
package sflow

import (
	"encoding/binary"
	"errors"
	"iter"
	"sync"

	"noroshi/event"
	"noroshi/source"
	"noroshi/source/packet"
)

var be = binary.BigEndian

// Config bounds and directs a Decoder. Zero values mean the defaults.
type Config struct {
	// MaxAgents bounds how many (agent, sub-agent) pairs are followed; default
	// 4,096, and sixteen times as many data sources. Samples of more are
	// decoded all the same, but their gaps aren't noticed.
	MaxAgents int
	// NoPayload leaves out the octets behind the transport header, which
	// otherwise go into Flow.Payload for TCP and ICMP.
	NoPayload bool
}

// The errors of Decode. What was whole in the datagram was decoded all the same.
var (
	ErrShort   = errors.New("sflow: datagram cut short")
	ErrVersion = errors.New("sflow: not version 5")
	ErrSample  = errors.New("sflow: malformed sample")
)

// Decoder holds the sequence numbers of the agents that one goroutine serves.
// Only Counts may be called while another method runs. Make one with NewDecoder.
type Decoder struct {
	cfg Config

	mu      sync.Mutex // held while an agent is added and while Counts lists them
	agents  map[agentKey]*agent
	sources int
	counts  counters

	last    *agent // of the last datagram
	lastKey agentKey
}

type agentKey struct {
	addr event.Addr
	sub  uint32
}

// agent is one (agent, sub-agent) with its own sequence of datagrams.
type agent struct {
	seq     uint32
	known   bool
	sources map[uint64]*dataSource
	counts  counters

	last   *dataSource // of the last sample
	lastID uint64
}

// dataSource is one interface, VLAN or whatever an agent samples.
type dataSource struct {
	seq, drops uint32
	known      bool
}

// NewDecoder returns a Decoder that knows no agent.
func NewDecoder(c Config) *Decoder {
	if c.MaxAgents == 0 {
		c.MaxAgents = 4096
	}
	return &Decoder{cfg: c, agents: map[agentKey]*agent{}}
}

// reader takes words from a datagram; once short, it stays so and gives zeros.
type reader struct {
	p     []byte
	short bool
}

func (r *reader) u32() uint32 {
	if len(r.p) < 4 {
		r.short = true
		return 0
	}
	v := be.Uint32(r.p)
	r.p = r.p[4:]
	return v
}

// take returns the next n octets and skips the padding to a multiple of four.
func (r *reader) take(n uint32) []byte {
	padded := (uint64(n) + 3) &^ 3
	if uint64(n) > uint64(len(r.p)) {
		r.short = true
		return nil
	}
	b := r.p[:n]
	r.p = r.p[min(padded, uint64(len(r.p))):]
	return b
}

// addr reads an address with its type before it.
func (r *reader) addr() (a event.Addr) {
	switch r.u32() {
	case 1:
		if b := r.take(4); b != nil {
			return event.AddrOf4([4]byte(b))
		}
	case 2:
		if b := r.take(16); b != nil {
			return event.Addr(b)
		}
	}
	return a
}

// Formats of samples and records, of enterprise 0.
const (
	flowSample      = 1
	countersSample  = 2
	expandedFlow    = 3
	expandedCounter = 4
	discardedPacket = 5

	rawHeader       = 1
	sampledIPv4     = 3
	sampledIPv6     = 4
	extendedGateway = 1003
)

// Decode appends the flows of the datagram p, which came from exporter at seen,
// to b, and returns their number. Each sampled packet is one flow of Packets =
// Sampling = the sampling rate and Bytes = the rate times the length of the IP
// packet; its times are seen, because sFlow carries none. A rate of 0 is taken
// as not known, and nothing is multiplied. Where the interface that sampled is the
// one by which the packet left, the flow is marked [event.Egress]. A packet inside a tunnel follows as a
// flow of its own, marked [event.Tunnelled].
func (d *Decoder) Decode(p []byte, exporter event.Addr, seen event.Time, b *event.Batch) (n int, err error) {
	r := reader{p: p}
	version, before := r.u32(), b.Len()
	if r.short {
		d.counts.add(refusedShort, 1)
		return 0, ErrShort
	}
	if version != 5 {
		d.counts.add(refusedVersion, 1)
		return 0, ErrVersion
	}
	addr := r.addr()
	sub, seq := r.u32(), r.u32()
	r.u32() // uptime
	samples := r.u32()
	if r.short {
		d.counts.add(refusedShort, 1)
		return 0, ErrShort
	}
	if addr == (event.Addr{}) || addr == event.AddrOf4([4]byte{}) {
		addr = exporter
	}
	a := d.agent(agentKey{addr, sub})
	c := &d.counts
	if a != nil {
		c = &a.counts
		a.follow(seq)
	} else {
		c.add(agentsRefused, 1)
	}
	c.add(datagrams, 1)
	s := sampler{d: d, agent: a, counts: c, addr: addr, seen: seen, batch: b}
	for range samples {
		kind := r.u32()
		body := r.take(r.u32())
		if r.short {
			c.add(samplesCut, 1)
			err = ErrShort
			break
		}
		if !s.sample(kind, body) {
			c.add(samplesBad, 1)
			err = ErrSample
		}
	}
	n = b.Len() - before
	c.add(flows, uint64(n))
	return n, err
}

// agent returns the agent, making it if there is room, else nil.
func (d *Decoder) agent(key agentKey) *agent {
	if d.last != nil && d.lastKey == key {
		return d.last
	}
	a := d.agents[key]
	if a == nil && len(d.agents) < d.cfg.MaxAgents {
		a = &agent{sources: map[uint64]*dataSource{}}
		d.mu.Lock()
		d.agents[key] = a
		d.mu.Unlock()
	}
	d.last, d.lastKey = a, key
	return a
}

// follow notes gaps in the numbers of datagrams.
func (a *agent) follow(seq uint32) {
	gap := seq - a.seq - 1
	switch {
	case !a.known, gap == 0:
	case gap < 1<<16:
		a.counts.add(lostDatagrams, uint64(gap))
	case -gap <= 64: // -gap is how far back; the network shuffles neighbours only
		a.counts.add(reordered, 1)
		return // the latest stays the latest
	default:
		a.counts.add(restarts, 1)
	}
	a.seq, a.known = seq, true
}

// sampler decodes the samples of one datagram.
type sampler struct {
	d      *Decoder
	agent  *agent
	counts *counters
	addr   event.Addr
	seen   event.Time
	batch  *event.Batch
	packet packet.Packet // the one being decoded
}

// sample decodes one sample and reports whether it was well formed.
func (s *sampler) sample(kind uint32, body []byte) bool {
	r := reader{p: body}
	switch kind {
	case flowSample, expandedFlow:
		return s.flow(&r, kind == expandedFlow)
	case countersSample, expandedCounter:
		s.counts.add(samplesCounters, 1)
	case discardedPacket:
		s.counts.add(samplesDiscards, 1)
	default:
		s.counts.add(samplesUnknown, 1)
	}
	return true
}

// sampled is what a flow sample says before its records.
type sampled struct {
	rate         uint32
	in, out      uint32
	egress       bool // the packet was sampled as it left
	srcAS, dstAS uint32
}

func (s *sampler) flow(r *reader, expanded bool) bool {
	// Sequence number, data source, rate, pool, drops, input, output, number of
	// records; expanded, the data source and the interfaces have two words each.
	const compactSize, expandedSize = 32, 44
	var m sampled
	var seq, drops, records uint32
	var id uint64
	switch p := r.p; {
	case !expanded && len(p) >= compactSize:
		h := p[:compactSize]
		seq, m.rate, drops, records = be.Uint32(h), be.Uint32(h[8:]), be.Uint32(h[16:]), be.Uint32(h[28:])
		src, in, out := be.Uint32(h[4:]), be.Uint32(h[20:]), be.Uint32(h[24:])
		id = uint64(src>>24)<<32 | uint64(src&0xffffff)
		m.in, m.out = port(in>>30, in&0x3fffffff), port(out>>30, out&0x3fffffff)
		r.p = p[compactSize:]
	case expanded && len(p) >= expandedSize:
		h := p[:expandedSize]
		seq, id, m.rate, drops, records = be.Uint32(h), be.Uint64(h[4:]), be.Uint32(h[12:]), be.Uint32(h[20:]), be.Uint32(h[40:])
		m.in, m.out = port(be.Uint32(h[24:]), be.Uint32(h[28:])), port(be.Uint32(h[32:]), be.Uint32(h[36:]))
		r.p = p[expandedSize:]
	default:
		return false
	}
	s.source(id, seq, drops)
	m.egress = sampledLeaving(id, m.in, m.out)
	first := s.batch.Len()
	var parsed []byte // a record of fields, used when there is no header
	parsedKind := uint32(0)
	header := false
	for range records {
		kind := r.u32()
		body := r.take(r.u32())
		if r.short {
			s.finish(first, &m)
			return false
		}
		switch kind {
		case rawHeader:
			header = s.header(body) || header
		case sampledIPv4, sampledIPv6:
			parsed, parsedKind = body, kind
		case extendedGateway:
			m.gateway(body)
		}
	}
	if !header {
		if parsed == nil || !s.fields(parsedKind, parsed) {
			s.counts.add(samplesNoIP, 1)
		}
	}
	s.finish(first, &m)
	return true
}

// port returns the ifIndex that an interface's format and value mean, or 0 when
// it is unknown, several, or none because the packet was dropped.
func port(format, value uint32) uint32 {
	if format != 0 || value == 0x3fffffff {
		return 0
	}
	return value
}

// sampledLeaving reports whether a packet that went from one interface to
// another was sampled at the second (sFlow v5, 5.3: the data source says where,
// and class 0 is an interface). Copies to several interfaces have none here.
func sampledLeaving(source uint64, in, out uint32) bool {
	const mostInterface = 1<<32 - 1
	at := uint32(source)
	return source <= mostInterface && at != in && (at == out || out == 0 && in != 0)
}

// maxSources bounds the data sources followed, per agent allowed.
const maxSources = 16

// source notes gaps in the numbers of samples, and samples the agent dropped
// because it was busy.
func (s *sampler) source(id uint64, seq, drops uint32) {
	if s.agent == nil {
		return
	}
	src := s.agent.last
	if src == nil || s.agent.lastID != id {
		if src = s.dataSource(id); src == nil {
			s.counts.add(sourcesRefused, 1)
			return
		}
		s.agent.last, s.agent.lastID = src, id
	}
	if src.known {
		if gap := seq - src.seq - 1; gap > 0 && gap < 1<<16 {
			s.counts.add(lostSamples, uint64(gap))
		}
		if more := drops - src.drops; more > 0 && more < 1<<24 {
			s.counts.add(droppedSamples, uint64(more))
		}
	}
	src.seq, src.drops, src.known = seq, drops, true
}

// dataSource returns the agent's data source, making it if there is room, else
// nil.
func (s *sampler) dataSource(id uint64) *dataSource {
	src := s.agent.sources[id]
	if src == nil && s.d.sources < maxSources*s.d.cfg.MaxAgents {
		src = new(dataSource)
		s.agent.sources[id] = src
		s.d.sources++
	}
	return src
}

// header decodes the sampled octets of a packet.
func (s *sampler) header(body []byte) bool {
	if len(body) < 16 {
		return false
	}
	protocol, frame, stripped, size := be.Uint32(body), be.Uint32(body[4:]), be.Uint32(body[8:]), be.Uint32(body[12:])
	data := body[16:]
	if uint64(size) > uint64(len(data)) {
		return false
	}
	data = data[:size]
	link, known := linkType(protocol)
	if !known {
		return false
	}
	// Field by field: a literal would be built elsewhere and copied.
	p := &s.packet
	p.Time, p.Link, p.Data = s.seen, link, data
	p.Wire = max(int(min(frame-min(stripped, frame), 1<<16)), len(data))
	n := s.batch.Len()
	res := packet.Decode(p, 0, s.batch)
	if frame > stripped { // an IP header may lie about its length, the switch knows
		for i := n; i < s.batch.Len(); i++ {
			f := &s.batch.Flows[i]
			f.Bytes = min(f.Bytes, uint64(p.Wire))
		}
	}
	if res.N > 0 && len(res.Payload) > 0 && !s.d.cfg.NoPayload {
		if f := &s.batch.Flows[n]; f.Proto == event.TCP || f.Proto == event.ICMP {
			f.Payload = s.batch.AddText(res.Payload[:min(len(res.Payload), event.MaxPayload)])
		}
	}
	return res.N > 0
}

// linkType returns the link type of one of sFlow's header protocols.
func linkType(protocol uint32) (packet.LinkType, bool) {
	switch protocol {
	case 1:
		return packet.Ethernet, true
	case 7:
		return packet.PPP, true
	case 11:
		return packet.IPv4, true
	case 12:
		return packet.IPv6, true
	case 13:
		return packet.MPLS, true
	}
	return 0, false
}

// fields makes a flow of a record of parsed fields.
func (s *sampler) fields(kind uint32, body []byte) bool {
	r := reader{p: body}
	length, proto := r.u32(), r.u32()
	var src, dst event.Addr
	if kind == sampledIPv4 {
		if a, b := r.take(4), r.take(4); !r.short {
			src, dst = event.AddrOf4([4]byte(a)), event.AddrOf4([4]byte(b))
		}
	} else if a, b := r.take(16), r.take(16); !r.short {
		src, dst = event.Addr(a), event.Addr(b)
	}
	sport, dport, flags, tos := r.u32(), r.u32(), r.u32(), r.u32()
	if r.short {
		return false
	}
	f := s.batch.NewFlow()
	f.First, f.Last, f.Seen = s.seen, s.seen, s.seen
	f.Src, f.Dst, f.Proto, f.TOS = src, dst, uint8(proto), uint8(tos)
	f.Bytes, f.Packets, f.Marks = uint64(length), 1, event.OnePacket
	switch f.Proto {
	case event.ICMP, event.ICMPv6: // the fields then hold type and code
		f.DstPort = uint16(sport&0xff)<<8 | uint16(dport&0xff)
	default:
		f.SrcPort, f.DstPort = uint16(sport), uint16(dport)
	}
	if f.Proto == event.TCP {
		f.TCPFlags = uint8(flags)
	}
	return true
}

// gateway reads the AS numbers of an extended gateway record.
func (m *sampled) gateway(body []byte) {
	r := reader{p: body}
	r.addr() // next hop
	r.u32()  // the router's own AS
	srcAS := r.u32()
	r.u32() // the source's neighbour
	dstAS := uint32(0)
	for range min(r.u32(), 64) {
		r.u32() // set or sequence
		path := r.take(4 * min(r.u32(), 1<<16))
		if r.short {
			return
		}
		if len(path) >= 4 {
			dstAS = be.Uint32(path[len(path)-4:])
		}
	}
	if !r.short {
		m.srcAS, m.dstAS = srcAS, dstAS
	}
}

// finish gives the flows from the first-th on what holds for the whole sample.
func (s *sampler) finish(first int, m *sampled) {
	for i := first; i < s.batch.Len(); i++ {
		f := &s.batch.Flows[i]
		f.Exporter, f.InIf, f.OutIf, f.SrcAS, f.DstAS = s.addr, m.in, m.out, m.srcAS, m.dstAS
		f.Sampling = m.rate
		if m.egress {
			f.Marks |= event.Egress
		}
		if m.rate > 1 {
			f.Packets *= uint64(m.rate)
			f.Bytes *= uint64(m.rate)
		}
	}
	if m.rate == 0 && s.batch.Len() > first {
		s.counts.add(flowsUnsampled, uint64(s.batch.Len()-first))
	}
}

// IsDatagram reports whether p looks like a whole sFlow datagram: its version,
// an agent address, and a chain of samples that ends where the datagram does.
// Few other datagrams pass, so recorded ones can be found on any port.
func IsDatagram(p []byte) bool {
	r := reader{p: p}
	if r.u32() != 5 {
		return false
	}
	if r.addr() == (event.Addr{}) {
		return false
	}
	r.u32()
	r.u32()
	r.u32()
	samples := r.u32()
	if r.short || samples == 0 || samples > 1000 {
		return false
	}
	for range samples {
		r.u32()
		size := r.u32()
		if size%4 != 0 || size < 8 {
			return false
		}
		if r.take(size); r.short {
			return false
		}
	}
	return len(r.p) == 0
}

// Counts returns every counter that isn't zero: of each agent and sub-agent in
// the order of their addresses, then those of none. It may be called at any
// time from any goroutine.
func (d *Decoder) Counts() iter.Seq[source.Count] { return d.allCounts }
