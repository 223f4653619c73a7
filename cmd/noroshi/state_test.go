package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"noroshi/store/state/statetest"
)

// noroshi runs a command in a process of its own and returns what it said.
func noroshi(args ...string) (string, error) {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asNoroshi+"=1")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// With PostgreSQL everything is as with a file: what was decided survives kill
// -9, a second noroshi is refused, verify and backup work beside the first.
func TestServePostgres(t *testing.T) {
	server, err := statetest.StartPostgres()
	if errors.Is(err, statetest.ErrNoPostgres) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	url, err := server.Make()
	if err != nil {
		t.Fatal(err)
	}
	p := newPlace(t, t.TempDir())
	text := strings.Replace(read(t, p.config), filepath.Join(p.dir, "state.db"), url, 1)
	if err := os.WriteFile(p.config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	g := p.start(t)
	resp, err := http.Post(g.url+"/api/exceptions", "application/json", strings.NewReader(`{"rule":"scan","owner":"me","note":"ours","expires":"2100-01-01T00:00:00Z"}`))
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatal(resp, err)
	}
	_ = resp.Body.Close()
	g.end(syscall.SIGKILL)
	g = p.start(t)
	var l struct{ Exceptions []json.RawMessage }
	if g.get("/api/exceptions", &l); len(l.Exceptions) != 1 {
		t.Errorf("after kill -9: %s", l.Exceptions)
	}
	file := filepath.Join(t.TempDir(), "state.gz")
	for _, c := range []struct{ command, want string }{{"verify", "the chain is whole"}, {"backup", "head "}, {"serve", "another noroshi has it open"}} {
		args := []string{c.command, "--config", p.config}
		if c.command == "backup" {
			args = append(args, file)
		}
		if out, err := noroshi(args...); !strings.Contains(out, c.want) || (err != nil) != (c.command == "serve") {
			t.Errorf("%s: %v %s", c.command, err, out)
		}
	}
	if code := g.end(syscall.SIGTERM); code != exitOK {
		t.Errorf("exit code %d\n%s", code, g.said())
	}
	other := filepath.Join(t.TempDir(), "other.yaml")
	if err := os.WriteFile(other, []byte("state: "+other+".db\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := noroshi("restore", "--config", other, file); err != nil || !strings.Contains(out, "the chain is whole") {
		t.Errorf("from PostgreSQL to SQLite: %v %s", err, out)
	}
}

// A disk that is full leaves no half of a backup, and what was there before.
func TestBackupFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("SKIPPED: needs the right to mount a small file system: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	path := filepath.Join(dir, "state.gz")
	write := func(n int) error {
		return writeWhole(path, true, func(w io.Writer) error {
			_, err := w.Write(make([]byte, n))
			return err
		})
	}
	if err := write(1000); err != nil {
		t.Fatal(err)
	}
	if err := write(100_000); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full disk: %v", err)
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 1 {
		t.Errorf("%v, %v: want the old backup alone", list, err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 1000 || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}
