package pipeline

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/source"
)

// Keep sees what was emitted, of all kinds, once, whatever the number of shards.
func TestKeep(t *testing.T) {
	fs := flows(10_000, 512)
	for _, shards := range []int{1, 2, 8} {
		var mu sync.Mutex
		var got []event.Time
		others := 0
		p := Pipeline{Detectors: []Detector{{Spec: spec(nil)}}, Shards: shards, Report: func(*finding.Finding) {},
			Keep: func(b *event.Batch) {
				mu.Lock()
				defer mu.Unlock()
				for i := range b.Flows {
					if b.Flows[i].Has(event.ForSrc) || b.Flows[i].Has(event.ForDst) {
						t.Error("a dealt record")
					}
					got = append(got, b.Flows[i].First)
				}
				others += len(b.DNS) + len(b.Sessions) + len(b.Logs)
			}}
		if err := p.Run(context.Background(), &recorded{fs[:5000], 700, nil}, &recorded{fs[5000:], 300, nil}, otherKinds(0)); err != nil {
			t.Fatal(err)
		}
		slices.Sort(got)
		if len(got) != len(fs) || others != 3 {
			t.Fatalf("%d shards: %d flows and %d others kept, want %d and 3", shards, len(got), others, len(fs))
		}
		for i := range fs {
			if got[i] != fs[i].First {
				t.Fatalf("%d shards: record %d is missing or there twice", shards, i)
			}
		}
	}
}

// Every kind moves the clock.
func TestClockOfOtherKinds(t *testing.T) {
	for kind := range 3 {
		p := Pipeline{Detectors: []Detector{{Spec: spec(nil)}}, Report: func(*finding.Finding) {}}
		if err := p.Run(context.Background(), otherKinds(kind+1)); err != nil {
			t.Fatal(err)
		}
		if want := start.Add(time.Duration(kind+1) * time.Hour); p.Stats().Clock != want {
			t.Errorf("kind %d: the clock is %v, want %v", kind, p.Stats().Clock, want)
		}
	}
}

// otherKinds emits a DNS message, a session and a log record; the n-th of them,
// counted from 1, comes n hours after start.
type otherKinds int

func (n otherKinds) Run(_ context.Context, emit func(*event.Batch)) error {
	seen := func(kind int) event.Time {
		if kind == int(n) {
			return start.Add(time.Duration(n) * time.Hour)
		}
		return start
	}
	emit(&event.Batch{
		DNS: []event.DNS{{Seen: seen(1)}}, Sessions: []event.Session{{Seen: seen(2)}}, Logs: []event.Log{{Seen: seen(3)}},
	})
	return nil
}

func (otherKinds) Counts() func(func(source.Count) bool) { return func(func(source.Count) bool) {} }
