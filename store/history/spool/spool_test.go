package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"noroshi/event"
)

func open(t testing.TB, dir string, l Limits) *Spool {
	t.Helper()
	if l.Reserve == 0 {
		l.Reserve = 1
	}
	s, err := Open(dir, l)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func record(table string, n int) *Record {
	return &Record{Table: table, Rows: n, First: event.Time(n), Last: event.Time(2 * n),
		Minutes: []Minute{{60, uint64(n)}}, Data: bytes.Repeat([]byte{byte(n)}, 100*n)}
}

// Records come back whole, in their order, also after a restart; and an ID is
// never used twice.
func TestOrder(t *testing.T) {
	dir, ids := t.TempDir(), map[string]bool{}
	put := 0
	for range 3 { // three runs, of which each leaves something
		s := open(t, dir, Limits{})
		for range 4 {
			put++
			r := record("flows", put)
			if err := s.Put(r); err != nil {
				t.Fatal(err)
			}
			if ids[r.ID] {
				t.Errorf("the ID %s comes again", r.ID)
			}
			ids[r.ID] = true
		}
		if err := s.Put(record("dns", 1)); err != nil {
			t.Fatal(err)
		}
		_ = s.Close()
	}
	s := open(t, dir, Limits{})
	defer s.Close()
	if got := s.Tables(); !reflect.DeepEqual(got, []string{"dns", "flows"}) {
		t.Errorf("tables %v", got)
	}
	s.Finish()
	for n := 1; ; n++ {
		e, err := s.Next(t.Context(), "flows")
		if errors.Is(err, ErrFinished) && n == put+1 {
			break
		}
		if err != nil {
			t.Fatalf("record %d: %v", n, err)
		}
		got, err := s.Read(e, nil)
		want := record("flows", n)
		want.ID = got.ID
		if err != nil || !reflect.DeepEqual(&got, want) || !ids[got.ID] {
			t.Errorf("record %d came back as %+v, %v", n, got, err)
		}
		if err := s.Remove(e); err != nil {
			t.Error(err)
		}
	}
	if st := s.Stats(); st.Blocks != 3 { // of dns
		t.Errorf("%+v", st)
	}
}

func TestOneAtATime(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Limits{})
	defer s.Close()
	if _, err := Open(dir, Limits{}); err == nil || !strings.Contains(err.Error(), "another noroshi uses it") {
		t.Errorf("a second one opens it: %v", err)
	}
}

// A file cut anywhere, or with any octet altered, is known; nothing else is lost.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Limits{})
	defer s.Close()
	if err := s.Put(&Record{Table: "flows", Rows: 2, Minutes: []Minute{{60, 2}}, Data: []byte("some data")}); err != nil {
		t.Fatal(err)
	}
	e, err := s.Next(t.Context(), "flows")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, e.name)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f := func(what string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := s.Read(e, nil); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: read as %+v, %v", what, r, err)
		} else if r.ID != "" && (r.Rows != 2 || len(r.Minutes) != 1) {
			t.Errorf("%s: its header is believed: %+v", what, r)
		}
	}
	for n := range whole {
		f(fmt.Sprintf("cut to %d octets", n), whole[:n])
		b := bytes.Clone(whole)
		b[n] ^= 0x20
		f(fmt.Sprintf("octet %d altered", n), b)
	}
	f("longer", append(bytes.Clone(whole), 0))
	_ = os.WriteFile(path, whole, 0o600)
	if r, err := s.Read(e, nil); err != nil || string(r.Data) != "some data" {
		t.Errorf("whole again: %+v, %v", r, err)
	}
	if err := s.SetAside(e); err != nil {
		t.Error(err)
	}
	if st := s.Stats(); st.Blocks != 0 || st.Bad != 1 {
		t.Errorf("%+v", st)
	}
}

func TestBounds(t *testing.T) {
	s := open(t, t.TempDir(), Limits{Size: 3 * 4096})
	defer s.Close()
	for n := range 3 {
		if err := s.Put(record("flows", 1)); err != nil {
			t.Errorf("record %d: %v", n, err)
		}
	}
	if err := s.Put(record("flows", 1)); !errors.Is(err, ErrFull) {
		t.Errorf("beyond its size: %v", err)
	}
	if err := s.Note(record("coverage", 1)); err != nil {
		t.Errorf("what was lost can't be noted: %v", err)
	}
	e, _ := s.Next(t.Context(), "flows")
	if err := s.Remove(e); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(record("flows", 1)); !errors.Is(err, ErrFull) { // the note has its room
		t.Errorf("%v", err)
	}
	e, _ = s.Next(t.Context(), "coverage")
	_ = s.Remove(e)
	if err := s.Put(record("flows", 1)); err != nil {
		t.Errorf("after there is room again: %v", err)
	}
	full := open(t, t.TempDir(), Limits{Reserve: 1 << 60})
	defer full.Close()
	if err := full.Put(record("flows", 1)); !errors.Is(err, ErrDisk) {
		t.Errorf("the disk's reserve is used: %v", err)
	}
}

// A disk that is full leaves no half file, and the spool goes on when it isn't.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("SKIPPED: a small file system can't be mounted: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s := open(t, dir, Limits{})
	defer s.Close()
	kept := 0
	var err error
	for kept < 100 {
		if err = s.Put(record("flows", 200)); err != nil {
			break
		}
		kept++
	}
	if !errors.Is(err, ErrDisk) || kept == 0 {
		t.Fatalf("after %d records: %v", kept, err)
	}
	if list, _ := filepath.Glob(filepath.Join(dir, "*.tmp")); len(list) > 0 {
		t.Errorf("left behind: %v", list)
	}
	for range kept {
		e, err := s.Next(t.Context(), "flows")
		if err != nil {
			t.Fatal(err)
		}
		if r, err := s.Read(e, nil); err != nil || len(r.Data) != 20000 {
			t.Errorf("%d octets, %v", len(r.Data), err)
		}
		_ = s.Remove(e)
	}
	if err := s.Put(record("flows", 200)); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// What was not finished, and what isn't ours, is left alone or taken away.
func TestLeftovers(t *testing.T) {
	dir := t.TempDir()
	torn := name(7, "flows", "0123456789abcdef") + ".tmp"
	for _, n := range []string{torn, "README", "x-flows-y.block"} {
		if err := os.WriteFile(filepath.Join(dir, n), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, dir, Limits{})
	defer s.Close()
	if _, err := os.Stat(filepath.Join(dir, torn)); err == nil {
		t.Error("what was never acknowledged is still there")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if e, err := s.Next(ctx, "flows"); err == nil {
		t.Errorf("somebody else's file is a block: %v", e)
	}
}

func FuzzDecode(f *testing.F) {
	for n := range 3 {
		r := record("flows", n)
		r.ID = "0123456789abcdef-1"
		head, err := appendHeader(nil, r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append(head, r.Data...))
	}
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decode(bytes.NewReader(b), int64(len(b)), nil)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("an error of another kind: %v", err)
			}
			return
		}
		// What was believed is what would be written.
		head, err := appendHeader(nil, &r)
		if err != nil {
			t.Fatalf("%+v was read and can't be written: %v", r, err)
		}
		again, err := decode(bytes.NewReader(append(head, r.Data...)), int64(len(head)+len(r.Data)), nil)
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
	})
}

// An ID is used once, also when its record found no room.
func TestRefusedID(t *testing.T) {
	s := open(t, t.TempDir(), Limits{Size: 4096})
	defer s.Close()
	large := Record{Table: "flows", Data: make([]byte, 8192)}
	if err := s.Put(&large); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	small := Record{Table: "flows"}
	if err := s.Put(&small); err != nil {
		t.Fatal(err)
	}
	if small.ID == large.ID {
		t.Errorf("two records are %s", small.ID)
	}
}
