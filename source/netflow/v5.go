package netflow

import (
	"noroshi/event"
)

// The layout of NetFlow v5, which only Cisco's documents define ("NetFlow
// Export Datagram Format").
const (
	v5Header = 24
	v5Record = 48
	v5Most   = 30 // records in one datagram
)

func (d *Decoder) decodeV5(p []byte, from event.Addr, seen event.Time, b *event.Batch) error {
	if len(p) < v5Header {
		d.counts.add(refusedShort, 1)
		return ErrShort
	}
	engine := be.Uint16(p[20:]) // type, id
	dom := d.domainOf(from, domainKey{v5, uint32(engine)}, seen)
	if dom == nil {
		return ErrRefused
	}
	dom.counts.add(datagrams, 1)
	said := int(be.Uint16(p[2:]))
	n := min(said, (len(p)-v5Header)/v5Record)

	uptime := be.Uint32(p[4:])
	h := header{
		seen: seen, arrived: seen, uptime: uptime, booted: true,
		export: event.Time(be.Uint32(p[8:]))*1e9 + event.Time(be.Uint32(p[12:])),
	}
	h.shift = dom.shift(seen, h.export)
	sent := n // flows, what was cut off included
	if said <= v5Most {
		sent = said
	}
	dom.count(dom.seq.observe(be.Uint32(p[16:]), uint32(sent), uptime), 1)

	rate := d.override(dom)
	if rate == 0 {
		rate = dom.exporter.rate
	}
	if rate == 0 {
		rate = uint32(be.Uint16(p[22:]) & 0x3fff) // the top two bits are a mode
	}
	flow := event.Flow{Seen: seen, Exporter: from, Sampling: rate}
	var t tally
	for r := p[v5Header : v5Header+n*v5Record]; len(r) >= v5Record; r = r[v5Record:] {
		b.Flows = append(b.Flows, flow)
		f := &b.Flows[len(b.Flows)-1]
		readV5((*[v5Record]byte)(r), f)
		f.First, f.Last = h.sinceBoot(be.Uint32(r[24:])), h.sinceBoot(be.Uint32(r[28:]))
		t.settle(&h, f)
	}
	t.count(dom, n)
	if n < said {
		dom.counts.add(recordsCut, uint64(sent-n))
		return ErrShort
	}
	return nil
}

// readV5 reads all of a record but its times.
func readV5(r *[v5Record]byte, f *event.Flow) {
	setFour(&f.Src, be.Uint32(r[0:]))
	setFour(&f.Dst, be.Uint32(r[4:]))
	f.InIf, f.OutIf = uint32(be.Uint16(r[12:])), uint32(be.Uint16(r[14:]))
	f.Packets, f.Bytes = uint64(be.Uint32(r[16:])), uint64(be.Uint32(r[20:]))
	f.SrcPort, f.DstPort = be.Uint16(r[32:]), be.Uint16(r[34:])
	f.TCPFlags, f.Proto, f.TOS = r[37], r[38], r[39]
	f.SrcAS, f.DstAS = uint32(be.Uint16(r[40:])), uint32(be.Uint16(r[42:]))
}
