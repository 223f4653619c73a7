package engine_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"noroshi/store/engine"
	"noroshi/store/engine/enginetest"
)

// The test binary is also the child, the child without its gate (bypass), and a
// parent to be killed (parent).
func TestMain(m *testing.M) {
	if len(os.Args) > 4 && os.Args[1] == "bypass" {
		c := engine.Child{Config: engine.Default(), Socket: filepath.Join(os.Args[4], "run", "s")}
		c.Library, c.Data = os.Args[3], os.Args[4]
		answers, err := c.Bypass(os.Args[2] == "grants", os.Args[5:])
		if err != nil {
			answers = []string{"FAILED: " + err.Error()}
		}
		_ = json.NewEncoder(os.Stdout).Encode(answers)
		return
	}
	if len(os.Args) > 3 && os.Args[1] == "parent" {
		c := engine.Default()
		c.Library, c.Data = os.Args[2], os.Args[3]
		e, err := engine.New(c, slog.New(slog.NewTextHandler(os.Stderr, nil)), engine.Options{})
		if err == nil {
			err = e.Run(context.Background())
		}
		fmt.Fprintln(os.Stderr, err)
		return
	}
	enginetest.Main(m)
}

func TestHTTP(t *testing.T) {
	db := enginetest.Start(t, enginetest.Config(t))
	f := func(sql string, status int, code, body string) {
		t.Helper()
		a, err := db.Post(sql, nil)
		if err != nil || a.Status != status || a.Code != code || !strings.Contains(a.Body, body) {
			t.Errorf("%s: %d %q %.300q, %v; want %d %q %q", sql, a.Status, a.Code, a.Body, err, status, code, body)
		}
	}
	f("SELECT 6 * 7 AS x FORMAT JSONEachRow", 200, "", `{"x":42}`)
	f("SELECT 6 * 7 AS x FORMAT JSON", 200, "", `"rows": 1`)
	f("SELECT * FROM nowhere", 404, "60", "Unknown table")
	f("SELECT nothing", 400, "47", "nothing")
	f("SELECT FROM WHERE", 400, "62", "Syntax error")
	f("SELECT count() FROM numbers(1e13) SETTINGS max_execution_time = 1", 408, "159", "Timeout")
	f("SELECT groupArray(number) FROM numbers(1e9) SETTINGS max_memory_usage = 100000000", 507, "241", "emory")
	f("SELECT 1 SETTINGS max_execution_time = 100000", 403, "452", "max_execution_time")
	f("SELECT 1 SETTINGS max_memory_usage = 0", 403, "452", "max_memory_usage")
	f("SELECT 1 FORMAT NoSuchFormat", 500, "73", "format")
	f("SYSTEM SHUTDOWN", 403, "497", "gate")
	f("SELECT count() FROM system.processes WHERE query LIKE '%noroshi%'", 200, "", "1")

	resp, err := db.HTTP.Post("http://engine/?default_format=JSONEachRow&param_v="+url.QueryEscape(`a\nb`)+"&param_n=7", "", strings.NewReader("SELECT length({v:String}) + {n:UInt8} AS x"))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	if string(b) != "{\"x\":10}\n" {
		t.Errorf("parameters: %s", b)
	}
	for path, status := range map[string]int{"/?database=system": 400, "/?default_format=..%2Fx": 400, "/?readonly=2&wait_end_of_query=1": 200, "/?readonly=0": 400, "/play": 404, "/ping": 404} {
		resp, err := db.HTTP.Post("http://engine"+path, "", strings.NewReader("SELECT 1"))
		if err != nil || resp.StatusCode != status {
			t.Errorf("POST %s: %v, %v", path, resp.StatusCode, err)
		}
	}
	if resp, err := db.HTTP.Post("http://engine/?readonly=2", "", strings.NewReader("CREATE TABLE x (n UInt8) ENGINE=Null")); err != nil || resp.StatusCode != 403 {
		t.Errorf("a table is made with readonly=2: %v", err)
	}
	if a, err := db.Post("SELECT '"+strings.Repeat("x", 1<<20)+"'", nil); err != nil || a.Status != http.StatusRequestEntityTooLarge && a.Status != http.StatusForbidden {
		t.Errorf("a huge statement: %d, %v", a.Status, err)
	}
	s, err := db.Status(t.Context())
	if err != nil || s.Version == "" || s.Errors[60] != 1 || s.Errors[241] != 1 || s.Reads == 0 || s.Readers.Idle != s.Readers.Connections || s.RSS == 0 || s.Threads == 0 || s.Files == 0 {
		t.Errorf("status %+v, %v", s, err)
	}
}

func rows(from, n int) []byte {
	var b []byte
	for i := range n {
		b = binary.LittleEndian.AppendUint64(b, uint64(from+i))
	}
	return b
}

func TestInsert(t *testing.T) {
	db := enginetest.Start(t, enginetest.Config(t))
	db.Must("CREATE TABLE t (n UInt64) ENGINE=MergeTree ORDER BY n")
	f := func(data []byte, encoding string, status int) enginetest.Answer {
		t.Helper()
		a, err := db.Post("INSERT INTO t FORMAT RowBinary", data, "Content-Encoding", encoding)
		if err != nil || a.Status != status {
			t.Errorf("%s: %d %.300s, %v", encoding, a.Status, a.Body, err)
		}
		return a
	}
	a := f(rows(0, 1000), "", 200)
	if got := a.Header.Get("X-ClickHouse-Summary"); !strings.Contains(got, `"written_rows":"1000"`) {
		t.Errorf("summary %s", got)
	}
	z, _ := zstd.NewWriter(nil)
	f(z.EncodeAll(rows(1000, 1000), nil), "zstd", 200)
	var g bytes.Buffer
	gw := gzip.NewWriter(&g)
	_, _ = gw.Write(rows(2000, 1000))
	_ = gw.Close()
	f(g.Bytes(), "gzip", 200)
	// What is broken stores nothing.
	f(g.Bytes()[:g.Len()-20], "gzip", 500)
	f([]byte("no gzip"), "gzip", 400)
	f([]byte("no zstd"), "zstd", 500)
	f(rows(0, 1), "br", 415)
	f([]byte("half"), "", 500)
	// Nor does what unpacks to more than it may: 300 MB of zeros in a few kilobytes.
	// (Blocks of a million rows that were complete before stay, hence a table of its own.)
	db.Must("CREATE TABLE big (n String) ENGINE=Null")
	if a, err := db.Post("INSERT INTO big FORMAT RowBinary", z.EncodeAll(make([]byte, 300<<20), nil), "Content-Encoding", "zstd"); err != nil || a.Status != 413 {
		t.Errorf("too much: %d %.300s, %v", a.Status, a.Body, err)
	}
	if got := db.Must("SELECT count(), sum(n) FROM t"); got != "3000\t4498500" {
		t.Errorf("stored %s", got)
	}
	if a, err := db.Post("INSERT INTO t FORMAT RowBinary", nil); err != nil || a.Status != 403 {
		t.Errorf("an insert without data: %d, %v", a.Status, err)
	}
}

// An error in the middle breaks the connection: half an answer is never taken for a whole one.
func TestHalfAnswer(t *testing.T) {
	db := enginetest.Start(t, enginetest.Config(t))
	a, err := db.Post("SELECT throwIf(number = 900000) FROM numbers(1000000) SETTINGS max_block_size = 1000, max_threads = 1", nil)
	if err == nil || a.Status != 200 || len(a.Body) == 0 {
		t.Errorf("%d octets with status %d, and no error: %v", len(a.Body), a.Status, err)
	}
}

// A statement ends when its client goes, also one that has said nothing yet, and
// its connection serves the next.
func TestCancel(t *testing.T) {
	c := enginetest.Config(t)
	c.Readers = 1
	db := enginetest.Start(t, c)
	for _, sql := range []string{"SELECT number FROM system.numbers", "SELECT count() FROM numbers(1e14)", "SELECT count() FROM numbers(1e14) FORMAT JSON"} {
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://engine/", strings.NewReader(sql+" SETTINGS max_execution_time = 600"))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if resp, err := db.HTTP.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
			}
		}()
		eventually(t, "the statement does not begin", func() bool {
			s, err := db.Status(t.Context())
			return err == nil && s.Readers.Idle == 0
		})
		cancel()
		<-done
		eventually(t, sql+" goes on", func() bool {
			s, err := db.Status(t.Context())
			return err == nil && s.Readers.Idle == 1
		})
	}
	if got := db.Must("SELECT 1"); got != "1" {
		t.Errorf("afterwards SELECT 1 is %s", got)
	}
}

// What a statement that failed had said already never comes in the answer to
// another: the library keeps it in the connection.
func TestNothingLeftOver(t *testing.T) {
	c := enginetest.Config(t)
	c.Readers = 1
	db := enginetest.Start(t, c)
	for _, format := range []string{"JSON", "Pretty", "TabSeparatedWithNames", "TabSeparated", "Native", "RowBinary", "CSV", "XML", "Null"} {
		for _, sql := range []string{
			"SELECT 'left over', throwIf(number = 900000) FROM numbers(1000000) SETTINGS max_block_size = 1000, max_threads = 1",
			"SELECT 'left over', sleepEachRow(0.001) FROM numbers(1000000) SETTINGS max_block_size = 100, max_execution_time = 1",
			"SELECT 'left over', nothing",
		} {
			if a, err := db.Post(sql+" FORMAT "+format, nil); err == nil && a.Status == 200 {
				t.Errorf("%s FORMAT %s does not fail", sql, format)
			}
			if got := db.Must("SELECT 1"); got != "1" {
				t.Errorf("after %s FORMAT %s, SELECT 1 is %q", sql, format, got)
			}
		}
	}
}

// Readers that take every connection of theirs don't keep a writer out.
func TestReadersAndWriters(t *testing.T) {
	t.Parallel() // it mostly waits
	c := enginetest.Config(t)
	c.Readers, c.Writers = 2, 1
	db := enginetest.Start(t, c)
	db.Must("CREATE TABLE t (n UInt64) ENGINE=MergeTree ORDER BY n")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://engine/", strings.NewReader("SELECT count() FROM numbers(1e14) SETTINGS max_threads = 1"))
			if resp, err := db.HTTP.Do(req); err == nil {
				_ = resp.Body.Close()
			}
		})
	}
	eventually(t, "no reader waits", func() bool {
		s, err := db.Status(t.Context())
		return err == nil && s.Readers.Idle == 0 && s.Readers.Waits >= 4
	})
	for i := range 3 {
		if a, err := db.Post("INSERT INTO t FORMAT RowBinary", rows(i, 10)); err != nil || a.Status != 200 {
			t.Errorf("insert: %d, %v", a.Status, err)
		}
	}
	// One that waits too long is told so.
	a, err := db.Post("SELECT 1", nil)
	if err != nil || a.Status != 503 || a.Code != "202" || a.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s %s, %v", a.Status, a.Code, a.Body, err)
	}
	cancel()
	wg.Wait()
	s, _ := db.Status(t.Context())
	if s.Readers.Busy == 0 || s.Writers.Busy != 0 {
		t.Errorf("status %+v", s)
	}
}

// The child is killed in the middle of writing. What was acknowledged is there, and
// nothing is there twice though what was in doubt was sent again.
func TestKill(t *testing.T) {
	db := enginetest.Start(t, enginetest.Config(t))
	db.Must("CREATE TABLE t (batch UInt32, n UInt32) ENGINE=MergeTree ORDER BY batch SETTINGS fsync_after_insert=1, fsync_part_directory=1, non_replicated_deduplication_window=1000")
	db.Must("CREATE TABLE sums (k UInt8, c SimpleAggregateFunction(sum, UInt64)) ENGINE=SummingMergeTree ORDER BY k SETTINGS non_replicated_deduplication_window=1000")
	db.Must("CREATE MATERIALIZED VIEW v TO sums AS SELECT 0::UInt8 AS k, count() AS c FROM t GROUP BY k")
	const size, batches, kills = 20_000, 60, 5
	kill := time.NewTicker(400 * time.Millisecond)
	defer kill.Stop()
	ended := make(chan struct{})
	killed := make(chan int)
	go func() {
		n := 0
		defer func() { killed <- n }()
		for n < kills {
			select {
			case <-ended:
				return
			case <-kill.C:
			}
			if s := db.Stats(); s.State == engine.Up && syscall.Kill(s.PID, syscall.SIGKILL) == nil {
				n++
			}
		}
	}()
	again := 0
	for i, n := 0, 0; i < batches || n < kills; i++ {
		// Once all are sent, they are sent again, which changes nothing.
		batch := i % batches
		var data []byte
		for row := range size {
			data = binary.LittleEndian.AppendUint32(data, uint32(batch))
			data = binary.LittleEndian.AppendUint32(data, uint32(row))
		}
		for {
			a, err := db.Post(fmt.Sprintf("INSERT INTO t SETTINGS insert_deduplication_token='%d' FORMAT RowBinary", batch), data)
			if err == nil && a.Status == 200 {
				break
			}
			again++
			time.Sleep(10 * time.Millisecond)
		}
		n = int(db.Stats().Restarts)
	}
	close(ended)
	n := <-killed
	db.Ready()
	t.Logf("%d kills, %d restarts, %d batches sent again", n, db.Stats().Restarts, again)
	if n == 0 || db.Stats().Restarts == 0 || db.Stats().Reason == nil {
		t.Errorf("%d kills, %+v", n, db.Stats())
	}
	want := fmt.Sprintf("%d\t%d\t%d", size*batches, batches, size)
	if got := db.Must("SELECT sum(c), count(), max(c) FROM (SELECT batch, count() AS c FROM t GROUP BY batch)"); got != want {
		t.Errorf("stored %s, want %s", got, want)
	}
	if got := db.Must("SELECT sum(c) FROM sums"); got != fmt.Sprint(size*batches) {
		t.Errorf("the view counted %s", got)
	}
}

// A child that hangs is no child: here it is stopped, and answers nothing. The
// end comes all the same.
func TestStopHanging(t *testing.T) {
	t.Parallel() // it mostly waits
	db := enginetest.Start(t, enginetest.Config(t))
	pid := db.Stats().PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	db.Stop()
	if syscall.Kill(pid, 0) == nil {
		t.Error("the child is still there")
	}
	if s := db.Stats(); s.State != engine.Stopped || s.PID != 0 {
		t.Errorf("%+v", s)
	}
}

// A child that gives no answer for too long is killed, and another one begins.
func TestSilentChild(t *testing.T) {
	t.Parallel() // it mostly waits
	e, err := engine.New(enginetest.Config(t), slog.New(slog.DiscardHandler), engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e.Impatient()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	if err := e.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	pid := e.Stats().PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the silent child is not replaced", func() bool {
		s := e.Stats()
		return s.State == engine.Up && s.PID != pid && s.Restarts > 0
	})
	if s := e.Stats(); s.Reason == nil || !strings.Contains(s.Reason.Error(), "gave no answer") {
		t.Errorf("why: %v", s.Reason)
	}
	if syscall.Kill(pid, 0) == nil {
		t.Error("the silent child is still there")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A killed parent takes its child with it, and the next one has the data at once.
func TestParentKilled(t *testing.T) {
	c := enginetest.Config(t)
	socket := filepath.Join(c.Data, "run", "engine.sock")
	client := engine.Client(socket)
	for i := range 2 {
		parent := exec.Command(os.Args[0], "parent", c.Library, c.Data)
		if err := parent.Start(); err != nil {
			t.Fatal(err)
		}
		answers := func() bool {
			resp, err := client.Get("http://engine/ping")
			if err == nil {
				_ = resp.Body.Close()
			}
			return err == nil
		}
		eventually(t, "the engine does not come up", answers)
		sql := "CREATE TABLE kept (n UInt8) ENGINE=MergeTree ORDER BY n"
		if i == 1 {
			sql = "SELECT count() FROM kept"
		}
		if resp, err := client.Post("http://engine/", "", strings.NewReader(sql)); err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: %v", sql, err)
		}
		_ = parent.Process.Kill()
		_ = parent.Wait()
		eventually(t, "the engine outlives its parent", func() bool { return !answers() })
	}
}

func TestSocket(t *testing.T) {
	c := enginetest.Config(t)
	db := enginetest.Start(t, c)
	for path, want := range map[string]os.FileMode{db.Socket(): 0o600 | os.ModeSocket, filepath.Dir(db.Socket()): 0o700 | os.ModeDir, c.Data: 0o700 | os.ModeDir, filepath.Join(c.Data, "db"): 0o700 | os.ModeDir} {
		info, err := os.Stat(path)
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	// A client that sends half a request and goes leaves the others alone.
	conn, err := net.Dial("unix", db.Socket())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /?query=INSERT+INTO+t+FORMAT+RowBinary HTTP/1.1\r\nHost: engine\r\nContent-Length: 100\r\n\r\nhalf")
	_ = conn.Close()
	db.Must("SELECT 1")
	db.Stop()
	if _, err := os.Stat(db.Socket()); err == nil {
		t.Error("an orderly end leaves the socket behind")
	}
}

// A second engine on one folder says who is in the way.
func TestSecondEngine(t *testing.T) {
	c := enginetest.Config(t)
	first := enginetest.Start(t, c)
	cmd := exec.Command(os.Args[0], "engine", "--library", c.Library, "--data", c.Data, "--socket", filepath.Join(c.Data, "run", "other"))
	cmd.Stdin = strings.NewReader("")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), engine.ErrInUse.Error()) {
		t.Errorf("%v: %s", err, out)
	}
	if got := first.Must("SELECT 1"); got != "1" {
		t.Error(got)
	}
}

func TestLibrary(t *testing.T) {
	dir := t.TempDir()
	if _, err := engine.Find(filepath.Join(dir, "libchdb.so")); !errors.Is(err, engine.ErrNoLibrary) || strings.Contains(err.Error(), "\n") {
		t.Errorf("no library: %v", err)
	}
	if _, err := engine.Find(dir); err == nil {
		t.Error("a folder passes for a library")
	}
	c := engine.Default()
	c.Library, c.Data = filepath.Join(dir, "libchdb.so"), filepath.Join(dir, "data")
	if _, err := engine.New(c, slog.New(slog.DiscardHandler), engine.Options{}); !errors.Is(err, engine.ErrNoLibrary) {
		t.Errorf("no library: %v", err)
	}
	// A text, and a library that is another one.
	if err := os.WriteFile(c.Library, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	others, _ := filepath.Glob("/lib/*/libm.so.6")
	for _, library := range append([]string{c.Library}, others...) {
		c.Library = library
		e, err := engine.New(c, slog.New(slog.DiscardHandler), engine.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = e.Run(ctx) }()
		eventually(t, "the engine does not say what is wrong", func() bool {
			s := e.Stats()
			return s.State == engine.Down && s.Reason != nil && strings.Contains(s.Reason.Error(), "is not the library") && s.Restarts > 0
		})
		cancel()
		<-done
	}
}

func TestConfig(t *testing.T) {
	f := func(want string, change func(*engine.Config)) {
		t.Helper()
		c := engine.Default()
		change(&c)
		key, err := "", error(nil)
		c.Check(func(k string, why error) { key, err = k, why })
		if key != want || (err != nil) != (want != "") {
			t.Errorf("%q, %v; want %q", key, err, want)
		}
	}
	f("", func(*engine.Config) {})
	f("memory", func(c *engine.Config) { c.Memory = 1 << 20 })
	f("threads", func(c *engine.Config) { c.Threads = -1 })
	f("writers", func(c *engine.Config) { c.Writers = 0 })
	f("readers", func(c *engine.Config) { c.Readers = 65 })
	c := engine.Default()
	c.Library, c.Data = os.Args[0], "/"+strings.Repeat("x", 100)
	if _, err := engine.New(c, slog.New(slog.DiscardHandler), engine.Options{}); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("a path too long for a socket: %v", err)
	}
	c.Data = ""
	if _, err := engine.New(c, slog.New(slog.DiscardHandler), engine.Options{}); err == nil || !strings.Contains(err.Error(), "no folder") {
		t.Errorf("no folder: %v", err)
	}
}

// The walls behind the gate, each without those before it.
func TestWalls(t *testing.T) {
	c := enginetest.Config(t)
	dir := filepath.Dir(c.Data)
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tcp.Close() }()
	called := make(chan struct{}, 1)
	go func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			called <- struct{}{}
			_ = conn.Close()
		}
	}()
	bypass := func(mode string, statements ...string) []string {
		t.Helper()
		cmd := exec.Command(os.Args[0], append([]string{"bypass", mode, c.Library, c.Data}, statements...)...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		var answers []string
		if err != nil || json.NewDecoder(bufio.NewReader(bytes.NewReader(out))).Decode(&answers) != nil || len(answers) != len(statements) {
			t.Fatalf("%v: %s", err, out)
		}
		return answers
	}
	program := filepath.Join(c.Data, "db", "user_scripts", "x.sh")
	if err := os.MkdirAll(filepath.Dir(program), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(c.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho ran\ntouch "+program+".ran\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	host := tcp.Addr().String()
	statements := []string{
		"SELECT file('" + secret + "')",
		"SELECT file('/etc/hostname')",
		"SELECT file('/etc/passwd')",
		"SELECT * FROM file('" + secret + "', 'LineAsString')",
		"SELECT 1 INTO OUTFILE '" + dir + "/out'",
		"SELECT * FROM remote('" + host + "', 'system.one') SETTINGS connect_timeout_with_failover_ms = 100, connections_with_failover_max_tries = 1",
		"SELECT * FROM url('http://" + host + "/', 'LineAsString') SETTINGS http_max_tries = 1",
		"SELECT * FROM executable('x.sh', 'LineAsString', 'x String')",
		"SELECT 1 + 1",
	}
	for _, mode := range []string{"open", "grants"} {
		answers := bypass(mode, statements...)
		for i, a := range answers[:len(answers)-1] {
			// A program that can't be started is no error to the engine, but no rows either.
			if !strings.Contains(a, "Code: ") && !(a == "" && strings.Contains(statements[i], "executable")) || strings.Contains(a, "s3cret") {
				t.Errorf("%s: %s gives %q", mode, statements[i], a)
			}
		}
		if last := answers[len(answers)-1]; last != "2\n" {
			t.Errorf("%s: the engine does not work: %q", mode, last)
		}
	}
	if _, err := os.Stat(program + ".ran"); err == nil {
		t.Error("a program was run")
	}
	if _, err := os.Stat(dir + "/out"); err == nil {
		t.Error("a file was written outside the engine's folders")
	}
	select {
	case <-called:
		t.Error("the engine connected to another server")
	default:
	}
	// With the grants alone: what the engine itself forbids.
	for i, a := range bypass("grants", "SELECT * FROM file('x', 'LineAsString')", "CREATE TABLE f (s String) ENGINE=File(CSV)", "SELECT * FROM url('http://127.0.0.1:9/', 'LineAsString')",
		"CREATE USER u", "SYSTEM SHUTDOWN", "CREATE NAMED COLLECTION c AS a=1", "BACKUP DATABASE default TO Disk('default', 'x')", "SELECT 1 SETTINGS readonly=1, max_execution_time=9999999") {
		if !strings.Contains(a, "Code: 497") && !strings.Contains(a, "Code: 452") {
			t.Errorf("right %d is not withheld: %s", i, a)
		}
	}
}

func eventually(t *testing.T, otherwise string, ok func() bool) {
	t.Helper()
	for range 1200 {
		if ok() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal(otherwise)
}
