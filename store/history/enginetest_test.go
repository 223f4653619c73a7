package history_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"noroshi/event"
	"noroshi/store/engine/enginetest"
	"noroshi/store/history"
	"noroshi/store/history/historytest"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// engine returns a client of a real engine, with its way to say SQL of the test's
// own.
func engine(t *testing.T) (*history.Client, *enginetest.DB) {
	t.Helper()
	db := enginetest.Start(t, enginetest.Config(t))
	return &history.Client{URL: "http://engine", HTTP: db.HTTP}, db
}

// Prepare makes of any older form what this version wants, and touches nothing
// when there is nothing to do.
func TestPrepare(t *testing.T) {
	c, db := engine(t)
	prepare := func(k history.Keep) error {
		return c.Prepare(t.Context(), history.Layout{Database: "noroshi", Keep: k})
	}
	table := func(name string) string {
		return db.Must("SELECT create_table_query FROM system.tables WHERE database = 'noroshi' AND name = '" + name + "'")
	}
	for _, s := range []struct {
		what, before string
		keep         history.Keep
		table        string
		has, hasNot  string
	}{
		{"nothing is there", "", history.Keep{}, "flows", "src_port", " TTL "},
		{"all is there", "", history.Keep{}, "flows", "src_port", " TTL "},
		{"a time is set", "", history.Keep{Flows: 48 * time.Hour}, "flows", "toIntervalSecond(172800)", ""},
		{"the time is another", "", history.Keep{Flows: 72 * time.Hour}, "flows", "toIntervalSecond(259200)", "172800"},
		{"for ever", "", history.Keep{}, "flows", "src_port", " TTL "},
		{"a column is missing", "ALTER TABLE noroshi.flows DROP COLUMN ttl", history.Keep{}, "flows", "`ttl` UInt8", ""},
		{"a view is of another version", "ALTER TABLE noroshi.flows_by_as_view MODIFY COMMENT 'noroshi 0'", history.Keep{}, "flows_by_as_view", `COMMENT \'noroshi `, `noroshi 0\'`},
		{"a column that a view wants is missing", "DROP VIEW noroshi.flows_by_exporter_view; ALTER TABLE noroshi.flows DROP COLUMN in_if", history.Keep{}, "flows_by_exporter_view", "in_if", ""},
		{"a view is gone", "DROP VIEW noroshi.flows_kept_view", history.Keep{}, "flows_kept_view", "count()", ""},
	} {
		if s.before != "" {
			for before := range strings.SplitSeq(s.before, "; ") {
				db.Must(before)
			}
		}
		if err := prepare(s.keep); err != nil {
			t.Fatalf("%s: %v", s.what, err)
		}
		got := table(s.table)
		if !strings.Contains(got, s.has) || s.hasNot != "" && strings.Contains(got, s.hasNot) {
			t.Errorf("%s: the table is %s", s.what, got)
		}
	}
	db.Must("ALTER TABLE noroshi.flows MODIFY COLUMN tos String")
	if err := prepare(history.Keep{}); err == nil || !strings.Contains(err.Error(), "column tos of noroshi.flows is String, and this version wants UInt8") {
		t.Errorf("a column of another type: %v", err)
	}
}

// A block that an older program left, without a column of today, goes in; one
// with a column that nobody knows does not.
func TestOldBlock(t *testing.T) {
	c, db := engine(t)
	l := history.Layout{Database: "noroshi"}
	if err := c.Prepare(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	var batch event.Batch
	batch.NewFlow().Seen = event.TimeOf(time.Now())
	b := history.NewBuilder(history.Flows)
	b.Add(&batch, 0, 1)
	block := b.Seal("old-1", nil)
	db.Must("ALTER TABLE noroshi.flows ADD COLUMN of_the_future UInt8 DEFAULT 7")
	if err := c.Insert(t.Context(), l, &block); err != nil {
		t.Error(err)
	}
	if got := db.Must("SELECT of_the_future FROM noroshi.flows"); got != "7" {
		t.Errorf("what an old block lacks is %s", got)
	}
	db.Must("ALTER TABLE noroshi.flows DROP COLUMN of_the_future")
	db.Must("ALTER TABLE noroshi.flows DROP COLUMN window")
	block.ID = "old-2"
	var e *history.Error
	if err := c.Insert(t.Context(), l, &block); !errors.As(err, &e) || e.Code == 0 {
		t.Errorf("a column that the table lacks is passed over: %v", err)
	}
}

// The statements for a cluster are ClickHouse's: the engine's parser reads them.
func TestClusterStatementsParse(t *testing.T) {
	_, db := engine(t)
	l := history.Layout{Database: "noroshi", Cluster: "some`cluster", Keep: history.Default().Keep}
	for _, s := range append(l.Statements(), l.NameStatements()...) {
		literal := "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
		a, err := db.Post("SELECT formatQuery("+literal+")", nil)
		if err != nil || a.Status != 200 {
			t.Errorf("%s: %s; %v", s, a.Body, err)
		}
	}
	if a, _ := db.Post("SELECT formatQuery('CREATE TABLE x (a UInt8 b)')", nil); a.Status == 200 {
		t.Error("the parser takes anything")
	}
}

// Clients of resolvers are whole for a day and then masked, in both families;
// the prefix is still found.
func TestMask(t *testing.T) {
	c, db := engine(t)
	l := history.Layout{Database: "noroshi"}
	m := history.NewMasker(c, l)
	if err := m.Mask(t.Context()); err != nil {
		t.Errorf("where nothing was ever written: %v", err)
	}
	if err := c.Prepare(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	m = history.NewMasker(c, l) // after a start it looks at everything
	now := time.Now()
	var batch event.Batch
	for i, client := range []string{"203.0.113.77", "2001:db8:1234:5678::9"} {
		for _, age := range []time.Duration{time.Minute, 22 * time.Hour, 25 * time.Hour, 100 * time.Hour} {
			batch.DNS = append(batch.DNS, event.DNS{Seen: event.TimeOf(now.Add(-age)), Client: historytest.Addr(client), ClientPort: 1234, Type: uint16(i)})
		}
	}
	b := history.NewBuilder(history.DNS)
	b.Add(&batch, 0, len(batch.DNS))
	block := b.Seal("mask-1", nil)
	if err := c.Insert(t.Context(), l, &block); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.Mask(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := db.Must("SELECT toString(client), client_port FROM noroshi.dns ORDER BY type, seen DESC FORMAT TabSeparated")
		want := strings.Join([]string{
			"::ffff:203.0.113.77\t1234", "::ffff:203.0.113.77\t1234", "::ffff:203.0.112.0\t0", "::ffff:203.0.112.0\t0",
			"2001:db8:1234:5678::9\t1234", "2001:db8:1234:5678::9\t1234", "2001:db8:1200::\t0", "2001:db8:1200::\t0",
		}, "\n")
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	q := &history.Questions{Client: c, Layout: l}
	p, err := q.Timeline(t.Context(), history.Timeline{
		Range:  history.Range{From: event.TimeOf(now.Add(-200 * time.Hour)), To: event.TimeOf(now.Add(time.Minute))},
		Entity: history.Entity{Type: history.Address, Value: "203.0.112.0/22"},
	})
	if err != nil || p.Events.Len() != 4 {
		t.Errorf("the prefix has %d events, %v; want 4", p.Events.Len(), err)
	}
	// What was sent late, out of the spool, is found by the daily look at all.
	block.ID = "mask-2"
	if err := c.Insert(t.Context(), l, &block); err != nil {
		t.Fatal(err)
	}
	for range 48 {
		if err := m.Mask(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := db.Must("SELECT countIf(client_port = 0), count() FROM noroshi.dns"); got != "8\t16" {
		t.Errorf("after a day of masking %s are masked, want 8 of 16", got)
	}
	db.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := m.Mask(ctx); err == nil || m.Stats().Failing == nil {
		t.Error("that it fails isn't seen")
	}
	st := m.Stats()
	for age, want := range map[time.Duration]bool{0: false, 30 * time.Minute: false, 3 * time.Hour: true} {
		if got := st.Overdue(now.Add(age), now); got != want {
			t.Errorf("%v after the last success overdue is %v", age, got)
		}
	}
	if never := new(history.MaskerStats); never.Overdue(now, now) || !never.Overdue(now.Add(2*time.Hour), now) {
		t.Error("a program that never masked is late at once, or never")
	}
}

// The same question twice gives the same octets (R1).
func TestSameAnswer(t *testing.T) {
	c, _ := engine(t)
	l := history.Layout{Database: "noroshi"}
	if err := c.Prepare(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	var batch event.Batch
	now := time.Now().Truncate(time.Minute)
	for i := range 5000 {
		f := batch.NewFlow()
		f.Seen, f.Bytes = event.TimeOf(now.Add(-time.Duration(i)*time.Second)), 100 // all alike: ties everywhere
		f.Dst = event.AddrOf4([4]byte{192, 0, byte(i % 50), byte(i)})
	}
	b := history.NewBuilder(history.Flows)
	b.Add(&batch, 0, len(batch.Flows))
	block := b.Seal("same-1", nil)
	if err := c.Insert(t.Context(), l, &block); err != nil {
		t.Fatal(err)
	}
	q := &history.Questions{Client: c, Layout: l}
	r := history.Range{From: event.TimeOf(now.Add(-time.Hour)), To: event.TimeOf(now)}
	first := ""
	for range 5 {
		a, err := q.Top(t.Context(), history.Top{Range: r, By: []string{"dst"}, N: 20})
		if err != nil {
			t.Fatal(err)
		}
		s, err := q.Series(t.Context(), history.Series{Range: r, By: []string{"dst_port"}})
		if err != nil {
			t.Fatal(err)
		}
		p, err := q.Timeline(t.Context(), history.Timeline{Range: r, Entity: history.Entity{Type: history.Address, Value: "192.0.0.0/16"}, Limit: 50})
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%+v %+v %+v", a.Rows, s.Buckets, p.Events.Flows)
		if first == "" {
			first = got
		}
		if got != first {
			t.Fatalf("an answer differs:\n%.500s\n%.500s", first, got)
		}
	}
}
