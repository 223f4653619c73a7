// Package source defines where events come from. Each subfolder reads one
// format or protocol.
package source

import (
	"context"
	"iter"

	"noroshi/event"
)

// A Source turns outside data into batches.
type Source interface {
	// Run reads until ctx ends or the input does, calling emit with each
	// batch. It returns nil at the end of input and when ctx ends, and an
	// error only when it can't go on; malformed input is counted by reason
	// and skipped.
	//
	// emit takes ownership of the batch. It blocks while the pipeline is
	// full, so a source that must not wait (UDP) keeps its own bounded queue
	// and counts what it drops. Run may call emit from several goroutines, but
	// all events of one exporter come from one of them, in order.
	Run(ctx context.Context, emit func(*event.Batch)) error

	// Counts returns the source's counters as they stand. It may be called
	// while Run runs.
	Counts() iter.Seq[Count]
}

// A Count is one counter of a source: for metrics, for the summary at the end
// and for tests. Everything that came in and did not become a record is in one
// whose Reason names the cause.
type Count struct {
	Name     string     // what is counted, plural: "datagrams", "records", "lost", "refused", "samples"
	Reason   string     // the cause, for what was lost or refused: "kernel", "no template", "short header"
	Exporter event.Addr // zero: not of one exporter
	Domain   uint32     // observation domain, source id, sub-agent; meaningful with Exporter
	Value    uint64
}
