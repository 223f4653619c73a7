package packet

import (
	"net/netip"

	"noroshi/event"
)

// The tests write packets as nested calls, outermost header first.

func cat(parts ...[]byte) (p []byte) {
	for _, x := range parts {
		p = append(p, x...)
	}
	return p
}

func u16(v ...uint16) (p []byte) {
	for _, x := range v {
		p = be.AppendUint16(p, x)
	}
	return p
}

func eth(et uint16, p ...[]byte) []byte { return cat(make([]byte, 12), u16(et), cat(p...)) }

func vlan(id, et uint16, p ...[]byte) []byte { return cat(u16(id, et), cat(p...)) }

func label(bottom bool, p ...[]byte) []byte {
	l := []byte{0, 1, 0x10, 64}
	if bottom {
		l[2] |= 1
	}
	return cat(l, cat(p...))
}

// ip4 is 192.0.2.1 to 198.51.100.2 with TTL 60; frag is the fragment word.
func ip4(proto byte, frag uint16, p ...[]byte) []byte {
	body := cat(p...)
	h := cat([]byte{0x45, 0x10}, u16(uint16(20+len(body)), 1, frag), []byte{60, proto, 0, 0}, []byte{192, 0, 2, 1, 198, 51, 100, 2})
	return cat(h, body)
}

// ip6 is 2001:db8::1 to 2001:db8::2.
func ip6(next byte, p ...[]byte) []byte {
	body := cat(p...)
	src, dst := netip.MustParseAddr("2001:db8::1").As16(), netip.MustParseAddr("2001:db8::2").As16()
	return cat([]byte{0x60, 0, 0, 0}, u16(uint16(len(body))), []byte{next, 61}, src[:], dst[:], body)
}

// tcp is port 1111 to 23.
func tcp(seq uint32, offset, flags byte, p ...[]byte) []byte {
	return cat(u16(1111, 23), be.AppendUint32(nil, seq), make([]byte, 4), []byte{offset << 4, flags}, u16(5840, 0, 0), cat(p...))
}

// udp is port 53 to 5353.
func udp(p ...[]byte) []byte {
	body := cat(p...)
	return cat(u16(53, 5353, uint16(8+len(body)), 0), body)
}

const mark = 198<<24 | 51<<16 | 100<<8 | 2 // ip4's destination as a number

// decode decodes one frame into a batch of its own.
func decode(l LinkType, data []byte) (*event.Batch, Result) {
	var b event.Batch
	res := Decode(&Packet{Time: 1e9, Link: l, Data: data, Wire: len(data)}, event.MaxPayload, &b)
	return &b, res
}
