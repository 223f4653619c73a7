package netflow

import (
	"container/list"
	"slices"
	"time"

	"noroshi/event"
)

const (
	// maxFields bounds the fields of a template. The largest seen in the wild
	// has about 100.
	maxFields = 256
	// staleAfter is the age at which a template from a file, not announced since,
	// is no longer believed.
	staleAfter = 24 * time.Hour
)

// field is one field of a template as it was announced.
type field struct {
	element element
	length  uint16 // octets, or variableLength
}

// template is one template of one domain (RFC 3954, 5.2; RFC 7011, 3.4).
type template struct {
	definition
	plan
	dom       *domain
	announced event.Time
	loaded    bool          // from a file, and not announced since
	place     *list.Element // in exporter.announced
}

// definition is what an exporter says of a template.
type definition struct {
	id      uint16
	options bool // its records are metadata and not traffic
	scope   int  // how many fields, the first ones, are scope; in v9 their elements are scope types
	fields  []field
}

func (a *definition) equal(b *definition) bool {
	return a.id == b.id && a.options == b.options && a.scope == b.scope && slices.Equal(a.fields, b.fields)
}

// templateSet reads a template set, or with options an options template set. In
// an options template v9 gives the lengths of scope and options in octets (RFC
// 3954, 6.1), IPFIX the number of all fields and that of the scope (RFC 7011,
// 3.4.2.2).
func (d *Decoder) templateSet(dom *domain, p []byte, options bool, h *header, b *event.Batch) error {
	head := 4
	if options {
		head = 6
	}
	var err error
	for len(p) >= 4 && !allZero(p) { // zeros are padding
		id, count := be.Uint16(p), int(be.Uint16(p[2:]))
		if count == 0 && dom.key.version == ipfix {
			dom.counts.add(templatesWithdrawn, 1) // RFC 7011, 8.4: must be ignored over UDP
			p = p[4:]
			continue
		}
		if id < firstData || len(p) < head {
			dom.counts.add(templatesMalformed, 1)
			return ErrTemplate
		}
		def := definition{id: id, options: options}
		if options {
			def.scope = int(be.Uint16(p[4:]))
			if dom.key.version == v9 {
				count, def.scope = (count+def.scope)/4, count/4
			}
		}
		var rest []byte
		rest, ok := d.readFields(p[head:], count, def.scope, dom.key.version)
		if !ok || def.scope > count {
			dom.counts.add(templatesMalformed, 1)
			return ErrTemplate
		}
		p = rest
		def.fields = d.fields
		if e := d.announce(dom, &def, h, b); e != nil {
			err = e
		}
	}
	return err
}

// readFields reads count fields, the first scope of which are scope, into
// d.fields, of which it keeps maxFields+1 at most. It returns what follows them.
func (d *Decoder) readFields(p []byte, count, scope int, version uint16) (rest []byte, ok bool) {
	d.fields = d.fields[:0]
	for i := range count {
		if len(p) < 4 {
			return nil, false
		}
		id, length := be.Uint16(p), be.Uint16(p[2:])
		p = p[4:]
		e := element(id)
		switch {
		case version == v9 && i < scope:
			e = enterprise(scopeTypes, id)
		case version == ipfix && id&0x8000 != 0: // RFC 7011, 3.2
			if len(p) < 4 {
				return nil, false
			}
			e = enterprise(be.Uint32(p), id&0x7fff)
			p = p[4:]
		case version == ipfix && i < scope && (id == 10 || id == 14):
			e = interfaceScope
		}
		if len(d.fields) <= maxFields {
			d.fields = append(d.fields, field{e, length})
		}
	}
	return p, true
}

// announce takes in a definition, whose fields it copies if it keeps them, and
// decodes the data that waited for it.
func (d *Decoder) announce(dom *domain, def *definition, h *header, b *event.Batch) error {
	if len(def.fields) > maxFields {
		dom.counts.add(templatesOversized, 1)
		return ErrTemplate
	}
	if old := dom.templates[def.id]; old != nil {
		if old.equal(def) {
			old.announced, old.loaded = h.arrived, false
			dom.exporter.announced.MoveToFront(old.place)
			return nil
		}
		dom.counts.add(templatesChanged, 1)
		d.remove(old)
	}
	t := d.newTemplate(dom, def, h.arrived)
	if t == nil {
		return ErrTemplate
	}
	t.announced = h.arrived
	dom.counts.add(templatesLearned, 1)
	d.release(t, h.seen, b)
	return nil
}

// newTemplate compiles a definition and keeps it, if it can have records and
// there is room, else it returns nil.
func (d *Decoder) newTemplate(dom *domain, def *definition, seen event.Time) *template {
	p := compile(def.fields, def.options)
	if p.size == 0 || p.size > maxRecord {
		dom.counts.add(templatesMalformed, 1)
		return nil
	}
	if !d.makeRoom(dom, seen) {
		dom.counts.add(templatesRefused, 1)
		return nil
	}
	t := &template{definition: *def, plan: p, dom: dom}
	t.fields = slices.Clone(def.fields)
	t.place = dom.exporter.announced.PushFront(t)
	if dom.templates == nil {
		dom.templates = map[uint16]*template{}
	}
	dom.templates[t.id] = t
	d.templates++
	return t
}

// makeRoom drops the exporter's oldest template if it, or the Decoder, has as
// many as are allowed, and reports whether there is room for one more. When the
// Decoder is full, exporters long silent make room first.
func (d *Decoder) makeRoom(dom *domain, seen event.Time) bool {
	own := dom.exporter.announced
	if d.templates >= d.cfg.MaxTemplates {
		d.sweep(seen)
	}
	if d.templates < d.cfg.MaxTemplates && own.Len() < max(d.cfg.MaxTemplates/4, 1) {
		return true
	}
	if own.Len() == 0 {
		return false
	}
	oldest := own.Back().Value.(*template)
	oldest.dom.counts.add(templatesEvicted, 1)
	d.remove(oldest)
	return true
}

func (d *Decoder) remove(t *template) {
	t.dom.exporter.announced.Remove(t.place)
	delete(t.dom.templates, t.id)
	d.templates--
}

// template returns the domain's template with this id, if it is there and
// believed, else nil.
func (d *Decoder) template(dom *domain, id uint16, seen event.Time) *template {
	t := dom.templates[id]
	if t != nil && t.loaded && seen.Sub(t.announced) > staleAfter {
		dom.counts.add(templatesStale, 1)
		d.remove(t)
		return nil
	}
	return t
}
