package pipeline_test

import (
	"context"
	"iter"
	"sync"
	"testing"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/pipeline"
	"noroshi/source"
)

// batches is a source of n batches of every kind.
type batches int

func (n batches) Run(_ context.Context, emit func(*event.Batch)) error {
	var pool event.Pool
	for i := range int(n) {
		b := pool.Get()
		for k := range 10 {
			f := b.NewFlow()
			f.Seen, f.Bytes = event.Time(i+1)*1e9, uint64(10*i+k)
			f.Src, f.Dst = event.AddrOf4([4]byte{10, byte(i), 0, byte(k)}), event.AddrOf4([4]byte{192, 0, 2, byte(k)})
		}
		b.DNS = append(b.DNS, event.DNS{Seen: event.Time(i+1) * 1e9, Name: b.AddText([]byte("example.org"))})
		emit(b)
	}
	return nil
}

func (batches) Counts() iter.Seq[source.Count] { return func(func(source.Count) bool) {} }

// What is kept is what was emitted, each event once, whatever the shards.
func TestKeep(t *testing.T) {
	for _, shards := range []int{1, 2, 8} {
		var mu sync.Mutex
		seen, dns := map[uint64]int{}, 0
		p := &pipeline.Pipeline{Shards: shards, Report: func(*finding.Finding) {}, Keep: func(b *event.Batch) {
			mu.Lock()
			defer mu.Unlock()
			for i := range b.Flows {
				seen[b.Flows[i].Bytes]++
			}
			for i := range b.DNS {
				if b.Text(b.DNS[i].Name) == "example.org" {
					dns++
				}
			}
		}}
		if err := p.Run(t.Context(), batches(20)); err != nil {
			t.Fatal(err)
		}
		if len(seen) != 200 || dns != 20 {
			t.Errorf("%d shards: %d flows and %d DNS messages kept, want 200 and 20", shards, len(seen), dns)
		}
		for id, n := range seen {
			if n != 1 {
				t.Errorf("%d shards: flow %d kept %d times", shards, id, n)
			}
		}
		if s := p.Stats(); s.Flows != 200 || s.Clock != 20e9 {
			t.Errorf("%d shards: %d flows, clock %d", shards, s.Flows, s.Clock)
		}
	}
}
