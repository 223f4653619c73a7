package netflow

import (
	"math"
	"math/bits"

	"noroshi/event"
)

// extra is what records of some templates say beyond the fields of a flow. The
// zero extra says nothing.
type extra struct {
	boot         uint64 // ms since 1970
	duration     event.Time
	icmp4, icmp6 uint16 // type<<8 | code
	event        uint8  // as firewallEvent; 0 = the record is no event
	back         backward
	sampled      sampled
}

// backward is the other direction of a biflow.
type backward struct {
	octets, packets uint64
	first, last     event.Time
	flags, tos      uint8
}

// Values of firewallEvent (IANA) that report no traffic, or none that another
// record won't report.
const (
	eventCreated = 1
	eventDeleted = 2
	eventDenied  = 3
	eventAlert   = 4
)

// isEvent reports whether a record is an event without volume. What a firewall
// says when a connection ends, or while it lasts, may carry volume.
func (x *extra) isEvent(f *event.Flow) bool {
	switch x.event {
	case 0:
		return false
	case eventCreated, eventDenied, eventAlert:
		return true
	}
	return f.Bytes|f.Packets|x.back.octets|x.back.packets == 0
}

// setFour makes a the IPv4 address whose number in network order is v.
func setFour(a *event.Addr, v uint32) {
	*a = event.Addr{10: 0xff, 11: 0xff}
	be.PutUint32(a[12:], v)
}

// fill runs a plan on the record at p[at:].
func (h *header) fill(f *event.Flow, x *extra, ops []op, p []byte, at int) {
	for i := range ops {
		o := &ops[i]
		end := at + int(o.end)
		v := be.Uint64(p[end-8:end]) & o.mask
		switch o.code {
		case src4:
			setFour(&f.Src, uint32(v))
		case dst4:
			setFour(&f.Dst, uint32(v))
		case src4IfSet:
			if v != 0 {
				setFour(&f.Src, uint32(v))
			}
		case dst4IfSet:
			if v != 0 {
				setFour(&f.Dst, uint32(v))
			}
		case src6:
			f.Src = event.Addr(p[end-16 : end])
		case dst6:
			f.Dst = event.Addr(p[end-16 : end])
		case src6IfSet:
			if a := event.Addr(p[end-16 : end]); a != (event.Addr{}) {
				f.Src = a
			}
		case dst6IfSet:
			if a := event.Addr(p[end-16 : end]); a != (event.Addr{}) {
				f.Dst = a
			}
		case srcPort:
			f.SrcPort = uint16(v)
		case dstPort:
			f.DstPort = uint16(v)
		case proto:
			f.Proto = uint8(v)
		case tos:
			f.TOS = uint8(v)
		case tcpFlags:
			f.TCPFlags |= uint8(v)
		case octets:
			f.Bytes = v
		case packets:
			f.Packets = v
		case inIf:
			f.InIf = uint32(v)
		case outIf:
			f.OutIf = uint32(v)
		case srcAS:
			f.SrcAS = uint32(v)
		case dstAS:
			f.DstAS = uint32(v)
		case direction:
			if v == 1 {
				f.Marks |= event.Egress
			}
		case fragmentOffset:
			if v != 0 {
				f.Marks |= event.Fragment
			}
		case lastUptime:
			if !h.booted {
				h.uptime = uint32(v) // as if the flow had ended when it was exported
			}
			f.Last = h.sinceBoot(uint32(v))
		case firstUptime:
			f.First = h.sinceBoot(uint32(v))
		case firstSec:
			f.First = event.Time(v) * 1e9
		case lastSec:
			f.Last = event.Time(v) * 1e9
		case firstMilli:
			f.First = event.Time(v) * 1e6
		case lastMilli:
			f.Last = event.Time(v) * 1e6
		case firstNTP:
			f.First = fromNTP(v)
		case lastNTP:
			f.Last = fromNTP(v)
		case firstAgo:
			f.First = h.export - event.Time(v)*1e3
		case lastAgo:
			f.Last = h.export - event.Time(v)*1e3
		default:
			h.fillExtra(x, o.code, v)
		}
	}
}

func (h *header) fillExtra(x *extra, c code, v uint64) {
	switch c {
	case bootMilli:
		x.boot = v
		h.bootedAt(v)
	case durationMilli:
		x.duration = event.Time(v) * 1e6
	case durationMicro:
		x.duration = event.Time(v) * 1e3
	case icmp4:
		x.icmp4 = uint16(v)
	case icmp4Type:
		x.icmp4 |= uint16(v) << 8
	case icmp4Code:
		x.icmp4 |= uint16(uint8(v))
	case icmp6:
		x.icmp6 = uint16(v)
	case icmp6Type:
		x.icmp6 |= uint16(v) << 8
	case icmp6Code:
		x.icmp6 |= uint16(uint8(v))
	case firewallEvent:
		x.event = uint8(v)
	case natEvent:
		if v != 0 && x.event == 0 {
			x.event = eventDeleted
		}
	case reverseOctets:
		x.back.octets = v
	case reversePackets:
		x.back.packets = v
	case reverseFlags:
		x.back.flags |= uint8(v)
	case reverseTOS:
		x.back.tos = uint8(v)
	case reverseFirst:
		x.back.first = event.Time(v) * 1e6
	case reverseLast:
		x.back.last = event.Time(v) * 1e6
	case samplerID:
		x.sampled.by, x.sampled.named = v, true
	case interval:
		x.sampled.interval = uint32(min(v, math.MaxUint32))
	case psInterval:
		x.sampled.psInterval = v
	case psSpace:
		x.sampled.psSpace, x.sampled.spaced = v, true
	case sampleSize:
		x.sampled.size = v
	case population:
		x.sampled.population = v
	case probability:
		x.sampled.probability = math.Float64frombits(v)
	case scopeInterface:
		x.sampled.iface, x.sampled.atInterface = uint32(v), true
	}
}

// bootedAt makes the uptime at export known from the time of the boot in ms.
func (h *header) bootedAt(ms uint64) {
	if ms != 0 {
		h.uptime, h.booted = uint32(uint64(h.export/1e6)-ms), true
	}
}

// complete adds to f what the extra says about it. Durations count where the
// template lacks one end.
func (x *extra) complete(f *event.Flow) {
	if x.duration > 0 && x.duration <= longest {
		switch {
		case f.First == 0 && f.Last != 0:
			f.First = f.Last - x.duration
		case f.Last == 0 && f.First != 0:
			f.Last = f.First + x.duration
		}
	}
	switch {
	case f.Proto == event.ICMP && x.icmp4 != 0:
		f.DstPort = x.icmp4
	case f.Proto == event.ICMPv6 && x.icmp6 != 0:
		f.DstPort = x.icmp6
	}
}

// flow turns f, the forward direction, into the other one. Times that the
// record doesn't give are those of f.
func (r *backward) flow(f *event.Flow) {
	f.Src, f.Dst = f.Dst, f.Src
	f.SrcPort, f.DstPort = f.DstPort, f.SrcPort
	if f.Proto == event.ICMP || f.Proto == event.ICMPv6 {
		f.DstPort = 0 // the answer's type isn't known
	}
	f.SrcAS, f.DstAS = f.DstAS, f.SrcAS
	f.InIf, f.OutIf = f.OutIf, f.InIf
	f.Bytes, f.Packets = r.octets, r.packets
	f.TCPFlags, f.TOS = r.flags, r.tos
	if r.first != 0 {
		f.First = r.first
	}
	if r.last != 0 {
		f.Last = r.last
	}
	f.Marks |= event.Reverse
}

// finish makes the rest of the contract of event.Flow true: flags only with
// TCP, no source port with ICMP, volume multiplied by Sampling. A volume beyond
// 64 bits stays at the largest number.
func finish(f *event.Flow) {
	if f.Proto != event.TCP {
		f.TCPFlags = 0
		if f.Proto == event.ICMP || f.Proto == event.ICMPv6 {
			f.SrcPort = 0
		}
	}
	if f.Sampling > 1 {
		f.Bytes, f.Packets = times(f.Bytes, f.Sampling), times(f.Packets, f.Sampling)
	}
}

func times(v uint64, rate uint32) uint64 {
	hi, lo := bits.Mul64(v, uint64(rate))
	if hi != 0 {
		return math.MaxUint64
	}
	return lo
}
