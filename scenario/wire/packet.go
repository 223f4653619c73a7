package wire

import (
	"noroshi/event"
)

// laterOffset is the offset, in units of eight octets, of a fragment behind one
// of 1,480 octets.
const laterOffset = 185

// noise is what fills packets whose content doesn't matter. It is always the
// same, so that equal records give equal octets.
var noise = func() (p [1 << 16]byte) {
	x := uint64(0x6e6f726f736869)
	for i := range p {
		if i%8 == 0 {
			x = event.Mix(x + 0x9e3779b97f4a7c15)
		}
		p[i] = byte(x>>(8*(i%8))) | 0x80 // never text
	}
	return p
}()

// appendPacket appends the first snap octets of the IP packet that f, a record of one
// packet, tells of. Its payload begins with the one given and goes on with noise.
func appendPacket(p []byte, f *event.Flow, payload string, snap int) []byte {
	start := len(p)
	length := int(counted(f.Bytes, f))
	number := uint32(event.Mix(uint64(f.Src.Four())<<32|uint64(f.Dst.Four())) ^ uint64(f.SrcPort)<<16 ^ uint64(f.Seen))
	if f.Src.Is4() {
		p = append(p, 0x45, f.TOS)
		p = be.AppendUint16(p, uint16(length))
		offset := uint16(0)
		if f.Has(event.Fragment) {
			offset = laterOffset
		}
		p = be.AppendUint16(be.AppendUint16(p, uint16(number>>16)), offset)
		p = append(p, f.TTL, f.Proto, 0, 0)
		p = be.AppendUint32(be.AppendUint32(p, f.Src.Four()), f.Dst.Four())
		be.PutUint16(p[start+10:], ^sum16(0, p[start:]))
	} else {
		next, size := f.Proto, uint16(length-40)
		p = append(p, 0x60|f.TOS>>4, f.TOS<<4, 0, 0)
		p = be.AppendUint16(p, size)
		p = append(p, next, f.TTL)
		p = append(append(p, f.Src[:]...), f.Dst[:]...)
		if f.Has(event.Fragment) {
			p[start+6] = 44
			p = append(p, next, 0)
			p = be.AppendUint16(p, laterOffset<<3)
			p = be.AppendUint32(p, number)
		}
	}
	body := len(p)
	if !f.Has(event.Fragment) {
		p = appendTransport(p, f, length-(body-start), number)
	}
	p = append(p, payload...)
	if rest := length - (len(p) - start); rest > 0 {
		p = append(p, noise[number&0xfff:][:min(rest, snap)]...)
	}
	p = p[:min(len(p), start+length)]
	if len(p)-start == length && !f.Has(event.Fragment) {
		checksum(p[start:], p[body:], f)
	}
	return p[:min(len(p), start+snap)]
}

// appendTransport appends the transport header of a packet with room octets
// behind its IP header.
func appendTransport(p []byte, f *event.Flow, room int, number uint32) []byte {
	switch f.Proto {
	case event.TCP:
		size := 20
		switch {
		case f.Has(event.NoOptions):
		case f.TCPFlags&event.SYN != 0:
			size = max(min(40, room&^3), 20)
		case room >= 32 && f.TCPFlags&event.RST == 0:
			size = 32
		}
		seq := number
		switch {
		case f.Has(event.SeqIsDst):
			seq = f.Dst.Four()
		case seq == f.Dst.Four():
			seq++
		}
		ack := uint32(0)
		if f.TCPFlags&event.ACK != 0 {
			ack = ^number
		}
		p = be.AppendUint16(be.AppendUint16(p, f.SrcPort), f.DstPort)
		p = be.AppendUint32(be.AppendUint32(p, seq), ack)
		p = append(p, byte(size/4)<<4, f.TCPFlags)
		p = be.AppendUint16(p, f.Window)
		p = append(p, 0, 0, 0, 0)
		switch full := []byte{2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 7}; {
		case f.TCPFlags&event.SYN != 0 && size == 40:
			p = append(p, full...)
		case f.TCPFlags&event.SYN != 0 && size > 20:
			p = append(p, full[:4]...)
			for range size - 24 {
				p = append(p, 1)
			}
		case size == 32:
			p = append(p, 1, 1, 8, 10, 0, 1, 2, 3, 0, 4, 5, 6)
		}
	case event.UDP:
		p = be.AppendUint16(be.AppendUint16(p, f.SrcPort), f.DstPort)
		p = append(be.AppendUint16(p, uint16(max(room, 8))), 0, 0)
	case event.ICMP, event.ICMPv6:
		p = be.AppendUint16(p, f.DstPort) // type, code
		p = append(p, 0, 0, 0x1d, 7)
		p = be.AppendUint16(p, uint16(number))
	case event.GRE: // with a packet inside, as Mirai sends
		inner := room - 4
		p = append(p, 0, 0, 8, 0, 0x45, 0)
		at := len(p) - 2
		p = be.AppendUint16(p, uint16(inner))
		p = append(p, byte(number>>8), byte(number), 0, 0, 64, event.UDP, 0, 0)
		p = be.AppendUint32(be.AppendUint32(p, number|1<<24), f.Dst.Four())
		be.PutUint16(p[at+10:], ^sum16(0, p[at:]))
		p = be.AppendUint32(p, number)
		p = append(be.AppendUint16(p, uint16(inner-20)), 0, 0)
	}
	return p
}

// checksum fills in the checksum of a whole packet's transport part.
func checksum(packet, body []byte, f *event.Flow) {
	at, s := 0, uint32(0)
	switch f.Proto {
	case event.TCP:
		at = 16
	case event.UDP:
		at = 6
	case event.ICMP, event.ICMPv6:
		at = 2
	default:
		return
	}
	if f.Proto != event.ICMP { // pseudo header
		addrs := packet[12:20]
		if !f.Src.Is4() {
			addrs = packet[8:40]
		}
		s = uint32(sum16(uint32(f.Proto)+uint32(len(body)), addrs))
	}
	if len(body) < at+2 {
		return
	}
	c := ^sum16(s, body)
	if c == 0 && f.Proto == event.UDP {
		c = 0xffff
	}
	be.PutUint16(body[at:], c)
}

// sum16 is the ones' complement sum of RFC 1071, begun with s.
func sum16(s uint32, p []byte) uint16 {
	for ; len(p) >= 2; p = p[2:] {
		s += uint32(be.Uint16(p))
	}
	if len(p) == 1 {
		s += uint32(p[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
