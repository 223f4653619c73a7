package packet

import (
	"noroshi/event"
)

// datagram is an IP packet being taken apart. What its headers say goes straight
// to the flow: addresses that are built in pieces and then copied cost more than
// all the rest.
type datagram struct {
	f       *event.Flow
	body    []byte // what was captured of what follows the IP headers
	bodyLen int    // its length by the header
}

// parse takes p apart. wire is the length of p on the wire, for headers that
// leave it to the link (segmentation offload, jumbograms).
func (d *datagram) parse(p []byte, wire int) Reason {
	if len(p) == 0 {
		return Truncated
	}
	switch p[0] >> 4 {
	case 4:
		return d.parse4(p, wire)
	case 6:
		return d.parse6(p, wire)
	}
	return NotIP
}

// parse4 reads an IPv4 header (RFC 791).
func (d *datagram) parse4(p []byte, wire int) Reason {
	if len(p) < 20 {
		return Truncated
	}
	head := int(p[0]&15) * 4
	length := int(be.Uint16(p[2:]))
	if length == 0 {
		length = wire
	}
	if head < 20 || length < head {
		return BadHeader
	}
	f := d.f
	setFour(&f.Src, p[12:16])
	setFour(&f.Dst, p[16:20])
	f.TOS, f.TTL, f.Proto, f.Bytes = p[1], p[8], p[9], uint64(length)
	d.fragment(be.Uint16(p[6:])&0x1fff, p[6]&0x20 != 0)
	d.bodyLen = length - head
	p = p[:min(len(p), length)] // what follows is the link's padding
	d.body = p[min(head, len(p)):]
	return None
}

// setFour makes a the IPv4 address in the four octets of p.
func setFour(a *event.Addr, p []byte) {
	*a = event.Addr{10: 0xff, 11: 0xff}
	be.PutUint32(a[12:], be.Uint32(p))
}

// setSix makes a the address in the sixteen octets of p, from an IPv6 header.
// IPv4-mapped ones exist only inside hosts (RFC 4291, 2.5.5.2): a forged one must
// not pass for the IPv4 host it names, and is unknown.
func setSix(a *event.Addr, p []byte) {
	*a = event.Addr(p)
	if a.Is4() {
		*a = event.Addr{}
	}
}

// parse6 reads an IPv6 header and the extension headers behind it (RFC 8200).
func (d *datagram) parse6(p []byte, wire int) Reason {
	const head = 40
	if len(p) < head {
		return Truncated
	}
	length := head + int(be.Uint16(p[4:]))
	if length == head && wire > head && p[6] != 59 {
		length = wire
	}
	f := d.f
	setSix(&f.Src, p[8:24])
	setSix(&f.Dst, p[24:40])
	f.TOS, f.TTL, f.Bytes = p[0]<<4|p[1]>>4, p[7], uint64(length)
	proto := p[6]
	p = p[:min(len(p), length)]
	d.body, d.bodyLen = p[head:], length-head
	for range maxHeaders {
		size, offset := 0, uint16(0)
		body := d.body
		f.Proto = proto
		switch proto {
		case 0, 43, 60, 135, 139, 140: // hop-by-hop, routing, destination options, mobility, HIP, Shim6
			if len(body) >= 2 {
				size = 8 + 8*int(body[1])
			}
		case 51: // authentication header (RFC 4302)
			if len(body) >= 2 {
				size = 8 + 4*int(body[1])
			}
		case 44: // fragment
			if len(body) >= 8 {
				size = 8
				offset = be.Uint16(body[2:]) >> 3
				d.fragment(offset, body[3]&1 != 0)
			}
		default:
			return None
		}
		if size == 0 || size > len(body) { // cut off, or running past the end: the rest is unknown
			d.body, d.bodyLen = nil, 0
			return None
		}
		proto, d.body, d.bodyLen = body[0], body[size:], d.bodyLen-size
		if offset > 0 {
			f.Proto = proto
			return None // what follows is the middle of something
		}
	}
	return TooDeep
}

func (d *datagram) fragment(offset uint16, more bool) {
	switch {
	case offset > 0:
		d.f.Marks |= event.Fragment
	case more:
		d.f.Marks |= event.FirstFragment
	}
}

// record completes the flow and returns what follows the transport header.
func (d *datagram) record(at event.Time, marks event.Marks, keep int, b *event.Batch) (payload []byte) {
	f := d.f
	f.First, f.Last, f.Seen = at, at, at
	f.Packets, f.Sampling = 1, 1
	f.Marks |= event.OnePacket | marks
	if f.Marks&event.Fragment == 0 {
		payload = d.transport(f)
		if keep > 0 && len(payload) > 0 {
			f.Payload = b.AddText(payload[:min(len(payload), keep, event.MaxPayload)])
		}
	}
	return payload
}

// transport fills in what the transport header says and returns what follows it.
func (d *datagram) transport(f *event.Flow) (payload []byte) {
	p := d.body
	switch f.Proto {
	case event.TCP:
		return d.tcp(f)
	case event.UDP, 136: // UDP-Lite
		if len(p) < 4 {
			return nil
		}
		f.SrcPort, f.DstPort = be.Uint16(p), be.Uint16(p[2:])
		if len(p) < 8 {
			return nil
		}
		if n := int(be.Uint16(p[4:])); n >= 8 && n < len(p) {
			p = p[:n]
		}
		return p[8:]
	case 132, 33: // SCTP, DCCP
		if len(p) >= 4 {
			f.SrcPort, f.DstPort = be.Uint16(p), be.Uint16(p[2:])
		}
	case event.ICMP, event.ICMPv6:
		if len(p) < 2 {
			return nil
		}
		f.DstPort = be.Uint16(p) // type, code
		if len(p) < 8 {
			return nil
		}
		if f.Proto == event.ICMP && quotesMark(p) {
			f.Marks |= event.QuoteSeqIsDst
		}
		return p[8:]
	}
	return nil
}

// tcp reads a TCP header (RFC 9293, 3.1) as far as it was captured.
func (d *datagram) tcp(f *event.Flow) (payload []byte) {
	p := d.body
	if len(p) < 4 {
		return nil
	}
	f.SrcPort, f.DstPort = be.Uint16(p), be.Uint16(p[2:])
	if len(p) < 14 {
		return nil
	}
	f.TCPFlags = p[13]
	if len(p) >= 16 {
		f.Window = be.Uint16(p[14:])
	}
	offset := int(p[12]>>4) * 4
	honest := offset >= 20 && offset <= d.bodyLen
	if !honest {
		f.Marks |= event.BadOffset
	}
	if f.TCPFlags&(event.SYN|event.ACK) == event.SYN {
		if honest && offset == 20 {
			f.Marks |= event.NoOptions
		}
		if be.Uint32(p[4:]) == be.Uint32(f.Dst[12:]) && f.Dst.Is4() {
			f.Marks |= event.SeqIsDst
		}
	}
	if !honest || offset > len(p) {
		return nil
	}
	return p[offset:]
}

// quotesMark reports whether an ICMP error quotes a TCP packet whose sequence
// number is its destination. Eight octets of the quoted TCP header suffice
// (RFC 792), so the SYN flag isn't there to be seen.
func quotesMark(icmp []byte) bool {
	switch icmp[0] {
	case 3, 4, 5, 11, 12:
	default:
		return false
	}
	q := icmp[8:]
	if len(q) < 20 || q[0]>>4 != 4 || q[9] != event.TCP || be.Uint16(q[6:])&0x1fff != 0 {
		return false
	}
	head := int(q[0]&15) * 4
	return head >= 20 && len(q) >= head+8 && be.Uint32(q[head+4:]) == be.Uint32(q[16:])
}

// inner returns the packet a tunnel carries.
func (d *datagram) inner() ([]byte, bool) {
	switch d.f.Proto {
	case event.IPIP, event.IPv6:
		return d.body, d.f.Marks&event.Fragment == 0
	case event.GRE:
		if d.f.Marks&event.Fragment == 0 {
			ip, why := gre(d.body)
			return ip, why == None
		}
	}
	return nil, false
}

// gre returns the IP packet in GRE (RFC 2784, 2890), in PPTP's version of it
// (RFC 2637), or in an ERSPAN mirror.
func gre(p []byte) ([]byte, Reason) {
	if len(p) < 4 {
		return nil, Truncated
	}
	flags, et := be.Uint16(p), be.Uint16(p[2:])
	size := 4
	if flags&0xc000 != 0 { // checksum, routing
		size += 4
	}
	if flags&0x2000 != 0 { // key
		size += 4
	}
	if flags&0x1000 != 0 { // sequence
		size += 4
	}
	version := flags & 7
	if version == 1 && flags&0x80 != 0 { // acknowledgment
		size += 4
	}
	if et == 0x88be && flags&0x1000 != 0 { // ERSPAN II has a header of its own
		size += 8
	}
	if len(p) < size {
		return nil, Truncated
	}
	p = p[size:]
	switch {
	case version == 1 && et == 0x880b:
		return ppp(p)
	case version != 0:
		return nil, NotIP
	case et == 0x88be:
		return untag(etBridge, p)
	}
	return untag(et, p)
}
