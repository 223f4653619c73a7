package netflow

import (
	"noroshi/event"
)

// Sizes of v9 (RFC 3954, 5) and IPFIX (RFC 7011, 3).
const (
	v9Header    = 20
	ipfixHeader = 16
	setHeader   = 4
	firstData   = 256               // set ids from here on are those of templates
	maxRecord   = 65535 - setHeader // a set's length has 16 bits
)

func (d *Decoder) decodeV9(p []byte, from event.Addr, seen event.Time, b *event.Batch) error {
	if len(p) < v9Header {
		d.counts.add(refusedShort, 1)
		return ErrShort
	}
	dom := d.domainOf(from, domainKey{v9, be.Uint32(p[16:])}, seen)
	if dom == nil {
		return ErrRefused
	}
	dom.counts.add(datagrams, 1)
	h := header{seen: seen, arrived: seen, uptime: be.Uint32(p[4:]), booted: true, export: event.Time(be.Uint32(p[8:])) * 1e9}
	h.shift = dom.shift(seen, h.export)
	dom.count(dom.seq.observe(be.Uint32(p[12:]), 1, h.uptime), dom.seq.perDatagram)
	// The header's count is of records or of sets, as exporters please.
	records, _, err := d.sets(dom, p, v9Header, len(p), &h, b)
	dom.seq.average(records)
	return err
}

func (d *Decoder) decodeIPFIX(p []byte, from event.Addr, seen event.Time, b *event.Batch) error {
	if len(p) < ipfixHeader {
		d.counts.add(refusedShort, 1)
		return ErrShort
	}
	dom := d.domainOf(from, domainKey{ipfix, be.Uint32(p[12:])}, seen)
	if dom == nil {
		return ErrRefused
	}
	dom.counts.add(datagrams, 1)
	h := header{seen: seen, arrived: seen, export: event.Time(be.Uint32(p[4:])) * 1e9}
	h.bootedAt(dom.booted)
	h.shift = dom.shift(seen, h.export)
	length := int(be.Uint16(p[2:]))
	records, all, err := d.sets(dom, p, ipfixHeader, min(length, len(p)), &h, b)
	dom.count(dom.seq.observe(be.Uint32(p[8:]), uint32(records), 0), 1)
	if length > len(p) && err == nil {
		err = ErrShort
	}
	if !all || err != nil {
		dom.seq.unknown()
	}
	return err
}

// sets decodes the sets that begin in p[at:end]; the last may cross the end, as
// some exporters' do, but not that of p. It returns how many records they held,
// options included, and whether that is all.
func (d *Decoder) sets(dom *domain, p []byte, at, end int, h *header, b *event.Batch) (records int, all bool, err error) {
	all = true
	options := uint16(1) // ids of template sets: 0 and 1 in v9, 2 and 3 in IPFIX
	if dom.key.version == ipfix {
		options = 3
	}
	for end-at >= setHeader {
		id, size := be.Uint16(p[at:]), int(be.Uint16(p[at+2:]))
		if size < setHeader {
			if !allZero(p[at:]) { // zeros are padding
				dom.counts.add(setsBad, 1)
				return records, false, ErrSet
			}
			break
		}
		to := at + size
		if to > len(p) {
			dom.counts.add(setsCut, 1)
			to, err, all = len(p), ErrShort, false
		}
		body := at + setHeader
		var e error
		switch {
		case id == options-1:
			e = d.templateSet(dom, p[body:to], false, h, b)
		case id == options:
			e = d.templateSet(dom, p[body:to], true, h, b)
		case id < firstData:
			dom.counts.add(setsReserved, 1)
		default:
			t := d.template(dom, id, h.arrived)
			if t == nil {
				d.hold(dom, id, p[body:to], h)
				all = false
				break
			}
			n, whole := d.data(t, p, body, to, h, b)
			records += n
			all = all && whole
		}
		if err == nil {
			err = e
		}
		at = to
	}
	return records, all, err
}

// tally is what became of the records of one set.
type tally struct {
	records, events, noAddress, clamped, unsampled int
}

// data decodes the records in p[at:to] by template t. It returns how many there
// were, and false if the last was cut short. A rest shorter than any record is
// padding (RFC 7011, 3.3.1).
func (d *Decoder) data(t *template, p []byte, at, to int, h *header, b *event.Batch) (records int, whole bool) {
	dom := t.dom
	var n tally
	size, ops := t.size, t.ops
	rates := d.ratesOf(t)
	flow := event.Flow{Seen: h.seen, Exporter: dom.exporter.addr, Sampling: rates.base}
	before := len(b.Flows)
	var x extra
	for ; to-at >= t.size; at += size {
		if t.variable {
			if size, ops = d.walk(t, p, at, to); size < 0 {
				dom.counts.add(recordsCut, 1)
				break
			}
		}
		n.records++
		if t.extra {
			x = extra{}
		}
		switch {
		case t.options:
			var f event.Flow // stays empty
			h.fill(&f, &x, ops, p, at)
			d.learn(dom, &x, h.arrived)
			continue
		case !t.address:
			n.noAddress++
			continue
		}
		b.Flows = append(b.Flows, flow)
		f := &b.Flows[len(b.Flows)-1]
		h.fill(f, &x, ops, p, at)
		if rates.perRecord || t.extra {
			n.settleExtra(h, &x, rates, &dom.sampling, b)
		} else {
			n.settle(h, f)
		}
	}
	if t.options {
		dom.counts.add(recordsOptions, uint64(n.records))
	} else {
		n.count(dom, len(b.Flows)-before)
	}
	return n.records, size >= 0
}

// settle makes the contract of event.Flow true for f.
func (n *tally) settle(h *header, f *event.Flow) {
	if h.timesOf(f) {
		f.Marks |= event.Clamped
		n.clamped++
	}
	if f.Sampling == 0 {
		n.unsampled++
	}
	finish(f)
}

// settleExtra does the same for the last flow of b, of which x says more: it may
// be no traffic, and then it goes, or have another direction, and then that is
// appended.
func (n *tally) settleExtra(h *header, x *extra, r rates, s *sampling, b *event.Batch) {
	f := &b.Flows[len(b.Flows)-1]
	if x.isEvent(f) {
		n.events++
		b.Truncate(len(b.Flows) - 1)
		return
	}
	if r.perRecord {
		f.Sampling = s.rateOf(&x.sampled, f, r.base)
	}
	x.complete(f)
	if x.back.octets|x.back.packets == 0 {
		n.settle(h, f)
		return
	}
	other := *f
	x.back.flow(&other)
	n.settle(h, f)
	n.settle(h, &other)
	b.Flows = append(b.Flows, other)
}

// count counts what became of records, and the flows emitted.
func (n *tally) count(dom *domain, emitted int) {
	for _, part := range [...]struct {
		of counter
		n  int
	}{{flows, emitted}, {flowsClamped, n.clamped}, {flowsUnsampled, n.unsampled}, {recordsEvents, n.events}, {recordsNoAddress, n.noAddress}} {
		if part.n > 0 {
			dom.counts.add(part.of, uint64(part.n))
		}
	}
}
