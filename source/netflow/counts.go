package netflow

import (
	"cmp"
	"iter"
	"slices"
	"sync/atomic"

	"noroshi/event"
	"noroshi/source"
)

// counter is one of the things that are counted.
type counter uint8

const (
	datagrams counter = iota
	refusedShort
	refusedVersion
	refusedExporters
	refusedDomains
	reordered
	restarts
	shifted
	lostGap
	flows
	flowsClamped
	flowsUnsampled
	recordsEvents
	recordsNoAddress
	recordsOptions
	recordsCut
	setsHeld
	setsReserved
	setsBad
	setsCut
	lostExpired
	lostEvicted
	lostForgotten
	lostCrowd
	templatesLearned
	templatesChanged
	templatesWithdrawn
	templatesMalformed
	templatesOversized
	templatesRefused
	templatesEvicted
	templatesStale
	samplersRefused
	numCounters
)

// counterNames are Count.Name and Count.Reason. An empty reason is the total of
// what went well.
var counterNames = [numCounters][2]string{
	datagrams:          {"datagrams", ""},
	refusedShort:       {"refused", "short header"},
	refusedVersion:     {"refused", "unknown version"},
	refusedExporters:   {"refused", "too many exporters"},
	refusedDomains:     {"refused", "too many domains"},
	reordered:          {"datagrams", "reordered"},
	restarts:           {"restarts", "sequence began anew"},
	shifted:            {"datagrams", "clock shifted"},
	lostGap:            {"lost", "sequence gap"}, // flows; estimated in v9, options records included in IPFIX
	flows:              {"flows", ""},
	flowsClamped:       {"flows", "times clamped"},
	flowsUnsampled:     {"flows", "sampling unknown"},
	recordsEvents:      {"records", "event without volume"},
	recordsNoAddress:   {"records", "no IP address"},
	recordsOptions:     {"records", "options"},
	recordsCut:         {"records", "cut short"},
	setsHeld:           {"sets", "held for template"}, // all that were ever held
	setsReserved:       {"sets", "reserved id"},
	setsBad:            {"sets", "impossible length"},
	setsCut:            {"sets", "cut short"},
	lostExpired:        {"lost sets", "template did not come"},
	lostEvicted:        {"lost sets", "no room to wait for template"},
	lostForgotten:      {"lost sets", "exporter forgotten"},
	lostCrowd:          {"lost sets", "too many records at once"},
	templatesLearned:   {"templates", ""},
	templatesChanged:   {"templates", "changed"},
	templatesWithdrawn: {"templates", "withdrawal ignored"},
	templatesMalformed: {"templates", "malformed"},
	templatesOversized: {"templates", "too many fields"},
	templatesRefused:   {"templates", "no room"},
	templatesEvicted:   {"templates", "evicted"},
	templatesStale:     {"templates", "stale after restart"},
	samplersRefused:    {"samplers", "no room"},
}

// counters are written by the decoder's owner and read by anyone.
type counters [numCounters]atomic.Uint64

func (c *counters) add(i counter, n uint64) { c[i].Add(n) }

// Counts returns every counter that isn't zero: of each exporter's domains in
// the order of their addresses, then those of no domain, among which are the
// sums of domains forgotten. It may be called at any time from any goroutine.
func (d *Decoder) Counts() iter.Seq[source.Count] {
	return func(yield func(source.Count) bool) {
		for _, m := range d.snapshot() {
			for i := range m.counts {
				if m.counts[i] == 0 {
					continue
				}
				if !yield(source.Count{
					Name: counterNames[i][0], Reason: counterNames[i][1],
					Exporter: m.exporter, Domain: m.domain, Value: m.counts[i],
				}) {
					return
				}
			}
		}
	}
}

// domainCounts are the counters of one domain of one exporter, all its versions
// together, at one moment.
type domainCounts struct {
	exporter event.Addr
	domain   uint32
	counts   [numCounters]uint64
}

func (m *domainCounts) add(c *counters) {
	for i := range c {
		m.counts[i] += c[i].Load()
	}
}

// snapshot copies the counters, so that no reader holds up the owner for longer.
func (d *Decoder) snapshot() []domainCounts {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]domainCounts, 0, d.domains+1)
	for _, e := range d.exporters {
		for key, dom := range e.domains {
			m := domainCounts{exporter: e.addr, domain: key.id}
			m.add(&dom.counts)
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b domainCounts) int {
		return cmp.Or(slices.Compare(a.exporter[:], b.exporter[:]), cmp.Compare(a.domain, b.domain))
	})
	all = mergeVersions(all)
	var rest domainCounts
	rest.add(&d.counts)
	return append(all, rest)
}

// mergeVersions adds up neighbours that differ only in the protocol's version.
func mergeVersions(all []domainCounts) []domainCounts {
	out := all[:0]
	for _, m := range all {
		if n := len(out); n > 0 && out[n-1].exporter == m.exporter && out[n-1].domain == m.domain {
			for i := range m.counts {
				out[n-1].counts[i] += m.counts[i]
			}
			continue
		}
		out = append(out, m)
	}
	return out
}
