package state

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"noroshi/event"
	"noroshi/incident"
)

// A migration brings a database from one form to the next, in a transaction.
// The text is in SQLite's words; a backend translates it.
type migration struct {
	text string
	then func(ctx context.Context, tx *txn) error // nil for most
}

// migrations are never changed once released; a change is another one.
var migrations = []migration{{text: `
CREATE TABLE incidents (
	id       BLOB PRIMARY KEY,  -- 16 bytes
	said     INTEGER NOT NULL,  -- nanoseconds since 1970, as all times
	last     INTEGER NOT NULL,
	kind     TEXT NOT NULL,
	state    TEXT NOT NULL,
	active   INTEGER NOT NULL,  -- neither ended nor merged
	body     TEXT NOT NULL      -- the incident in its JSON form
) STRICT, WITHOUT ROWID;
CREATE INDEX incidents_said ON incidents (said DESC, id DESC);
CREATE INDEX incidents_active ON incidents (active, said DESC);
CREATE TABLE members (
	incident BLOB NOT NULL REFERENCES incidents (id) ON DELETE CASCADE,
	addr     BLOB NOT NULL,     -- 16 bytes, IPv4 in its mapped form
	port     INTEGER NOT NULL,
	role     TEXT NOT NULL,
	network  TEXT NOT NULL,
	first    INTEGER NOT NULL,
	last     INTEGER NOT NULL,
	ended    INTEGER NOT NULL,
	PRIMARY KEY (incident, addr, port)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_addr ON members (addr);
CREATE TABLE infected (
	day      INTEGER NOT NULL,  -- days since 1970
	family   TEXT NOT NULL,
	network  TEXT NOT NULL,
	addr     BLOB NOT NULL,
	PRIMARY KEY (day, family, network, addr)
) STRICT, WITHOUT ROWID;
CREATE TABLE observed (day INTEGER PRIMARY KEY) STRICT;
CREATE TABLE exceptions (
	id       INTEGER PRIMARY KEY AUTOINCREMENT,
	rule     TEXT NOT NULL,
	subject  TEXT NOT NULL,
	key      TEXT NOT NULL,
	owner    TEXT NOT NULL,
	note     TEXT NOT NULL,
	expires  INTEGER NOT NULL
) STRICT;
`}, {text: `
CREATE TABLE audit (
	seq      INTEGER PRIMARY KEY, -- 1, 2, 3, ... without a gap
	at       INTEGER NOT NULL,
	actor    TEXT NOT NULL,
	action   TEXT NOT NULL,
	object   TEXT NOT NULL,
	body     TEXT NOT NULL,       -- JSON
	prev     BLOB NOT NULL,       -- the hash of the row before, 32 bytes; zeros in the first
	hash     BLOB NOT NULL        -- see Entry.sum
) STRICT;
CREATE INDEX audit_object ON audit (object, seq);
CREATE TABLE head (
	id       INTEGER PRIMARY KEY CHECK (id = 1),
	seq      INTEGER NOT NULL,    -- of the last row of audit
	hash     BLOB NOT NULL
) STRICT;
CREATE TABLE records (
	seq      INTEGER PRIMARY KEY, -- of the row of audit that has its hash
	kind     TEXT NOT NULL,
	subject  TEXT NOT NULL,       -- what it is about
	body     TEXT NOT NULL        -- JSON
) STRICT;
CREATE INDEX records_subject ON records (kind, subject, seq);
ALTER TABLE incidents ADD COLUMN pruned INTEGER NOT NULL DEFAULT 0; -- its members and evidence are gone
CREATE INDEX incidents_prune ON incidents (pruned, state, last);
`, then: beginChain}}

// beginChain begins the audit chain, and carries into it what a database of form
// 1 has decided: exceptions become records, with new numbers, and each incident
// that somebody moved has a row that says where it stood.
func beginChain(ctx context.Context, tx *txn) error {
	if _, err := tx.ExecContext(ctx, "INSERT INTO head (id, seq, hash) VALUES (1, 0, $1)", make([]byte, len(Hash{}))); err != nil {
		return err
	}
	exceptions, err := oldExceptions(ctx, tx)
	if err != nil {
		return err
	}
	for _, e := range exceptions {
		if _, err := tx.record(ctx, Program, "exception.added", "exception", "", e); err != nil {
			return err
		}
	}
	rows, err := tx.QueryContext(ctx, "SELECT id, state FROM incidents WHERE state <> 'new' ORDER BY said, id")
	if err != nil {
		return err
	}
	defer rows.Close()
	moved := map[string]string{}
	var order []string
	for rows.Next() {
		var id []byte
		var to string
		if err := rows.Scan(&id, &to); err != nil {
			return err
		}
		object := fmt.Sprintf("incident/%x", id)
		order, moved[object] = append(order, object), to
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, object := range order {
		if err := tx.append(ctx, Program, "incident.moved", object, map[string]string{"to": moved[object], "note": "as it stood when the chain began"}); err != nil {
			return err
		}
	}
	_, err = tx.ExecContext(ctx, "DROP TABLE exceptions")
	return err
}

func oldExceptions(ctx context.Context, tx *txn) (list []incident.Exception, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT rule, subject, key, owner, note, expires FROM exceptions ORDER BY id")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var e incident.Exception
		var subject string
		if err := rows.Scan(&e.Rule, &subject, &e.Key, &e.Owner, &e.Note, &e.Expires); err != nil {
			return nil, err
		}
		if subject != "" {
			if e.Subject, err = netip.ParsePrefix(subject); err != nil {
				return nil, err
			}
		}
		list = append(list, e)
	}
	return list, rows.Err()
}

// migrate applies the migrations the database lacks. One that is opened beside
// another noroshi must have had them.
func (d *DB) migrate(ctx context.Context, beside bool) error {
	w, opts := beginner(d.db), d.snapshot()
	if !beside {
		var err error
		if w, err = d.writer(ctx); err != nil {
			return err
		}
		opts = nil
	}
	tx, err := w.BeginTx(ctx, opts)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	had, err := d.form(ctx, tx)
	switch {
	case err != nil:
		return err
	case had > len(migrations):
		return fmt.Errorf("it was written by a newer noroshi (form %d, this one knows %d); use that version, or another file or database", had, len(migrations))
	case had == len(migrations):
		return nil
	case beside:
		return fmt.Errorf("it was written by an older noroshi (form %d, this one wants %d); noroshi serve brings it up to date", had, len(migrations))
	}
	t := &txn{Tx: tx}
	for _, m := range migrations[had:] {
		if _, err := tx.ExecContext(ctx, d.ddl(m.text)); err != nil {
			return err
		}
		if m.then != nil {
			if err := m.then(ctx, t); err != nil {
				return err
			}
		}
	}
	if err := t.append(ctx, Program, "state.migrated", "state", map[string]int{"from": had, "to": len(migrations)}); err != nil {
		return err
	}
	if err := d.setForm(ctx, tx, len(migrations)); err != nil {
		return err
	}
	return tx.Commit()
}

// Program is the actor of what no person did.
const Program = "noroshi"

// now is the wall clock; the audit chain is about what people did and when.
func now() event.Time { return event.TimeOf(time.Now()) }
