package engine_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"noroshi/store/engine/enginetest"
	"noroshi/store/history"
)

// Blocks of flows with the tables and views of package history; an op is a block.
// docs/engine.md has the figures.
func BenchmarkBlocks(b *testing.B) {
	for _, rows := range []int{100_000, 500_000} {
		for _, fsync := range []int{1, 0} {
			b.Run(fmt.Sprintf("rows=%d/fsync=%d", rows, fsync), func(b *testing.B) {
				db := enginetest.Start(b, enginetest.Config(b))
				client := &history.Client{HTTP: db.HTTP, URL: "http://engine/"}
				c := history.Default()
				if err := client.Prepare(b.Context(), c.Layout()); err != nil {
					b.Fatal(err)
				}
				for _, t := range strings.Fields(db.Must("SELECT name FROM system.tables WHERE database = 'noroshi' AND engine LIKE '%MergeTree'")) {
					db.Must(fmt.Sprintf("ALTER TABLE noroshi.%s MODIFY SETTING fsync_after_insert = %d, fsync_part_directory = %d", t, fsync, fsync))
				}
				block := flows("", rows)
				b.SetBytes(int64(len(block.Data)))
				for i := 0; b.Loop(); i++ {
					block.ID = fmt.Sprintf("block-%d", i)
					if err := client.Insert(b.Context(), c.Layout(), &block); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N)*float64(rows)/b.Elapsed().Seconds(), "rows/s")
				b.ReportMetric(float64(db.Stats().RSS>>20), "MiB")
			})
		}
	}
}

// How long a start of the child takes, until it answers.
func BenchmarkStart(b *testing.B) {
	c := enginetest.Config(b)
	for b.Loop() {
		enginetest.Start(b, c).Stop()
	}
}

// A block near the largest that the writer seals goes in whole, and the engine
// stays within the gigabyte that it may use.
func TestLargeBlock(t *testing.T) {
	db := enginetest.Start(t, enginetest.Config(t))
	client := &history.Client{HTTP: db.HTTP, URL: "http://engine/"}
	c := history.Default()
	if err := client.Prepare(t.Context(), c.Layout()); err != nil {
		t.Fatal(err)
	}
	const rows = 800_000
	block := flows("", rows)
	if len(block.Data) < 95<<20 {
		t.Fatalf("a block of %d octets is not large", len(block.Data))
	}
	stop, peak := make(chan struct{}), make(chan uint64)
	go func() {
		most := uint64(0)
		for {
			most = max(most, db.Stats().RSS)
			select {
			case <-stop:
				peak <- most
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	for i := range 3 {
		block.ID = fmt.Sprintf("block-%d", i)
		if err := client.Insert(t.Context(), c.Layout(), &block); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	most := <-peak
	t.Logf("blocks of %d MiB: %d MiB of memory at most", len(block.Data)>>20, most>>20)
	if most > 1<<30 {
		t.Errorf("the engine took %d octets of memory", most)
	}
	if got := db.Must("SELECT count() FROM noroshi.flows"); got != fmt.Sprint(3*rows) {
		t.Errorf("%s rows are stored", got)
	}
}
