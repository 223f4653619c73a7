package netflow

import (
	"cmp"
	"slices"
)

// element is an information element (IANA ipfix registry; field type in v9):
// private enterprise number << 16 | id. Number 0 is IANA's own.
type element uint64

func enterprise(number uint32, id uint16) element { return element(number)<<16 | element(id) }

// reverse is the same element for a biflow's other direction (RFC 5103, 6.1).
func reverse(id uint16) element { return enterprise(29305, id) }

// cert is an element of the exporter YAF (CERT/NetSA, number 6871); with bit 14
// set it is the other direction's.
func cert(id uint16) element { return enterprise(6871, id) }

// interfaceScope says that an options record is about one interface: scope type
// 2 in v9 (RFC 3954, 6.1), elements 10 and 14 as scope in IPFIX. The number is
// reserved and stands here for v9's scope types.
const interfaceScope = element(scopeTypes<<16 | 2)
const scopeTypes = 1<<32 - 1

// code says what becomes of a field's value.
type code uint8

const (
	src4 code = iota
	dst4
	src4IfSet // where the template has an IPv6 address too and one of them is zero
	dst4IfSet
	src6
	dst6
	src6IfSet
	dst6IfSet
	srcPort
	dstPort
	proto
	tos
	tcpFlags
	octets
	packets
	inIf
	outIf
	srcAS
	dstAS
	direction
	fragmentOffset

	// Times by the exporter's clock.
	lastUptime
	firstUptime
	firstSec
	lastSec
	firstMilli
	lastMilli
	firstNTP
	lastNTP
	firstAgo
	lastAgo

	// From here on the value goes to an extra.
	bootMilli
	durationMilli
	durationMicro
	icmp4
	icmp4Type
	icmp4Code
	icmp6
	icmp6Type
	icmp6Code
	firewallEvent
	natEvent
	reverseOctets
	reversePackets
	reverseFlags
	reverseTOS
	reverseFirst
	reverseLast

	// What follows is about sampling.
	samplerID
	interval
	psInterval
	psSpace
	sampleSize
	population
	probability
	scopeInterface
)

// choice is one element that can fill a place in the flow, and how. If it is
// the one that does, the element reverse (if any) is the other direction's.
type choice struct {
	from    element
	to      code
	reverse element
}

// aboutTraffic lists for each place in a flow the elements that can fill it,
// the best first: the first that a template has is read, the others are not.
// Addresses and ports after translation (225-228, 281, 282) are in none: the
// flow is as the router received it.
var aboutTraffic = [][]choice{
	{{from: 4, to: proto}},
	{{from: 5, to: tos}},
	{{from: 6, to: tcpFlags}},
	{{from: cert(14), to: tcpFlags}}, // of the first packet
	{{from: cert(15), to: tcpFlags}}, // of all others
	{{from: 7, to: srcPort}, {from: 182, to: srcPort}, {from: 180, to: srcPort}},
	{{from: 11, to: dstPort}, {from: 183, to: dstPort}, {from: 181, to: dstPort}},
	{{from: 8, to: src4}},
	{{from: 12, to: dst4}},
	{{from: 27, to: src6}},
	{{from: 28, to: dst6}},
	{{from: 10, to: inIf}},
	{{from: 14, to: outIf}},
	{{from: 16, to: srcAS}},
	{{from: 17, to: dstAS}},
	{{from: 61, to: direction}},
	{{from: 88, to: fragmentOffset}},

	// Volume: since the last report, since the beginning, of both sides of a
	// connection, as it left, and only then with layer 2.
	{{1, octets, reverse(1)}, {85, octets, reverse(85)}, {231, octets, 232}, {23, octets, reverse(23)}, {352, octets, reverse(352)}},
	{{2, packets, reverse(2)}, {86, packets, reverse(86)}, {298, packets, 299}, {24, packets, reverse(24)}},
	{{from: reverse(6), to: reverseFlags}},
	{{from: cert(16398), to: reverseFlags}},
	{{from: cert(16399), to: reverseFlags}},
	{{from: reverse(5), to: reverseTOS}},
	{{from: reverse(152), to: reverseFirst}},
	{{from: reverse(153), to: reverseLast}},

	// Times: absolute ones need no knowledge of the boot. The last four are
	// when an event was observed.
	{{from: 152, to: firstMilli}, {from: 154, to: firstNTP}, {from: 156, to: firstNTP}, {from: 158, to: firstAgo},
		{from: 150, to: firstSec}, {from: 22, to: firstUptime},
		{from: 323, to: firstMilli}, {from: 324, to: firstNTP}, {from: 325, to: firstNTP}, {from: 322, to: firstSec}},
	{{from: 153, to: lastMilli}, {from: 155, to: lastNTP}, {from: 157, to: lastNTP}, {from: 159, to: lastAgo},
		{from: 151, to: lastSec}, {from: 21, to: lastUptime},
		{from: 323, to: lastMilli}, {from: 324, to: lastNTP}, {from: 325, to: lastNTP}, {from: 322, to: lastSec}},
	{{from: 161, to: durationMilli}, {from: 162, to: durationMicro}},

	{{from: 32, to: icmp4}},
	{{from: 176, to: icmp4Type}},
	{{from: 177, to: icmp4Code}},
	{{from: 139, to: icmp6}},
	{{from: 178, to: icmp6Type}},
	{{from: 179, to: icmp6Code}},
	{{from: 233, to: firewallEvent}, {from: 40005, to: firewallEvent}}, // 40005: the same in older Cisco ASA
	{{from: 230, to: natEvent}},
}

// aboutSampling lists the elements that say how packets were sampled, in data
// records and in options records (RFC 5477, 8.2; RFC 3954, 8). Element 305
// counts only together with 306.
var aboutSampling = [][]choice{
	{{from: 160, to: bootMilli}},
	{{from: 302, to: samplerID}, {from: 48, to: samplerID}},
	{{from: 34, to: interval}, {from: 50, to: interval}},
	{{from: 305, to: psInterval}},
	{{from: 306, to: psSpace}},
	{{from: 309, to: sampleSize}},
	{{from: 310, to: population}},
	{{from: 311, to: probability}},
	{{from: interfaceScope, to: scopeInterface}},
}

// reverseOf is what becomes of the reverse element of a choice.
var reverseOf = map[code]code{octets: reverseOctets, packets: reversePackets}

// readable reports whether a field of this many octets can be read. Numbers may
// be shorter than their type (RFC 7011, 6.2), and some exporters make them longer.
func (c code) readable(width int) bool {
	switch c {
	case src4, dst4, src4IfSet, dst4IfSet:
		return width == 4
	case src6, dst6, src6IfSet, dst6IfSet:
		return width == 16
	case firstNTP, lastNTP, probability:
		return width == 8
	}
	return 1 <= width && width <= 8
}

// op moves one field of a record. A number is read as the eight octets that end
// where the field does, and masked: there are always eight, since a header
// comes before.
type op struct {
	mask  uint64
	end   uint16 // of the field, from the start of the record
	field uint16 // index in the template
	code  code
}

func maskOf(width int) uint64 {
	if width >= 8 {
		return ^uint64(0)
	}
	return 1<<(8*width) - 1
}

// plan is a template made ready for decoding.
type plan struct {
	ops      []op
	size     int  // octets of a record; of the shortest, if variable
	variable bool // ends of fields differ from record to record
	extra    bool // some ops write to an extra
	sampler  bool // a record names its sampler
	address  bool // a record has an IP address
}

// variableLength as a field's length means that each record says its own (RFC
// 7011, 7). H3C's v9 does so too.
const variableLength = 65535

// compile makes the plan for a template; options says that its records are
// options, of which only what they tell about sampling is read.
func compile(fields []field, options bool) plan {
	var p plan
	ends := make([]int, len(fields))
	for i, f := range fields {
		if f.length == variableLength {
			p.variable = true
			p.size++ // at least the octet with its length
		} else {
			p.size += int(f.length)
		}
		ends[i] = p.size
	}
	find := func(e element, c code) int {
		return slices.IndexFunc(fields, func(f field) bool {
			return f.element == e && (f.length == variableLength || c.readable(int(f.length)))
		})
	}
	add := func(i int, c code) {
		p.ops = append(p.ops, op{mask: maskOf(int(fields[i].length)), end: uint16(ends[i]), field: uint16(i), code: c})
		p.extra = p.extra || c >= bootMilli
		p.sampler = p.sampler || c == samplerID
		p.address = p.address || c <= dst6IfSet
	}
	fill := func(places [][]choice) {
		for _, choices := range places {
			for _, c := range choices {
				i := find(c.from, c.to)
				if i < 0 {
					continue
				}
				add(i, c.to)
				if c.reverse != 0 {
					if i := find(c.reverse, reverseOf[c.to]); i >= 0 {
						add(i, reverseOf[c.to])
					}
				}
				break
			}
		}
	}
	if !options {
		fill(aboutTraffic)
		p.bothFamilies()
	}
	fill(aboutSampling)
	slices.SortStableFunc(p.ops, func(a, b op) int {
		return cmp.Or(cmp.Compare(a.code.turn(), b.code.turn()), cmp.Compare(a.field, b.field))
	})
	return p
}

// bothFamilies makes addresses of a template with both families count only
// where they aren't zero.
func (p *plan) bothFamilies() {
	has := func(c code) bool { return slices.ContainsFunc(p.ops, func(o op) bool { return o.code == c }) }
	if !(has(src4) && has(src6) || has(dst4) && has(dst6)) {
		return
	}
	ifSet := map[code]code{src4: src4IfSet, dst4: dst4IfSet, src6: src6IfSet, dst6: dst6IfSet}
	for i := range p.ops {
		if c, ok := ifSet[p.ops[i].code]; ok {
			p.ops[i].code = c
		}
	}
}

// turn puts the ops in the order in which they must run: a time since boot
// needs the boot, and without it a start needs the end; of two addresses IPv6
// prevails. Otherwise the order is that of the octets.
func (c code) turn() int {
	switch c {
	case bootMilli:
		return 0
	case lastUptime:
		return 1
	case src6IfSet, dst6IfSet:
		return 3
	}
	return 2
}

// walk finds the fields of the record of variable length that begins at p[at:]
// and must end by p[to:]. It returns the record's size and a plan for just this
// record, or -1 if the record is not whole.
func (d *Decoder) walk(t *template, p []byte, at, to int) (size int, ops []op) {
	pos := at
	for i := range t.fields {
		width := int(t.fields[i].length)
		if width == variableLength {
			if pos >= to {
				return -1, nil
			}
			width = int(p[pos])
			pos++
			if width == 255 {
				if to-pos < 2 {
					return -1, nil
				}
				width = int(be.Uint16(p[pos:]))
				pos += 2
			}
		}
		if width > to-pos {
			return -1, nil
		}
		pos += width
		d.ends[i], d.widths[i] = uint16(pos-at), uint16(width)
	}
	d.walked = d.walked[:0]
	for _, o := range t.ops {
		if width := int(d.widths[o.field]); o.code.readable(width) {
			o.mask, o.end = maskOf(width), d.ends[o.field]
			d.walked = append(d.walked, o)
		}
	}
	return pos - at, d.walked
}
