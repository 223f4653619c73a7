package history

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"noroshi/event"
	"noroshi/store/history/spool"
)

// An error of Prepare is no word on a block: an older server that can't make the
// tables must not cost the events.
func TestPrepareCondemnsNothing(t *testing.T) {
	s := newStores(t)
	w := s.writer(t, WriterConfig{Rows: 10, Finish: time.Minute})
	calls := 0 // guarded by w.preparing
	fails := triesRefused + 2
	w.tables = func(ctx context.Context) error {
		if calls++; calls <= fails {
			return &Error{Code: 62, Text: "Syntax error"}
		}
		return nil
	}
	end := run(w)
	w.Keep(flows(0, 10))
	eventually(t, "the block is stored or lost", func() bool {
		st := w.Stats()
		return st.Kept["flows"]+st.Lost["flows"][LostRefused] > 0
	})
	if err := end(); err != nil {
		t.Fatal(err)
	}
	if st := w.Stats(); st.Kept["flows"] != 10 || st.Spool.Bad != 0 {
		t.Errorf("%+v", st)
	}
}

// What take returns is the caller's alone, also when nothing waits.
func TestLossesTaken(t *testing.T) {
	var ls losses
	ls.add("flows", LostBusy, 60, 1)
	ls.take()
	taken := ls.take()
	ls.add("flows", LostBusy, 120, 1)
	if len(taken) != 0 {
		t.Errorf("a loss is in what was taken before it: %v; it would count twice", taken)
	}
	if again := ls.take(); len(again) != 1 {
		t.Errorf("%v waits, want one loss", again)
	}
}

// A block whose header can't be read is a loss of unknown size, and still a loss.
func TestUnreadableBlockIsLost(t *testing.T) {
	dir := t.TempDir()
	sp, err := spool.Open(dir, spool.Limits{Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	b := NewBuilder(Flows)
	b.Add(flows(0, 10), 0, 10)
	block := b.Seal("", nil)
	if err := sp.Put(&block); err != nil {
		t.Fatal(err)
	}
	_ = sp.Close()
	files, _ := filepath.Glob(filepath.Join(dir, "*.block"))
	if len(files) != 1 {
		t.Fatal(files)
	}
	if err := os.Truncate(files[0], 5); err != nil {
		t.Fatal(err)
	}
	s := newStores(t)
	w := s.writer(t, WriterConfig{Folder: dir, Finish: time.Minute})
	end := run(w)
	_ = end() // it may be found after the last look at losses, which then wait for the next start
	if n := w.Stats().Lost["flows"][LostDamaged]; n == 0 {
		t.Error("it is not counted")
	}
	again := s.writer(t, WriterConfig{Folder: dir, Finish: time.Minute})
	if err := run(again)(); err != nil {
		t.Fatal(err)
	}
	if s.rows["coverage"] == 0 {
		t.Error("it is not in the book")
	}
}

// A capture with forged times gives a block of more days than an INSERT may have:
// it never goes in, and must not stop those behind it. The same error of another
// block passes.
func TestManyDays(t *testing.T) {
	s := newStores(t)
	s.fail = func(table, id string, try int) string {
		if table != "flows" {
			return ""
		}
		if id[len(id)-1] == '1' || try < triesRefused+3 { // the first block, and the others for a time
			return "252"
		}
		return ""
	}
	w := s.writer(t, WriterConfig{Rows: 1500, Finish: time.Minute})
	forged := flows(0, 1500)
	for i := range forged.Flows {
		forged.Flows[i].Seen = event.Time(i+1) * event.Time(24*time.Hour)
	}
	w.Keep(forged)
	w.Keep(flows(0, 1500))
	end := run(w)
	eventually(t, "the second block is stored", func() bool { return w.Stats().Kept["flows"] > 0 })
	if err := end(); err != nil {
		t.Fatal(err)
	}
	if st := w.Stats(); st.Kept["flows"] != 1500 || st.Lost["flows"][LostRefused] != 1500 {
		t.Errorf("%+v", st)
	}
}

// Only an empty answer to an INSERT says that it is stored: not the page of a
// proxy, nor what a redirect leads to.
func TestOnlyTheStoreSaysStored(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/page/", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>log in")) })
	mux.HandleFunc("/moved/", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/empty/", http.StatusFound) })
	mux.HandleFunc("/empty/", func(http.ResponseWriter, *http.Request) {})
	server := httptest.NewServer(mux)
	defer server.Close()
	for path, stored := range map[string]bool{"/page": false, "/moved": false, "/empty": true} {
		cfg := Default()
		cfg.URL = server.URL + path
		c, err := cfg.Remote()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Insert(t.Context(), cfg.Layout(), &Block{ID: "a-1", Table: "flows"}); (err == nil) != stored {
			t.Errorf("%s: %v", path, err)
		}
	}
}
