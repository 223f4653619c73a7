// Package wire turns the records of a scenario into what travels: datagrams of
// NetFlow v5, NetFlow v9, IPFIX and sFlow v5 with templates, sampling options and
// sequence numbers, and packets. Decoding them gives the records back.
package wire

import (
	"encoding/binary"
	"fmt"

	"noroshi/event"
	"noroshi/scenario"
)

var be = binary.BigEndian

// Datagram is what one exporter sends at one moment.
type Datagram struct {
	At       event.Time // when it is sent, and Flow.Seen of what is in it
	Exporter *scenario.Exporter
	Data     []byte // a UDP payload, or, from a tap, an IP packet; valid until send returns
}

// Encoder encodes the records of one play.
type Encoder struct {
	exporters []*exporter
	boot      event.Time
	packet    []byte
}

// payloadMost keeps datagrams within an Ethernet frame.
const payloadMost = 1400

// repeat is how often templates and sampling rates are sent.
const repeat = event.Time(60e9)

type exporter struct {
	*scenario.Exporter
	at        event.Time // of what is being gathered
	told      event.Time // when templates were last sent
	begun     bool
	seq       uint32
	four, six []byte            // datagrams in the making; v5 and sFlow use the first
	records   [2]int            // in them
	samples   map[uint32]uint32 // sFlow: sequence numbers by interface
}

// NewEncoder returns an encoder for the exporters of p; boot is when they say
// they were started, at most 49 days before the first record.
func NewEncoder(p *scenario.Provider, boot event.Time) *Encoder {
	e := &Encoder{boot: boot - boot%1e9}
	for i := range p.Exporters {
		e.exporters = append(e.exporters, &exporter{Exporter: &p.Exporters[i], samples: map[uint32]uint32{}})
	}
	return e
}

// Encode calls send with each datagram that becomes full, or due because a
// record has a later Seen. Records must come in the order of Seen.
func (e *Encoder) Encode(b *event.Batch, send func(*Datagram)) {
	for i := range b.Flows {
		f := &b.Flows[i]
		x := e.of(f.Exporter)
		if x.Protocol == scenario.Packets {
			e.due(f.Seen, send)
			e.packet = appendPacket(e.packet[:0], f, b.Text(f.Payload), 1<<16)
			send(&Datagram{f.Seen, x.Exporter, e.packet})
			continue
		}
		if f.Seen != x.at {
			e.due(f.Seen, send)
			x.at = f.Seen
		}
		e.add(x, b, f, send)
	}
}

// Flush sends what is not full.
func (e *Encoder) Flush(send func(*Datagram)) { e.due(1<<62, send) }

// due sends what was gathered before t, of all exporters, so that datagrams go
// out in the order of time.
func (e *Encoder) due(t event.Time, send func(*Datagram)) {
	for _, x := range e.exporters {
		if x.at < t && len(x.four)+len(x.six) > 0 {
			e.close(x, 0, send)
			e.close(x, 1, send)
		}
	}
}

func (e *Encoder) of(a event.Addr) *exporter {
	for _, x := range e.exporters {
		if x.Addr == a {
			return x
		}
	}
	panic(fmt.Sprintf("wire: no exporter %v in this network", a))
}

// Set ids of data.
const (
	template4 = 256
	template6 = 257
	options   = 300
)

// field is an information element with its length.
type field [2]uint16

// The fields of data records behind the addresses.
var (
	ipfixFields = []field{{7, 2}, {11, 2}, {4, 1}, {5, 1}, {6, 1}, {88, 2}, {10, 4}, {14, 4}, {16, 4}, {17, 4}, {1, 8}, {2, 8}, {152, 8}, {153, 8}}
	nineFields  = []field{{7, 2}, {11, 2}, {4, 1}, {5, 1}, {6, 1}, {10, 4}, {14, 4}, {16, 4}, {17, 4}, {1, 8}, {2, 8}, {22, 4}, {21, 4}}
)

func templates(fields []field) (p []byte) {
	for i, addrs := range [][]field{{{8, 4}, {12, 4}}, {{27, 16}, {28, 16}}} {
		all := append(addrs, fields...)
		p = be.AppendUint16(p, template4+uint16(i))
		p = be.AppendUint16(p, uint16(len(all)))
		for _, f := range all {
			p = be.AppendUint16(be.AppendUint16(p, f[0]), f[1])
		}
	}
	return p
}

func set(p []byte, id uint16, body []byte) []byte {
	p = be.AppendUint16(p, id)
	p = be.AppendUint16(p, uint16(4+len(body)))
	return append(p, body...)
}

// tell sends templates and the sampling rate.
func (e *Encoder) tell(x *exporter, send func(*Datagram)) {
	x.told, x.begun = x.at, true
	rate := x.Rate()
	p := e.header(x, nil)
	switch x.Protocol {
	case scenario.IPFIX: // RFC 5477: so many packets are taken, and so many are not
		p = set(p, 2, templates(ipfixFields))
		p = set(p, 3, u16s(options, 3, 1, 149, 4, 305, 4, 306, 4))
		record := be.AppendUint32(nil, x.Domain)
		record = be.AppendUint32(record, 1)
		p = set(p, options, be.AppendUint32(record, rate-1))
		e.finish(x, p, 1, send)
	case scenario.NetFlow9: // RFC 3954, 6.1: scope 1 is the system
		p = set(p, 0, templates(nineFields))
		p = set(p, 1, append(u16s(options, 4, 8, 1, 4, 34, 4, 35, 1), 0, 0))
		record := be.AppendUint32(nil, 0)
		p = set(p, options, append(be.AppendUint32(record, rate), 2, 0, 0, 0)) // 2: at random
		e.finish(x, p, 4, send)
	}
}

func u16s(values ...uint16) (p []byte) {
	for _, v := range values {
		p = be.AppendUint16(p, v)
	}
	return p
}

const (
	v5Header, v5Record = 24, 48
	v9Header           = 20
	ipfixHeader        = 16
	sflowHeader        = 28
)

// header begins a datagram; finish writes what is known only then.
func (e *Encoder) header(x *exporter, p []byte) []byte {
	return append(p[:0], make([]byte, map[scenario.Protocol]int{
		scenario.NetFlow5: v5Header, scenario.NetFlow9: v9Header, scenario.IPFIX: ipfixHeader, scenario.SFlow: sflowHeader,
	}[x.Protocol])...)
}

// uptime is the time since boot in ms.
func (e *Encoder) uptime(t event.Time) uint32 { return uint32(t/1e6) - uint32(e.boot/1e6) }

// finish writes the header of p, in which are n records, and sends it.
func (e *Encoder) finish(x *exporter, p []byte, n int, send func(*Datagram)) {
	sec := uint32(x.at / 1e9)
	switch x.Protocol {
	case scenario.NetFlow5:
		be.PutUint16(p, 5)
		be.PutUint16(p[2:], uint16(n))
		be.PutUint32(p[4:], e.uptime(x.at))
		be.PutUint32(p[8:], sec)
		be.PutUint32(p[12:], uint32(x.at%1e9/1e6*1e6))
		be.PutUint32(p[16:], x.seq)
		be.PutUint16(p[20:], uint16(x.Domain))
		be.PutUint16(p[22:], 1<<14|uint16(x.Rate()))
		x.seq += uint32(n) // flows
	case scenario.NetFlow9:
		be.PutUint16(p, 9)
		be.PutUint16(p[2:], uint16(n))
		be.PutUint32(p[4:], e.uptime(event.Time(sec)*1e9)) // whole seconds, like the next
		be.PutUint32(p[8:], sec)
		be.PutUint32(p[12:], x.seq)
		be.PutUint32(p[16:], x.Domain)
		x.seq++ // datagrams
	case scenario.IPFIX:
		be.PutUint16(p, 10)
		be.PutUint16(p[2:], uint16(len(p)))
		be.PutUint32(p[4:], sec)
		be.PutUint32(p[8:], x.seq)
		be.PutUint32(p[12:], x.Domain)
		x.seq += uint32(n) // data records, options too
	case scenario.SFlow:
		be.PutUint32(p, 5)
		be.PutUint32(p[4:], 1)
		be.PutUint32(p[8:], x.Addr.Four())
		be.PutUint32(p[16:], x.seq)
		be.PutUint32(p[20:], e.uptime(x.at))
		be.PutUint32(p[24:], uint32(n))
		x.seq++
	}
	send(&Datagram{x.at, x.Exporter, p})
}

// add appends a record to the datagram in the making.
func (e *Encoder) add(x *exporter, b *event.Batch, f *event.Flow, send func(*Datagram)) {
	templated := x.Protocol == scenario.IPFIX || x.Protocol == scenario.NetFlow9
	if templated && (!x.begun || x.at-x.told >= repeat) {
		e.tell(x, send)
	}
	i, buf := 0, &x.four
	if templated && !f.Src.Is4() {
		i, buf = 1, &x.six
	}
	if len(*buf) > payloadMost-100 || x.Protocol == scenario.NetFlow5 && x.records[0] == 28 || x.Protocol == scenario.SFlow && len(*buf) > payloadMost-220 {
		e.close(x, i, send)
	}
	if len(*buf) == 0 {
		*buf = e.header(x, *buf)
		if templated {
			*buf = be.AppendUint16(*buf, template4+uint16(i))
			*buf = be.AppendUint16(*buf, 0)
		}
	}
	x.records[i]++
	switch x.Protocol {
	case scenario.NetFlow5:
		*buf = e.five(*buf, f)
	case scenario.NetFlow9, scenario.IPFIX:
		*buf = e.templated(*buf, x, f)
	case scenario.SFlow:
		*buf = e.sample(*buf, x, b, f)
	}
}

// close sends the i-th datagram in the making, if there is one.
func (e *Encoder) close(x *exporter, i int, send func(*Datagram)) {
	buf := &x.four
	if i == 1 {
		buf = &x.six
	}
	if len(*buf) == 0 {
		return
	}
	switch at := map[scenario.Protocol]int{scenario.NetFlow9: v9Header, scenario.IPFIX: ipfixHeader}[x.Protocol]; {
	case at == 0:
	default:
		for x.Protocol == scenario.NetFlow9 && len(*buf)%4 != 0 { // RFC 3954, 5.3
			*buf = append(*buf, 0)
		}
		be.PutUint16((*buf)[at+2:], uint16(len(*buf)-at))
	}
	e.finish(x, *buf, x.records[i], send)
	*buf, x.records[i] = (*buf)[:0], 0
}

// counted returns a volume as the router counted it.
func counted(v uint64, f *event.Flow) uint64 { return v / uint64(max(f.Sampling, 1)) }

func (e *Encoder) five(p []byte, f *event.Flow) []byte {
	p = be.AppendUint32(be.AppendUint32(p, f.Src.Four()), f.Dst.Four())
	p = be.AppendUint32(p, 0)
	p = be.AppendUint16(be.AppendUint16(p, uint16(f.InIf)), uint16(f.OutIf))
	p = be.AppendUint32(be.AppendUint32(p, uint32(counted(f.Packets, f))), uint32(counted(f.Bytes, f)))
	p = be.AppendUint32(be.AppendUint32(p, e.uptime(f.First)), e.uptime(f.Last))
	p = be.AppendUint16(be.AppendUint16(p, f.SrcPort), f.DstPort)
	p = append(p, 0, f.TCPFlags, f.Proto, f.TOS)
	p = be.AppendUint16(be.AppendUint16(p, uint16(f.SrcAS)), uint16(f.DstAS))
	return append(p, 0, 0, 0, 0)
}

func (e *Encoder) templated(p []byte, x *exporter, f *event.Flow) []byte {
	if f.Src.Is4() {
		p = be.AppendUint32(be.AppendUint32(p, f.Src.Four()), f.Dst.Four())
	} else {
		p = append(append(p, f.Src[:]...), f.Dst[:]...)
	}
	p = be.AppendUint16(be.AppendUint16(p, f.SrcPort), f.DstPort)
	p = append(p, f.Proto, f.TOS, f.TCPFlags)
	if x.Protocol == scenario.IPFIX {
		offset := uint16(0)
		if f.Has(event.Fragment) {
			offset = laterOffset
		}
		p = be.AppendUint16(p, offset)
	}
	p = be.AppendUint32(be.AppendUint32(p, f.InIf), f.OutIf)
	p = be.AppendUint32(be.AppendUint32(p, f.SrcAS), f.DstAS)
	p = be.AppendUint64(be.AppendUint64(p, counted(f.Bytes, f)), counted(f.Packets, f))
	if x.Protocol == scenario.IPFIX {
		return be.AppendUint64(be.AppendUint64(p, uint64(f.First/1e6)), uint64(f.Last/1e6))
	}
	return be.AppendUint32(be.AppendUint32(p, e.uptime(f.First)), e.uptime(f.Last))
}

// sample is a flow sample with the packet's first 128 octets.
func (e *Encoder) sample(p []byte, x *exporter, b *event.Batch, f *event.Flow) []byte {
	const snap, ethernet, fcs = 128, 14, 4
	et := uint16(0x0800)
	if !f.Src.Is4() {
		et = 0x86dd
	}
	head := append(e.packet[:0], 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, byte(et>>8), byte(et))
	head = appendPacket(head, f, b.Text(f.Payload), snap-ethernet)
	e.packet = head
	padded := (len(head) + 3) &^ 3
	x.samples[f.InIf]++
	seq := x.samples[f.InIf]
	words := []uint32{
		1, uint32(32 + 8 + 16 + padded), // flow sample
		seq, f.InIf, f.Sampling, seq * f.Sampling, 0, f.InIf, f.OutIf, 1,
		1, uint32(16 + padded), // raw packet header
		1, uint32(counted(f.Bytes, f)) + ethernet + fcs, fcs, uint32(len(head)),
	}
	for _, w := range words {
		p = be.AppendUint32(p, w)
	}
	p = append(p, head...)
	return append(p, make([]byte, padded-len(head))...)
}
