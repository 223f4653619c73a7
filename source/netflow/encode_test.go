package netflow

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/netip"

	"noroshi/event"
)

// The datagrams of the tests are built here, by the figures of RFC 3954, 5 and
// RFC 7011, 3.

const (
	sent   = 1_800_000_000 // export time in the headers of tests, s since 1970
	uptime = 3_600_000     // ms since the router's boot, in the headers of tests
)

// arrival is when the datagrams of tests come, unless they say otherwise.
const arrival = event.Time(sent*1e9 + 5e8)

// rec puts values one after another: numbers in the octets of their type,
// strings as IP addresses, slices as they are.
func rec(values ...any) (p []byte) {
	for _, v := range values {
		switch v := v.(type) {
		case []byte:
			p = append(p, v...)
		case string:
			p = append(p, netip.MustParseAddr(v).AsSlice()...)
		default:
			var err error
			if p, err = binary.Append(p, be, v); err != nil {
				panic(fmt.Sprintf("%T: %v", v, err))
			}
		}
	}
	return p
}

// set is a set (RFC 7011, 3.3.2) or flowset with the records given.
func set(id uint16, records ...[]byte) []byte {
	var body []byte
	for _, r := range records {
		body = append(body, r...)
	}
	return rec(id, uint16(setHeader+len(body)), body)
}

// fieldSpecs are the field specifiers of a template (RFC 7011, 3.2).
func fieldSpecs(fields []field) (p []byte) {
	for _, f := range fields {
		switch number := uint32(f.element >> 16); number {
		case 0, scopeTypes:
			p = append(p, rec(uint16(f.element), f.length)...)
		default:
			p = append(p, rec(uint16(f.element)|0x8000, f.length, number)...)
		}
	}
	return p
}

// tpl is a template record; it is the same in v9 and IPFIX.
func tpl(id uint16, fields ...field) []byte {
	return rec(id, uint16(len(fields)), fieldSpecs(fields))
}

// optionsTpl9 is a v9 options template (RFC 3954, 6.1).
func optionsTpl9(id uint16, scope int, fields ...field) []byte {
	return rec(id, uint16(4*scope), uint16(4*(len(fields)-scope)), fieldSpecs(fields))
}

// optionsTpl10 is an IPFIX options template (RFC 7011, 3.4.2.2).
func optionsTpl10(id uint16, scope int, fields ...field) []byte {
	return rec(id, uint16(len(fields)), uint16(scope), fieldSpecs(fields))
}

func join(parts [][]byte) (p []byte) {
	for _, part := range parts {
		p = append(p, part...)
	}
	return p
}

func v9Datagram(seq, domain uint32, sets ...[]byte) []byte {
	return rec(uint16(9), uint16(len(sets)), uint32(uptime), uint32(sent), seq, domain, join(sets))
}

func ipfixDatagram(seq, domain uint32, sets ...[]byte) []byte {
	body := join(sets)
	return rec(uint16(10), uint16(ipfixHeader+len(body)), uint32(sent), seq, domain, body)
}

// v5Datagram has n records; the i-th is of a flow from 192.0.2.i.
func v5Datagram(seq uint32, sampling uint16, n int) []byte {
	p := rec(uint16(5), uint16(n), uint32(uptime), uint32(sent), uint32(250_000_000), seq, uint16(0x0107), sampling)
	for i := range n {
		p = append(p, rec(fmt.Sprintf("192.0.2.%d", i), "198.51.100.1", "203.0.113.1", uint16(11), uint16(12),
			uint32(3), uint32(1500), uint32(uptime-2000), uint32(uptime-1000), uint16(40000+i), uint16(443),
			uint8(0), uint8(event.SYN|event.ACK), uint8(event.TCP), uint8(0x10), uint16(64496), uint16(64497), uint8(24), uint8(24), uint16(0))...)
	}
	return p
}

// The templates that routers use most, with both families of addresses.
var (
	common4 = []field{{8, 4}, {12, 4}, {7, 2}, {11, 2}, {4, 1}, {5, 1}, {6, 1}, {10, 4}, {14, 4}, {1, 8}, {2, 8}, {152, 8}, {153, 8}, {9, 1}, {13, 1}}
	common6 = []field{{27, 16}, {28, 16}, {7, 2}, {11, 2}, {4, 1}, {5, 1}, {6, 1}, {10, 4}, {14, 4}, {1, 8}, {2, 8}, {152, 8}, {153, 8}, {29, 1}, {30, 1}}
	nine4   = []field{{8, 4}, {12, 4}, {7, 2}, {11, 2}, {4, 1}, {5, 1}, {6, 1}, {10, 4}, {14, 4}, {1, 4}, {2, 4}, {22, 4}, {21, 4}, {9, 1}, {13, 1}, {16, 4}, {17, 4}, {15, 4}, {61, 1}}
	nine6   = []field{{27, 16}, {28, 16}, {7, 2}, {11, 2}, {4, 1}, {5, 1}, {6, 1}, {10, 4}, {14, 4}, {1, 4}, {2, 4}, {22, 4}, {21, 4}, {29, 1}, {30, 1}, {16, 4}, {17, 4}, {62, 16}, {61, 1}}
)

// addresses of the i-th record, in the family of the template.
func addresses(fields []field, i int) (src, dst string) {
	if fields[0].element == 27 {
		return fmt.Sprintf("2001:db8::%x", i), "2001:db8:1::1"
	}
	return fmt.Sprintf("192.0.2.%d", i), "198.51.100.1"
}

// commonRecords are n records of common4 or common6.
func commonRecords(fields []field, n int) (p []byte) {
	for i := range n {
		src, dst := addresses(fields, i)
		p = append(p, rec(src, dst, uint16(40000+i), uint16(443), uint8(event.TCP), uint8(0x10), uint8(event.SYN|event.ACK),
			uint32(11), uint32(12), uint64(1500), uint64(3), uint64(sent*1000-2000), uint64(sent*1000-1000), uint8(24), uint8(24))...)
	}
	return p
}

// nineRecords are n records of nine4 or nine6.
func nineRecords(fields []field, n int) (p []byte) {
	for i := range n {
		src, dst := addresses(fields, i)
		hop := src
		p = append(p, rec(src, dst, uint16(40000+i), uint16(443), uint8(event.TCP), uint8(0x10), uint8(event.SYN|event.ACK),
			uint32(11), uint32(12), uint32(1500), uint32(3), uint32(uptime-2000), uint32(uptime-1000), uint8(24), uint8(24),
			uint32(64496), uint32(65551), hop, uint8(0))...)
	}
	return p
}

// sealed is a line of a saved file.
func sealed(text string) []byte {
	return fmt.Appendf(nil, "%08x %s\n", crc32.ChecksumIEEE([]byte(text)), text)
}
