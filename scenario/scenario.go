// Package scenario makes ground truth: generated provider networks with
// ordinary traffic, attacks laid over it, and labels that say what happened.
//
// A play of a scenario gives the records that the network's exporters would
// tell, in the order and at the time they would tell them: sampled, held back by
// flow caches, with the flags and sizes of the packets that were looked at.
// Package scenario/wire makes datagrams and packets of them, and package
// scenario/score says how well the detectors did.
//
// Everything follows from a seed: equal seeds give equal records. Addresses
// outside are of the ranges for benchmarks and documentation (RFC 2544, 5737,
// 9637), but for the targets of scans, which are anywhere in the world, because
// that is how scanners are known. They are data and are never sent to.
package scenario

import (
	"time"

	"noroshi/event"
	"noroshi/finding"
)

// Scenario is one story that can be played.
type Scenario struct {
	Name         string
	Doc          finding.Text
	Requirements []string // rows of requirements.md that it holds noroshi to
	Provider     *Provider
	Length       time.Duration
	// Hour is the hour of the day, in UTC, at which a play should start for the
	// ordinary traffic to be as meant.
	Hour int
	// Acts are what a viewer should know while it is played, in order of time.
	Acts []Act
	play func(w *world)
}

// Act is one thing that begins in a scenario.
type Act struct {
	At   time.Duration // since the start
	Text finding.Text
}

// Play emits the records of the scenario, which begins at start, in the order of
// Seen, and returns what happened. What is still in the exporters' caches at the
// end comes last. emit owns the batches; when it returns false the play is over.
func (s *Scenario) Play(seed uint64, start event.Time, emit func(*event.Batch) bool) *Truth {
	w := newWorld(s.Provider, seed, start, s.Length, emit)
	s.play(w)
	w.run()
	return w.truth
}

// Start is the time at which scenarios begin unless told otherwise: on
// 2026-11-02, a Monday, at the scenario's hour.
func (s *Scenario) Start() event.Time {
	return event.TimeOf(time.Date(2026, 11, 2, s.Hour, 0, 0, 0, time.UTC))
}

// Find returns the scenario of that name, or nil.
func Find(name string) *Scenario {
	for _, s := range All() {
		if s.Name == name {
			return s
		}
	}
	return nil
}
