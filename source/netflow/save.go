package netflow

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"slices"
	"time"

	"noroshi/event"
)

// The form in which templates and sampling rates are kept over a restart is
// lines of text. Each is the CRC-32 (IEEE) of a JSON object in eight hexadecimal
// digits, a space, and the object:
//
//	{"form":"noroshi netflow templates","version":1}
//	{"exporter":"192.0.2.1","protocol":9,"domain":7,"seen":"2026-11-24T00:00:00Z","template":{"id":256,"fields":[[0,8,4],[0,12,4]]}}
//	{"exporter":"192.0.2.1","protocol":9,"domain":7,"seen":"2026-11-24T00:00:00Z","sampling":{"rate":1000,"sampler":1}}
//	{"lines":4}
//
// A field is [enterprise number, element, length]. An options template has
// "options":true and "scope", the number of its scope fields; in v9 these have
// the enterprise number 4294967295, and so has an interface as scope in IPFIX. A
// rate without "sampler" or "interface" is for the whole domain. A "domain" that
// isn't there is 0. "seen" is when the exporter last said it.
const (
	formName    = "noroshi netflow templates"
	formVersion = 1
	longestLine = 1 << 16
)

type line struct {
	Form     string        `json:"form,omitempty"`
	Version  int           `json:"version,omitempty"`
	Exporter *netip.Addr   `json:"exporter,omitempty"`
	Protocol uint16        `json:"protocol,omitempty"`
	Domain   uint32        `json:"domain,omitempty"`
	Seen     *time.Time    `json:"seen,omitempty"`
	Template *lineTemplate `json:"template,omitempty"`
	Sampling *lineSampling `json:"sampling,omitempty"`
	Lines    int           `json:"lines,omitempty"`
}

type lineTemplate struct {
	ID      uint16      `json:"id"`
	Options bool        `json:"options,omitempty"`
	Scope   int         `json:"scope,omitempty"`
	Fields  [][3]uint32 `json:"fields"`
}

type lineSampling struct {
	Rate      uint32  `json:"rate"`
	Sampler   *uint64 `json:"sampler,omitempty"`
	Interface *uint64 `json:"interface,omitempty"`
}

// Save writes all templates and sampling rates with their age, the same in the
// same order every time. Its form is described in save.go.
func (d *Decoder) Save(w io.Writer) error {
	s := saver{w: bufio.NewWriter(w)}
	s.write(line{Form: formName, Version: formVersion})
	for _, dom := range d.sorted() {
		for _, id := range sortedKeys(dom.templates, cmp.Compare[uint16]) {
			t := dom.templates[id]
			l := dom.line(t.announced)
			l.Template = &lineTemplate{ID: id, Options: t.options, Scope: t.scope}
			for _, f := range t.fields {
				l.Template.Fields = append(l.Template.Fields, [3]uint32{uint32(f.element >> 16), uint32(f.element & 0xffff), uint32(f.length)})
			}
			s.write(l)
		}
		if t := dom.sampling.rate; t.rate != 0 {
			l := dom.line(t.at)
			l.Sampling = &lineSampling{Rate: t.rate}
			s.write(l)
		}
		for _, k := range sortedKeys(dom.sampling.of, samplerKey.compare) {
			t := dom.sampling.of[k]
			l := dom.line(t.at)
			l.Sampling = &lineSampling{Rate: t.rate}
			if k.iface {
				l.Sampling.Interface = &k.id
			} else {
				l.Sampling.Sampler = &k.id
			}
			s.write(l)
		}
	}
	s.write(line{Lines: s.lines + 1})
	return cmp.Or(s.err, s.w.Flush())
}

// sorted returns all domains in the order of exporter, version and id.
func (d *Decoder) sorted() []*domain {
	var all []*domain
	for _, e := range d.exporters {
		for _, dom := range e.domains {
			all = append(all, dom)
		}
	}
	slices.SortFunc(all, func(a, b *domain) int {
		return cmp.Or(bytes.Compare(a.exporter.addr[:], b.exporter.addr[:]), cmp.Compare(a.key.version, b.key.version), cmp.Compare(a.key.id, b.key.id))
	})
	return all
}

func (a samplerKey) compare(b samplerKey) int {
	if a.iface != b.iface {
		if b.iface {
			return -1
		}
		return 1
	}
	return cmp.Compare(a.id, b.id)
}

func sortedKeys[K comparable, V any](m map[K]V, compare func(a, b K) int) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compare)
	return keys
}

func (dom *domain) line(seen event.Time) line {
	addr, at := dom.exporter.addr.Std(), seen.Std()
	return line{Exporter: &addr, Protocol: dom.key.version, Domain: dom.key.id, Seen: &at}
}

type saver struct {
	w     *bufio.Writer
	lines int
	err   error
}

func (s *saver) write(l line) {
	text, err := json.Marshal(l)
	s.err = cmp.Or(s.err, err)
	_, err = fmt.Fprintf(s.w, "%08x %s\n", crc32.ChecksumIEEE(text), text)
	s.err = cmp.Or(s.err, err)
	s.lines++
}

// The errors of Load.
var (
	ErrForm    = errors.New("netflow: not a file of templates of a version that is known")
	ErrDamaged = errors.New("netflow: damaged line in a file of templates")
	ErrCut     = errors.New("netflow: file of templates is cut short")
)

// Load takes in what Save wrote, within the Decoder's bounds. Nothing that it
// knows already is replaced. A template that the exporter doesn't announce again
// is believed until it is a day old. Damaged lines are skipped; the first error
// is returned, and what was whole is taken all the same.
func (d *Decoder) Load(r io.Reader) error {
	scan := bufio.NewScanner(r)
	scan.Buffer(nil, longestLine)
	var first error
	n, end := 0, 0
	for scan.Scan() {
		n++
		l, err := parseLine(scan.Bytes())
		switch {
		case n == 1 && (err != nil || l.Form != formName || l.Version != formVersion):
			return ErrForm
		case err == nil && l.Lines != 0:
			end = l.Lines
		case err == nil && n > 1:
			err = d.restore(&l)
		}
		if err != nil && first == nil {
			first = fmt.Errorf("line %d: %w", n, err)
		}
	}
	switch {
	case first != nil:
		return first
	case scan.Err() != nil:
		return fmt.Errorf("netflow: line %d: %w", n+1, scan.Err())
	case n == 0:
		return ErrForm
	case end != n:
		return ErrCut
	}
	return nil
}

func parseLine(text []byte) (l line, err error) {
	sum, object, _ := bytes.Cut(text, []byte(" "))
	if string(sum) != fmt.Sprintf("%08x", crc32.ChecksumIEEE(object)) || json.Unmarshal(object, &l) != nil {
		return l, ErrDamaged
	}
	return l, nil
}

// restore takes in one line.
func (d *Decoder) restore(l *line) error {
	if l.Exporter == nil || l.Seen == nil || l.Protocol != v9 && l.Protocol != ipfix {
		return ErrDamaged
	}
	seen := event.TimeOf(*l.Seen)
	dom := d.domainOf(event.AddrOf(*l.Exporter), domainKey{l.Protocol, l.Domain}, seen)
	switch {
	case dom == nil:
		return ErrRefused
	case l.Template != nil:
		return d.restoreTemplate(dom, l.Template, seen)
	case l.Sampling != nil:
		d.restoreSampling(dom, l.Sampling, seen)
		return nil
	}
	return ErrDamaged
}

func (d *Decoder) restoreTemplate(dom *domain, l *lineTemplate, seen event.Time) error {
	if l.ID < firstData || len(l.Fields) > maxFields || l.Scope < 0 || l.Scope > len(l.Fields) {
		return ErrDamaged
	}
	if dom.templates[l.ID] != nil {
		return nil
	}
	def := definition{id: l.ID, options: l.Options, scope: l.Scope}
	for _, f := range l.Fields {
		if f[1] > 0xffff || f[2] > 0xffff {
			return ErrDamaged
		}
		def.fields = append(def.fields, field{element(f[0])<<16 | element(f[1]), uint16(f[2])})
	}
	t := d.newTemplate(dom, &def, seen)
	if t == nil {
		return ErrTemplate
	}
	t.announced, t.loaded = seen, true
	return nil
}

func (d *Decoder) restoreSampling(dom *domain, l *lineSampling, seen event.Time) {
	var x sampled
	x.interval = l.Rate
	if l.Sampler != nil {
		x.by, x.named = *l.Sampler, true
	}
	if l.Interface != nil {
		x.iface, x.atInterface = uint32(*l.Interface), true
	}
	d.learn(dom, &extra{sampled: x}, seen)
}
