package state

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
)

// Bounds of what people write, in octets.
const (
	MaxName = 256      // who, what, whom
	MaxText = 16 << 10 // notes, reasons
	MaxJSON = 1 << 20  // a preview
)

// RefusedError says why something may not be written.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return "state: refused: " + e.Why }

func refuse(format string, args ...any) error { return &RefusedError{fmt.Sprintf(format, args...)} }

// named refuses what can't be a name: one that is missing, too long, or not
// plain text.
func named(what, s string) error {
	switch {
	case strings.TrimSpace(s) == "":
		return refuse("%s is missing", what)
	case len(s) > MaxName:
		return refuse("%s has more than %d octets", what, MaxName)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		return refuse("%s isn't plain text", what)
	}
	return nil
}

func sized(what, s string) error {
	if len(s) > MaxText {
		return refuse("%s has more than %d octets", what, MaxText)
	}
	return nil
}

// Note is what somebody wrote to an incident. Notes are added and never changed.
type Note struct {
	ID       int64      `json:"id,omitempty"`
	Incident finding.ID `json:"incident"`
	At       event.Time `json:"at"`
	By       string     `json:"by"`
	Text     string     `json:"text"`
}

// AddNote implements Store.
func (d *DB) AddNote(ctx context.Context, n Note) (id int64, err error) {
	n.ID = 0
	if err := errors.Join(named("who writes it", n.By), sized("the text", n.Text)); err != nil {
		return 0, err
	}
	if strings.TrimSpace(n.Text) == "" {
		return 0, refuse("the text is missing")
	}
	err = d.change(ctx, func(tx *txn) error {
		var there int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM incidents WHERE id = $1", n.Incident[:]).Scan(&there); err != nil {
			return err
		}
		if there == 0 {
			return ErrNone
		}
		id, err = tx.record(ctx, n.By, "note.added", object(n.Incident), n.Incident.String(), n)
		return err
	})
	return id, err
}

// Notes implements Store.
func (d *DB) Notes(ctx context.Context, in finding.ID) (list []Note, err error) {
	err = d.records(ctx, d.query, "kind = 'note.added' AND subject = $1", []any{in.String()}, func(id int64, _, body string) error {
		n := Note{}
		err := json.Unmarshal([]byte(body), &n)
		n.ID = id
		list = append(list, n)
		return err
	})
	return list, err
}

type queryFunc func(ctx context.Context, text string, args ...any) (*sql.Rows, error)

// records calls f with the records that where selects, in their order.
func (d *DB) records(ctx context.Context, query queryFunc, where string, args []any, f func(id int64, kind, body string) error) error {
	rows, err := query(ctx, "SELECT seq, kind, body FROM records WHERE "+where+" ORDER BY seq", args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var kind, body string
		if err := rows.Scan(&id, &kind, &body); err != nil {
			return fmt.Errorf("state: %w", err)
		}
		if err := f(id, kind, body); err != nil {
			return fmt.Errorf("state: record %d can't be read: %w", id, err)
		}
	}
	return rows.Err()
}

// Proposal is an action that wants another person's approval.
type Proposal struct {
	Kind    string          `json:"kind"`    // what is to be done: "flowspec.announce"
	Object  string          `json:"object"`  // to what: "incident/0123..."
	Basis   string          `json:"basis"`   // the legal basis it rests on
	Preview json.RawMessage `json:"preview"` // what it would do, for whom
	By      string          `json:"by"`
	At      event.Time      `json:"at"`
	Expires event.Time      `json:"expires"` // when proposal and approval end
}

// Check reports what is missing.
func (p *Proposal) Check() error {
	switch err := errors.Join(named("the kind", p.Kind), named("the object", p.Object), named("the basis", p.Basis), named("who proposes it", p.By)); {
	case err != nil:
		return err
	case len(p.Preview) > MaxJSON:
		return refuse("the preview has more than %d octets", MaxJSON)
	case !json.Valid(p.Preview):
		return refuse("the preview isn't JSON")
	case p.Expires <= p.At:
		return refuse("it must expire after it is proposed: every action ends")
	}
	return nil
}

// Verdict is a decision about a proposal.
type Verdict string

// Verdicts. Approved and Refused are another person's; Withdrawn is anybody's,
// and ends what was approved.
const (
	Approved  Verdict = "approved"
	Refused   Verdict = "refused"
	Withdrawn Verdict = "withdrawn"
)

// Decision is a verdict with its reason.
type Decision struct {
	Verdict Verdict    `json:"verdict"`
	By      string     `json:"by"`
	At      event.Time `json:"at"`
	Note    string     `json:"note"` // why
}

// Approval is a proposal with what was decided about it.
type Approval struct {
	ID        int64 `json:"id"`
	Proposal  `json:"proposal"`
	Decisions []Decision `json:"decisions"` // the oldest first: at most one and a withdrawal
}

// Approval states beside the verdicts.
const (
	Proposed Verdict = "proposed" // nobody has decided yet
	Expired  Verdict = "expired"
)

// State returns how the approval stands at a time. Only Approved permits anything.
func (a *Approval) State(at event.Time) Verdict {
	last := Proposed
	if n := len(a.Decisions); n > 0 {
		last = a.Decisions[n-1].Verdict
	}
	if at >= a.Expires && (last == Proposed || last == Approved) {
		return Expired
	}
	return last
}

// decide adds a decision, or says why not.
func (a *Approval) decide(x Decision) error {
	if err := errors.Join(named("who decides", x.By), sized("the note", x.Note)); err != nil {
		return err
	}
	stands := a.State(x.At)
	switch {
	case x.Verdict != Approved && x.Verdict != Refused && x.Verdict != Withdrawn:
		return refuse("want approved, refused or withdrawn")
	case strings.TrimSpace(x.Note) == "":
		return refuse("the note that says why is missing")
	case x.At < a.At:
		return refuse("the decision is older than the proposal")
	case stands != Proposed && (stands != Approved || x.Verdict != Withdrawn):
		return refuse("it is %s already", stands)
	case x.Verdict == Approved && samePerson(x.By, a.By):
		return refuse("%s proposed it; another person must approve it", a.By)
	case x.Verdict == Approved && samePerson(x.By, Program):
		return refuse("a person must approve it")
	}
	a.Decisions = append(a.Decisions, x)
	return nil
}

func samePerson(a, b string) bool {
	return strings.EqualFold(strings.TrimSpace(a), strings.TrimSpace(b))
}

// Propose implements Store.
func (d *DB) Propose(ctx context.Context, p Proposal) (id int64, err error) {
	if err := p.Check(); err != nil {
		return 0, err
	}
	err = d.change(ctx, func(tx *txn) (err error) {
		id, err = tx.record(ctx, p.By, "approval.requested", p.Object, p.Object, p)
		return err
	})
	return id, err
}

// Decide implements Store.
func (d *DB) Decide(ctx context.Context, id int64, x Decision) (a Approval, err error) {
	err = d.change(ctx, func(tx *txn) (err error) {
		if a, err = d.approval(ctx, tx.QueryContext, id); err != nil {
			return err
		}
		if err := a.decide(x); err != nil {
			return err
		}
		_, err = tx.record(ctx, x.By, "approval."+string(x.Verdict), a.Object, fmt.Sprint(id), x)
		return err
	})
	return a, err
}

// Approval implements Store.
func (d *DB) Approval(ctx context.Context, id int64) (Approval, error) {
	return d.approval(ctx, d.query, id)
}

func (d *DB) approval(ctx context.Context, query queryFunc, id int64) (a Approval, err error) {
	err = d.records(ctx, query, "kind = 'approval.requested' AND seq = $1", []any{id}, func(n int64, _, body string) error {
		a.ID = n
		return json.Unmarshal([]byte(body), &a.Proposal)
	})
	if err != nil {
		return a, err
	}
	if a.ID == 0 {
		return a, ErrNone
	}
	err = d.records(ctx, query, "kind IN ('approval.approved', 'approval.refused', 'approval.withdrawn') AND subject = $1", []any{fmt.Sprint(id)}, func(_ int64, _, body string) error {
		var x Decision
		err := json.Unmarshal([]byte(body), &x)
		a.Decisions = append(a.Decisions, x)
		return err
	})
	return a, err
}

// Approvals implements Store.
func (d *DB) Approvals(ctx context.Context, before int64, limit int) (list []Approval, err error) {
	if before <= 0 {
		before = 1<<63 - 1
	}
	rows, err := d.query(ctx, "SELECT seq FROM records WHERE kind = 'approval.requested' AND seq < $1 ORDER BY seq DESC LIMIT $2", before, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ids []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("state: %w", err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	for _, id := range ids {
		a, err := d.Approval(ctx, id)
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, nil
}

// Consent is a subscriber's word about one purpose: that it is allowed, or not,
// or not any more. The last word about a line and a purpose counts, and is asked
// for whenever something is decided, not earlier.
type Consent struct {
	ID      int64  `json:"id,omitempty"`
	Line    string `json:"line"`    // whose: a line, not a person
	Purpose string `json:"purpose"` // what for: "dns.cc". Filtering and analysis are two
	Given   bool   `json:"given"`   // false: withdrawn, or opted out of general terms
	// Basis of what is given: "consent.individual" (the subscriber was asked) or
	// "consent.terms" (general terms, which name the purpose).
	Basis   string     `json:"basis,omitempty"`
	Version string     `json:"version,omitempty"` // of the words consented to
	Scope   string     `json:"scope,omitempty"`   // how far it goes
	At      event.Time `json:"at"`                // when the subscriber said so
	Channel string     `json:"channel"`           // how: "web", "letter", "telephone"
	By      string     `json:"by"`                // who wrote it down
}

// Bases of consent.
const (
	Individual = "consent.individual"
	Terms      = "consent.terms"
)

// Check reports what is missing. Who withdraws needs to say less: that is always
// possible, also without having consented.
func (c *Consent) Check() error {
	err := errors.Join(named("the line", c.Line), named("the purpose", c.Purpose), named("the channel", c.Channel), named("who writes it down", c.By), sized("the scope", c.Scope))
	switch {
	case err != nil:
		return err
	case c.At == 0:
		return refuse("the time at which the subscriber said so is missing")
	case !c.Given:
		return nil
	case c.Basis != Individual && c.Basis != Terms:
		return refuse("want %s or %s as its basis", Individual, Terms)
	}
	return named("the version of the words consented to", c.Version)
}

// Allows reports whether c permits the purpose under the words of this version:
// other words need another consent.
func (c *Consent) Allows(version string) bool {
	return c.Given && version != "" && c.Version == version
}

// Record implements Store.
func (d *DB) Record(ctx context.Context, c Consent) (id int64, err error) {
	c.ID = 0
	if err := c.Check(); err != nil {
		return 0, err
	}
	action := "consent.withdrawn"
	if c.Given {
		action = "consent.given"
	}
	err = d.change(ctx, func(tx *txn) (err error) {
		// The chain is kept for longer than the register: it names no line.
		id, err = tx.record(ctx, c.By, action, "consent/"+c.Purpose, c.Line, c)
		return err
	})
	return id, err
}

// Consents implements Store.
func (d *DB) Consents(ctx context.Context, line string) (list []Consent, err error) {
	err = d.records(ctx, d.query, "kind IN ('consent.given', 'consent.withdrawn') AND subject = $1", []any{clean(line)}, func(id int64, _, body string) error {
		c := Consent{}
		err := json.Unmarshal([]byte(body), &c)
		c.ID = id
		list = append(list, c)
		return err
	})
	return list, err
}

// Consent implements Store.
func (d *DB) Consent(ctx context.Context, line, purpose string) (Consent, error) {
	list, err := d.Consents(ctx, line)
	if err != nil {
		return Consent{}, err
	}
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].Purpose == purpose {
			return list[i], nil
		}
	}
	return Consent{}, ErrNone
}

// AddException implements Store.
func (d *DB) AddException(ctx context.Context, e incident.Exception) (id int64, err error) {
	if err := e.Check(); err != nil {
		return 0, err
	}
	e.ID, e.Hits, e.Last = 0, 0, 0
	err = d.change(ctx, func(tx *txn) (err error) {
		id, err = tx.record(ctx, e.Owner, "exception.added", "exception", "", e)
		return err
	})
	return id, err
}

// RemoveException implements Store.
func (d *DB) RemoveException(ctx context.Context, id int64, by string) error {
	if err := named("who removes it", by); err != nil {
		return err
	}
	return d.change(ctx, func(tx *txn) error {
		list, err := d.exceptions(ctx, tx.QueryContext)
		if err != nil {
			return err
		}
		for _, e := range list {
			if e.ID == id {
				_, err := tx.record(ctx, by, "exception.removed", "exception", fmt.Sprint(id), map[string]string{"by": by})
				return err
			}
		}
		return ErrNone
	})
}

// Exceptions implements Store.
func (d *DB) Exceptions(ctx context.Context) ([]incident.Exception, error) {
	return d.exceptions(ctx, d.query)
}

func (d *DB) exceptions(ctx context.Context, query queryFunc) (list []incident.Exception, err error) {
	err = d.records(ctx, query, `kind = 'exception.added'
		AND CAST(seq AS TEXT) NOT IN (SELECT subject FROM records WHERE kind = 'exception.removed')`, nil, func(id int64, _, body string) error {
		e := incident.Exception{}
		err := json.Unmarshal([]byte(body), &e)
		e.ID = id
		list = append(list, e)
		return err
	})
	return list, err
}
