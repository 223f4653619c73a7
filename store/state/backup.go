package state

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"noroshi/event"
)

// A table is what a backup has of one: its columns, of which those named again in
// bytes are octets, and the order of its rows, so that the same state gives the
// same lines.
type table struct {
	name, columns, bytes, order string
}

// tables come in the order in which they can be filled.
var tables = []table{
	{"incidents", "id said last kind state active body pruned", "id", "id"},
	{"members", "incident addr port role network first last ended", "incident addr", "incident, addr, port"},
	{"infected", "day family network addr", "addr", "day, family, network, addr"},
	{"observed", "day", "", "day"},
	{"audit", "seq at actor action object body prev hash", "prev hash", "seq"},
	{"head", "id seq hash", "hash", "id"},
	{"records", "seq kind subject body", "", "seq"},
}

// Summary says what a backup holds.
type Summary struct {
	Noroshi string     `json:"noroshi"` // what this is: "state backup 1"
	Form    int        `json:"form"`    // of the database
	At      event.Time `json:"at"`
	Head    Head       `json:"head"` // of the audit chain
	Rows    int64      `json:"rows"` // of all tables
}

const backupMark = "state backup 1"

// trailer is a backup's last line.
type trailer struct {
	SHA256 string `json:"sha256"` // of all before it
}

// maxLine bounds a line of a backup, in octets.
const maxLine = 64 << 20

// Backup writes the whole state as it is at one moment, in a form that doesn't
// depend on the database: gzip, in it a line with the Summary, a line for each
// row, and one with the SHA-256 of all lines before. It may run beside another
// noroshi. A state whose chain is broken is refused with a *Break: what is wrong
// there must not go on under the name of a backup.
func (d *DB) Backup(ctx context.Context, w io.Writer) (s Summary, err error) {
	tx, err := d.db.BeginTx(ctx, d.snapshot())
	if err != nil {
		return s, fmt.Errorf("state: %w", d.explain(err))
	}
	defer tx.Rollback()
	r, err := verify(ctx, tx, nil)
	if err != nil {
		return s, fmt.Errorf("state: %w", d.explain(err))
	}
	if r.Broken != nil {
		return s, r.Broken
	}
	s = Summary{Noroshi: backupMark, Form: len(migrations), At: now(), Head: r.Head}
	for _, t := range tables {
		n := int64(0)
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM "+t.name).Scan(&n); err != nil {
			return s, fmt.Errorf("state: %w", d.explain(err))
		}
		s.Rows += n
	}
	zip := gzip.NewWriter(w)
	sum := sha256.New()
	out := bufio.NewWriter(io.MultiWriter(zip, sum))
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	if err := lines.Encode(s); err != nil {
		return s, err
	}
	for _, t := range tables {
		if err := t.dump(ctx, tx, lines); err != nil {
			return s, fmt.Errorf("state: backup of %s: %w", t.name, d.explain(err))
		}
	}
	if err := out.Flush(); err != nil {
		return s, err
	}
	if err := json.NewEncoder(zip).Encode(trailer{fmt.Sprintf("%x", sum.Sum(nil))}); err != nil {
		return s, err
	}
	return s, zip.Close()
}

func (t *table) list() []string { return strings.Fields(t.columns) }

// isBytes reports whether a column holds octets.
func (t *table) isBytes(column string) bool { return slices.Contains(strings.Fields(t.bytes), column) }

// dump writes each row as a list: the table's name and the values.
func (t *table) dump(ctx context.Context, q querier, lines *json.Encoder) error {
	rows, err := q.QueryContext(ctx, "SELECT "+strings.Join(t.list(), ", ")+" FROM "+t.name+" ORDER BY "+t.order)
	if err != nil {
		return err
	}
	defer rows.Close()
	values := make([]any, len(t.list()))
	into := make([]any, len(values))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		if err := lines.Encode(append([]any{t.name}, values...)); err != nil { // octets as base64
			return err
		}
	}
	return rows.Err()
}

// errNotEmpty is the error for a state that Restore would overwrite.
var errNotEmpty = errors.New("state: there are incidents or decisions in it already; restore into an empty state, or use force to replace what is there")

// Restore fills the state with a backup, all or nothing: what is altered, cut
// short or has a broken chain is refused and changes nothing. The state must be
// empty; force replaces what it holds.
func (d *DB) Restore(ctx context.Context, r io.Reader, force bool) (s Summary, err error) {
	read := false
	err = d.change(ctx, func(tx *txn) error {
		if read { // the connection was lost on the way, and r is used up
			return errors.New("the connection was lost; restore again")
		}
		read = true
		var incidents, decisions int64
		if err := tx.QueryRowContext(ctx, "SELECT (SELECT count(*) FROM incidents), (SELECT count(*) FROM audit WHERE action <> 'state.migrated')").Scan(&incidents, &decisions); err != nil {
			return err
		}
		if incidents+decisions > 0 && !force {
			return errNotEmpty
		}
		for i := len(tables) - 1; i >= 0; i-- {
			if _, err := tx.ExecContext(ctx, "DELETE FROM "+tables[i].name); err != nil {
				return err
			}
		}
		var err error
		if s, err = readBackup(r, func(t *table, values []any) error { return t.insert(ctx, tx, values) }); err != nil {
			return err
		}
		report, err := verify(ctx, tx, []Head{s.Head})
		switch {
		case err != nil:
			return err
		case report.Broken != nil:
			return report.Broken
		}
		return tx.append(ctx, Program, "state.restored", "state", map[string]any{"made": s.At, "head": s.Head, "rows": s.Rows})
	})
	return s, err
}

func (t *table) insert(ctx context.Context, tx *txn, values []any) error {
	marks := make([]string, len(values))
	for i := range marks {
		marks[i] = fmt.Sprintf("$%d", i+1)
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO "+t.name+" ("+strings.Join(t.list(), ", ")+") VALUES ("+strings.Join(marks, ", ")+")", values...)
	return err
}

// readBackup calls f with each row of a backup. What f did is void if there is
// an error: only the last line tells whether the others are right.
func readBackup(r io.Reader, f func(t *table, values []any) error) (s Summary, err error) {
	// The cause is told and not wrapped: the end of a file isn't that of a connection.
	damaged := func(format string, args ...any) (Summary, error) {
		return s, fmt.Errorf("this is no whole backup: "+format+"; use another", args...)
	}
	zip, err := gzip.NewReader(r)
	if err != nil {
		return damaged("it isn't gzip (%v)", err)
	}
	lines := bufio.NewScanner(zip)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	sum, n := sha256.New(), int64(-1)
	for lines.Scan() {
		line := lines.Bytes()
		switch {
		case n < 0:
			if err := strict(line, &s); err != nil || s.Noroshi != backupMark {
				return damaged("it does not begin as one")
			}
			if s.Form != len(migrations) {
				return s, fmt.Errorf("the backup is of form %d, this noroshi has %d; restore it with the version that made it", s.Form, len(migrations))
			}
		case bytes.HasPrefix(line, []byte("{")):
			return s, ended(line, sum, n, &s, lines, zip)
		default:
			t, values, err := parseRow(line)
			if err != nil {
				return damaged("line %d: %v", n+2, err)
			}
			if err := f(t, values); err != nil {
				return s, fmt.Errorf("line %d: %w", n+2, err)
			}
		}
		n++
		sum.Write(line)
		sum.Write([]byte("\n"))
	}
	if err := lines.Err(); err != nil {
		return damaged("%v after line %d", err, n+1)
	}
	return damaged("it ends after line %d, without its sum", n+1)
}

// ended judges the last line.
func ended(line []byte, sum hash.Hash, n int64, s *Summary, lines *bufio.Scanner, zip *gzip.Reader) error {
	var last trailer
	switch err := strict(line, &last); {
	case err != nil:
		return fmt.Errorf("this is no whole backup: its sum can't be read (%v); use another", err)
	case last.SHA256 != fmt.Sprintf("%x", sum.Sum(nil)):
		return errors.New("this is no whole backup: it was changed after it was made (SHA-256 differs); use another")
	case n != s.Rows:
		return fmt.Errorf("this is no whole backup: %d rows, and it says %d; use another", n, s.Rows)
	case lines.Scan() || lines.Err() != nil:
		return errors.New("this is no whole backup: something follows its end; use another")
	}
	return zip.Close()
}

// strict reads one JSON value without keys that v lacks.
func strict(line []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// parseRow reads the line of a row.
func parseRow(line []byte) (*table, []any, error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	var row []any
	if err := d.Decode(&row); err != nil {
		return nil, nil, err
	}
	if len(row) == 0 {
		return nil, nil, errors.New("an empty row")
	}
	for i := range tables {
		t := &tables[i]
		if row[0] != t.name {
			continue
		}
		columns, values := t.list(), row[1:]
		if len(values) != len(columns) {
			return nil, nil, fmt.Errorf("a row of %s has %d values, want %d", t.name, len(values), len(columns))
		}
		for i, v := range values {
			text, isText := v.(string)
			switch n, isNumber := v.(json.Number); {
			case isNumber:
				i64, err := n.Int64()
				if err != nil {
					return nil, nil, err
				}
				values[i] = i64
			case isText && t.isBytes(columns[i]):
				b, err := base64.StdEncoding.DecodeString(text)
				if err != nil {
					return nil, nil, err
				}
				values[i] = b
			case !isText:
				return nil, nil, fmt.Errorf("%s.%s is neither number nor text", t.name, columns[i])
			}
		}
		return t, values, nil
	}
	return nil, nil, fmt.Errorf("there is no table %v", row[0])
}

var _ querier = (*sql.Tx)(nil)
