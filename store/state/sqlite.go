package state

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
)

// migrations bring a database from one version to the next. They are never
// changed once released; a change is another one.
var migrations = []string{`
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
`}

// DB is the Store on SQLite: one file, beside it SQLite's write-ahead log and a
// lock that keeps a second noroshi out.
type DB struct {
	db    *sql.DB
	lock  *os.File
	path  string
	write sync.Mutex // SQLite has one writer; here they wait in the order they came
}

var _ Store = (*DB)(nil)

// Open opens the database in the file at path, creating it, readable by its
// owner only, if it isn't there, and brings it to this version's form.
func Open(path string) (*DB, error) {
	d, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("state %s: %w", path, explain(err))
	}
	return d, nil
}

func open(path string) (_ *DB, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	_ = f.Close()
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.New("another noroshi has it open; end that one or use another file")
		}
		return nil, err
	}
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: url.Values{
		"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"},
		"_txlock": {"immediate"},
	}.Encode()}
	name := dsn.String()
	if !strings.HasPrefix(path, "/") { // a URL's path begins with a slash; a relative file name must not
		name = "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + dsn.RawQuery
	}
	db, err := sql.Open("sqlite", name)
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	d := &DB{db: db, lock: lock, path: path}
	if err := d.migrate(); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

// migrate applies the migrations the database lacks.
func (d *DB) migrate() error {
	tx, err := d.db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var version int
	if err := tx.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version > len(migrations) {
		return fmt.Errorf("it was written by a newer noroshi (form %d, this one knows %d); use that version, or another file", version, len(migrations))
	}
	for _, m := range migrations[version:] {
		if _, err := tx.Exec(m); err != nil {
			return err
		}
	}
	if version < len(migrations) {
		if _, err := tx.Exec(fmt.Sprintf("PRAGMA user_version = %d", len(migrations))); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// explain adds to SQLite's errors what to do about them.
func explain(err error) error {
	var e *sqlite.Error
	hint := ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		hint = "create its folder first"
	case errors.Is(err, fs.ErrPermission):
		hint = "let the user that noroshi runs as write there, or name another file"
	case errors.As(err, &e):
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_NOTADB:
			hint = "the file is something else; name another"
		case sqlite3.SQLITE_FULL:
			hint = "make room on the disk; nothing that was acknowledged is lost"
		case sqlite3.SQLITE_CORRUPT:
			hint = "the file is damaged; restore it from a backup"
		}
	}
	if hint == "" {
		return err
	}
	return fmt.Errorf("%w (%s)", err, hint)
}

// Close ends the use of the database.
func (d *DB) Close() error {
	err := d.db.Close()
	return errors.Join(err, d.lock.Close())
}

// change runs f in one transaction.
func (d *DB) change(ctx context.Context, f func(tx *sql.Tx) error) error {
	d.write.Lock()
	defer d.write.Unlock()
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("state: %w", explain(err))
	}
	defer tx.Rollback()
	if err := f(tx); err != nil {
		return fmt.Errorf("state: %w", explain(err))
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("state: %w", explain(err))
	}
	return nil
}

const (
	putIncident = `INSERT INTO incidents (id, said, last, kind, state, active, body) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET said = excluded.said, last = excluded.last, kind = excluded.kind,
		state = excluded.state, active = excluded.active, body = excluded.body`
	putMember = `INSERT INTO members (incident, addr, port, role, network, first, last, ended) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (incident, addr, port) DO UPDATE SET first = min(first, excluded.first), last = max(last, excluded.last), ended = excluded.ended`
	dropMember   = `DELETE FROM members WHERE incident = ? AND addr = ? AND port = ?`
	putInfected  = `INSERT INTO infected (day, family, network, addr) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`
	dropInfected = `DELETE FROM infected WHERE day = ? AND family = ? AND network = ? AND addr = ?`
)

// Save implements Store.
func (d *DB) Save(ctx context.Context, list []*incident.Incident) error {
	if len(list) == 0 {
		return nil
	}
	return d.change(ctx, func(tx *sql.Tx) error {
		for _, in := range list {
			if err := put(ctx, tx, in); err != nil {
				return err
			}
		}
		// Who left one incident may be in another, or be back in the same: those
		// who left go first.
		if err := members(ctx, tx, list, true, dropMember, dropInfected); err != nil {
			return err
		}
		return members(ctx, tx, list, false, putMember, putInfected)
	})
}

// members runs one statement for each new member that is gone or not, and
// another for each day on which it was infected.
func members(ctx context.Context, tx *sql.Tx, list []*incident.Incident, gone bool, memberSQL, infectedSQL string) error {
	member, err := tx.PrepareContext(ctx, memberSQL)
	if err != nil {
		return err
	}
	defer member.Close()
	infected, err := tx.PrepareContext(ctx, infectedSQL)
	if err != nil {
		return err
	}
	defer infected.Close()
	for _, in := range list {
		for i := range in.NewMembers {
			m := &in.NewMembers[i]
			if m.Gone != gone {
				continue
			}
			key := []any{in.ID[:], m.Addr[:], m.Port}
			if !gone {
				key = append(key, m.Role, m.Network, int64(m.First), int64(m.Last), m.Ended)
			}
			if _, err := member.ExecContext(ctx, key...); err != nil {
				return err
			}
			if m.Role != "bot" {
				continue
			}
			// What was earlier than this was written when it was new.
			for day := max(dayOf(m.First), dayOf(m.Last)-maxDays); day <= dayOf(m.Last); day++ {
				if _, err := infected.ExecContext(ctx, day, in.Family, m.Network, m.Addr[:]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// maxDays is how many days back a member's infection is written when the member
// changes; one that goes on changes every few minutes. It keeps a fleet that
// lasts for months, or one wrong clock, from filling the table again and again.
const maxDays = 2

func put(ctx context.Context, tx *sql.Tx, in *incident.Incident) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, putIncident, in.ID[:], int64(in.Said), int64(in.Last), in.Kind, string(in.State), !in.Ended && in.Merged == nil, string(body))
	return err
}

func dayOf(t event.Time) int64 { return int64(t) / int64(24*time.Hour) }

// Incident implements Store.
func (d *DB) Incident(ctx context.Context, id finding.ID) (*incident.Incident, error) {
	return scan(d.db.QueryRowContext(ctx, "SELECT body FROM incidents WHERE id = ?", id[:]))
}

func scan(row interface{ Scan(...any) error }) (*incident.Incident, error) {
	var body string
	if err := row.Scan(&body); errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNone
	} else if err != nil {
		return nil, fmt.Errorf("state: %w", explain(err))
	}
	in := new(incident.Incident)
	if err := json.Unmarshal([]byte(body), in); err != nil {
		return nil, fmt.Errorf("state: an incident can't be read: %w", err)
	}
	return in, nil
}

// Incidents implements Store.
func (d *DB) Incidents(ctx context.Context, f Filter) (list []*incident.Incident, err error) {
	where, args := []string{"1"}, []any{}
	and := func(cond string, arg ...any) { where, args = append(where, cond), append(args, arg...) }
	if f.State != "" {
		and("state = ?", string(f.State))
	}
	if strings.HasSuffix(f.Kind, ".") {
		and("substr(kind, 1, ?) = ?", len(f.Kind), f.Kind)
	} else if f.Kind != "" {
		and("kind = ?", f.Kind)
	}
	if f.Active {
		and("active = 1")
	}
	if f.Since != 0 {
		and("last >= ?", int64(f.Since))
	}
	if f.Before != 0 {
		and("(said, id) < (?, ?)", int64(f.Before), f.BeforeID[:])
	}
	if f.Limit <= 0 {
		f.Limit = 1000
	}
	rows, err := d.db.QueryContext(ctx, "SELECT body FROM incidents WHERE "+strings.Join(where, " AND ")+" ORDER BY said DESC, id DESC LIMIT ?", append(args, f.Limit)...)
	if err != nil {
		return nil, fmt.Errorf("state: %w", explain(err))
	}
	defer rows.Close()
	for rows.Next() {
		in, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, in)
	}
	return list, rows.Err()
}

// Members implements Store.
func (d *DB) Members(ctx context.Context, id finding.ID, after incident.Member, limit int) (list []incident.Member, err error) {
	rows, err := d.db.QueryContext(ctx, `SELECT addr, port, role, network, first, last, ended FROM members
		WHERE incident = ? AND (addr, port) > (?, ?) ORDER BY addr, port LIMIT ?`, id[:], after.Addr[:], startPort(after), limit)
	if err != nil {
		return nil, fmt.Errorf("state: %w", explain(err))
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
	err = d.change(ctx, func(tx *sql.Tx) error {
		if in, refused = scan(tx.QueryRowContext(ctx, "SELECT body FROM incidents WHERE id = ?", id[:])); refused != nil {
			return nil
		}
		if refused = in.Move(from, s); refused != nil {
			return nil
		}
		return put(ctx, tx, in)
	})
	return in, errors.Join(err, refused)
}

// AddException implements Store.
func (d *DB) AddException(ctx context.Context, e incident.Exception) (id int64, err error) {
	if err := e.Check(); err != nil {
		return 0, err
	}
	err = d.change(ctx, func(tx *sql.Tx) error {
		subject := ""
		if e.Subject.IsValid() {
			subject = e.Subject.String()
		}
		res, err := tx.ExecContext(ctx, "INSERT INTO exceptions (rule, subject, key, owner, note, expires) VALUES (?, ?, ?, ?, ?, ?)",
			e.Rule, subject, e.Key, e.Owner, e.Note, int64(e.Expires))
		if err != nil {
			return err
		}
		id, err = res.LastInsertId()
		return err
	})
	return id, err
}

// RemoveException implements Store.
func (d *DB) RemoveException(ctx context.Context, id int64) error {
	var n int64
	err := d.change(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, "DELETE FROM exceptions WHERE id = ?", id)
		if err == nil {
			n, err = res.RowsAffected()
		}
		return err
	})
	if err == nil && n == 0 {
		return ErrNone
	}
	return err
}

// Exceptions implements Store.
func (d *DB) Exceptions(ctx context.Context) (list []incident.Exception, err error) {
	rows, err := d.db.QueryContext(ctx, "SELECT id, rule, subject, key, owner, note, expires FROM exceptions ORDER BY id")
	if err != nil {
		return nil, fmt.Errorf("state: %w", explain(err))
	}
	defer rows.Close()
	for rows.Next() {
		var e incident.Exception
		var subject string
		if err := rows.Scan(&e.ID, &e.Rule, &subject, &e.Key, &e.Owner, &e.Note, &e.Expires); err != nil {
			return nil, fmt.Errorf("state: %w", err)
		}
		if subject != "" {
			if e.Subject, err = netip.ParsePrefix(subject); err != nil {
				return nil, fmt.Errorf("state: exception %d: %w", e.ID, err)
			}
		}
		list = append(list, e)
	}
	return list, rows.Err()
}

// Observed implements Store.
func (d *DB) Observed(ctx context.Context, t event.Time) error {
	return d.change(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO observed (day) VALUES (?) ON CONFLICT DO NOTHING", dayOf(t))
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
	seen, err := d.db.QueryContext(ctx, "SELECT day FROM observed WHERE day BETWEEN ? AND ? UNION SELECT DISTINCT day FROM infected WHERE day BETWEEN ? AND ?",
		dayOf(from), dayOf(to), dayOf(from), dayOf(to))
	if err != nil {
		return nil, fmt.Errorf("state: %w", explain(err))
	}
	defer seen.Close()
	for seen.Next() {
		var day int64
		if err := seen.Scan(&day); err != nil {
			return nil, fmt.Errorf("state: %w", err)
		}
		days[day-dayOf(from)].Observed = true
	}
	rows, err := d.db.QueryContext(ctx, `SELECT day, family, network, count(*) FROM infected WHERE day BETWEEN ? AND ?
		GROUP BY day, family, network ORDER BY day, family, network`, dayOf(from), dayOf(to))
	if err != nil {
		return nil, fmt.Errorf("state: %w", explain(err))
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
