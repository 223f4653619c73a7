package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// sqliteBackend is one file, beside it SQLite's write-ahead log and a lock that
// keeps a second noroshi out.
type sqliteBackend struct {
	db   *sql.DB
	lock *os.File // nil beside another noroshi
}

func openSQLite(path string, beside bool) (*DB, error) {
	b := &sqliteBackend{}
	if err := b.open(path, beside); err != nil {
		_ = b.close()
		return nil, b.explain(err)
	}
	return &DB{backend: b, db: b.db}, nil
}

func (b *sqliteBackend) open(path string, beside bool) error {
	create := os.O_CREATE
	if beside {
		create = 0
	}
	f, err := os.OpenFile(path, create|os.O_RDWR, 0o600)
	if beside && errors.Is(err, fs.ErrNotExist) {
		return errors.New("there is no such file; noroshi serve makes it, or the configuration names another")
	} else if err != nil {
		return err
	}
	_ = f.Close()
	if !beside {
		if b.lock, err = os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600); err != nil {
			return err
		}
		if err := unix.Flock(int(b.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
			return errors.New("another noroshi has it open; end that one or use another file")
		} else if err != nil {
			return err
		}
	}
	options := url.Values{
		"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"},
		"_txlock": {"immediate"},
	}.Encode()
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: options}
	name := dsn.String()
	if !strings.HasPrefix(path, "/") { // a URL's path begins with a slash; a relative file name must not
		name = "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + options
	}
	b.db, err = sql.Open("sqlite", name)
	return err
}

func (b *sqliteBackend) close() error {
	if b.lock == nil {
		return nil
	}
	return b.lock.Close()
}

// atOnce is small, for the driver looks for each parameter among all.
func (b *sqliteBackend) atOnce() int                              { return 8 }
func (b *sqliteBackend) ddl(text string) string                   { return text }
func (b *sqliteBackend) writer(context.Context) (beginner, error) { return b.db, nil }
func (b *sqliteBackend) renew()                                   {}
func (b *sqliteBackend) lost(error) bool                          { return false }
func (b *sqliteBackend) snapshot() *sql.TxOptions                 { return &sql.TxOptions{ReadOnly: true} }

func (b *sqliteBackend) form(ctx context.Context, tx *sql.Tx) (n int, err error) {
	err = tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&n)
	return n, err
}

func (b *sqliteBackend) setForm(ctx context.Context, tx *sql.Tx, n int) error {
	_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", n))
	return err
}

func (b *sqliteBackend) explain(err error) error {
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
