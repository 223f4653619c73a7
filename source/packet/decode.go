// Package packet decodes packets: from captures, from a live link, and from the
// headers that sFlow samples carry. One decoder serves all three, so a mark that
// gives a bot away is found wherever its packet was seen.
//
// The decoder is tolerant. Packets of real bots lie about their header lengths,
// and captures are cut short; what can be read becomes a record, and marks say
// what was odd.
package packet

import (
	"encoding/binary"

	"noroshi/event"
)

var be = binary.BigEndian

// LinkType says with which header a packet begins: a LINKTYPE_ value of the
// registry at tcpdump.org.
type LinkType uint16

// The link types that are understood.
const (
	Null       LinkType = 0   // BSD loopback: address family in the capturing machine's byte order
	Ethernet   LinkType = 1   // IEEE 802.3
	PPP        LinkType = 9   // RFC 1661, perhaps in HDLC-like framing (RFC 1662)
	rawBSD     LinkType = 12  // DLT_RAW of most systems, met in files
	rawOpenBSD LinkType = 14  // DLT_RAW of OpenBSD
	PPPoE      LinkType = 51  // RFC 2516 session
	Raw        LinkType = 101 // IPv4 or IPv6
	Loop       LinkType = 108 // OpenBSD loopback: address family in network byte order
	LinuxSLL   LinkType = 113 // Linux cooked capture
	MPLS       LinkType = 219 // RFC 3032
	IPv4       LinkType = 228
	IPv6       LinkType = 229
	LinuxSLL2  LinkType = 276 // Linux cooked capture, version 2
)

// Packet is one packet as it was captured.
type Packet struct {
	Time event.Time
	Link LinkType
	Data []byte // what was captured of it; valid until its reader's next call
	Wire int    // length on the wire, link header included, in octets; at least len(Data)
}

// Reason says why a packet became no record, or why nothing follows its
// network header.
type Reason uint8

// The reasons.
const (
	None        Reason = iota // all is well
	Truncated                 // too little was captured
	NotIP                     // ARP, LLDP, spanning tree and the like
	UnknownLink               // a link type that is not understood
	BadHeader                 // an IP header that contradicts itself
	TooDeep                   // more tags, labels or extension headers than any network has
	NumReasons  int    = iota
)

func (r Reason) String() string {
	return [...]string{"", "truncated", "not IP", "unknown link type", "bad IP header", "too many headers"}[r]
}

// Result is what Decode found.
type Result struct {
	N       int    // records appended: 0, 1, or 2 with the packet inside a tunnel
	Reason  Reason // why none, or None
	Payload []byte // what follows the outer transport header, within Packet.Data
}

// maxHeaders bounds tags, labels and extension headers, each.
const maxHeaders = 10

// Decode appends the record of p to b. The packet inside GRE, IP in IP or 6in4
// becomes a second one, marked [event.Tunnelled]; its volume is in the first,
// so that a flood of GRE stays one of GRE. At most keep octets of what follows
// the transport header (for ICMP, its 8 octets) are copied into Flow.Payload.
//
// Bytes is the length of the IP packet by its header. Sampling is 1, Exporter
// zero, and all times are p.Time. Decode keeps no state and allocates nothing
// but what b needs to grow.
func Decode(p *Packet, keep int, b *event.Batch) Result {
	ip, why := link(p.Link, p.Data)
	if why != None {
		return Result{Reason: why}
	}
	wire := len(ip) + max(p.Wire-len(p.Data), 0)
	d := datagram{f: b.NewFlow()}
	if why := d.parse(ip, wire); why != None {
		b.Truncate(b.Len() - 1)
		return Result{Reason: why}
	}
	payload := d.record(p.Time, 0, keep, b)
	if inner, ok := d.inner(); ok {
		return Result{N: 1 + decodeInner(inner, p.Time, keep, b), Payload: payload}
	}
	return Result{N: 1, Payload: payload}
}

// decodeInner appends the record of the packet inside a tunnel, if it is one, and
// returns how many it appended.
func decodeInner(ip []byte, at event.Time, keep int, b *event.Batch) int {
	d := datagram{f: b.NewFlow()}
	if d.parse(ip, len(ip)) != None {
		b.Truncate(b.Len() - 1)
		return 0
	}
	d.record(at, event.Tunnelled, keep, b)
	return 1
}

// Ethernet types and PPP protocols.
const (
	etIPv4   = 0x0800
	etIPv6   = 0x86dd
	etMPLS   = 0x8847
	etMPLSup = 0x8848
	etBridge = 0x6558 // Transparent Ethernet Bridging
	pppIPv4  = 0x0021
	pppIPv6  = 0x0057
	pppMPLS  = 0x0281
)

// link returns the IP packet inside a frame.
func link(l LinkType, p []byte) ([]byte, Reason) {
	switch l {
	case Ethernet:
		if len(p) < 14 {
			return nil, Truncated
		}
		if p[12] == etIPv4>>8 && p[13] == 0 { // most frames
			return nibble(p[14:])
		}
		return untag(be.Uint16(p[12:]), p[14:])
	case Raw, rawBSD, rawOpenBSD, IPv4, IPv6:
		return nibble(p)
	case Null, Loop:
		if len(p) < 5 {
			return nil, Truncated
		}
		return nibble(p[4:]) // the family says no more than the first nibble
	case LinuxSLL:
		if len(p) < 16 {
			return nil, Truncated
		}
		return untag(be.Uint16(p[14:]), p[16:])
	case LinuxSLL2:
		if len(p) < 20 {
			return nil, Truncated
		}
		return untag(be.Uint16(p), p[20:])
	case PPP:
		return ppp(p)
	case PPPoE:
		return untag(0x8864, p)
	case MPLS:
		return untag(etMPLS, p)
	}
	return nil, UnknownLink
}

// nibble returns p if it begins like an IP packet.
func nibble(p []byte) ([]byte, Reason) {
	if len(p) == 0 {
		return nil, Truncated
	}
	if v := p[0] >> 4; v != 4 && v != 6 {
		return nil, NotIP
	}
	return p, None
}

// untag strips what stands between an Ethernet type and the IP packet.
func untag(et uint16, p []byte) ([]byte, Reason) {
	for range maxHeaders {
		switch et {
		case etIPv4, etIPv6:
			return nibble(p)
		case 0x8100, 0x88a8, 0x9100, 0x9200: // VLAN: 802.1Q, 802.1ad, and older QinQ
			if len(p) < 4 {
				return nil, Truncated
			}
			et, p = be.Uint16(p[2:]), p[4:]
		case etMPLS, etMPLSup:
			var why Reason
			if p, why = unlabel(p); why != None {
				return nil, why
			}
			if p[0]>>4 == 4 || p[0]>>4 == 6 {
				return p, None
			}
			if p[0]>>4 != 0 || len(p) < 18 { // a pseudowire's control word (RFC 4385)
				return nil, NotIP
			}
			et, p = be.Uint16(p[16:]), p[18:]
		case 0x8864: // PPPoE session
			if len(p) < 8 {
				return nil, Truncated
			}
			return ppp(p[6:])
		case etBridge:
			if len(p) < 14 {
				return nil, Truncated
			}
			et, p = be.Uint16(p[12:]), p[14:]
		case 0x88e7: // provider backbone bridging (802.1ah): I-tag, then a frame
			if len(p) < 18 {
				return nil, Truncated
			}
			et, p = be.Uint16(p[16:]), p[18:]
		default:
			if et >= 0x0600 {
				return nil, NotIP
			}
			// 802.3: a length, then LLC, perhaps with SNAP (RFC 1042).
			switch {
			case len(p) < 8:
				return nil, Truncated
			case p[0] == 0xaa && p[1] == 0xaa && p[2] == 3:
				et, p = be.Uint16(p[6:]), p[8:]
			case p[0] == 6 && p[1] == 6 && p[2] == 3:
				return nibble(p[3:])
			default:
				return nil, NotIP
			}
		}
	}
	return nil, TooDeep
}

// unlabel strips MPLS labels to the bottom of the stack; at least one octet is
// left.
func unlabel(p []byte) ([]byte, Reason) {
	for range maxHeaders {
		if len(p) < 5 {
			return nil, Truncated
		}
		bottom := p[2]&1 != 0
		p = p[4:]
		if bottom {
			return p, None
		}
	}
	return nil, TooDeep
}

// ppp strips PPP's protocol field, which may be compressed to one octet and
// stand behind HDLC's address and control.
func ppp(p []byte) ([]byte, Reason) {
	if len(p) >= 2 && p[0] == 0xff && p[1] == 3 {
		p = p[2:]
	}
	if len(p) < 3 {
		return nil, Truncated
	}
	proto := be.Uint16(p)
	if p[0]&1 != 0 {
		proto, p = uint16(p[0]), p[1:]
	} else {
		p = p[2:]
	}
	switch proto {
	case pppIPv4, pppIPv6:
		return nibble(p)
	case pppMPLS:
		return untag(etMPLS, p)
	}
	return nil, NotIP
}
