package netflow

import (
	"container/list"
	"time"

	"noroshi/event"
)

const (
	maxDomains = 256              // of one exporter
	idle       = 10 * time.Minute // silence after which an exporter may be forgotten
)

// exporter is what is known of one sender.
type exporter struct {
	addr    event.Addr
	domains map[domainKey]*domain
	last    *domain    // of the last datagram
	heard   event.Time // when the last datagram came
	rate    uint32     // sampling that the exporter told for no domain or sampler in particular; 0 = none

	announced *list.List // of *template, the most recently announced in front
	samplers  int        // in all its domains
}

// domainKey names the space in which template ids and sequence numbers have
// their meaning: the source id of v9 (RFC 3954, 5.1), the observation domain of
// IPFIX (RFC 7011, 2), the engine of v5.
type domainKey struct {
	version uint16
	id      uint32
}

// domain is the state of one such space.
type domain struct {
	exporter  *exporter
	key       domainKey
	heard     event.Time
	templates map[uint16]*template
	waiting   map[uint16]*waiting
	sampling  sampling
	seq       sequence
	clock     clock
	booted    uint64 // ms since 1970, as an options record said (systemInitTimeMilliseconds); 0 = unknown
	counts    counters
}

// domainOf returns the domain, making it if there is room, else nil.
func (d *Decoder) domainOf(addr event.Addr, key domainKey, seen event.Time) *domain {
	e := d.last
	if e == nil || e.addr != addr {
		if e = d.exporters[addr]; e == nil {
			if e = d.newExporter(addr, seen); e == nil {
				return nil
			}
		}
		d.last = e
	}
	e.heard = seen
	dom := e.last
	if dom == nil || dom.key != key {
		if dom = e.domains[key]; dom == nil {
			if dom = d.newDomain(e, key, seen); dom == nil {
				return nil
			}
		}
		e.last = dom
	}
	dom.heard = seen
	return dom
}

func (d *Decoder) newExporter(addr event.Addr, seen event.Time) *exporter {
	if len(d.exporters) >= d.cfg.MaxExporters {
		d.sweep(seen)
	}
	if len(d.exporters) >= d.cfg.MaxExporters {
		d.counts.add(refusedExporters, 1)
		return nil
	}
	e := &exporter{addr: addr, heard: seen, domains: map[domainKey]*domain{}, announced: list.New()}
	d.mu.Lock()
	d.exporters[addr] = e
	d.mu.Unlock()
	return e
}

func (d *Decoder) newDomain(e *exporter, key domainKey, seen event.Time) *domain {
	full := func() bool { return len(e.domains) >= maxDomains || d.domains >= 2*d.cfg.MaxExporters }
	if full() {
		d.sweep(seen)
	}
	if full() {
		d.counts.add(refusedDomains, 1)
		return nil
	}
	dom := &domain{exporter: e, key: key, heard: seen}
	d.mu.Lock()
	defer d.mu.Unlock()
	e.domains[key] = dom
	d.domains++
	return dom
}

// sweep forgets who has been silent for long. It is called only at a bound, and
// looks at most once a second, so that a flood of forged exporters costs no more.
func (d *Decoder) sweep(seen event.Time) {
	if seen.Sub(d.swept) < time.Second && seen >= d.swept {
		return
	}
	d.swept = seen
	d.mu.Lock()
	defer d.mu.Unlock()
	for addr, e := range d.exporters {
		for _, dom := range e.domains {
			if seen.Sub(dom.heard) > idle {
				d.forget(dom)
			}
		}
		if len(e.domains) == 0 && seen.Sub(e.heard) > idle {
			delete(d.exporters, addr)
		}
	}
	d.last = nil
}

// forget drops a domain with all that belongs to it and keeps its counts in
// those of the decoder. The caller holds d.mu.
func (d *Decoder) forget(dom *domain) {
	for _, w := range dom.waiting {
		for len(w.sets) > 0 {
			d.held.drop(w.sets[0], lostForgotten)
		}
	}
	for _, t := range dom.templates {
		d.remove(t)
	}
	for i := range dom.counts {
		d.counts[i].Add(dom.counts[i].Load())
	}
	dom.exporter.samplers -= len(dom.sampling.of)
	d.samplers -= len(dom.sampling.of)
	delete(dom.exporter.domains, dom.key)
	dom.exporter.last = nil
	d.domains--
}

// shift returns what to add to the times of a datagram, and counts where clocks
// disagree.
func (dom *domain) shift(seen, export event.Time) event.Time {
	s := dom.clock.shift(seen, export)
	if s != 0 {
		dom.counts.add(shifted, 1)
	}
	return s
}
