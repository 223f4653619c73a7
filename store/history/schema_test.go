package history

import (
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"noroshi/event"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestColumnName(t *testing.T) {
	f := func(field, want string) {
		t.Helper()
		if got := columnName(field); got != want {
			t.Errorf("%s became %s, want %s", field, got, want)
		}
	}
	f("Src", "src")
	f("SrcPort", "src_port")
	f("SrcAS", "src_as")
	f("TOS", "tos")
	f("TCPFlags", "tcp_flags")
	f("EventID", "event_id")
	f("ID", "id")
	f("BytesIn", "bytes_in")
	f("InIf", "in_if")
}

// Every exported field of every event is a column, and no two have one name:
// adding a column is adding a field.
func TestColumns(t *testing.T) {
	for _, k := range Kinds {
		tab, seen := &tables[k], map[string]bool{}
		if n := reflect.Indirect(reflect.New(tab.row)).NumField(); len(tab.columns) != n {
			t.Errorf("%s: %d columns of %d fields", k, len(tab.columns), n)
		}
		for _, c := range tab.columns {
			if seen[c.name] {
				t.Errorf("%s: two columns %s", k, c.name)
			}
			seen[c.name] = true
		}
		if !seen["seen"] {
			t.Errorf("%s has no column seen, by which it is partitioned", k)
		}
		// What the table says of columns must be about columns it has.
		for name := range tab.types {
			tab.column(name)
		}
		for name := range tab.codecs {
			tab.column(name)
		}
		for name := range tab.mask {
			tab.column(name)
		}
		if got, err := ParseKind(k.String()); err != nil || got != k {
			t.Errorf("ParseKind(%s) = %v, %v", k, got, err)
		}
	}
	if _, err := ParseKind("flow"); err == nil {
		t.Error("there is a kind flow")
	}
}

// The statements as an operator reads them; docs/schema*.sql are these.
func TestStatements(t *testing.T) {
	for path, l := range map[string]Layout{
		"../../docs/schema.sql":         {Database: "noroshi", Keep: Default().Keep},
		"../../docs/schema-cluster.sql": {Database: "noroshi", Keep: Default().Keep, Cluster: "noroshi"},
	} {
		got := "-- What noroshi creates by itself. Made by go test ./store/history -update; not to be edited.\n\n" +
			strings.Join(l.Statements(), ";\n\n") + ";\n"
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || got != string(want) {
			t.Errorf("%s is of another version (%v): go test ./store/history -update, and look at the difference", path, err)
		}
	}
}

// A layout's names reach SQL only quoted.
func TestQuote(t *testing.T) {
	l := Layout{Database: "a`; DROP TABLE x; --\\", Cluster: "c`"}
	for _, s := range l.Statements() {
		if strings.Contains(strings.ReplaceAll(s, "\\`", ""), "`; DROP") {
			t.Errorf("a name ends its quotes: %s", s)
		}
	}
}

func TestSeal(t *testing.T) {
	var batch event.Batch
	for i := range 3 {
		f := batch.NewFlow()
		f.Seen, f.Bytes = event.Time(time.Duration(i+5)*time.Second), uint64(i)
		f.Payload = batch.AddText([]byte("狼煙\x00\n"))
	}
	b := NewBuilder(Flows)
	b.Add(&batch, 0, 2)
	b.Add(&batch, 2, 3)
	b.Add(&batch, 3, 3)
	one := b.Seal("x-1", nil)
	if one.Rows != 3 || one.First != event.Time(5*time.Second) || one.Last != event.Time(7*time.Second) || one.ID != "x-1" || one.Table != "flows" || len(one.Minutes) != 1 || one.Minutes[0].Rows != 3 {
		t.Errorf("%+v", one)
	}
	if b.Rows() != 0 || b.Size() != 0 {
		t.Errorf("after Seal %d rows, %d octets", b.Rows(), b.Size())
	}
	b.Add(&batch, 0, 3)
	if two := b.Seal("x-1", nil); !reflect.DeepEqual(one, two) {
		t.Error("the same events give another block")
	}
}

func TestBuilderAllocates(t *testing.T) {
	var batch event.Batch
	for range event.BatchSize {
		batch.NewFlow()
	}
	b := NewBuilder(Flows)
	var buf []byte
	round := func() {
		for range 4 {
			b.Add(&batch, 0, len(batch.Flows))
		}
		buf = b.Seal("id", buf[:0]).Data
	}
	round()
	if n := testing.AllocsPerRun(20, round); n > 1 { // the list of minutes
		t.Errorf("%v allocations for a block of 4,096 rows, want 1", n)
	}
}

func BenchmarkBuilder(b *testing.B) {
	var batch event.Batch
	for i := range event.BatchSize {
		f := batch.NewFlow()
		f.Seen, f.Bytes = event.Time(i), uint64(i)
	}
	builder := NewBuilder(Flows)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		builder.Add(&batch, 0, len(batch.Flows))
		if builder.Rows() >= 100_000 {
			buf = builder.Seal("id", buf[:0]).Data
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/event.BatchSize, "ns/row")
}
