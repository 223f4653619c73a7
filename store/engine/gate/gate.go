// Package gate decides which statements reach the engine.
//
// ClickHouse's SQL reaches files, URLs, other servers and programs in many ways.
// The gate reads a statement with a strict lexer and refuses whatever could:
// what is not known to be harmless is refused, not the other way round, except
// for functions, where those that reach out are listed by name. Behind it stand
// the engine's own grants and the confinement of its process; see docs/engine.md.
//
// It looks at statements, not at values: a parameter's value is never SQL.
package gate

import (
	"errors"
	"fmt"
	"strings"
)

// ErrRefused is what every refusal is.
var ErrRefused = errors.New("refused")

func refuse(format string, args ...any) error {
	return fmt.Errorf("gate: the statement is %w: %s", ErrRefused, fmt.Sprintf(format, args...))
}

// A Gate checks statements. It is for any number of goroutines.
type Gate struct {
	calls map[string]bool // what must not be called, in small letters
}

// New returns a gate. tableFunctions are the names of all table functions of the
// engine (system.table_functions); those not known to be harmless are refused,
// also when they are new.
func New(tableFunctions []string) *Gate {
	g := &Gate{calls: map[string]bool{}}
	for _, f := range strings.Fields(reaching) {
		g.calls[strings.ToLower(f)] = true
	}
	for _, f := range tableFunctions {
		if !harmlessTables[strings.ToLower(f)] {
			g.calls[strings.ToLower(f)] = true
		}
	}
	return g
}

// A Statement is one that passed.
type Statement struct {
	Text   string // the statement without FORMAT, comments at its ends and semicolon
	Format string // of FORMAT; "" if there was none
	Verb   string // its first keyword, in capitals; "SELECT" also for WITH, FROM and "("

	// Reads says that it changes nothing.
	Reads bool
	// Data says that it is an INSERT whose rows come separately, in Format.
	Data bool
}

// Check returns the statement in sql, or why it is refused, which is always
// [ErrRefused]. A statement longer than a megabyte is refused.
func (g *Gate) Check(sql string) (Statement, error) { return g.check(sql, 0) }

func (g *Gate) check(sql string, depth int) (st Statement, err error) {
	if len(sql) > 1<<20 {
		return st, refuse("it is longer than a megabyte")
	}
	if strings.IndexByte(sql, 0) >= 0 {
		return st, refuse("it has an octet 0")
	}
	ts, err := lex(sql)
	if err != nil {
		return st, err
	}
	for len(ts) > 0 && ts[len(ts)-1].isMark(';') {
		ts = ts[:len(ts)-1]
	}
	if len(ts) == 0 {
		return st, refuse("it is empty")
	}
	for _, t := range ts {
		if t.isMark(';') {
			return st, refuse("there is more than one")
		}
	}
	p := &parser{gate: g, sql: sql, ts: ts, depth: depth}
	for _, rule := range []func() error{p.verb, p.called, p.keywords, p.settings, p.engines, p.dictionary} {
		if err := rule(); err != nil {
			return st, err
		}
	}
	return p.statement()
}

// parser holds one statement while the rules look at it.
type parser struct {
	gate  *Gate
	sql   string
	ts    []token
	depth int // of statements in strings
	first string
}

// at returns the token i, or an empty mark behind the last.
func (p *parser) at(i int) token {
	if i >= 0 && i < len(p.ts) {
		return p.ts[i]
	}
	return token{kind: mark, value: "\x00"}
}

// words reports whether the bare words of phrase stand at i.
func (p *parser) words(i int, phrase string) bool {
	for _, w := range strings.Fields(phrase) {
		if !p.at(i).is(w) {
			return false
		}
		i++
	}
	return true
}

// has reports whether phrase stands anywhere.
func (p *parser) has(phrase string) bool {
	for i := range p.ts {
		if p.words(i, phrase) {
			return true
		}
	}
	return false
}

// verbs are how a statement may begin, the longest first. Those that only read
// have a dash before them.
var verbs = strings.Split(strings.TrimSpace(`
-SELECT
-WITH
-FROM
-EXPLAIN
-SHOW
-DESCRIBE
-DESC
-EXISTS
-CHECK TABLE
INSERT INTO
CREATE TABLE
CREATE OR REPLACE TABLE
CREATE VIEW
CREATE OR REPLACE VIEW
CREATE MATERIALIZED VIEW
CREATE DICTIONARY
CREATE OR REPLACE DICTIONARY
CREATE DATABASE
ALTER TABLE
DROP TABLE
DROP VIEW
DROP DICTIONARY
DROP DATABASE
TRUNCATE TABLE
RENAME TABLE
RENAME DICTIONARY
EXCHANGE TABLES
OPTIMIZE TABLE
DELETE FROM
UPDATE
SYSTEM RELOAD DICTIONARY
SYSTEM RELOAD DICTIONARIES
SYSTEM FLUSH LOGS
SYSTEM STOP MERGES
SYSTEM START MERGES`), "\n")

func (p *parser) verb() error {
	i := 0
	for p.at(i).isMark('(') { // (SELECT ...) UNION ALL ...
		i++
	}
	if i > 0 && !p.at(i).is("SELECT") && !p.at(i).is("WITH") {
		return refuse("it begins with a bracket and is no SELECT")
	}
	for _, v := range verbs {
		if p.words(i, strings.TrimPrefix(v, "-")) {
			p.first = v
			return nil
		}
	}
	if p.at(i).kind != word {
		return refuse("it does not begin with a keyword")
	}
	second := ""
	if p.at(i+1).kind == word {
		second = " " + strings.ToUpper(p.at(i+1).value)
	}
	return refuse("%s%s is not among the statements that pass", strings.ToUpper(p.at(i).value), second)
}

// called refuses functions by name: before a bracket, and behind APPLY, which
// calls without one.
func (p *parser) called() error {
	for i, t := range p.ts {
		var f token
		switch {
		case t.is("APPLY"):
			j := i + 1
			for p.at(j).isMark('(') {
				j++
			}
			if f = p.at(j); !f.name() {
				return refuse("APPLY names no function")
			}
		case t.name() && p.at(i+1).isMark('('):
			f = t
		case t.isMark('}') && p.at(i+1).isMark('('):
			return refuse("a parameter stands for a function")
		default:
			continue
		}
		name := strings.ToLower(f.value)
		if p.gate.calls[name] || reachesOut(f.value, name) {
			return refuse("%s() is not allowed", f.value)
		}
	}
	return nil
}

// forbidden are words that reach out wherever they stand.
var forbidden = map[string]string{
	"INTO OUTFILE":     "INTO OUTFILE writes files",
	"FROM INFILE":      "FROM INFILE reads files",
	"PARALLEL WITH":    "PARALLEL WITH joins statements",
	"SQL SECURITY":     "SQL SECURITY changes whose rights count",
	"DEFINER":          "DEFINER changes whose rights count",
	"NAMED COLLECTION": "named collections hold addresses of other servers",
	"FETCH PARTITION":  "FETCH reaches other servers",
	"FETCH PART":       "FETCH reaches other servers",
	"FREEZE":           "FREEZE copies files",
	"UNFREEZE":         "UNFREEZE removes files",
	"TO DISK":          "there is one disk",
	"TO VOLUME":        "there is one disk",
	"TO SHARD":         "there is one server",
}

func (p *parser) keywords() error {
	for i, t := range p.ts {
		if t.name() && strings.EqualFold(t.value, "stack_trace") {
			return refuse("system.stack_trace sends signals to every thread")
		}
		if t.kind != word {
			continue
		}
		for phrase, why := range forbidden {
			if p.words(i, phrase) {
				return refuse("%s", why)
			}
		}
		if p.first[0] == '-' && !p.words(0, "EXPLAIN") && p.words(i, "INSERT INTO") {
			return refuse("INSERT stands at the beginning")
		}
		if p.first[0] != '-' && t.is("ATTACH") && !p.words(i, "ATTACH PARTITION") && !p.words(i, "ATTACH PART") {
			return refuse("ATTACH takes a folder as a table")
		}
	}
	if !p.lints() && p.has("ON CLUSTER") {
		return refuse("there is one server: ON CLUSTER can only be looked at with EXPLAIN AST")
	}
	return nil
}

// lints reports whether the statement is only parsed.
func (p *parser) lints() bool { return p.words(0, "EXPLAIN AST") }

// settings refuses those that are not known to be harmless.
func (p *parser) settings() error {
	for i, t := range p.ts {
		if !t.is("SETTINGS") && !t.is("SETTING") || p.words(i-1, "SHOW") || p.words(i-2, "SHOW CHANGED") || p.words(i-1, "RESET") || p.at(i-1).isMark('.') {
			continue // other statements; a table or column of that name
		}
		j := i + 1
		bracket := p.at(j).isMark('(')
		if bracket {
			j++
		} else if !p.at(j).name() {
			continue // a column of that name
		}
		for {
			// A name without a value means "true" to the engine, and is refused here.
			name := p.at(j)
			if !name.name() || !p.at(j+1).isMark('=') {
				return refuse("behind %s come names with values; a column of that name is written in quotes", t.value)
			}
			if !harmlessSetting(strings.ToLower(name.value)) {
				return refuse("the setting %s is not among those that pass", name.value)
			}
			if j = p.value(j + 2); p.at(j).isMark(',') {
				j++
				continue
			}
			if end := p.at(j); j < len(p.ts) && end.kind != word && !end.isMark(')') {
				return refuse("%q follows the value of %s", end.value, name.value)
			}
			break
		}
	}
	return nil
}

// value returns where the value that begins at i ends.
func (p *parser) value(i int) int {
	if p.at(i).isMark('-') || p.at(i).isMark('+') {
		i++
	}
	if p.at(i).kind != mark {
		i++
	}
	for depth := 0; i < len(p.ts); i++ {
		switch t := p.at(i); {
		case t.isMark('(') || t.isMark('[') || t.isMark('{'):
			depth++
		case t.isMark(')') || t.isMark(']') || t.isMark('}'):
			if depth--; depth == 0 {
				return i + 1
			}
		}
		if depth <= 0 {
			break
		}
	}
	return i
}

// engines refuses those that keep data elsewhere.
func (p *parser) engines() error {
	if p.first[0] == '-' && !p.words(0, "EXPLAIN") {
		return nil
	}
	for i, t := range p.ts {
		if !t.is("ENGINE") {
			continue
		}
		j := i + 1
		if p.at(j).isMark('=') {
			j++
		}
		e := p.at(j)
		name := strings.ToLower(e.value)
		if !e.name() || !harmlessEngines[name] && !(p.lints() && (clusterEngines[name] || harmlessEngines[strings.TrimPrefix(name, "replicated")])) {
			return refuse("the engine %q is not among those that pass", e.value)
		}
	}
	return nil
}

// dictionary looks into SOURCE(...): only tables of this engine, by name or by a
// query that passes too.
func (p *parser) dictionary() error {
	for i, t := range p.ts {
		if !t.is("SOURCE") || !p.at(i+1).isMark('(') {
			continue
		}
		if p.at(i + 2).is("NULL") {
			continue
		}
		if !p.at(i+2).is("CLICKHOUSE") || !p.at(i+3).isMark('(') {
			return refuse("a dictionary's source is CLICKHOUSE with a table of this engine, or NULL")
		}
		for j := i + 4; !p.at(j).isMark(')'); j += 2 {
			key, value := p.at(j), p.at(j+1)
			switch {
			case value.isMark(')') || j >= len(p.ts):
				return refuse("a dictionary's source has a key without a value")
			case (key.is("TABLE") || key.is("DB") || key.is("UPDATE_FIELD")) && (value.name() || value.kind == text):
			case key.is("UPDATE_LAG") && value.kind == number:
			case key.is("QUERY") && value.kind == text && p.depth == 0 && !strings.ContainsAny(value.value, `\`) && !strings.Contains(value.value, "''"):
				st, err := p.gate.check(value.value, 1)
				if err != nil {
					return fmt.Errorf("gate: in a dictionary's query: %w", err)
				}
				if st.Verb != "SELECT" {
					return refuse("a dictionary's query is no SELECT")
				}
			default:
				return refuse("%s %s in a dictionary's source", key.value, value.value)
			}
		}
	}
	return nil
}

// statement takes FORMAT out and describes what is left.
func (p *parser) statement() (st Statement, err error) {
	st.Reads = p.first[0] == '-'
	st.Verb, _, _ = strings.Cut(strings.TrimPrefix(p.first, "-"), " ")
	if st.Verb == "WITH" || st.Verb == "FROM" {
		st.Verb = "SELECT"
	}
	from, to := p.ts[0].from, p.ts[len(p.ts)-1].to
	st.Text = p.sql[from:to]
	depth := 0
	values := false
	for i, t := range p.ts {
		switch {
		case t.isMark('('):
			depth++
		case t.isMark(')'):
			depth--
		case depth > 0:
		case t.is("SELECT") || t.is("VALUES") || t.is("WITH"):
			values = true
		case t.is("FORMAT") && p.at(i+1).kind == word && i > 0 && !p.at(i-1).isMark('.') && !p.at(i-1).isMark(','):
			behind := p.at(i + 2)
			if i+2 < len(p.ts) && !behind.is("SETTINGS") {
				if st.Verb == "INSERT" {
					return st, refuse("rows stand behind FORMAT; they are sent as the body, the statement as ?query=")
				}
				continue // an alias or a column
			}
			st.Format = p.at(i + 1).value
			st.Text = strings.TrimSpace(p.sql[from:t.from]) + " " + p.sql[p.at(i+1).to:to]
			st.Text = strings.TrimSpace(st.Text)
		}
	}
	st.Data = st.Verb == "INSERT" && !values
	if st.Data && st.Format == "" {
		return st, refuse("INSERT without SELECT or VALUES needs a FORMAT")
	}
	return st, nil
}
