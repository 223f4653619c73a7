package historytest

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"noroshi/store/history"
)

// Open returns a client and an empty database of its own: on the server that
// NOROSHI_CLUSTER_URL names, with the cluster NOROSHI_CLUSTER, else on an
// embedded engine. Without either the test is skipped.
func Open(t *testing.T) (*history.Client, history.Layout) {
	t.Helper()
	l := history.Layout{Database: "noroshi_test_" + strings.ToLower(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, t.Name())), Cluster: os.Getenv("NOROSHI_CLUSTER")}
	c := &history.Client{HTTP: http.DefaultClient, URL: os.Getenv("NOROSHI_CLUSTER_URL"),
		User: os.Getenv("NOROSHI_CLUSTER_USER"), Password: os.Getenv("NOROSHI_CLUSTER_PASSWORD")}
	if c.URL == "" {
		c = Engine(t)
	}
	drop := func() {
		sql := "DROP DATABASE IF EXISTS `" + l.Database + "`"
		if l.Cluster != "" {
			sql += " ON CLUSTER `" + l.Cluster + "` SYNC"
		}
		if err := c.Exec(context.Background(), sql); err != nil {
			t.Errorf("dropping the test's database: %v", err)
		}
	}
	drop() // what a broken run left
	t.Cleanup(drop)
	for _, s := range l.Statements() {
		if err := c.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	return c, l
}

// Engine starts an embedded engine that lives as long as the test. It is the one
// place that knows how: the program NOROSHI_TEST_ENGINE is called with the
// library, a data directory and a socket.
func Engine(t *testing.T) *history.Client {
	t.Helper()
	program, lib := os.Getenv("NOROSHI_TEST_ENGINE"), os.Getenv("NOROSHI_ENGINE_LIB")
	if program == "" || lib == "" {
		t.Skip("no engine: make engine fetches it; NOROSHI_ENGINE_LIB and NOROSHI_TEST_ENGINE name it")
	}
	dir, err := os.MkdirTemp("", "history") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(program, lib, filepath.Join(dir, "data"), socket)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	c := Socket(socket)
	for range 300 {
		if err = c.Ping(t.Context()); err == nil {
			return c
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("the engine does not answer: ", err)
	return nil
}

// Socket returns a client of the engine on a unix socket.
func Socket(path string) *history.Client {
	return &history.Client{URL: "http://engine", HTTP: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}}
}
