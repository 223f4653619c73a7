package engine_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"noroshi/store/engine/enginetest"
	"noroshi/store/history"
)

// What the engine uses stays bounded while four clients write and four ask. For
// as long as NOROSHI_ENGINE_SOAK says (30m); the log has a line for each tenth.
func TestSoak(t *testing.T) {
	length := 5 * time.Second
	if s := os.Getenv("NOROSHI_ENGINE_SOAK"); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	c := enginetest.Config(t)
	c.Writers = 4
	db := enginetest.Start(t, c)
	client := &history.Client{HTTP: db.HTTP, URL: "http://engine/"}
	h := history.Default()
	layout := h.Layout()
	if err := client.Prepare(t.Context(), layout); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	const size = 50_000
	var wg sync.WaitGroup
	var written, read atomic.Int64
	for i := range 4 {
		wg.Go(func() {
			block := flows("", size)
			for n := 0; ctx.Err() == nil; n++ {
				block.ID = fmt.Sprintf("%d-%d", i, n)
				if err := client.Insert(t.Context(), layout, &block); err != nil {
					t.Error(err)
					return
				}
				written.Add(size)
			}
		})
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				a, err := db.Post([]string{
					"SELECT dst, sum(bytes) AS b FROM noroshi.flows GROUP BY dst ORDER BY b DESC LIMIT 10",
					"SELECT toStartOfMinute(seen) AS m, proto, sum(packets) FROM noroshi.flows GROUP BY m, proto ORDER BY m",
					"SELECT uniq(src) FROM noroshi.flows",
					"SELECT * FROM noroshi.flows WHERE src_port = 7 ORDER BY seen LIMIT 100",
				}[(i+n)%4], nil)
				// A question that takes too much is refused, and that is an answer, too.
				if err != nil || a.Status != 200 && a.Code != "159" && a.Code != "241" && a.Code != "202" {
					t.Errorf("question: %d %.200s, %v", a.Status, a.Body, err)
					return
				}
				read.Add(1)
			}
		})
	}
	for ctx.Err() == nil {
		select {
		case <-time.After(length / 10):
		case <-ctx.Done():
		}
		u := db.Stats().Usage
		t.Logf("%d rows written, %d questions answered, %d MiB, %d threads, %d files", written.Load(), read.Load(), u.RSS>>20, u.Threads, u.Files)
		// The engine counts what it asks for; pages it has given back too late, its
		// own code and the Go around it come on top.
		if u.RSS > uint64(c.Memory)*3/2 || u.Threads > 160 || u.Files > 1500 {
			t.Errorf("out of bounds: %+v", u)
		}
	}
	wg.Wait()
	s, err := db.Status(context.Background())
	if err != nil || db.Stats().Restarts != 0 {
		t.Errorf("%+v, %d restarts, %v", s, db.Stats().Restarts, err)
	}
	t.Logf("errors by code %v", s.Errors)
	if got := db.Must("SELECT count() FROM noroshi.flows"); got != fmt.Sprint(written.Load()) {
		t.Errorf("%s rows are stored, %d were acknowledged", got, written.Load())
	}
}
