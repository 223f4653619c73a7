package scenario

import (
	"math"
	"math/rand/v2"
	"time"

	"noroshi/event"
)

// stream is packets from one host to another with the same ports: what a flow
// cache would put into one flow if it lasted for ever.
type stream struct {
	src, dst     event.Addr
	sport, dport uint16 // of ICMP, dport is type<<8|code
	proto        uint8
	first, last  event.Time
	packets      uint64
	// size is the length of the IP packets; those of the first and last are
	// open and end where these aren't 0.
	size, open, end uint16
	// TCP flags of the first, the last and all other packets.
	opening, closing, flags uint8
	// backoff: the packets are tries after 0, 1, 3, 7 ... seconds.
	backoff bool

	ttl       uint8
	window    uint16
	marked    bool   // TCP sequence number == destination
	bare      bool   // no TCP options
	fragment  bool   // all packets are later fragments
	payload   string // of the packet payloadAt
	payloadAt uint64

	trace *Trace
}

// at is the time of the i-th packet.
func (s *stream) at(i uint64) event.Time {
	switch {
	case s.packets <= 1 || i == 0:
		return s.first
	case s.backoff:
		return s.first + event.Time((uint64(1)<<min(i, 10)-1)*1e9)
	}
	return s.first + event.Time(float64(s.last-s.first)*float64(i)/float64(s.packets-1))
}

// look returns the flags and the size of the i-th packet.
func (s *stream) look(i uint64) (flags uint8, size uint16) {
	flags, size = s.flags, s.size
	switch {
	case i == 0:
		flags = s.opening
		if s.open != 0 {
			size = s.open
		}
	case i == s.packets-1:
		flags = s.closing
		if s.end != 0 {
			size = s.end
		}
	}
	return flags, size
}

// watch is an exporter at work.
type watch struct {
	*Exporter
	index            int
	chance           *rand.Rand
	skip             uint64 // packets to let pass before the next is looked at
	meanGap          float64
	active, inactive event.Time
}

// gap draws how many packets pass between two that are looked at.
func (o *watch) gap() uint64 {
	if o.Sampling <= 1 {
		return 0
	}
	return uint64(o.chance.ExpFloat64() * o.meanGap) // rounded down it is geometric
}

// watching returns who reports packets between two addresses: the exporter of
// the own one, and of two, that of the source, because routers count what comes
// in. Nobody sees what passes outside.
func (w *world) watching(src, dst event.Addr) *watch {
	if n := w.table.Lookup(src); n != 0 {
		return w.watchOf[n]
	}
	if n := w.table.Lookup(dst); n != 0 {
		return w.watchOf[n]
	}
	return nil
}

// send lets a stream pass.
func (w *world) send(s stream) {
	if s.trace != nil {
		s.trace.sent(s.first, s.packets)
	}
	if o := w.watching(s.src, s.dst); o != nil && s.packets > 0 {
		s.lengthen()
		w.part(o, &s, 0)
	}
}

// lengthen makes the sizes, which are those of IPv4 packets, right for IPv6.
func (s *stream) lengthen() {
	if s.src.Is4() {
		return
	}
	for _, size := range []*uint16{&s.size, &s.open, &s.end} {
		if *size != 0 {
			*size += 20
		}
	}
}

// chosen lets a stream of one packet pass that is known to be one of those
// looked at: a flood of a hundred million packets a second is made of these.
func (w *world) chosen(s stream) {
	o := w.watching(s.src, s.dst)
	if o == nil {
		return
	}
	if s.trace != nil {
		s.trace.sent(s.first, uint64(o.Sampling))
	}
	s.lengthen()
	skip := o.skip
	o.skip = 0
	w.part(o, &s, 0)
	o.skip = skip
}

// v5Most keeps a flow's octets in the 32 bits of NetFlow v5.
const v5Most = 2_000_000

// part tells the stream from its i-th packet on, as far as the active timeout
// goes, and plans the rest.
func (w *world) part(o *watch, s *stream, i uint64) {
	j := s.packets
	if s.last-s.at(i) > o.active {
		share := float64(s.at(i)+o.active-s.first) / float64(s.last-s.first)
		j = min(max(uint64(share*float64(s.packets)), i+1), s.packets)
	}
	if o.Protocol == NetFlow5 {
		j = min(j, i+v5Most)
	}
	if o.Protocol.packets() {
		o.each(j-i, func(k uint64) { w.packet(o, s, i+k) })
	} else {
		w.summary(o, s, i, j)
	}
	if j < s.packets {
		rest := *s
		w.at(s.at(j), func() { w.part(o, &rest, j) })
	}
}

// each calls f with the number of each packet of n that is looked at.
func (o *watch) each(n uint64, f func(k uint64)) {
	if o.Sampling <= 1 {
		for k := range n {
			f(k)
		}
		return
	}
	for ; o.skip < n; o.skip += 1 + o.gap() {
		f(o.skip)
	}
	o.skip -= n
}

// sum is what a flow cache has gathered of a stream.
type sum struct {
	packets, octets uint64
	flags           uint8
	first, last     event.Time
}

func (c *sum) add(s *stream, i uint64) {
	flags, size := s.look(i)
	c.flags |= flags
	c.octets += uint64(size)
	c.last = s.at(i)
	if c.packets++; c.packets == 1 {
		c.first = c.last
	}
}

// summary tells of the packets i to j as one flow, or as several where those
// that are looked at are further apart than the inactive timeout.
func (w *world) summary(o *watch, s *stream, i, j uint64) {
	var c sum
	if o.Sampling <= 1 {
		c.add(s, i)
		if n := j - i; n > 2 {
			c.flags |= s.flags
			c.packets += n - 2
			c.octets += (n - 2) * uint64(s.size)
		}
		if j-i > 1 {
			c.add(s, j-1)
		}
	} else {
		o.each(j-i, func(k uint64) {
			if c.packets > 0 && s.at(i+k)-c.last > o.inactive {
				w.export(o, s, &c, o.inactive)
				c = sum{}
			}
			c.add(s, i+k)
		})
	}
	switch {
	case c.packets == 0:
	case c.flags&(event.FIN|event.RST) != 0 || j < s.packets: // over, or old enough
		w.export(o, s, &c, 0)
	default:
		w.export(o, s, &c, o.inactive)
	}
}

// export tells of what was gathered, after the wait and some time of the
// router's own.
func (w *world) export(o *watch, s *stream, c *sum, wait event.Time) {
	f, seen := w.keep(o, max(c.last+wait+event.Time(o.chance.Float64()*5e8), w.now), "")
	f.First, f.Last = c.first/1e6*1e6, c.last/1e6*1e6
	f.TCPFlags = c.flags
	f.Packets, f.Bytes = c.packets*uint64(f.Sampling), c.octets*uint64(f.Sampling)
	w.describe(f, s, o)
	if s.fragment {
		f.SrcPort, f.DstPort = 0, 0
		if o.Protocol == IPFIX {
			f.Marks |= event.Fragment
		}
	}
	if s.trace != nil {
		s.trace.told(seen, c.packets)
	}
}

// packet tells of the i-th packet.
func (w *world) packet(o *watch, s *stream, i uint64) {
	payload := ""
	if i == s.payloadAt {
		payload = s.payload
	}
	at := s.at(i)
	flags, size := s.look(i)
	f, seen := w.keep(o, max(at, w.now), payload)
	f.First, f.Last = seen, seen
	f.TCPFlags, f.TTL = flags, s.ttl
	if s.proto == event.TCP && !s.fragment {
		f.Window = s.window
	}
	if f.TTL == 0 {
		f.TTL = 57
	}
	f.Packets, f.Bytes = uint64(f.Sampling), uint64(size)*uint64(f.Sampling)
	f.Marks = event.OnePacket
	w.describe(f, s, o)
	switch {
	case s.fragment:
		f.SrcPort, f.DstPort = 0, 0
		f.Marks |= event.Fragment
	case s.proto == event.TCP && flags&(event.SYN|event.ACK) == event.SYN:
		if s.bare {
			f.Marks |= event.NoOptions
		}
		if s.marked {
			f.Marks |= event.SeqIsDst
		}
	}
	if s.trace != nil {
		s.trace.told(seen, 1)
	}
}

// describe fills in what all packets of a stream have in common.
func (w *world) describe(f *event.Flow, s *stream, o *watch) {
	f.Src, f.Dst, f.SrcPort, f.DstPort, f.Proto = s.src, s.dst, s.sport, s.dport, s.proto
	if o.Protocol == Packets {
		return
	}
	const uplink, access = 1, 100
	own := w.table.Lookup(s.src) != 0
	f.InIf, f.OutIf = uplink, access
	if own {
		f.InIf, f.OutIf = access, uplink
	}
	if o.Protocol != SFlow {
		f.SrcAS, f.DstAS = asOf(s.src, own), asOf(s.dst, !own)
	}
}

// asOf gives own addresses one AS number and those outside a few (RFC 5398).
func asOf(a event.Addr, own bool) uint32 {
	if own {
		return 64496
	}
	return 64497 + uint32(a[13]^a[14])%14
}

// talk is a conversation: what a client and a server send each other.
type talk struct {
	client, server event.Addr
	cport, sport   uint16
	proto          uint8
	start          event.Time
	lasts          time.Duration
	up, down       uint64 // packets
	upSize         uint16 // mean length of IP packets
	downSize       uint16
	outcome        outcome
	request        string // the client's first data
	trace          *Trace // of the client's packets
}

// outcome is how a TCP conversation goes.
type outcome uint8

const (
	closed     outcome = iota // established, data, FIN
	aborted                   // established, data, RST
	left                      // established, data, and then silence
	unanswered                // SYN, again after 1, 2, 4 s
	refused                   // SYN, RST
)

// Lengths of IPv4 packets of TCP with the usual options.
const (
	synSize = 60
	ackSize = 52
	rstSize = 40
)

// converse lets the packets of a conversation pass.
func (w *world) converse(t talk) {
	up := stream{
		src: t.client, dst: t.server, sport: t.cport, dport: t.sport, proto: t.proto, first: t.start,
		last: t.start.Add(t.lasts), packets: t.up, size: t.upSize, ttl: 60, window: 64240, payload: t.request, trace: t.trace,
	}
	delay := event.Time(5e6 + 1e6*int64(t.server[15]%64)) // the way there and back
	down := stream{
		src: t.server, dst: t.client, sport: t.sport, dport: t.cport, proto: t.proto, first: t.start + delay,
		last: t.start.Add(t.lasts) + delay, packets: t.down, size: t.downSize, ttl: 54, window: 65160,
	}
	if t.proto == event.TCP {
		up.payloadAt = 2
		up.opening, up.open, up.flags, up.closing, up.end = event.SYN, synSize, event.ACK|event.PSH, event.ACK, ackSize
		down.opening, down.open, down.flags, down.closing, down.end = event.SYN|event.ACK, synSize, event.ACK|event.PSH, event.ACK, ackSize
		switch t.outcome {
		case closed:
			up.closing, down.closing = event.FIN|event.ACK, event.FIN|event.ACK
		case aborted:
			up.closing, up.end = event.RST, rstSize
		case unanswered:
			up.packets, up.flags, up.closing, up.size, up.end, up.backoff = 4, event.SYN, event.SYN, synSize, synSize, true
			up.last = t.start + 7e9
			down.packets = 0
		case refused:
			up.packets, up.last = 1, t.start
			down.packets, down.opening, down.open, down.last = 1, event.RST|event.ACK, rstSize, down.first
		}
	}
	w.send(up)
	w.send(down)
}

// line is one turn of a dialog.
type line struct {
	after   event.Time // since the line before
	server  bool       // the server says it
	payload string
}

// dialog lets a TCP conversation pass packet by packet: hand-shake, lines, each
// acknowledged, and FINs. Where routers tell of flows, a silence longer than
// their timeout divides it.
func (w *world) dialog(client, server event.Addr, cport, sport uint16, start event.Time, lines []line, trace *Trace) (end event.Time) {
	type part struct {
		at      event.Time
		server  bool
		flags   uint8
		size    uint16
		payload string
	}
	const hop = event.Time(8e6)
	t := start
	parts := []part{
		{t, false, event.SYN, synSize, ""}, {t + hop, true, event.SYN | event.ACK, synSize, ""}, {t + 2*hop, false, event.ACK, ackSize, ""},
	}
	t += 2 * hop
	for _, l := range lines {
		t += l.after
		parts = append(parts, part{t, l.server, event.PSH | event.ACK, uint16(ackSize + len(l.payload)), l.payload},
			part{t + hop, !l.server, event.ACK, ackSize, ""})
		t += hop
	}
	parts = append(parts, part{t + hop, false, event.FIN | event.ACK, ackSize, ""}, part{t + 2*hop, true, event.FIN | event.ACK, ackSize, ""})

	o := w.watching(client, server)
	if o == nil {
		return t
	}
	silence := event.Time(math.MaxInt64) // packets stay packets
	if !o.Protocol.packets() {
		silence = o.inactive
	}
	var open [2]*stream
	flush := func(i int) {
		if s := open[i]; s != nil {
			w.at(s.first, func() { w.send(*s) })
			open[i] = nil
		}
	}
	var sum [2]uint64
	for _, p := range parts {
		i := 0
		s := stream{src: client, dst: server, sport: cport, dport: sport, ttl: 60, window: 64240, trace: trace}
		if p.server {
			i = 1
			s = stream{src: server, dst: client, sport: sport, dport: cport, ttl: 54, window: 65160}
		}
		s.proto, s.first, s.last, s.packets, s.size, s.opening, s.flags, s.closing = event.TCP, p.at, p.at, 1, p.size, p.flags, event.PSH|event.ACK, p.flags
		s.payload = p.payload
		if o.Protocol.packets() {
			w.at(s.first, func() { w.send(s) })
			continue
		}
		if old := open[i]; old != nil && p.at-old.last <= silence {
			old.last, old.closing = p.at, p.flags
			old.packets++
			sum[i] += uint64(p.size)
			old.size = uint16(sum[i] / old.packets)
			continue
		}
		flush(i)
		s.payload = ""
		sum[i] = uint64(p.size)
		open[i] = &s
	}
	flush(0)
	flush(1)
	return t
}
