package netflow

import (
	"math"

	"noroshi/event"
)

// Bounds on what options records can make us remember.
const (
	maxSamplers    = 4096  // of one exporter
	maxAllSamplers = 65536 // of one Decoder
)

// sampled is what a record says about sampling, be it data or options.
type sampled struct {
	by    uint64 // selectorId (302), FLOW_SAMPLER_ID (48)
	named bool   // by was there

	interval            uint32  // one in so many (34, 50)
	psInterval, psSpace uint64  // 305 packets are taken and then 306 are not (RFC 5477, 8.2.2, 8.2.3)
	spaced              bool    // psSpace was there
	size, population    uint64  // size packets of each population (309, 310)
	probability         float64 // 311

	iface       uint32 // the interface that an options record is about
	atInterface bool
}

// rate returns one packet in how many was taken; 0 if the record doesn't say.
func (s *sampled) rate() uint32 {
	switch {
	case s.interval > 0:
		return s.interval
	case s.spaced && s.psInterval > 0:
		return wholeRate((float64(s.psInterval) + float64(s.psSpace)) / float64(s.psInterval))
	case s.size > 0 && s.population >= s.size:
		return wholeRate(float64(s.population) / float64(s.size))
	case s.probability > 0 && s.probability <= 1:
		return wholeRate(1 / s.probability)
	}
	return 0
}

func wholeRate(r float64) uint32 { return uint32(min(math.Round(r), math.MaxUint32)) }

// sampling is what a domain's options records have told.
type sampling struct {
	rate told                // for the whole domain
	of   map[samplerKey]told // for one sampler, or one interface

	interfaces int  // of the keys, how many are interfaces
	only       told // if there is just one sampler, its rate
}

// told is a rate and when the exporter last said it.
type told struct {
	rate uint32 // 0 = not known
	at   event.Time
}

// samplerKey is a sampler's id or, marked, an interface's index.
type samplerKey struct {
	iface bool
	id    uint64
}

// learn takes in an options record.
func (d *Decoder) learn(dom *domain, x *extra, at event.Time) {
	if x.boot != 0 {
		dom.booted = x.boot
	}
	t := told{x.sampled.rate(), at}
	switch {
	case t.rate == 0:
	case x.sampled.named:
		d.remember(dom, samplerKey{id: x.sampled.by}, t)
	case x.sampled.atInterface:
		d.remember(dom, samplerKey{iface: true, id: uint64(x.sampled.iface)}, t)
	default:
		dom.sampling.rate = t
		dom.exporter.rate = t.rate
	}
}

// remember notes the rate of a sampler or an interface, if there is room.
func (d *Decoder) remember(dom *domain, k samplerKey, t told) {
	s, e := &dom.sampling, dom.exporter
	if _, known := s.of[k]; !known {
		if d.samplers >= maxAllSamplers {
			d.sweep(t.at)
		}
		if e.samplers >= maxSamplers || d.samplers >= maxAllSamplers {
			dom.counts.add(samplersRefused, 1)
			return
		}
		e.samplers++
		d.samplers++
		if k.iface {
			s.interfaces++
		}
		if s.of == nil {
			s.of = map[samplerKey]told{}
		}
	}
	s.of[k] = t
	switch {
	case k.iface:
	case len(s.of)-s.interfaces == 1:
		s.only = t
	default:
		s.only = told{}
	}
}

// override returns what the operator says about a domain's sampling; 0 = nothing.
func (d *Decoder) override(dom *domain) uint32 {
	if d.cfg.Sampling == nil {
		return 0
	}
	return d.cfg.Sampling(dom.exporter.addr, dom.key.id)
}

// rates is how to find the sampling rate of a set's records.
type rates struct {
	base      uint32 // of records that don't say more
	perRecord bool   // records may say more
}

func (d *Decoder) ratesOf(t *template) rates {
	if r := d.override(t.dom); r != 0 {
		return rates{base: r}
	}
	s := &t.dom.sampling
	return rates{s.base(t), t.extra || s.interfaces > 0}
}

// base returns the rate of records of t that don't say more: the domain's, the
// exporter's, or, where records don't name a sampler, that of the only one.
func (s *sampling) base(t *template) uint32 {
	switch {
	case s.rate.rate != 0:
		return s.rate.rate
	case t.dom.exporter.rate != 0:
		return t.dom.exporter.rate
	case !t.sampler:
		return s.only.rate
	}
	return 0
}

// rateOf returns the rate of one record: what it says itself, what its sampler
// or interface was said to have, or base.
func (s *sampling) rateOf(x *sampled, f *event.Flow, base uint32) uint32 {
	if r := x.rate(); r != 0 {
		return r
	}
	if x.named {
		if t, ok := s.of[samplerKey{id: x.by}]; ok {
			return t.rate
		}
	}
	if s.interfaces > 0 {
		at := f.InIf
		if f.Has(event.Egress) {
			at = f.OutIf
		}
		if t, ok := s.of[samplerKey{iface: true, id: uint64(at)}]; ok {
			return t.rate
		}
	}
	return base
}
