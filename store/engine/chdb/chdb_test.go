package chdb_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"noroshi/store/engine/chdb"
	"noroshi/store/engine/enginetest"
)

// The engine lives once per process, so the tests share one.
var (
	dir  string
	keep *chdb.Conn
)

func TestMain(m *testing.M) {
	code := m.Run()
	if keep != nil {
		keep.Close() // a process must not exit with the engine open
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func open(t *testing.T) *chdb.Conn {
	t.Helper()
	library := enginetest.Library(t)
	if keep == nil {
		version, err := chdb.Load(library)
		if err != nil {
			t.Fatal(err)
		}
		t.Log("libchdb", version)
		if dir, err = os.MkdirTemp("", "chdb"); err != nil {
			t.Fatal(err)
		}
		if keep, err = chdb.Open(dir); err != nil {
			t.Fatal(err)
		}
	}
	c, err := chdb.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// escaper makes a text a field of TabSeparated, as clients do.
var escaper = strings.NewReplacer("\\", "\\\\", "\n", "\\n", "\t", "\\t", "\r", "\\r", "\x00", "\\0")

func must(t *testing.T, c *chdb.Conn, sql string) string {
	t.Helper()
	b, _, err := c.Query(sql, "TabSeparated")
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return strings.TrimSpace(string(b))
}

func code(err error) int {
	if e := new(chdb.Error); errors.As(err, &e) {
		return e.Code
	}
	return -1
}

// What can't be loaded is an error and no panic: nothing, a text, a library that
// is another one.
func TestLoad(t *testing.T) {
	text := t.TempDir() + "/text.so"
	if err := os.WriteFile(text, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", "/nowhere/libchdb.so", text} {
		if v, err := chdb.Load(path); err == nil {
			t.Errorf("%q was loaded: %s", path, v)
		}
	}
	if _, err := chdb.Load("libm.so.6"); !errors.Is(err, chdb.ErrTooOld) {
		t.Errorf("another library: %v", err)
	}
	library := enginetest.Library(t)
	open(t)
	if _, err := chdb.Load(library); err != nil {
		t.Errorf("a second time: %v", err)
	}
	if _, err := chdb.Load("/nowhere/libchdb.so"); err == nil {
		t.Error("a second library was loaded")
	}
	if _, err := chdb.Open("relative"); err == nil {
		t.Error("a relative path was taken")
	}
	if _, err := chdb.Open(t.TempDir()); err == nil {
		t.Error("a second folder was opened")
	}
}

// A value comes back as it was given, whatever is in it.
func TestParams(t *testing.T) {
	c := open(t)
	all := ""
	for i := range 256 {
		all += string(rune(i))
	}
	for _, v := range []string{"", "plain", "it's", `back\slash`, "two\nlines", "tab\there", "nul\x00", "{x:String}", "'; DROP TABLE x", "狼煙", all} {
		b, _, err := c.Query("SELECT {v:String}, {n:UInt8}", "RowBinary", chdb.Param{Name: "n", Value: "7"}, chdb.Param{Name: "v", Value: escaper.Replace(v)})
		if err != nil {
			t.Errorf("%q: %v", v, err)
			continue
		}
		n, k := binary.Uvarint(b)
		if int(n) != len(v) || string(b[k:]) != v+"\x07" {
			t.Errorf("%q came back as %q", v, b)
		}
	}
	if _, _, err := c.Query("SELECT {v:UInt8}", "RowBinary", chdb.Param{Name: "v", Value: "x"}); err == nil {
		t.Error("a text passes for a number")
	}
	if _, _, err := c.Query("SELECT {v:UInt8}", "RowBinary"); code(err) != 456 {
		t.Errorf("a missing parameter: %v", err)
	}
}

func TestErrors(t *testing.T) {
	c := open(t)
	for sql, want := range map[string]int{
		"SELECT * FROM nowhere": 60, "SELECT FROM WHERE": 62, "SELECT nothing": 47,
		"SELECT count() FROM numbers(1e12) SETTINGS max_execution_time=0.2, max_threads=1": 159,
		"SELECT groupArray(number) FROM numbers(1e9) SETTINGS max_memory_usage=50000000":   241,
	} {
		if _, _, err := c.Query(sql, "TabSeparated"); code(err) != want {
			t.Errorf("%s: %v, want code %d", sql, err, want)
		}
		if _, err := c.Select(t.Context(), sql, "TabSeparated", nil, func([]byte) error { return nil }); code(err) != want {
			t.Errorf("%s, streamed: %v, want code %d", sql, err, want)
		}
		if got := must(t, c, "SELECT 1"); got != "1" {
			t.Errorf("after %s, SELECT 1 is %s", sql, got)
		}
	}
}

func TestSelect(t *testing.T) {
	c := open(t)
	for _, format := range []string{"RowBinary", "TabSeparated", "JSONEachRow", "CSV"} {
		const sql = "SELECT number, toString(number) AS s FROM numbers(1000000)"
		whole, _, err := c.Query(sql, format)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		pieces := 0
		stats, err := c.Select(t.Context(), sql, format, nil, func(b []byte) error { pieces++; got.Write(b); return nil })
		if err != nil || !bytes.Equal(whole, got.Bytes()) || stats.RowsRead != 1_000_000 {
			t.Errorf("%s: %d octets, want %d; %+v, %v", format, got.Len(), len(whole), stats, err)
		}
		if pieces < 2 {
			t.Errorf("%s came in one piece", format)
		}
	}
	// Nothing is an answer, too.
	if _, err := c.Select(t.Context(), "SELECT 1 WHERE 0", "RowBinary", nil, func(b []byte) error {
		if len(b) > 0 {
			t.Errorf("%q", b)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	// One that never ends is ended, by its reader and by the end of its context.
	stop := errors.New("enough")
	if _, err := c.Select(t.Context(), "SELECT number FROM system.numbers", "RowBinary", nil, func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("ended by its reader: %v", err)
	}
	// One that fails half-way says so.
	if _, err := c.Select(t.Context(), "SELECT throwIf(number = 900000) FROM numbers(1000000) SETTINGS max_block_size=1000, max_threads=1", "RowBinary", nil, func([]byte) error { return nil }); code(err) != 395 {
		t.Errorf("failed half-way: %v", err)
	}
	if got := must(t, c, "SELECT 1"); got != "1" {
		t.Errorf("afterwards SELECT 1 is %s", got)
	}
}

func rows(from, n int) *bytes.Reader {
	var b []byte
	for i := range n {
		b = binary.LittleEndian.AppendUint64(b, uint64(from+i))
	}
	return bytes.NewReader(b)
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestInsert(t *testing.T) {
	c := open(t)
	must(t, c, "CREATE TABLE ins (n UInt64) ENGINE=MergeTree ORDER BY n")
	if s, err := c.Insert("INSERT INTO ins", "RowBinary", rows(0, 300_000)); err != nil || s.RowsWritten != 300_000 {
		t.Errorf("%+v, %v", s, err)
	}
	for name, r := range map[string]io.Reader{"broken": io.MultiReader(rows(0, 1000), broken{}), "half a row": strings.NewReader("abc")} {
		if _, err := c.Insert("INSERT INTO ins", "RowBinary", r); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := c.Insert("INSERT INTO nowhere", "RowBinary", rows(0, 1)); code(err) != 60 {
		t.Errorf("a wrong table: %v", err)
	}
	if _, err := c.Insert("INSERT INTO ins", "RowBinary", rows(0, 0)); err != nil {
		t.Errorf("no rows: %v", err)
	}
	if got := must(t, c, "SELECT count(), sum(n) FROM ins"); got != "300000\t44999850000" {
		t.Errorf("stored %s", got)
	}
}

// What is sent again because nobody knows whether it arrived is stored once, in the
// table and in the view on it.
func TestInsertAgain(t *testing.T) {
	c := open(t)
	must(t, c, "CREATE TABLE again (n UInt64) ENGINE=MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window=1000")
	must(t, c, "CREATE MATERIALIZED VIEW sums (k UInt8, s SimpleAggregateFunction(sum, UInt64)) ENGINE=SummingMergeTree ORDER BY k SETTINGS non_replicated_deduplication_window=1000 AS SELECT 0::UInt8 AS k, count() AS s FROM again")
	for _, token := range []int{1, 1, 2, 1, 2} {
		if _, err := c.Insert(fmt.Sprintf("INSERT INTO again SETTINGS insert_deduplication_token='batch-%d', deduplicate_blocks_in_dependent_materialized_views=1", token), "RowBinary", rows(0, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if got := must(t, c, "SELECT (SELECT count() FROM again), (SELECT sum(s) FROM sums)"); got != "2000\t2000" {
		t.Errorf("two batches became %s", got)
	}
}

func TestManyConnections(t *testing.T) {
	open(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			c, err := chdb.Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for range 50 {
				if b, _, err := c.Query("SELECT sum(number) FROM numbers(10000)", "TabSeparated"); err != nil || string(b) != "49995000\n" {
					t.Errorf("%q, %v", b, err)
				}
			}
		})
	}
	wg.Wait()
}
