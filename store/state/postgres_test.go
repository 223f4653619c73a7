package state_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
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
