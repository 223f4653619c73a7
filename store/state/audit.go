package state

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
)

// Hash is a SHA-256. It is text as 64 hexadecimal digits.
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(h) {
		return fmt.Errorf("state: a hash has %d hexadecimal digits", 2*len(h))
	}
	copy(h[:], b)
	return nil
}

// Head is a row of the audit chain and its hash. Whoever keeps one elsewhere can
// prove later that nothing up to it was changed: see [DB.Verify].
type Head struct {
	Seq  int64 `json:"seq"`
	Hash Hash  `json:"hash"`
}

func (h Head) String() string { return fmt.Sprintf("%d:%v", h.Seq, h.Hash) }

// ParseHead reads what String wrote.
func ParseHead(text string) (h Head, err error) {
	seq, hash, _ := strings.Cut(text, ":")
	h.Seq, err = strconv.ParseInt(seq, 10, 64)
	if err != nil || h.Seq < 1 || h.Hash.UnmarshalText([]byte(hash)) != nil {
		return Head{}, errors.New("state: a head is a number, a colon and 64 hexadecimal digits")
	}
	return h, nil
}

// Entry is one row of the audit chain: who did what to what.
type Entry struct {
	Seq    int64      `json:"seq"` // 1, 2, 3, ... without a gap
	At     event.Time `json:"at"`  // wall clock
	Actor  string     `json:"actor"`
	Action string     `json:"action"` // "incident.moved"
	Object string     `json:"object"` // "incident/0123..."
	// Body says more, in JSON. Where the change made a record, "record" in it is
	// the record's hash.
	Body json.RawMessage `json:"body"`
	Prev Hash            `json:"prev"` // of the row before; zero in the first
	Hash Hash            `json:"hash"`
}

// sum is the hash that e must have: SHA-256 over the mark "noroshi audit 1",
// seq, at, actor, action, object, body and prev, each after its length in octets
// as eight octets, big-endian; numbers are eight octets, big-endian.
func (e *Entry) sum() Hash {
	n := func(i int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(i)) }
	return sum([]byte("noroshi audit 1"), n(e.Seq), n(int64(e.At)), []byte(e.Actor), []byte(e.Action), []byte(e.Object), e.Body, e.Prev[:])
}

func sum(fields ...[]byte) (h Hash) {
	s := sha256.New()
	for _, f := range fields {
		s.Write(binary.BigEndian.AppendUint64(nil, uint64(len(f))))
		s.Write(f)
	}
	s.Sum(h[:0])
	return h
}

// errHeadless is the error for a chain that can't be continued.
var errHeadless = errors.New("the head of the audit chain is missing; somebody changed the database (noroshi verify); restore a backup")

// append adds a row to the chain. body is made JSON.
func (tx *txn) append(ctx context.Context, actor, action, object string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	e := Entry{At: now(), Actor: clean(actor), Action: clean(action), Object: clean(object), Body: text}
	var prev []byte
	// The row stays locked until the end, so that a chain has no two ends.
	err = tx.QueryRowContext(ctx, "UPDATE head SET seq = seq + 1 WHERE id = 1 RETURNING seq, hash").Scan(&e.Seq, &prev)
	if errors.Is(err, sql.ErrNoRows) || err == nil && len(prev) != len(e.Prev) {
		return errHeadless
	} else if err != nil {
		return err
	}
	copy(e.Prev[:], prev)
	e.Hash = e.sum()
	if _, err := tx.ExecContext(ctx, "INSERT INTO audit (seq, at, actor, action, object, body, prev, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
		e.Seq, int64(e.At), e.Actor, e.Action, e.Object, string(e.Body), e.Prev[:], e.Hash[:]); err != nil {
		return err
	}
	tx.appended = Head{e.Seq, e.Hash}
	_, err = tx.ExecContext(ctx, "UPDATE head SET hash = $1 WHERE id = 1", e.Hash[:])
	return err
}

// record adds a record, which nobody changes any more, and the row of the chain
// that has its hash. Their common number is the record's ID.
func (tx *txn) record(ctx context.Context, actor, action, object, subject string, v any) (id int64, err error) {
	body, err := json.Marshal(v)
	if err != nil {
		return 0, err
	}
	kind, subject := clean(action), clean(subject)
	if err := tx.append(ctx, actor, action, object, map[string]Hash{"record": sumRecord(kind, subject, string(body))}); err != nil {
		return 0, err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO records (seq, kind, subject, body) VALUES ($1, $2, $3, $4)", tx.appended.Seq, kind, subject, string(body))
	return tx.appended.Seq, err
}

func sumRecord(kind, subject, body string) Hash {
	return sum([]byte("noroshi record 1"), []byte(kind), []byte(subject), []byte(body))
}

// Append implements Store.
func (d *DB) Append(ctx context.Context, actor, action, object string, body any) error {
	for what, text := range map[string]string{"the actor": actor, "the action": action, "the object": object} {
		if err := named(what, text); err != nil {
			return err
		}
	}
	return d.change(ctx, func(tx *txn) error { return tx.append(ctx, actor, action, object, body) })
}

// Audit implements Store.
func (d *DB) Audit(ctx context.Context, object string, before int64, limit int) (list []Entry, err error) {
	where, args := "true", []any{limit}
	if object != "" {
		args = append(args, clean(object))
		where += fmt.Sprintf(" AND object = $%d", len(args))
	}
	if before > 0 {
		args = append(args, before)
		where += fmt.Sprintf(" AND seq < $%d", len(args))
	}
	rows, err := d.query(ctx, "SELECT seq, at, actor, action, object, body, prev, hash FROM audit WHERE "+where+" ORDER BY seq DESC LIMIT $1", args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var e Entry
		var body string
		var prev, hash []byte
		if err := rows.Scan(&e.Seq, &e.At, &e.Actor, &e.Action, &e.Object, &body, &prev, &hash); err != nil {
			return nil, fmt.Errorf("state: %w", err)
		}
		e.Body = json.RawMessage(body)
		copy(e.Prev[:], prev)
		copy(e.Hash[:], hash)
		list = append(list, e)
	}
	return list, rows.Err()
}

// Report is what Verify found.
type Report struct {
	Rows      int64  `json:"rows"`      // of the chain, up to Broken
	Records   int64  `json:"records"`   // whose hashes the chain has
	Incidents int64  `json:"incidents"` // whose states are what the chain says
	Head      Head   `json:"head"`      // keep it elsewhere
	Broken    *Break `json:"broken,omitempty"`
}

// Break is the first row of the chain at which something is wrong.
type Break struct {
	Seq  int64  `json:"seq"`
	What string `json:"what"`
}

func (b *Break) Error() string { return fmt.Sprintf("state: audit row %d: %s", b.Seq, b.What) }

// querier is a transaction or a database to read.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Verify implements Store.
func (d *DB) Verify(ctx context.Context, kept ...Head) (Report, error) {
	tx, err := d.db.BeginTx(ctx, d.snapshot())
	if err != nil && d.lost(err) {
		tx, err = d.db.BeginTx(ctx, d.snapshot())
	}
	if err != nil {
		return Report{}, fmt.Errorf("state: %w", d.explain(err))
	}
	defer tx.Rollback()
	r, err := verify(ctx, tx, kept)
	if err != nil {
		return r, fmt.Errorf("state: %w", d.explain(err))
	}
	return r, nil
}

func verify(ctx context.Context, q querier, kept []Head) (r Report, err error) {
	if r, err = verifyChain(ctx, q, kept); err != nil || r.Broken != nil {
		return r, err
	}
	// A record that no row tells of: the join of the chain with the records can't
	// see it.
	var orphan sql.NullInt64
	if err := q.QueryRowContext(ctx, "SELECT min(seq) FROM records r WHERE NOT EXISTS (SELECT 1 FROM audit a WHERE a.seq = r.seq)").Scan(&orphan); err != nil {
		return r, err
	}
	if orphan.Valid {
		r.Broken = &Break{orphan.Int64, "there is a record with this number, and no row that tells of it"}
		return r, nil
	}
	return r, verifyIncidents(ctx, q, &r)
}

// verifyChain walks the chain and the records it tells of.
func verifyChain(ctx context.Context, q querier, kept []Head) (r Report, err error) {
	var head Head
	var hash []byte
	switch err := q.QueryRowContext(ctx, "SELECT seq, hash FROM head WHERE id = 1").Scan(&head.Seq, &hash); {
	case errors.Is(err, sql.ErrNoRows):
		head.Seq = -1
	case err != nil:
		return r, err
	}
	copy(head.Hash[:], hash)
	rows, err := q.QueryContext(ctx, `SELECT a.seq, a.at, a.actor, a.action, a.object, a.body, a.prev, a.hash, r.kind, r.subject, r.body
		FROM audit a LEFT JOIN records r ON r.seq = a.seq ORDER BY a.seq`)
	if err != nil {
		return r, err
	}
	defer rows.Close()
	broken := func(seq int64, format string, args ...any) (Report, error) {
		r.Broken = &Break{seq, fmt.Sprintf(format, args...)}
		return r, nil
	}
	for rows.Next() {
		var e Entry
		var body string
		var prev, hash []byte
		var kind, subject, record sql.NullString
		if err := rows.Scan(&e.Seq, &e.At, &e.Actor, &e.Action, &e.Object, &body, &prev, &hash, &kind, &subject, &record); err != nil {
			return r, err
		}
		e.Body = json.RawMessage(body)
		next := r.Head.Seq + 1
		switch {
		case e.Seq < next:
			return broken(e.Seq, "a row that noroshi did not write: numbers begin with 1")
		case e.Seq > next:
			return broken(next, "it is missing; row %d comes after row %d", e.Seq, r.Head.Seq)
		case len(prev) != len(e.Prev) || len(hash) != len(e.Hash):
			return broken(e.Seq, "a hash in it has another length")
		}
		copy(e.Prev[:], prev)
		copy(e.Hash[:], hash)
		switch {
		case e.sum() != e.Hash:
			return broken(e.Seq, "it was changed: its hash is %v, that of its content %v", e.Hash, e.sum())
		case e.Prev != r.Head.Hash:
			return broken(e.Seq, "it does not follow row %d: one of the two was written anew", r.Head.Seq)
		case e.Seq > head.Seq && head.Seq >= 0:
			return broken(e.Seq, "it lies behind the kept head, row %d", head.Seq)
		}
		if what := wrongRecord(&e, kind, subject, record); what != "" {
			return broken(e.Seq, "%s", what)
		}
		for _, k := range kept {
			if k.Seq == e.Seq && k.Hash != e.Hash {
				return broken(e.Seq, "its hash is not the one kept elsewhere: the chain was written anew from here or before")
			}
		}
		r.Head = Head{e.Seq, e.Hash}
		r.Rows++
		if record.Valid {
			r.Records++
		}
	}
	if err := rows.Err(); err != nil {
		return r, err
	}
	switch {
	case head.Seq < 0:
		return broken(r.Head.Seq, "the table head, which has the number of the last row, is empty")
	case head.Seq > r.Head.Seq:
		return broken(r.Head.Seq+1, "it is missing; the kept head is row %d", head.Seq)
	case head.Hash != r.Head.Hash || len(hash) != len(head.Hash):
		return broken(head.Seq, "its hash is not the one in the kept head")
	}
	for _, k := range kept {
		if k.Seq > r.Head.Seq {
			return broken(r.Head.Seq+1, "it is missing; the head kept elsewhere is row %d", k.Seq)
		}
	}
	return r, nil
}

// wrongRecord says what is wrong with the record that e tells of, "" if nothing.
func wrongRecord(e *Entry, kind, subject, body sql.NullString) string {
	var told struct{ Record *Hash }
	if bytes.Contains(e.Body, []byte(`"record"`)) {
		_ = json.Unmarshal(e.Body, &told) // another body with the word in it
	}
	switch {
	case told.Record == nil && body.Valid:
		return "there is a record with its number, and it tells of none"
	case told.Record == nil:
	case !body.Valid:
		return "the record it tells of is missing"
	case sumRecord(kind.String, subject.String, body.String) != *told.Record:
		return "the record it tells of was changed"
	}
	return ""
}

// verifyIncidents compares each incident's state with the last step that the
// chain has of it.
func verifyIncidents(ctx context.Context, q querier, r *Report) error {
	var after []byte
	for {
		n := 0
		rows, err := q.QueryContext(ctx, "SELECT id, state, body FROM incidents WHERE id > $1 ORDER BY id LIMIT 500", append([]byte{}, after...))
		if err != nil {
			return err
		}
		type row struct{ state, body string }
		page, ids := []row{}, [][]byte{}
		for ; rows.Next(); n++ {
			var v row
			if err := rows.Scan(&after, &v.state, &v.body); err != nil {
				return errors.Join(err, rows.Close())
			}
			page, ids = append(page, v), append(ids, after)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		for i, v := range page {
			var id finding.ID
			copy(id[:], ids[i])
			var in struct {
				ID    finding.ID
				State incident.State
			}
			var told struct{ To incident.State }
			seq, text := int64(0), ""
			err := q.QueryRowContext(ctx, "SELECT seq, body FROM audit WHERE object = $1 AND action = 'incident.moved' ORDER BY seq DESC LIMIT 1", object(id)).Scan(&seq, &text)
			if errors.Is(err, sql.ErrNoRows) {
				told.To = incident.New
			} else if err != nil {
				return err
			} else if err := json.Unmarshal([]byte(text), &told); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(v.body), &in); err != nil || in.ID != id || in.State != told.To || v.state != string(told.To) {
				r.Broken = &Break{seq, fmt.Sprintf("incident %v was %s by then; now the state of its row is %q and in its body %q: it was changed outside of noroshi", id, told.To, v.state, in.State)}
				return nil
			}
			r.Incidents++
		}
	}
}

// object is an incident's name in the chain.
func object(id finding.ID) string { return "incident/" + id.String() }
