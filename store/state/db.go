package state

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
)

// DB is the Store on SQLite or PostgreSQL: one text of SQL for both, with what
// differs in a backend.
type DB struct {
	backend
	db   *sql.DB // for reading; SQLite writes by it too
	name string  // for people: without a password

	write sync.Mutex // both databases have one writer; here they wait in the order they came
}

var _ Store = (*DB)(nil)

// backend is what differs between the databases.
type backend interface {
	// ddl turns a definition in SQLite's words into the database's own.
	ddl(text string) string
	// form and setForm are the number of migrations the database has had.
	form(ctx context.Context, tx *sql.Tx) (int, error)
	setForm(ctx context.Context, tx *sql.Tx, n int) error
	// writer returns what begins transactions that write, and renew forgets it
	// after its connection was lost.
	writer(ctx context.Context) (beginner, error)
	renew()
	// lost reports whether err means that the connection is gone.
	lost(err error) bool
	// atOnce is how many rows are best put into one statement.
	atOnce() int
	// snapshot are the options of a transaction that reads one moment.
	snapshot() *sql.TxOptions
	// explain adds to an error what to do about it.
	explain(err error) error
	close() error
}

type beginner interface {
	BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
}

// Open opens the database that name names, a file of SQLite or a URL of
// PostgreSQL (postgres://user@host/database), and brings it to this version's
// form. A file is created, readable by its owner only, if it isn't there; a
// database of PostgreSQL must be there. One noroshi at a time can have it open.
func Open(name string) (*DB, error) { return open(name, false) }

// Beside opens a database that another noroshi may have open, to read it, to
// make a backup and to append to the audit chain. It creates and changes nothing.
func Beside(name string) (*DB, error) { return open(name, true) }

func open(name string, beside bool) (*DB, error) {
	ctx, cancel := context.WithTimeout(context.Background(), openWithin)
	defer cancel()
	d, shown, err := (*DB)(nil), name, error(nil)
	if IsPostgres(name) {
		shown = redacted(name)
		d, err = openPostgres(ctx, name, beside)
	} else {
		d, err = openSQLite(name, beside)
	}
	if err != nil {
		return nil, fmt.Errorf("state %s: %w", shown, err)
	}
	d.name = shown
	if err := d.migrate(ctx, beside); err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("state %s: %w", shown, d.explain(err))
	}
	return d, nil
}

// openWithin is how long opening may take, migrations among it.
const openWithin = 10 * time.Minute

// Close ends the use of the database.
func (d *DB) Close() error {
	d.write.Lock()
	defer d.write.Unlock()
	return errors.Join(d.db.Close(), d.close())
}

// txn is a transaction that writes. The rows of the audit chain that it appends
// stand or fall with it.
type txn struct {
	*sql.Tx
	atOnce   int  // rows of one statement
	appended Head // the last of them; zero if none
}

// change runs f in one transaction, and runs it again when the connection was
// lost before the database had it. f must set what it returns anew each time.
func (d *DB) change(ctx context.Context, f func(tx *txn) error) error {
	d.write.Lock()
	defer d.write.Unlock()
	appended, err := d.try(ctx, f)
	if err != nil && d.lost(err) && ctx.Err() == nil {
		d.renew()
		var done bool
		// Nobody knows whether what was under way has been written. The lock is had
		// again only after the old connection's end, so the chain tells; and what
		// appends nothing to it may be done twice.
		if done, err = d.has(ctx, appended); err == nil && !done {
			_, err = d.try(ctx, f)
		}
	}
	if err != nil {
		if d.lost(err) {
			d.renew()
		}
		if strings.HasPrefix(err.Error(), "state: ") { // one of ours, such as ErrNone
			return err
		}
		return fmt.Errorf("state: %w", d.explain(err))
	}
	return nil
}

func (d *DB) try(ctx context.Context, f func(tx *txn) error) (appended Head, err error) {
	w, err := d.writer(ctx)
	if err != nil {
		return Head{}, err
	}
	tx, err := w.BeginTx(ctx, nil)
	if err != nil {
		return Head{}, err
	}
	defer tx.Rollback()
	t := &txn{Tx: tx, atOnce: d.atOnce()}
	if err := f(t); err != nil {
		return Head{}, err
	}
	return t.appended, tx.Commit()
}

// has reports whether the chain contains h.
func (d *DB) has(ctx context.Context, h Head) (bool, error) {
	if h.Seq == 0 {
		return false, nil
	}
	w, err := d.writer(ctx)
	if err != nil {
		return false, err
	}
	tx, err := w.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer tx.Rollback()
	n := 0
	err = tx.QueryRowContext(ctx, "SELECT count(*) FROM audit WHERE seq = $1 AND hash = $2", h.Seq, h.Hash[:]).Scan(&n)
	return n == 1, err
}

// query reads, a second time if the connection turned out to be gone.
func (d *DB) query(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	rows, err := d.db.QueryContext(ctx, text, args...)
	if err != nil && d.lost(err) {
		rows, err = d.db.QueryContext(ctx, text, args...)
	}
	if err != nil {
		return nil, fmt.Errorf("state: %w", d.explain(err))
	}
	return rows, nil
}

// clean is text as both databases can hold it: PostgreSQL refuses NUL and what
// isn't UTF-8. Texts that people or attackers write are kept in JSON, which has
// a form for everything; this is for names in columns.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

func number(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

const (
	putIncident = `INSERT INTO incidents (id, said, last, kind, state, active, body, pruned) VALUES ($1, $2, $3, $4, $5, $6, $7, 0)
		ON CONFLICT (id) DO UPDATE SET said = excluded.said, last = excluded.last, kind = excluded.kind,
		state = excluded.state, active = excluded.active, body = excluded.body, pruned = 0`
	putMember = "INSERT INTO members (incident, addr, port, role, network, first, last, ended) VALUES"
	orMember  = `ON CONFLICT (incident, addr, port) DO UPDATE SET ended = excluded.ended,
		first = CASE WHEN excluded.first < members.first THEN excluded.first ELSE members.first END,
		last = CASE WHEN excluded.last > members.last THEN excluded.last ELSE members.last END`
	dropMember   = `DELETE FROM members WHERE incident = $1 AND addr = $2 AND port = $3`
	putInfected  = "INSERT INTO infected (day, family, network, addr) VALUES"
	orInfected   = "ON CONFLICT DO NOTHING"
	dropInfected = `DELETE FROM infected WHERE day = $1 AND family = $2 AND network = $3 AND addr = $4`
)

// Save implements Store.
func (d *DB) Save(ctx context.Context, list []*incident.Incident) error {
	if len(list) == 0 {
		return nil
	}
	return d.change(ctx, func(tx *txn) error {
		for _, in := range list {
			was, err := find(ctx, tx.Tx, in.ID)
			if err != nil && !errors.Is(err, ErrNone) {
				return err
			}
			if err := put(ctx, tx, was, in); err != nil {
				return err
			}
		}
		// Who left one incident may be in another, or be back in the same: those
		// who left go first.
		if err := leave(ctx, tx, list); err != nil {
			return err
		}
		return join(ctx, tx, list)
	})
}

// leave takes out the members that are gone, with the days on which they were
// infected.
func leave(ctx context.Context, tx *txn, list []*incident.Incident) error {
	for _, in := range list {
		for i := range in.NewMembers {
			m := &in.NewMembers[i]
			if !m.Gone {
				continue
			}
			if _, err := tx.ExecContext(ctx, dropMember, in.ID[:], m.Addr[:], m.Port); err != nil {
				return err
			}
			for day := range infectedDays(m) {
				if _, err := tx.ExecContext(ctx, dropInfected, day, clean(in.Family), clean(m.Network), m.Addr[:]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// join puts in the others.
func join(ctx context.Context, tx *txn, list []*incident.Incident) error {
	type key struct {
		in   finding.ID
		addr event.Addr
		port uint16
	}
	held := map[key]bool{} // by rows: one statement can't change a row twice
	rows, days := &bulk{tx: tx, into: putMember, then: orMember}, &bulk{tx: tx, into: putInfected, then: orInfected}
	for _, in := range list {
		for i := range in.NewMembers {
			m := &in.NewMembers[i]
			if m.Gone {
				continue
			}
			k := key{in.ID, m.Addr, m.Port}
			if held[k] {
				if err := rows.flush(ctx); err != nil {
					return err
				}
			}
			if rows.n == 0 {
				clear(held)
			}
			held[k] = true
			if err := rows.add(ctx, in.ID[:], m.Addr[:], m.Port, clean(m.Role), clean(m.Network), int64(m.First), int64(m.Last), number(m.Ended)); err != nil {
				return err
			}
			for day := range infectedDays(m) {
				if err := days.add(ctx, day, clean(in.Family), clean(m.Network), m.Addr[:]); err != nil {
					return err
				}
			}
		}
	}
	return errors.Join(rows.flush(ctx), days.flush(ctx))
}

// infectedDays yields the days on which m was infected. What was earlier than
// maxDays was written when it was new.
func infectedDays(m *incident.Member) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		if m.Role != "bot" {
			return
		}
		for day := max(dayOf(m.First), dayOf(m.Last)-maxDays); day <= dayOf(m.Last) && yield(day); day++ {
		}
	}
}

// bulk collects rows for one statement: a fleet of 20,000 would be as many
// questions and answers over the network.
type bulk struct {
	tx         *txn
	into, then string
	args       []any
	n          int
}

func (b *bulk) add(ctx context.Context, values ...any) error {
	b.args = append(b.args, values...)
	if b.n++; b.n < b.tx.atOnce {
		return nil
	}
	return b.flush(ctx)
}

func (b *bulk) flush(ctx context.Context) error {
	if b.n == 0 {
		return nil
	}
	text := strings.Builder{}
	text.WriteString(b.into)
	for i, width := 0, len(b.args)/b.n; i < len(b.args); i++ {
		switch {
		case i == 0:
			text.WriteString(" (")
		case i%width == 0:
			text.WriteString("), (")
		default:
			text.WriteString(", ")
		}
		fmt.Fprintf(&text, "$%d", i+1)
	}
	text.WriteString(") " + b.then)
	_, err := b.tx.ExecContext(ctx, text.String(), b.args...)
	b.args, b.n = b.args[:0], 0
	return err
}

// maxDays is how many days back a member's infection is written when the member
// changes; one that goes on changes every few minutes. It keeps a fleet that
// lasts for months, or one wrong clock, from filling the table again and again.
const maxDays = 2

// put writes an incident, and into the chain what became of it since was, which
// is nil for one that is new. That its numbers grow, several times a minute, is
// what was measured and nobody's decision: the chain has none of it.
func put(ctx context.Context, tx *txn, was, in *incident.Incident) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, putIncident, in.ID[:], int64(in.Said), int64(in.Last), clean(in.Kind), clean(string(in.State)), number(!in.Ended && in.Merged == nil), string(body)); err != nil {
		return err
	}
	tell := func(actor, action string, body any) {
		if err == nil {
			err = tx.append(ctx, actor, action, object(in.ID), body)
		}
	}
	old := incident.Incident{State: incident.New}
	if was != nil {
		old = *was
	} else {
		tell(Program, "incident.opened", map[string]any{"kind": in.Kind, "severity": in.Severity, "said": in.Said})
	}
	stands := old.State
	for _, s := range newSteps(old.History, in.History) {
		tell(s.By, "incident.moved", s)
		stands = s.To
	}
	if stands != in.State { // without a step in its history
		tell(Program, "incident.moved", map[string]any{"to": in.State})
	}
	switch {
	case in.Merged != nil && (old.Merged == nil || *old.Merged != *in.Merged):
		tell(Program, "incident.merged", map[string]any{"into": in.Merged})
	case in.Ended && !old.Ended:
		tell(Program, "incident.ended", map[string]any{"last": in.Last})
	case !in.Ended && old.Ended:
		tell(Program, "incident.resumed", map[string]any{"last": in.Last})
	}
	return err
}

// newSteps returns what the history list has behind the last step of old. A long
// history has lost steps behind its first.
func newSteps(old, list []incident.Step) []incident.Step {
	if len(old) == 0 {
		return list
	}
	for i := len(list) - 1; i >= 0; i-- {
		if sameStep(list[i], old[len(old)-1]) {
			return list[i+1:]
		}
	}
	return list
}

// sameStep compares what is stored of two steps: JSON has no octets that aren't
// UTF-8.
func sameStep(a, b incident.Step) bool {
	valid := func(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
	a.By, a.Owner, a.Note = valid(a.By), valid(a.Owner), valid(a.Note)
	b.By, b.Owner, b.Note = valid(b.By), valid(b.Owner), valid(b.Note)
	return a == b
}

func dayOf(t event.Time) int64 { return int64(t) / int64(24*time.Hour) }

// Incident implements Store.
func (d *DB) Incident(ctx context.Context, id finding.ID) (in *incident.Incident, err error) {
	if in, err = find(ctx, d.db, id); err != nil && d.lost(err) {
		in, err = find(ctx, d.db, id)
	}
	if err != nil && !errors.Is(err, ErrNone) {
		err = fmt.Errorf("state: %w", d.explain(err))
	}
	return in, err
}

func find(ctx context.Context, q querier, id finding.ID) (*incident.Incident, error) {
	return scan(q.QueryRowContext(ctx, "SELECT body FROM incidents WHERE id = $1", id[:]))
}

func scan(row interface{ Scan(...any) error }) (*incident.Incident, error) {
	var body string
	if err := row.Scan(&body); errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNone
	} else if err != nil {
		return nil, err
	}
	in := new(incident.Incident)
	if err := json.Unmarshal([]byte(body), in); err != nil {
		return nil, fmt.Errorf("an incident can't be read: %w", err)
	}
	return in, nil
}

// Incidents implements Store.
func (d *DB) Incidents(ctx context.Context, f Filter) (list []*incident.Incident, err error) {
	where, args := []string{"true"}, []any{}
	// Each %d in cond is the number of an argument.
	and := func(cond string, arg ...any) {
		n := make([]any, len(arg))
		for i := range arg {
			n[i] = len(args) + i + 1
		}
		where, args = append(where, fmt.Sprintf(cond, n...)), append(args, arg...)
	}
	if f.State != "" {
		and("state = $%d", clean(string(f.State)))
	}
	if strings.HasSuffix(f.Kind, ".") {
		and("substr(kind, 1, $%d) = $%d", utf8.RuneCountInString(f.Kind), clean(f.Kind))
	} else if f.Kind != "" {
		and("kind = $%d", clean(f.Kind))
	}
	if f.Active {
		and("active = 1")
	}
	if f.Since != 0 {
		and("last >= $%d", int64(f.Since))
	}
	if f.Before != 0 {
		and("(said, id) < ($%d, $%d)", int64(f.Before), f.BeforeID[:])
	}
	if f.Limit <= 0 {
		f.Limit = 1000
	}
	rows, err := d.query(ctx, fmt.Sprintf("SELECT body FROM incidents WHERE %s ORDER BY said DESC, id DESC LIMIT $%d", strings.Join(where, " AND "), len(args)+1), append(args, f.Limit)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		in, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("state: %w", err)
		}
		list = append(list, in)
	}
	return list, rows.Err()
}

// Members implements Store.
func (d *DB) Members(ctx context.Context, id finding.ID, after incident.Member, limit int) (list []incident.Member, err error) {
	rows, err := d.query(ctx, `SELECT addr, port, role, network, first, last, ended FROM members
		WHERE incident = $1 AND (addr, port) > ($2, $3) ORDER BY addr, port LIMIT $4`, id[:], after.Addr[:], startPort(after), limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var m incident.Member
		var addr []byte
		if err := rows.Scan(&addr, &m.Port, &m.Role, &m.Network, &m.First, &m.Last, &m.Ended); err != nil {
			return nil, fmt.Errorf("state: %w", err)
		}
		if copy(m.Addr[:], addr) != len(m.Addr) {
			return nil, fmt.Errorf("state: a member of %v has an address of %d bytes", id, len(addr))
		}
		list = append(list, m)
	}
	return list, rows.Err()
}

// startPort makes a zero Member come before all.
func startPort(m incident.Member) int {
	if m.Addr == (event.Addr{}) {
		return -1
	}
	return int(m.Port)
}

// Move implements Store.
func (d *DB) Move(ctx context.Context, id finding.ID, from incident.State, s incident.Step) (in *incident.Incident, err error) {
	var refused error
	err = d.change(ctx, func(tx *txn) error {
		if in, refused = find(ctx, tx.Tx, id); refused != nil {
			return refused
		}
		was := *in
		was.History = slices.Clone(in.History)
		if refused = in.Move(from, s); refused != nil {
			return refused
		}
		return put(ctx, tx, &was, in)
	})
	if refused != nil && !d.lost(refused) {
		return in, refused
	}
	return in, err
}

// Observed implements Store.
func (d *DB) Observed(ctx context.Context, t event.Time) error {
	return d.change(ctx, func(tx *txn) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO observed (day) VALUES ($1) ON CONFLICT DO NOTHING", dayOf(t))
		return err
	})
}

// Infected implements Store.
func (d *DB) Infected(ctx context.Context, from, to event.Time) ([]Day, error) {
	var days []Day
	if n := dayOf(to) - dayOf(from); n < 0 || n > 3660 {
		return nil, fmt.Errorf("state: %d days; want 0 to ten years", n)
	}
	for day := dayOf(from); day <= dayOf(to); day++ {
		days = append(days, Day{Day: time.Unix(day*24*3600, 0).UTC(), Hosts: []Hosts{}})
	}
	seen, err := d.query(ctx, "SELECT day FROM observed WHERE day BETWEEN $1 AND $2 UNION SELECT DISTINCT day FROM infected WHERE day BETWEEN $1 AND $2", dayOf(from), dayOf(to))
	if err != nil {
		return nil, err
	}
	defer seen.Close()
	for seen.Next() {
		var day int64
		if err := seen.Scan(&day); err != nil {
			return nil, fmt.Errorf("state: %w", err)
		}
		days[day-dayOf(from)].Observed = true
	}
	rows, err := d.query(ctx, `SELECT day, family, network, count(*) FROM infected WHERE day BETWEEN $1 AND $2
		GROUP BY day, family, network ORDER BY day, family, network`, dayOf(from), dayOf(to))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var day int64
		var h Hosts
		if err := rows.Scan(&day, &h.Family, &h.Network, &h.Count); err != nil {
			return nil, fmt.Errorf("state: %w", err)
		}
		i := day - dayOf(from)
		days[i].Hosts = append(days[i].Hosts, h)
	}
	return days, errors.Join(seen.Err(), rows.Err())
}
