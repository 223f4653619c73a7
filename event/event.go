// Package event defines the records that flow through noroshi.
//
// Every input, whatever its format, becomes one of a few plain structs; today
// there is [Flow]. Records travel in a [Batch]. They hold no pointers, so the
// garbage collector never looks inside a batch, and copying an event is copying
// memory. Bytes of variable length live in the batch's own buffer, and an event
// refers to them by [Text].
//
// The package imports only the standard library, and every other package may
// import it.
package event

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"time"
)

// Time is a moment in nanoseconds since 1970-01-01 00:00 UTC. Zero means
// unknown.
type Time int64

// TimeOf returns t as a Time; the zero time.Time gives 0.
func TimeOf(t time.Time) Time {
	if t.IsZero() {
		return 0
	}
	return Time(t.UnixNano())
}

// Std returns t as a time.Time in UTC.
func (t Time) Std() time.Time { return time.Unix(0, int64(t)).UTC() }

// Sub returns t-u.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }

// Add returns t+d.
func (t Time) Add(d time.Duration) Time { return t + Time(d) }

// String returns t as RFC 3339 with milliseconds in UTC, or "-" if unknown.
func (t Time) String() string {
	if t == 0 {
		return "-"
	}
	return t.Std().Format("2006-01-02T15:04:05.000Z")
}

// MarshalText returns t as RFC 3339 in UTC, to the nanosecond; nothing for 0.
func (t Time) MarshalText() ([]byte, error) {
	if t == 0 {
		return nil, nil
	}
	return t.Std().AppendFormat(nil, time.RFC3339Nano), nil
}

// UnmarshalText is the inverse of MarshalText.
func (t *Time) UnmarshalText(p []byte) error {
	if len(p) == 0 {
		*t = 0
		return nil
	}
	u, err := time.Parse(time.RFC3339Nano, string(p))
	*t = TimeOf(u)
	return err
}

// Addr is an IP address: 16 bytes of IPv6, or IPv4 in its mapped form
// ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). The zero Addr means unknown.
type Addr [16]byte

// AddrOf returns a as an Addr. A zone is dropped; the zero netip.Addr gives the
// zero Addr.
func AddrOf(a netip.Addr) Addr {
	if !a.IsValid() {
		return Addr{}
	}
	return a.As16()
}

// AddrOf4 returns the IPv4 address whose bytes in network order are b.
func AddrOf4(b [4]byte) (a Addr) {
	a[10], a[11] = 0xff, 0xff
	copy(a[12:], b[:])
	return a
}

// Is4 reports whether a is an IPv4 address.
func (a Addr) Is4() bool {
	return binary.LittleEndian.Uint64(a[:]) == 0 && binary.LittleEndian.Uint32(a[8:]) == 0xffff0000
}

// Four returns the four bytes of an IPv4 address as a number in network order;
// for an IPv6 address, its last four bytes.
func (a Addr) Four() uint32 { return binary.BigEndian.Uint32(a[12:]) }

// Std returns a as a netip.Addr; IPv4 comes back as a 4-byte address and the
// zero Addr as the zero netip.Addr.
func (a Addr) Std() netip.Addr {
	if a == (Addr{}) {
		return netip.Addr{}
	}
	return netip.AddrFrom16(a).Unmap()
}

// String returns the usual text form (RFC 5952 for IPv6), or "-" if unknown.
func (a Addr) String() string {
	if a == (Addr{}) {
		return "-"
	}
	return a.Std().String()
}

// Masked returns a with all bits after the first n cleared, where n counts the
// bits of the address's own family: 24 is a /24 in IPv4, 64 a /64 in IPv6.
func (a Addr) Masked(n int) Addr {
	if a.Is4() {
		n += 96
	}
	hi, lo := binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])
	if n < 64 {
		hi &= ^uint64(0) << (64 - n)
		lo = 0
	} else {
		lo &= ^uint64(0) << (128 - n) // a shift by 64 gives 0, by 0 everything
	}
	binary.BigEndian.PutUint64(a[:8], hi)
	binary.BigEndian.PutUint64(a[8:], lo)
	return a
}

// Hash returns a well-mixed 64-bit hash that differs for each seed. The seed is
// chosen at random when the program runs live, so that a sender can't choose
// the place its addresses take in a table.
func (a Addr) Hash(seed uint64) uint64 {
	lo := binary.LittleEndian.Uint64(a[0:8])
	hi := binary.LittleEndian.Uint64(a[8:16])
	h, l := bits.Mul64(lo^seed^0x9e3779b97f4a7c15, hi^bits.RotateLeft64(seed, 32)^0xd6e8feb86659fd93)
	return Mix(h ^ l ^ hi)
}

// Mix returns a well-mixed hash of one number (the finalizer of SplitMix64).
func Mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// IANA protocol numbers that noroshi treats by name.
const (
	ICMP   = 1
	IPIP   = 4
	TCP    = 6
	UDP    = 17
	IPv6   = 41
	GRE    = 47
	ESP    = 50
	ICMPv6 = 58
)

// TCP flags, as in the header (RFC 9293, 3.1).
const (
	FIN = 0x01
	SYN = 0x02
	RST = 0x04
	PSH = 0x08
	ACK = 0x10
	URG = 0x20
	ECE = 0x40
	CWR = 0x80
)

// Marks are facts about a record that cost little to note while decoding and
// can't be recovered later.
type Marks uint16

// The marks. Those with "packet" in their text exist only where a packet's
// header was seen: in captures, on live links and in sFlow raw headers.
const (
	// OnePacket: the record is one observed packet and not a router's summary
	// of many. Bytes and Packets are still multiplied by Sampling.
	OnePacket Marks = 1 << iota
	// SeqIsDst: the packet's TCP sequence number equals its IPv4 destination,
	// as in the probes of Mirai's scanner.
	SeqIsDst
	// QuoteSeqIsDst: an ICMP error quotes a packet that has SeqIsDst. Dst is
	// then the quoted packet's sender as the error's sender saw it.
	QuoteSeqIsDst
	// BadOffset: the packet's TCP data offset runs past the IP length or is
	// below five words. Ports, flags and sequence were read all the same.
	BadOffset
	// NoOptions: the packet is a TCP SYN without any option, which no ordinary
	// stack sends.
	NoOptions
	// Fragment: a fragment other than the first: there are no ports.
	Fragment
	// FirstFragment: the packet is the first of several fragments.
	FirstFragment
	// Tunnelled: the packet was inside another record of the same batch (GRE,
	// IP in IP). Its volume is already in the outer record: never add it.
	Tunnelled
	// Egress: the router saw the flow leave and not enter (IE 61 flowDirection 1).
	Egress
	// Reverse: the second half of a bidirectional flow (RFC 5103), or the
	// responder's side.
	Reverse
	// Clamped: the record's times were impossible against Seen and were moved.
	Clamped
	// ForSrc, ForDst and ForNet: this copy of the record was dealt for its
	// source's sake, for its destination's, for the own network of its
	// destination, or for several of them. See [Batch.Deal].
	ForSrc
	ForDst
	ForNet
)

// Flow is one record of a unidirectional flow (RFC 7011): packets sharing
// addresses, ports and protocol, as reported by a router (NetFlow, IPFIX), or
// one packet (sFlow sample, capture).
type Flow struct {
	// First and Last are the times of the first and last packet by the
	// reporter's clock, corrected where that clock is known to be wrong;
	// First <= Last <= Seen.
	First, Last Time
	// Seen is when the record reached noroshi, or the recorder of a capture. It
	// is the clock of the program: see package pipeline.
	Seen Time

	Src, Dst Addr // IE 8/27, 12/28
	Exporter Addr // the router or agent that reported the flow; zero for a capture

	// Bytes (layer 3) and Packets are estimates of the traffic: already
	// multiplied by Sampling.
	Bytes, Packets uint64
	// Sampling: one packet in Sampling was looked at. 1 is every packet, 0 is
	// not known, and then nothing was multiplied. Packets/Sampling is the
	// number of packets the estimate rests on.
	Sampling uint32

	InIf, OutIf      uint32 // SNMP ifIndex; 0 = unknown
	SrcAS, DstAS     uint32 // 0 = unknown
	SrcNet, DstNet   uint32 // index of the provider's own network (package network); 0 = not the provider's, or unknown
	SrcPort, DstPort uint16 // TCP, UDP, SCTP; for ICMP DstPort is type<<8|code (IE 32) and SrcPort 0
	Proto            uint8  // IANA protocol number
	TCPFlags         uint8  // OR over all packets; 0 when not TCP, or not exported
	TOS              uint8  // IPv4 TOS, IPv6 traffic class
	TTL              uint8  // TTL or hop limit of a packet; 0 = unknown
	Window           uint16 // TCP window of a packet, unscaled; meaningful only with OnePacket
	Marks            Marks

	// Payload is what follows the transport header of one packet (for ICMP, its
	// 8-byte header), at most [MaxPayload] bytes. Empty for routers' summaries
	// and wherever the source was told not to keep it.
	Payload Text
}

// MaxPayload bounds Flow.Payload: the largest message Mirai's bots read from
// their control server is 1,024 bytes.
const MaxPayload = 1024

// Has reports whether all marks in m are set.
func (f *Flow) Has(m Marks) bool { return f.Marks&m == m }

// Samples returns how many observed packets the record rests on, at least 1.
func (f *Flow) Samples() float64 {
	if f.Sampling <= 1 {
		return float64(max(f.Packets, 1))
	}
	return max(float64(f.Packets)/float64(f.Sampling), 1)
}

// Text refers to bytes in the buffer of the Batch that holds the event. It has
// no meaning without that batch; see [Batch.Text]. The zero Text is empty.
type Text struct{ Off, Len uint32 }
