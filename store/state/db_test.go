package state_test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"noroshi/finding"
	"noroshi/incident"
	"noroshi/store/state"
	"noroshi/store/state/statetest"
)

// TestMain lets the test binary be the process that is killed: see TestKill.
func TestMain(m *testing.M) {
	if name := os.Getenv("NOROSHI_TEST_SAVE_FOREVER"); name != "" {
		saveForever(name)
	}
	code := m.Run()
	if server != nil {
		server.Stop()
	}
	os.Exit(code)
}

// server is one PostgreSQL for all tests, nil until it is needed.
var server *statetest.Postgres

// postgres returns the URL of an empty database.
func postgres(t testing.TB) string {
	t.Helper()
	if server == nil {
		s, err := statetest.StartPostgres()
		if errors.Is(err, statetest.ErrNoPostgres) {
			t.Skip(err)
		} else if err != nil {
			t.Fatal(err)
		}
		server = s
	}
	url, err := server.Make()
	if err != nil {
		t.Fatal(err)
	}
	return url
}

// backends are the two, each with the name of an empty database.
var backends = map[string]func(t testing.TB) string{
	"SQLite":     func(t testing.TB) string { return filepath.Join(t.TempDir(), "state.db") },
	"PostgreSQL": postgres,
}

// both runs a test on an empty database of each backend.
func both(t *testing.T, test func(t *testing.T, name string)) {
	for which, empty := range backends {
		t.Run(which, func(t *testing.T) { test(t, empty(t)) })
	}
}

func open(t testing.TB, name string) *state.DB {
	t.Helper()
	db, err := state.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestStore(t *testing.T) {
	both(t, func(t *testing.T, name string) {
		statetest.Run(t, func(t *testing.T) state.Store {
			db, err := state.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			return db
		})
	})
}

func TestFileName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a strange name?#%20.db")
	_ = open(t, path).Close()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: want a file of this name for its owner only", info, err)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	newer := open(t, in("newer"))
	_ = newer.Close()
	raw, err := sql.Open("sqlite", in("newer"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	_ = raw.Close()
	if err := os.WriteFile(in("text"), []byte(strings.Repeat("not a database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, in("taken"))
	for name, want := range map[string]string{
		"newer":         "written by a newer noroshi",
		"text":          "the file is something else",
		"taken":         "another noroshi has it open",
		"no/such/dir/x": "create its folder first",
	} {
		db, err := state.Open(in(name))
		if err == nil {
			_ = db.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v; want %q", name, err, want)
		}
	}
}

// whole complains if the audit chain isn't.
func whole(t testing.TB, db *state.DB) state.Report {
	t.Helper()
	r, err := db.Verify(context.Background())
	if err != nil || r.Broken != nil {
		t.Fatalf("%v, %v", r.Broken, err)
	}
	return r
}

// saveForever saves incidents and prints the id of each that is acknowledged.
func saveForever(name string) {
	db, err := state.Open(name)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for n := 0; ; n++ {
		in := statetest.Incident(n)
		in.NewMembers = statetest.Members(10*n, 10)
		if err := db.Save(context.Background(), []*incident.Incident{in}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(in.ID)
	}
}

// Whatever was acknowledged before kill -9 is there afterwards, once and whole.
func TestKill(t *testing.T) { both(t, kill) }

func kill(t *testing.T, name string) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	acknowledged := map[string]bool{}
	for round := range 20 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), "NOROSHI_TEST_SAVE_FOREVER="+name)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			acknowledged[lines.Text()] = true
			if n == 5+7*round {
				_ = cmd.Process.Signal(syscall.SIGKILL)
			}
		}
		_ = cmd.Wait()
	}
	db := open(t, name)
	list, err := db.Incidents(context.Background(), state.Filter{Limit: 1e6})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, in := range list {
		if seen[in.ID.String()] {
			t.Errorf("%v is there twice", in.ID)
		}
		seen[in.ID.String()] = true
		if m, err := db.Members(context.Background(), in.ID, incident.Member{}, 100); err != nil || len(m) != 10 {
			t.Errorf("%v has %d members, %v: half of it was saved", in.ID, len(m), err)
		}
	}
	for id := range acknowledged {
		if _, err := hex.DecodeString(id); err == nil && !seen[id] {
			t.Errorf("%s was acknowledged and is lost", id)
		}
	}
	if len(acknowledged) < 20 {
		t.Errorf("only %d incidents were acknowledged", len(acknowledged))
	}
	whole(t, db)
}

// A full disk is a clear error, and what was saved before is still there.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=400k"); err != nil {
		t.Skipf("SKIPPED: needs the right to mount a small file system: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	db := open(t, filepath.Join(dir, "state.db"))
	ctx := context.Background()
	var saved []finding.ID
	for n := 0; ; n++ {
		in := statetest.Incident(n)
		in.NewMembers = statetest.Members(0, 200)
		err := db.Save(ctx, []*incident.Incident{in})
		if err != nil {
			if !strings.Contains(err.Error(), "make room on the disk") {
				t.Errorf("unclear: %v", err)
			}
			break
		}
		saved = append(saved, in.ID)
		if n > 10000 {
			t.Fatal("400 kB took 10,000 incidents")
		}
	}
	for _, id := range saved {
		if _, err := db.Incident(ctx, id); err != nil {
			t.Errorf("%v: %v", id, err)
		}
	}
}

// BenchmarkFleet is the largest single save the design asks for: an incident
// with 20,000 members.
func BenchmarkFleet(b *testing.B) {
	for which, empty := range backends {
		b.Run(which, func(b *testing.B) {
			db := open(b, empty(b))
			in := statetest.Incident(0)
			for n := 0; b.Loop(); n++ {
				in.NewMembers = statetest.Members(20000*n, 20000)
				if err := db.Save(context.Background(), []*incident.Incident{in}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSave is one incident and one row of the chain in a transaction.
func BenchmarkSave(b *testing.B) {
	for which, empty := range backends {
		b.Run(which, func(b *testing.B) {
			db := open(b, empty(b))
			for n := 0; b.Loop(); n++ {
				if err := db.Save(context.Background(), []*incident.Incident{statetest.Incident(n)}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
