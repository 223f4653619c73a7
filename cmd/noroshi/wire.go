package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"noroshi/detect/all"
	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
	"noroshi/internal/config"
	"noroshi/internal/terminal"
	"noroshi/pipeline"
	"noroshi/source/export"
)

// newPipeline returns the pipeline of a configuration: every detector with its
// knobs, no Report and no Clock yet.
func newPipeline(f *config.File) *pipeline.Pipeline {
	p := &pipeline.Pipeline{Network: f.Table, Shards: f.Shards}
	for _, s := range all.Specs {
		p.Detectors = append(p.Detectors, pipeline.Detector{Spec: s, Config: f.Detect[s.Name]})
	}
	return p
}

// exportConfig returns the decoders' part of a configuration.
func exportConfig(f *config.File) export.Config {
	var c export.Config
	if len(f.Listen.Sampling) > 0 {
		c.NetFlow.Sampling = func(exporter event.Addr, _ uint32) uint32 { return f.Listen.SamplingOf(exporter.Std()) }
	}
	return c
}

// configuration loads the file at path, or the defaults when path is empty.
// What is wrong with it is said on stderr.
func (c *call) configuration(path string) (*config.File, int) {
	if path == "" {
		return config.Default(), exitOK
	}
	f, err := config.Load(path)
	var ms config.Mistakes
	switch {
	case errors.As(err, &ms):
		for _, m := range ms {
			fmt.Fprintln(c.stderr, terminal.Clean(m.Error()))
		}
		fmt.Fprintf(c.stderr, "noroshi %s: %s\n", c.name, plural(len(ms), "mistake", "mistakes"))
		return nil, exitUsage
	case err != nil:
		fmt.Fprintf(c.stderr, "noroshi %s: %v\n", c.name, err)
		return nil, exitUsage
	}
	return f, exitOK
}

func plural(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// ordered passes findings on in the order in which they were said, whatever the
// number of shards and however they race: the same input gives the same
// incidents with the same IDs. It holds findings back until the clock has passed
// them, which costs a live run about two seconds, so that one doesn't use it.
type ordered struct {
	to   func(*finding.Finding)
	held []*finding.Finding
}

// maxHeld bounds what is held back; about 100 MB.
const maxHeld = 1 << 16

func (o *ordered) add(f *finding.Finding) {
	if o.held = append(o.held, f); len(o.held) > maxHeld {
		o.sort()
		o.pass(maxHeld / 2)
	}
}

// until passes on the findings said before now.
func (o *ordered) until(now event.Time) {
	o.sort()
	n, _ := slices.BinarySearchFunc(o.held, now, func(f *finding.Finding, now event.Time) int {
		return cmp.Or(cmp.Compare(f.Said, now), 1)
	})
	o.pass(n)
}

func (o *ordered) finish() { o.until(math.MaxInt64) }

func (o *ordered) sort() { slices.SortStableFunc(o.held, incident.InOrder) }

func (o *ordered) pass(n int) {
	for _, f := range o.held[:n] {
		o.to(f)
	}
	o.held = append(o.held[:0:0], o.held[n:]...)
}
