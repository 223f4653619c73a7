package memory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"noroshi/event"
	"noroshi/store/engine"
	"noroshi/store/engine/enginetest"
	"noroshi/store/history"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	if folder := os.Getenv("NOROSHI_TEST_REMEMBER"); folder != "" {
		rememberForever(folder)
	}
	enginetest.Main(m)
}

// config is a memory in a folder of the test, on the real engine.
func config(t testing.TB) Config {
	t.Helper()
	// Not t.TempDir: a socket's path must be short.
	dir, err := os.MkdirTemp("", "memory")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := configIn(filepath.Join(dir, "history"))
	c.Engine.Library = enginetest.Library(t)
	return c
}

func configIn(folder string) Config {
	c := Config{History: history.Default(), Engine: engine.Default()}
	c.History.Folder = folder
	c.Engine.Library = os.Getenv("NOROSHI_TEST_LIBRARY")
	return c
}

func start(t testing.TB, c Config) (m *Memory, end func()) {
	t.Helper()
	m, err := Open(c, []history.Kind{history.Flows})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	over := false
	end = func() {
		if over {
			return
		}
		over = true
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(end)
	return m, end
}

// numbered returns a batch of n flows seen now, whose bytes number them.
func numbered(first, n int) *event.Batch {
	b := new(event.Batch)
	now := event.TimeOf(time.Now())
	for i := range n {
		f := b.NewFlow()
		f.Seen, f.First, f.Last, f.Bytes, f.Packets = now, now, now, uint64(first+i), 1
		f.Src, f.Dst = event.AddrOf4([4]byte{10, 0, byte(i >> 8), byte(i)}), event.AddrOf4([4]byte{192, 0, 2, byte(i)})
		f.Proto, f.DstPort = event.UDP, uint16(i%7)
	}
	return b
}

// ask returns a client of the store that c names, for as long as the test.
func ask(t testing.TB, c Config) *history.Questions {
	t.Helper()
	client, end, err := Connect(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(end)
	return &history.Questions{Client: client, Layout: c.History.Layout()}
}

func today() history.Range {
	now := time.Now().Truncate(time.Minute)
	return history.Range{From: event.TimeOf(now.Add(-12 * time.Hour)), To: event.TimeOf(now.Add(2 * time.Minute))}
}

// stored returns how many flows there are, and how many different numbers.
func stored(t testing.TB, q *history.Questions, raw bool) (rows, different uint64) {
	t.Helper()
	a, err := q.Top(t.Context(), history.Top{Range: today(), By: []string{"exporter"}, Raw: raw})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range a.Rows {
		rows += r.Records
	}
	d, err := q.Top(t.Context(), history.Top{Range: today(), By: []string{"bytes"}, Raw: true, N: 1, Measure: history.Records})
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Rows) > 0 && d.Rows[0].Records != 1 {
		t.Errorf("flow %v is there %d times", d.Rows[0].Key, d.Rows[0].Records)
	}
	return rows, rows
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range large(1200, 12000) { // at 50 ms
		if ok() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("never: ", what)
}

// What is kept can be asked for a second later, and after a restart; what the
// minutes' sums and the book of coverage say is the same.
func TestRemember(t *testing.T) {
	c := config(t)
	m, end := start(t, c)
	const n = 20_000
	for i := 0; i < n; i += 1000 {
		m.Keep(numbered(i, 1000))
	}
	eventually(t, "all is stored", func() bool { return m.Stats().Writer.Kept["flows"] == n })
	q := ask(t, c) // of the engine that runs
	for _, raw := range []bool{false, true} {
		if rows, _ := stored(t, q, raw); rows != n {
			t.Errorf("%d flows can be asked for (raw %v), want %d", rows, raw, n)
		}
	}
	covered, _, err := q.Coverage(t.Context(), history.Flows, today(), time.Minute)
	if err != nil || covered.Kept != n || covered.Lost != 0 {
		t.Errorf("%+v, %v", covered, err)
	}
	end()
	if st := m.Stats(); len(st.Writer.Lost) != 0 || st.Writer.Spool.Blocks != 0 {
		t.Errorf("%+v", st.Writer)
	}
	if rows, _ := stored(t, ask(t, c), true); rows != n { // of one started for it
		t.Errorf("after the end %d flows, want %d", rows, n)
	}
}

func large(few, many int) int {
	if os.Getenv("NOROSHI_LARGE") != "" {
		return many
	}
	return few
}

// The engine is killed again and again while flows are kept: each is stored once,
// and the engine is back.
func TestEngineKilled(t *testing.T) {
	c := config(t)
	m, end := start(t, c)
	r := rand.New(rand.NewPCG(1, 1))
	kept, kills := 0, large(5, 50)
	killed := 0
	next := time.Now().Add(time.Second)
	for killed < kills {
		m.Keep(numbered(kept, 1000))
		kept += 1000
		time.Sleep(10 * time.Millisecond) // 100,000 flows a second at most
		if pid := m.Stats().Engine.PID; pid != 0 && time.Now().After(next) {
			if syscall.Kill(pid, syscall.SIGKILL) == nil {
				killed++
			}
			next = time.Now().Add(time.Duration(300+r.IntN(1200)) * time.Millisecond)
		}
	}
	eventually(t, "all is stored", func() bool { return m.Stats().Writer.Kept["flows"] == uint64(kept) })
	st := m.Stats()
	q := ask(t, c)
	for _, raw := range []bool{false, true} {
		if rows, _ := stored(t, q, raw); rows != uint64(kept) {
			t.Errorf("after %d kills %d flows can be asked for (raw %v), %d were kept", kills, rows, raw, kept)
		}
	}
	if len(st.Writer.Lost) > 0 || st.Engine.Restarts < uint64(kills) {
		t.Errorf("lost %v; %d restarts after %d kills", st.Writer.Lost, st.Engine.Restarts, kills)
	}
	end()
	t.Logf("%d kills, %d flows, errors by code %v", kills, kept, st.Writer.Codes)
}

// The program is killed again and again. Every block that it had promised is
// stored, and no flow twice.
func TestProgramKilled(t *testing.T) {
	c := config(t)
	r := rand.New(rand.NewPCG(2, 2))
	kills := large(5, 50)
	promised := map[string]bool{}
	for range kills {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "NOROSHI_TEST_REMEMBER="+c.History.Folder, "NOROSHI_TEST_LIBRARY="+c.Engine.Library)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		until := time.Now().Add(time.Duration(1500+r.IntN(1500)) * time.Millisecond)
		for time.Now().Before(until) {
			list, _ := filepath.Glob(filepath.Join(c.History.SpoolFolder(), "*-flows-*.block"))
			for _, f := range list {
				promised[filepath.Base(f)] = true
			}
			time.Sleep(2 * time.Millisecond)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	m, end := start(t, c)
	eventually(t, "what was promised is stored", func() bool {
		st := m.Stats().Writer
		return st.Away == nil && st.Spool.Blocks == 0
	})
	if st := m.Stats().Writer; len(st.Lost) > 0 {
		t.Errorf("lost %v", st.Lost)
	}
	q := ask(t, c)
	sums, _ := stored(t, q, false)
	rows, _ := stored(t, q, true)
	covered, _, err := q.Coverage(t.Context(), history.Flows, today(), time.Minute)
	if err != nil || covered.Kept != rows || sums != rows {
		t.Errorf("%d rows, the sums know of %d and coverage of %d; %v", rows, sums, covered.Kept, err)
	}
	if len(promised) < kills || rows < uint64(len(promised)-kills)*blockRows { // the last of a run may be smaller
		t.Errorf("%d blocks of %d flows were promised, and %d flows are stored", len(promised), blockRows, rows)
	}
	end()
	t.Logf("%d kills, %d blocks seen waiting, %d flows stored once", kills, len(promised), rows)
}

const blockRows = 2000

// rememberForever is the program that is killed: its flows are numbered, and no
// two runs use the same numbers.
func rememberForever(folder string) {
	c := configIn(folder)
	c.BlockRows = blockRows
	m, err := Open(c, []history.Kind{history.Flows})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() { fmt.Println(m.Run(context.Background())) }()
	for first := int(time.Now().UnixNano() / 1000); ; first += 500 {
		m.Keep(numbered(first, 500))
		time.Sleep(50 * time.Millisecond)
	}
}

func TestMissing(t *testing.T) {
	c := configIn(filepath.Join(t.TempDir(), "h"))
	c.Engine.Library = filepath.Join(t.TempDir(), "none.so")
	if _, err := Open(c, nil); !Missing(err) || strings.Contains(err.Error(), "\n") {
		t.Errorf("without a library: %v", err)
	}
	if _, err := os.Stat(c.History.Folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a history that can't be kept left a folder: %v", err)
	}
	c.Engine.Library = enginetest.Library(t)
	if _, _, err := Connect(t.Context(), c); err == nil || !strings.Contains(err.Error(), "there is no history in") {
		t.Errorf("asking where there is nothing: %v", err)
	}
}
