// Package detect defines detectors. Each subfolder holds one family of them,
// with its documents, its knobs and its cases.
package detect

import (
	"io"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/network"
)

// A Detector looks for one kind of misbehaviour.
//
// The pipeline makes one Detector per shard and calls it from one goroutine, so
// its state needs no lock. Time is event time: a detector never asks for the
// clock, so a replayed file gives the findings that the live stream gave.
//
// Findings must depend neither on the number of shards, nor on where one batch
// ends and the next begins, nor on when Advance is called between two events:
// decisions are made on update, from the times in the records. Memory must not
// grow with the number of addresses in the input beyond what Spec.Memory says.
type Detector interface {
	// Detect examines b in order and reports what it finds. Flow.Seen is the
	// clock; it may step back by a little. State about a source is kept only
	// from records marked [event.ForSrc], about a destination from those marked
	// [event.ForDst], about an own network from those marked [event.ForNet]. It
	// must keep neither b nor anything inside it.
	Detect(b *event.Batch, report func(*finding.Finding))

	// Advance tells the detector that no record seen before now will come, so
	// that it can say what has ended, and forget. It is called about once a
	// second of event time.
	Advance(now event.Time, report func(*finding.Finding))

	// Finish reports the latest numbers of what goes on, once, when the input has
	// ended. Nothing is over because the input is.
	Finish(report func(*finding.Finding))

	// Usage returns how much state the detector holds.
	Usage() Usage
}

// A Learner is a Detector that learns what is usual, which takes weeks and must
// outlive the program.
type Learner interface {
	// Save writes what was learned, the same bytes for the same knowledge.
	Save(w io.Writer) error
	// Load adds what Save wrote, of this or of another shard's detector.
	Load(r io.Reader) error
}

// Usage is the state a detector holds, for metrics and for tests of its bound.
type Usage struct {
	Entries int    // keys held
	Bytes   int    // memory of the tables, an estimate
	Evicted uint64 // keys dropped because a table was full, since the start
}

// A Spec describes a detector to the pipeline, the console and the manual.
type Spec struct {
	Name         string     // the family, lower case: "flood"
	Version      int        // raised when the same input would give other findings
	Rules        []Rule     // what it can report
	Memory       string     // the bound on state, and what happens at it
	Source       string     // papers, RFCs or vendor documents the method is from
	Requirements []string   // rows of requirements.md it serves
	Config       func() any // a new pointer to the knobs' struct, with the defaults
	// Select, if set, makes the detector see the whole network at once: there is
	// one of it, whatever the number of shards, and it gets every record for
	// which Select is true and no other. For detectors that join records of
	// different hosts; Select keeps no state, is quick, and is true for few.
	Select func(b *event.Batch, f *event.Flow) bool
	New    func(Env) (Detector, error)
}

// A Rule is one thing a detector reports.
type Rule struct {
	Name           string       // "flood.inbound"
	Doc            finding.Text // what it finds
	Next           finding.Text // what to do about it; never empty
	FalsePositives finding.Text // what else looks like it, and how to tell
	Attack         []string     // MITRE ATT&CK technique IDs
}

// RuleNamed returns the rule of that name, or nil.
func RuleNamed(rules []Rule, name string) *Rule {
	for i := range rules {
		if rules[i].Name == name {
			return &rules[i]
		}
	}
	return nil
}

// Env is what a detector is made from.
type Env struct {
	Config  any            // what Spec.Config returned, perhaps changed by the operator
	Network *network.Table // the provider's own networks; may be nil
	// Seed keys the hashes of tables. It must not influence findings.
	Seed uint64
}
