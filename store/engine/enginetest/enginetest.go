// Package enginetest runs the real engine in tests.
package enginetest

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"noroshi/store/engine"
)

// Library returns the path of libchdb.so: what NOROSHI_ENGINE_LIB names, or
// bin/libchdb.so of this repository. Without one the test is skipped, or fails
// if NOROSHI_ENGINE_REQUIRED is set, as in CI.
func Library(t testing.TB) string {
	t.Helper()
	path := os.Getenv("NOROSHI_ENGINE_LIB")
	if path == "" {
		_, here, _, _ := runtime.Caller(0)
		path = filepath.Join(filepath.Dir(here), "../../../bin/libchdb.so")
	}
	library, err := engine.Find(path)
	switch {
	case err == nil:
	case os.Getenv("NOROSHI_ENGINE_REQUIRED") != "":
		t.Fatal(err)
	default:
		t.Skipf("SKIPPED: no libchdb.so; make engine fetches it: %v", err)
	}
	return library
}

// Main is the body of TestMain: it makes the test binary the engine's child when
// it is started as one, and otherwise runs the tests.
func Main(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "engine" {
		var c engine.Child
		fs := flag.NewFlagSet("engine", flag.ExitOnError)
		c.Flags(fs)
		_ = fs.Parse(os.Args[2:])
		if err := c.Run(context.Background(), os.Stdin, slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// DB is a running engine.
type DB struct {
	*engine.Engine
	HTTP *http.Client // to http://engine/
	t    testing.TB
	stop func()
}

// Config returns a small configuration with data in a folder of the test.
func Config(t testing.TB) engine.Config {
	t.Helper()
	c := engine.Default()
	c.Library = Library(t)
	// Not t.TempDir, whose name grows with the test's and may be too long for a socket.
	dir, err := os.MkdirTemp("", "engine")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c.Data = filepath.Join(dir, "data")
	return c
}

// Start runs an engine until the test ends. The package's TestMain calls [Main].
func Start(t testing.TB, c engine.Config) *DB {
	t.Helper()
	e, err := engine.New(c, slog.New(slog.DiscardHandler), engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := e.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	db := &DB{Engine: e, HTTP: engine.Client(e.Socket()), t: t, stop: func() { cancel(); <-done }}
	t.Cleanup(db.Stop)
	db.Ready()
	return db
}

// Stop ends the engine; more than once does nothing.
func (db *DB) Stop() { db.stop() }

// Ready waits until the engine answers.
func (db *DB) Ready() {
	db.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := db.Wait(ctx); err != nil {
		db.t.Fatal(err)
	}
}

// Answer is what came back.
type Answer struct {
	Status int
	Code   string // X-ClickHouse-Exception-Code
	Header http.Header
	Body   string
}

// Post sends a statement, and data if it isn't nil. The error is one of the
// connection; an error of the engine is in the answer.
func (db *DB) Post(statement string, data []byte, headers ...string) (a Answer, err error) {
	u, body := "http://engine/", []byte(statement)
	if data != nil {
		u, body = u+"?query="+url.QueryEscape(statement), data
	}
	req, err := http.NewRequest(http.MethodPost, u, bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := db.HTTP.Do(req)
	if err != nil {
		return a, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return Answer{resp.StatusCode, resp.Header.Get("X-ClickHouse-Exception-Code"), resp.Header, string(b)}, err
}

// Must returns the answer to a statement, without the newline at its end.
func (db *DB) Must(statement string) string {
	db.t.Helper()
	a, err := db.Post(statement, nil)
	if err != nil || a.Status != http.StatusOK {
		db.t.Fatalf("%s: %d %s: %.300s; %v", statement, a.Status, a.Code, a.Body, err)
	}
	return strings.TrimSuffix(a.Body, "\n")
}
