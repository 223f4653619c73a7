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

// Recorder gathers what detectors say while a scenario is played. It is for one
// goroutine at a time, as a pipeline's Report and Clock are called.
type Recorder struct {
	result     *Result
	correlator *incident.Correlator
	at         map[finding.ID]int
	last       map[finding.ID]*incident.Incident
	order      []finding.ID
}

// NewRecorder returns a Recorder for a play of s in which the detectors named run.
func NewRecorder(s *scenario.Scenario, detectors []pipeline.Detector) *Recorder {
	r := &Result{Scenario: s, Members: map[finding.ID]map[event.Addr]bool{}, names: map[string]bool{}}
	for _, d := range detectors {
		r.names[d.Spec.Name] = true
	}
	return &Recorder{result: r, correlator: incident.NewCorrelator(incident.Config{}), at: map[finding.ID]int{}, last: map[finding.ID]*incident.Incident{}}
}

// Report takes a finding.
func (c *Recorder) Report(f *finding.Finding) {
	r := c.result
	if i, known := c.at[f.ID]; known {
		r.Findings[i].Finding = *f
	} else {
		c.at[f.ID] = len(r.Findings)
		r.Findings = append(r.Findings, Finding{*f, f.Said})
	}
	c.correlator.Add(f)
}

// Clock takes the watermark and returns the incidents that changed.
func (c *Recorder) Clock(now event.Time) []*incident.Incident {
	c.correlator.Advance(now)
	changes := c.correlator.Changes()
	r := c.result
	for _, in := range changes {
		if c.last[in.ID] == nil {
			c.order = append(c.order, in.ID)
			r.Members[in.ID] = map[event.Addr]bool{}
		}
		c.last[in.ID] = in
		for _, m := range in.NewMembers {
			if r.Members[in.ID][m.Addr] = true; m.Gone {
				delete(r.Members[in.ID], m.Addr)
			}
		}
		if in.Active >= 1000 {
			r.sizes = append(r.sizes, size{now, in.ID, in.Active})
		}
	}
	return changes
}

// Result returns what was gathered, beside what happened.
func (c *Recorder) Result(truth *scenario.Truth) *Result {
	r := c.result
	r.Truth, r.Incidents = truth, nil
	for _, id := range c.order {
		in := c.last[id]
		if in.Merged == nil {
			r.Incidents = append(r.Incidents, in)
			continue
		}
		for a := range r.Members[id] {
			r.Members[*in.Merged][a] = true
		}
	}
	return r
}

// AllDetectors returns every detector, with its defaults.
func AllDetectors() (list []pipeline.Detector) {
	for _, spec := range all.Specs {
		list = append(list, pipeline.Detector{Spec: spec})
	}
	return list
}

// Run plays s.
func Run(ctx context.Context, s *scenario.Scenario, cfg Config) (*Result, error) {
	began := time.Now()
	table, err := network.New(s.Provider.Networks)
	if err != nil {
		return nil, err
	}
	if cfg.Detectors == nil {
		cfg.Detectors = AllDetectors()
	}
	rec := NewRecorder(s, cfg.Detectors)
	begin := s.Start()
	play := &played{scenario: s, seed: cfg.Seed, start: begin, decoder: export.NewDecoder(export.Config{})}
	p := &pipeline.Pipeline{
		Detectors: cfg.Detectors, Network: table, Shards: max(cfg.Shards, 1), Report: rec.Report,
		Clock: func(now event.Time) {
			rec.Clock(now)
			if cfg.Progress != nil {
				cfg.Progress(now.Sub(begin))
			}
		},
	}
	if err := p.Run(ctx, play); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rec.Clock(p.Stats().Clock)
	r := rec.Result(play.truth)
	r.Records, r.Datagrams = p.Stats().Flows-play.inner, play.datagrams
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
