package state_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"noroshi/incident"
	"noroshi/store/state"
	"noroshi/store/state/statetest"
)

// A server that restarts, or crashes, while the store is open costs the calls of
// that time and nothing else: what was acknowledged is there, once.
func TestServerRestarts(t *testing.T) {
	own, err := statetest.StartPostgres()
	if errors.Is(err, statetest.ErrNoPostgres) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(own.Stop)
	name, err := own.Make()
	if err != nil {
		t.Fatal(err)
	}
	db, ctx := open(t, name), context.Background()
	save := func(n int) error { return db.Save(ctx, []*incident.Incident{statetest.Incident(n)}) }
	n := 0
	saved := map[int]bool{}
	for _, crash := range []bool{false, true} {
		// With nobody writing, the next call works at once.
		if err := save(n); err != nil {
			t.Fatal(err)
		}
		saved[n] = true
		own.Halt(crash)
		if err := save(n + 1); err == nil {
			t.Error("saved without a server")
		}
		if _, err := db.Incidents(ctx, state.Filter{}); err == nil {
			t.Error("read without a server")
		}
		if err := own.Start(); err != nil {
			t.Fatal(err)
		}
		if err := save(n + 1); err != nil {
			t.Errorf("the first after a restart: %v", err)
		}
		saved[n+1] = true
		if _, err := db.Incident(ctx, statetest.Incident(n).ID); err != nil {
			t.Errorf("reading after a restart: %v", err)
		}
		n += 2

		// With somebody writing all the time.
		var writer sync.WaitGroup
		stop := make(chan struct{})
		started := make(chan struct{}, 1)
		writer.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if save(n) == nil {
					saved[n] = true
					n++
					select {
					case started <- struct{}{}:
					default:
					}
				} else {
					time.Sleep(10 * time.Millisecond)
				}
			}
		})
		for range 50 {
			<-started
		}
		own.Halt(crash)
		for len(started) > 0 {
			<-started
		}
		if err := own.Start(); err != nil {
			t.Fatal(err)
		}
		<-started // it goes on by itself
		close(stop)
		writer.Wait()
	}
	r := whole(t, db)
	opened := map[string]bool{}
	rows, err := db.Audit(ctx, "", 0, 1e6)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range rows {
		if e.Action == "incident.opened" && opened[e.Object] {
			t.Errorf("%s was opened twice: %+v", e.Object, e)
		}
		opened[e.Object] = true
	}
	for n := range saved {
		if _, err := db.Incident(ctx, statetest.Incident(n).ID); err != nil {
			t.Errorf("incident %d was acknowledged: %v", n, err)
		}
	}
	if r.Incidents < int64(len(saved)) || len(saved) < 100 {
		t.Errorf("%d incidents, %d acknowledged", r.Incidents, len(saved))
	}
}

// Whoever gives up in the middle of a call leaves a store that works.
func TestGivingUp(t *testing.T) {
	both(t, func(t *testing.T, name string) {
		db := open(t, name)
		in := statetest.Incident(0)
		in.NewMembers = statetest.Members(0, 2000)
		for i := range 20 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*2*time.Millisecond)
			_ = db.Save(ctx, []*incident.Incident{in})
			cancel()
			if err := db.Save(context.Background(), []*incident.Incident{statetest.Incident(1 + i)}); err != nil {
				t.Fatal(err)
			}
		}
		if r := whole(t, db); r.Incidents < 20 {
			t.Errorf("%+v", r)
		}
	})
}

func TestPostgresErrors(t *testing.T) {
	name := postgres(t)
	_ = open(t, name).Close()
	if _, err := raw(t, name).Exec("UPDATE form SET n = 99"); err != nil {
		t.Fatal(err)
	}
	if err := server.Exec("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for url, want := range map[string]string{
		name:                                    "written by a newer noroshi",
		server.URL("nosuch"):                    "createdb",
		server.URL("latin"):                     "encoding is LATIN1",
		"postgres://sato:secret@/x?host=" + dir: "is the server running",
		"postgres://sato@/x?password=secret&host=" + dir: "is the server running",
		"postgres://:secret@[::1":                        "can't be read",
	} {
		for how, f := range map[string]func(string) (*state.DB, error){"open": state.Open, "beside": state.Beside} {
			db, err := f(url)
			if err == nil {
				_ = db.Close()
			}
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s %s: %v; want %q", how, url, err, want)
			}
		}
	}
}

// What is acknowledged is on the disk, also where the server's default says that
// it needn't be.
func TestSynchronous(t *testing.T) {
	name := postgres(t)
	database := name[strings.LastIndex(name[:strings.Index(name, "?")], "/")+1 : strings.Index(name, "?")]
	if err := server.Exec(database, fmt.Sprintf("ALTER DATABASE %s SET synchronous_commit = off", database)); err != nil {
		t.Fatal(err)
	}
	db := open(t, name)
	if err := db.Observed(context.Background(), 1); err != nil {
		t.Fatal(err)
	}
	if got := state.WriterSetting(t, db, "synchronous_commit"); got != "on" {
		t.Errorf("synchronous_commit = %s", got)
	}
}

// A connection that breaks at the commit leaves open whether the server has
// made it. Either way the change is there once, and so is its row of the chain.
func TestCommitInDoubt(t *testing.T) {
	name := postgres(t)
	for what, forward := range map[string]bool{"made, and not heard of": true, "not made": false} {
		t.Run(what, func(t *testing.T) {
			p := newCutter(t, server.Socket())
			query := strings.Index(name, "?")
			db, ctx := open(t, name[:query]+"?host="+p.dir), context.Background()
			before := whole(t, db).Head.Seq
			for n := range 5 {
				p.cut(forward)
				if err := db.Append(ctx, "sato", "identity.read", "x", n); err != nil {
					t.Fatal(err)
				}
			}
			if p.cuts.Load() != 5 {
				t.Errorf("cut %d times, want 5", p.cuts.Load())
			}
			if r := whole(t, db); r.Head.Seq != before+5 {
				t.Errorf("%d rows for 5 changes", r.Head.Seq-before)
			}
		})
	}
}

// cutter stands between a store and a server, and cuts the connection at a commit.
type cutter struct {
	dir   string
	armed atomic.Int32 // 1: before the server has the commit, 2: after it has answered
	cuts  atomic.Int32
}

func newCutter(t *testing.T, to string) *cutter {
	dir, err := os.MkdirTemp("", "noroshi-cut") // a socket's name must be short
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{dir: dir}
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(); _ = os.RemoveAll(dir) })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go c.carry(client, to)
		}
	}()
	return c
}

func (c *cutter) cut(forward bool) {
	if forward {
		c.armed.Store(2)
	} else {
		c.armed.Store(1)
	}
}

func (c *cutter) carry(client net.Conn, to string) {
	defer client.Close()
	s, err := net.Dial("unix", to)
	if err != nil {
		return
	}
	defer s.Close()
	var deaf atomic.Bool // the client hears nothing any more
	answered := make(chan struct{}, 1)
	go func() {
		defer client.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := s.Read(buf)
			if err != nil {
				return
			}
			if deaf.Load() {
				answered <- struct{}{}
				return
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		if how := c.armed.Load(); how != 0 && bytes.HasPrefix(buf[:n], []byte("Q")) && bytes.Contains(buf[:n], []byte("commit\x00")) {
			c.armed.Store(0)
			c.cuts.Add(1)
			if how == 2 {
				deaf.Store(true)
				_, _ = s.Write(buf[:n])
				<-answered
			}
			return
		}
		if _, err := s.Write(buf[:n]); err != nil {
			return
		}
	}
}
