package sflow

import (
	"bytes"
	"cmp"
	"maps"
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
	agentsRefused
	sourcesRefused
	reordered
	restarts
	lostDatagrams
	lostSamples
	droppedSamples
	flows
	flowsUnsampled
	samplesCounters
	samplesDiscards
	samplesUnknown
	samplesNoIP
	samplesCut
	samplesBad
	numCounters
)

// counterNames are Count.Name and Count.Reason. An empty reason is the total of
// what went well.
var counterNames = [numCounters][2]string{
	datagrams:       {"datagrams", ""},
	refusedShort:    {"refused", "short header"},
	refusedVersion:  {"refused", "unknown version"},
	agentsRefused:   {"datagrams", "agent not followed"},
	sourcesRefused:  {"samples", "data source not followed"},
	reordered:       {"datagrams", "reordered"},
	restarts:        {"restarts", "sequence began anew"},
	lostDatagrams:   {"lost datagrams", "sequence gap"},
	lostSamples:     {"lost samples", "sequence gap"},
	droppedSamples:  {"lost samples", "agent overloaded"},
	flows:           {"flows", ""},
	flowsUnsampled:  {"flows", "sampling unknown"},
	samplesCounters: {"samples", "interface counters"},
	samplesDiscards: {"samples", "discarded packets"},
	samplesUnknown:  {"samples", "unknown format"},
	samplesNoIP:     {"samples", "no IP packet"},
	samplesCut:      {"samples", "cut short"},
	samplesBad:      {"samples", "malformed"},
}

// counters are written by the decoder's owner and read by anyone.
type counters [numCounters]atomic.Uint64

func (c *counters) add(i counter, n uint64) { c[i].Add(n) }

// each yields the counters that aren't zero.
func (c *counters) each(exporter event.Addr, domain uint32, yield func(source.Count) bool) bool {
	for i := range c {
		if n := c[i].Load(); n > 0 && !yield(source.Count{
			Name: counterNames[i][0], Reason: counterNames[i][1], Exporter: exporter, Domain: domain, Value: n,
		}) {
			return false
		}
	}
	return true
}

func (d *Decoder) allCounts(yield func(source.Count) bool) {
	d.mu.Lock()
	agents := maps.Clone(d.agents)
	d.mu.Unlock()
	keys := slices.SortedFunc(maps.Keys(agents), func(a, b agentKey) int {
		return cmp.Or(bytes.Compare(a.addr[:], b.addr[:]), cmp.Compare(a.sub, b.sub))
	})
	for _, k := range keys {
		if !agents[k].counts.each(k.addr, k.sub, yield) {
			return
		}
	}
	d.counts.each(event.Addr{}, 0, yield)
}
