package history

import (
	"context"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"noroshi/event"
	"noroshi/store/history/spool"
)

// run runs w and returns what ends it.
func run(w *Writer) (end func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	return func() error { cancel(); return <-ended }
}

var noon = event.TimeOf(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))

// flows returns a batch of n flows, numbered on from first.
func flows(first, n int) *event.Batch {
	b := new(event.Batch)
	for i := range n {
		f := b.NewFlow()
		f.Seen, f.Bytes = noon.Add(time.Duration(first+i)*time.Millisecond), uint64(first+i)
	}
	return b
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 2000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("never: ", what)
}

// Whatever a store does, each row is in it once, in order, or counted as lost.
func TestWriterThroughFailures(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 0))
		s := newFakeStore(t)
		moods := rand.New(rand.NewPCG(seed, 1)) // guarded by s.mu
		s.fail = func(table, id string, try int) string {
			if try > 3 {
				return ""
			}
			return []string{"", "", "before", "after", "241", "252", "60", "after"}[moods.IntN(8)]
		}
		folder, kept := t.TempDir(), 0
		for range 3 { // restarts
			w := s.writer(WriterConfig{Folder: folder, Rows: 100, Delay: 5 * time.Millisecond, Watched: []Kind{Flows}, Finish: time.Minute, Recording: true})
			end := run(w)
			for range 30 {
				n := 1 + r.IntN(250)
				b := flows(kept, n)
				b.DNS = append(b.DNS, event.DNS{Seen: noon})
				w.Keep(b)
				kept += n
			}
			if err := end(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if lost := w.Stats().Lost; len(lost) > 0 {
				t.Errorf("seed %d: lost %v", seed, lost)
			}
		}
		if s.prepared < 2 {
			t.Errorf("seed %d: after an unknown table nobody saw to the tables", seed)
		}
		if s.count("flows") != uint64(kept) || s.count("dns") != 90 {
			t.Errorf("seed %d: stored %d flows and %d DNS messages, want %d and 90", seed, s.count("flows"), s.count("dns"), kept)
		}
		// In order: the numbers go on from block to block.
		for i, row := range s.rows["flows"] {
			if row.number != uint64(i) {
				t.Fatalf("seed %d: flow %d comes where %d should", seed, row.number, i)
			}
		}
	}
}

// A block that the store will never take is set aside and counted, and those
// behind it go on; so do those of other tables.
func TestWriterRefused(t *testing.T) {
	s := newFakeStore(t)
	first := ""
	s.fail = func(table, id string, try int) string {
		if table == "flows" && first == "" {
			first = id
		}
		if id == first {
			return "33"
		}
		return ""
	}
	w := s.writer(WriterConfig{Rows: 100, Finish: time.Minute})
	end := run(w)
	b := flows(0, 300)
	w.Keep(b)
	eventually(t, "two blocks are stored", func() bool { return w.Stats().Kept["flows"] == 200 })
	if err := end(); err != nil {
		t.Fatal(err)
	}
	st := w.Stats()
	if st.Lost["flows"][LostRefused] != 100 || st.Spool.Bad != 1 || st.Codes[33] != triesRefused {
		t.Errorf("%+v", st)
	}
	if s.lost[loss{"flows", LostRefused, minuteOf(noon)}] != 100 {
		t.Errorf("written down as lost: %v", s.lost)
	}
}

// While the store hangs and the spool is full, Keep returns at once, and what it
// could not keep is counted.
func TestWriterNeverWaits(t *testing.T) {
	s := newFakeStore(t)
	s.fail = func(string, string, int) string { return "hang" }
	w := s.writer(WriterConfig{Rows: 1000, Queue: 2, Spool: spool.Limits{Size: 1 << 20}, Finish: time.Millisecond})
	end := run(w)
	const n = 100_000
	for i := 0; i < n; i += 1000 {
		w.Keep(flows(i, 1000))
	}
	err := end()
	if err == nil || !strings.Contains(err.Error(), "wait in") {
		t.Errorf("the end: %v", err)
	}
	st := w.Stats()
	lost := st.Lost["flows"]
	if lost[LostBusy]+lost[LostSpoolFull] == 0 {
		t.Errorf("lost %v", lost)
	}
	// What wasn't lost waits, and is sent at the next start.
	s.mend()
	again := s.writer(WriterConfig{Folder: w.cfg.Folder, Finish: time.Minute})
	if err := run(again)(); err != nil {
		t.Fatal(err)
	}
	if got := s.count("flows") + lost[LostBusy] + lost[LostSpoolFull]; got != n {
		t.Errorf("%d stored and %v lost of %d", s.count("flows"), lost, n)
	}
}

func TestWriterAllocates(t *testing.T) {
	s := newFakeStore(t)
	w := s.writer(WriterConfig{Queue: 4})
	defer w.Close()
	b := flows(0, event.BatchSize)
	round := func() {
		w.Keep(b)
		(<-w.queue).Release()
	}
	round()
	if n := testing.AllocsPerRun(100, round); n != 0 {
		t.Errorf("Keep allocates %v times, want 0", n)
	}
}

// The sum of what is kept, lost and watched is written exactly once.
func TestCoverageBlock(t *testing.T) {
	lost := map[loss]uint64{{"flows", LostBusy, 120}: 7, {"dns", LostDiskFull, 60}: 3}
	b := coverageBlock(lost, []Kind{Flows, DNS}, 60, 120)
	if b.Table != coverageTable || b.Rows != 2+4 {
		t.Errorf("%+v", b)
	}
	if again := coverageBlock(lost, []Kind{Flows, DNS}, 60, 120); string(again.Data) != string(b.Data) {
		t.Error("the same twice gives other octets")
	}
	var ls losses
	ls.add("flows", LostBusy, 60, 5)
	taken := ls.take()
	ls.add("flows", LostBusy, 60, 1)
	ls.back(taken)
	if got := ls.take(); got[loss{"flows", LostBusy, 60}] != 6 {
		t.Errorf("after a failed note: %v", got)
	}
	if ls.totals()["flows"][LostBusy] != 6 {
		t.Errorf("total %v", ls.totals())
	}
}

// The program is killed again and again while it writes. Every file that was
// ever promised is delivered, none counts twice, and the order holds.
func TestWriterKilled(t *testing.T) {
	s := newFakeStore(t)
	r := rand.New(rand.NewPCG(1, 1))
	moods := rand.New(rand.NewPCG(1, 2)) // guarded by s.mu
	s.fail = func(string, string, int) string { return []string{"", "", "before", "after"}[moods.IntN(4)] }
	folder := t.TempDir()
	promised := map[string]bool{}
	kills := 12
	if os.Getenv("NOROSHI_LARGE") != "" {
		kills = 60
	}
	for range kills {
		cmd := exec.Command(os.Args[0], "-test.run", "TestWriterProcess")
		cmd.Env = append(os.Environ(), "NOROSHI_TEST_WRITER="+folder, "NOROSHI_TEST_STORE="+s.URL)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		until := time.Now().Add(time.Duration(50+r.IntN(250)) * time.Millisecond)
		for time.Now().Before(until) {
			list, _ := filepath.Glob(filepath.Join(folder, "*-flows-*.block"))
			for _, f := range list {
				p := strings.Split(strings.TrimSuffix(filepath.Base(f), ".block"), "-")
				promised[p[2]+"-"+p[0]] = true
			}
			time.Sleep(time.Millisecond)
		}
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
	}
	s.mend()
	if err := run(s.writer(WriterConfig{Folder: folder, Finish: time.Minute}))(); err != nil {
		t.Fatal(err)
	}
	if len(promised) < kills {
		t.Errorf("only %d blocks were seen: the test tests nothing", len(promised))
	}
	stored := map[string]bool{}
	for _, id := range s.order["flows"] {
		stored[id] = true
	}
	for id := range promised {
		if !stored[id] {
			t.Errorf("block %s was promised and is not stored", id)
		}
	}
	latest := map[string]string{} // by run
	for _, id := range s.order["flows"] {
		run, number, _ := strings.Cut(id, "-")
		if number <= latest[run] {
			t.Errorf("block %s was stored after number %s", id, latest[run])
		}
		latest[run] = number
	}
	t.Logf("%d kills, %d blocks", kills, len(stored))
}

// TestWriterProcess is the process that is killed.
func TestWriterProcess(t *testing.T) {
	folder := os.Getenv("NOROSHI_TEST_WRITER")
	if folder == "" {
		return
	}
	w, err := NewWriter(WriterConfig{Folder: folder, Spool: spool.Limits{Reserve: 1}, Rows: 500, Delay: 5 * time.Millisecond, Retry: time.Millisecond},
		&Client{HTTP: http.DefaultClient, URL: os.Getenv("NOROSHI_TEST_STORE")}, Layout{Database: "noroshi"})
	if err != nil {
		os.Exit(1)
	}
	w.tables = func(context.Context) error { return nil }
	run(w)
	for i := 0; ; i += 100 {
		w.Keep(flows(i, 100))
		time.Sleep(time.Millisecond)
	}
}
