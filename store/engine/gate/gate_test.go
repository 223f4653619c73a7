package gate

import (
	"errors"
	"strings"
	"testing"
)

// functions are some of system.table_functions; the tests of store/engine use
// the real list.
var functions = strings.Fields("file url s3 remote cluster numbers merge view values executable loop newTableFunction format")

// The lexer refuses what the engine might read in another way.
func TestAmbiguous(t *testing.T) {
	g := New(functions)
	for _, sql := range []string{
		"", " ", ";", "-- only this", "/**/",
		"SELECT 1 /* open", "SELECT 1 /* a /* b */ */", "SELECT 1 -- x\vy", "SELECT 1 -- a\rfile", "SELECT 1 -- \u2028 file('x')",
		"SELECT 'open", `SELECT 'a\'`, "SELECT \"open", "SELECT \"fi\\x6ce\"('/x')", "SELECT `a``b`", "SELECT `` FROM t",
		"SELECT $x", "SELECT $tag$ open $tag", "SELECT a$b$c$b$", "SELECT $1",
		"SELECT 1file('/x')", "SELECT 0x1p5", "SELECT 1e5file('x')",
		"SELECT x'66\\' , file('/x')'", "SELECT # x\n1", "SELECT 1 \\G", "SELECT \u2018x\u2019", "SELECT \u00a0 1", "SELECT 1\x00", "SELECT '\x00'",
		"SELECT {f:Identifier}('/x')",
	} {
		if st, err := g.Check(sql); !errors.Is(err, ErrRefused) {
			t.Errorf("%q passed as %+v", sql, st)
		}
	}
}

func TestStatement(t *testing.T) {
	g := New(functions)
	f := func(sql string, want Statement) {
		t.Helper()
		if got, err := g.Check(sql); err != nil || got != want {
			t.Errorf("%s\n got %+v, %v\nwant %+v", sql, got, err, want)
		}
	}
	f("SELECT 1", Statement{Text: "SELECT 1", Verb: "SELECT", Reads: true})
	f(" /* a */ select 1 ; -- b", Statement{Text: "select 1", Verb: "SELECT", Reads: true})
	f("SELECT 1 FORMAT Native;", Statement{Text: "SELECT 1", Format: "Native", Verb: "SELECT", Reads: true})
	f("SELECT 1 format CSV SETTINGS max_threads=1", Statement{Text: "SELECT 1  SETTINGS max_threads=1", Format: "CSV", Verb: "SELECT", Reads: true})
	f("SELECT format('{}', x), 'FORMAT Native' FROM t", Statement{Text: "SELECT format('{}', x), 'FORMAT Native' FROM t", Verb: "SELECT", Reads: true})
	f("WITH a AS (SELECT 1 FORMAT) SELECT * FROM a", Statement{Text: "WITH a AS (SELECT 1 FORMAT) SELECT * FROM a", Verb: "SELECT", Reads: true})
	f("(SELECT 1) UNION ALL (SELECT 2)", Statement{Text: "(SELECT 1) UNION ALL (SELECT 2)", Verb: "SELECT", Reads: true})
	f("INSERT INTO t FORMAT RowBinary", Statement{Text: "INSERT INTO t", Format: "RowBinary", Verb: "INSERT", Data: true})
	f("INSERT INTO t (a, b) SETTINGS insert_deduplication_token='x' FORMAT Native", Statement{Text: "INSERT INTO t (a, b) SETTINGS insert_deduplication_token='x'", Format: "Native", Verb: "INSERT", Data: true})
	f("INSERT INTO t VALUES (1), (2)", Statement{Text: "INSERT INTO t VALUES (1), (2)", Verb: "INSERT"})
	f("INSERT INTO t SELECT 1", Statement{Text: "INSERT INTO t SELECT 1", Verb: "INSERT"})
	f("SHOW TABLES", Statement{Text: "SHOW TABLES", Verb: "SHOW", Reads: true})
}

// What passes and what the lexer makes of it hold for any text.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{
		"SELECT 1", "SELECT file ('/etc/hostname')", "select `file`/**/('/x')", "SELECT $a$ file( $a$", "INSERT INTO t SETTINGS a='b', c=1 FORMAT Native",
		"CREATE DICTIONARY d (k UInt64) PRIMARY KEY k SOURCE(CLICKHOUSE(QUERY 'SELECT 1')) LAYOUT(FLAT())", "SELECT * APPLY(file) FROM t", "SELECT 1 FORMAT CSV;", "(((SELECT 1)))",
		"CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local)", "SELECT 'a\\'b' -- c\n, 0x1f, 1e-5, x'00'",
	} {
		f.Add(s)
	}
	g := New(functions)
	f.Fuzz(func(t *testing.T, sql string) {
		st, err := g.Check(sql)
		if err != nil {
			if !errors.Is(err, ErrRefused) {
				t.Fatal(err)
			}
			return
		}
		ts, err := lex(sql)
		if err != nil {
			t.Fatal("passed, and can't be read")
		}
		// Tokens lie in order, and only separators lie between them.
		end := 0
		for i, x := range ts {
			if x.from < end || x.to <= x.from {
				t.Fatalf("token %d overlaps", i)
			}
			if gap := sql[end:x.from]; !strings.Contains(gap, "--") && !strings.Contains(gap, "/*") && strings.TrimSpace(gap) != "" {
				t.Fatalf("%q was skipped", gap)
			}
			end = x.to
			if (x.kind == word || x.kind == quoted) && strings.EqualFold(x.value, "file") && i+1 < len(ts) && ts[i+1].isMark('(') {
				t.Fatal("file() passed")
			}
		}
		// What goes to the engine passes as well, as the same statement.
		again, err := g.Check(st.Text)
		if st.Data {
			again, err = g.Check(st.Text + " FORMAT " + st.Format)
		}
		if err != nil || again.Verb != st.Verb || again.Reads != st.Reads {
			t.Fatalf("%q: %+v became %+v, %v", sql, st, again, err)
		}
	})
}
