// Package score plays scenarios through the whole of noroshi, but for the
// sockets, and says how well it did: records become datagrams, datagrams are
// decoded, all detectors look at them, findings become incidents, and these are
// held against what really happened.
package score

import (
	"context"
	"iter"
	"time"

	"noroshi/detect/all"
	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
	"noroshi/network"
	"noroshi/pipeline"
	"noroshi/scenario"
	"noroshi/scenario/wire"
	"noroshi/source"
	"noroshi/source/export"
	"noroshi/source/packet"
)

// Config directs a run. The zero Config is ready.
type Config struct {
	Seed   uint64
	Shards int // of the pipeline; 0 means one
	// Detectors are those that run; nil means all, with their defaults.
	Detectors []pipeline.Detector
	// Progress, if set, is told about once a second of the play how far it is.
	Progress func(done time.Duration)
}

// Result is what was found in one play.
type Result struct {
	Scenario  *scenario.Scenario
	Truth     *scenario.Truth
	Findings  []Finding            // in the order they were first said; the last word of each
	Incidents []*incident.Incident // those not merged into others, in the order they were opened
	// Members are the hosts of each incident, those of incidents merged into it
	// included.
	Members map[finding.ID]map[event.Addr]bool
	sizes   []size
	names   map[string]bool // of the detectors that ran

	Records   uint64 // decoded; those of packets inside others don't count
	Datagrams uint64
	Lost      uint64 // what decoders counted as lost, refused or cut
	Took      time.Duration
}

// Finding is one with the time it was first said.
type Finding struct {
	finding.Finding
	FirstSaid event.Time
}

// size is how many hosts took part in an incident at a time.
type size struct {
	at     event.Time
	id     finding.ID
	active uint64
}

// Run plays s.
func Run(ctx context.Context, s *scenario.Scenario, cfg Config) (*Result, error) {
	began := time.Now()
	table, err := network.New(s.Provider.Networks)
	if err != nil {
		return nil, err
	}
	r := &Result{Scenario: s, Members: map[finding.ID]map[event.Addr]bool{}, names: map[string]bool{}}
	correlator := incident.NewCorrelator(incident.Config{})
	at := map[finding.ID]int{}
	last := map[finding.ID]*incident.Incident{}
	var order []finding.ID
	note := func(now event.Time) {
		for _, in := range correlator.Changes() {
			if last[in.ID] == nil {
				order = append(order, in.ID)
				r.Members[in.ID] = map[event.Addr]bool{}
			}
			last[in.ID] = in
			for _, m := range in.NewMembers {
				r.Members[in.ID][m.Addr] = true
			}
			if in.Active >= 1000 {
				r.sizes = append(r.sizes, size{now, in.ID, in.Active})
			}
		}
	}
	begin := s.Start()
	play := &played{scenario: s, seed: cfg.Seed, start: begin, decoder: export.NewDecoder(export.Config{})}
	p := &pipeline.Pipeline{
		Detectors: cfg.Detectors, Network: table, Shards: max(cfg.Shards, 1),
		Report: func(f *finding.Finding) {
			if i, known := at[f.ID]; known {
				r.Findings[i].Finding = *f
			} else {
				at[f.ID] = len(r.Findings)
				r.Findings = append(r.Findings, Finding{*f, f.Said})
			}
			correlator.Add(f)
		},
		Clock: func(now event.Time) {
			correlator.Advance(now)
			note(now)
			if cfg.Progress != nil {
				cfg.Progress(now.Sub(begin))
			}
		},
	}
	if p.Detectors == nil {
		for _, spec := range all.Specs {
			p.Detectors = append(p.Detectors, pipeline.Detector{Spec: spec})
		}
	}
	for _, d := range p.Detectors {
		r.names[d.Spec.Name] = true
	}
	if err := p.Run(ctx, play); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	note(event.Time(p.Stats().Clock))
	for _, id := range order {
		in := last[id]
		if in.Merged == nil {
			r.Incidents = append(r.Incidents, in)
			continue
		}
		for a := range r.Members[id] {
			r.Members[*in.Merged][a] = true
		}
	}
	r.Truth, r.Records, r.Datagrams = play.truth, p.Stats().Flows-play.inner, play.datagrams
	for c := range play.Counts() {
		if c.Name == "lost" || c.Name == "refused" {
			r.Lost += c.Value
		}
	}
	r.Lost += play.failed
	r.Took = time.Since(began)
	return r, nil
}

// played is a source that plays a scenario.
type played struct {
	scenario  *scenario.Scenario
	seed      uint64
	start     event.Time
	decoder   *export.Decoder
	truth     *scenario.Truth
	datagrams uint64
	failed    uint64 // datagrams that could not be decoded
	inner     uint64 // records of packets inside others

	pool event.Pool
}

// Run plays the scenario to its end.
func (p *played) Run(ctx context.Context, emit func(*event.Batch)) error {
	b := p.pool.Get()
	send := func(d *wire.Datagram) {
		p.datagrams++
		before := b.Len()
		if d.Exporter.Protocol == scenario.Packets {
			packet.Decode(&packet.Packet{Time: d.At, Link: packet.Raw, Data: d.Data, Wire: len(d.Data)}, event.MaxPayload, b)
		} else if _, err := p.decoder.Decode(d.Data, d.Exporter.Addr, d.At, b); err != nil {
			p.failed++
		}
		for i := range b.Flows[before:] {
			if b.Flows[before+i].Has(event.Tunnelled) {
				p.inner++
			}
		}
		if b.Len() >= event.BatchSize {
			emit(b)
			b = p.pool.Get()
		}
	}
	enc := wire.NewEncoder(p.scenario.Provider, p.start.Add(-240*time.Hour))
	p.truth = p.scenario.Play(p.seed, p.start, func(records *event.Batch) bool {
		enc.Encode(records, send)
		return ctx.Err() == nil
	})
	enc.Flush(send)
	emit(b)
	return nil
}

// Counts returns the decoder's counters.
func (p *played) Counts() iter.Seq[source.Count] { return p.decoder.Counts() }
