package state

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// IsPostgres reports whether name is a URL of PostgreSQL and not a file.
func IsPostgres(name string) bool {
	return strings.HasPrefix(name, "postgres://") || strings.HasPrefix(name, "postgresql://")
}

// redacted is a URL as it may be shown.
func redacted(name string) string {
	u, err := url.Parse(name)
	if err != nil {
		return "postgres://..." // it may hold a password
	}
	q := u.Query()
	if q.Has("password") {
		q.Set("password", "xxxxx")
		u.RawQuery = q.Encode()
	}
	return u.Redacted()
}

// lockKey is the advisory lock that one noroshi holds on its database.
const lockKey = 0x6e6f726f736869 // "noroshi"

// Time-outs of PostgreSQL.
const (
	connectWithin = 10 * time.Second
	lockWithin    = 3 * time.Second // an ended session's lock may outlive it for a moment
	answerWithin  = time.Minute     // one statement
)

// postgresBackend is a database on a server. All writing goes by one connection,
// which holds an advisory lock: whoever has lost the lock has lost the
// connection, and can't write.
type postgresBackend struct {
	db   *sql.DB
	conn *sql.Conn // the writer; nil until it is needed
	// beside another noroshi there is no lock, only what the database itself keeps
	// in order.
	beside bool
}

func openPostgres(ctx context.Context, name string, beside bool) (*DB, error) {
	b := &postgresBackend{beside: beside}
	cfg, err := pgx.ParseConfig(name)
	if err != nil {
		return nil, errors.New("the URL can't be read; write postgres://user@host:port/database, or postgres:///database?host=/run/postgresql")
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectWithin
	}
	set := func(name, value string) {
		if cfg.RuntimeParams[name] == "" {
			cfg.RuntimeParams[name] = value
		}
	}
	set("application_name", "noroshi")
	if !beside { // a backup may take long
		set("statement_timeout", fmt.Sprint(answerWithin.Milliseconds()))
		set("idle_in_transaction_session_timeout", fmt.Sprint(answerWithin.Milliseconds()))
	}
	b.db = stdlib.OpenDB(*cfg)
	b.db.SetMaxOpenConns(8)
	if err := b.check(ctx); err != nil {
		_ = b.db.Close()
		return nil, b.explain(err)
	}
	return &DB{backend: b, db: b.db}, nil
}

// check refuses a database that can't hold every text.
func (b *postgresBackend) check(ctx context.Context) error {
	var encoding string
	if err := b.db.QueryRowContext(ctx, "SHOW server_encoding").Scan(&encoding); err != nil {
		return err
	}
	if encoding != "UTF8" {
		return fmt.Errorf("the database's encoding is %s; create it with createdb -E UTF8 -T template0", encoding)
	}
	return nil
}

// errTaken is the error for a database another noroshi has the lock of.
var errTaken = errors.New("another noroshi has it open; end that one or use another database")

func (b *postgresBackend) writer(ctx context.Context) (beginner, error) {
	if b.beside {
		return b.db, nil
	}
	if b.conn != nil && b.conn.Raw(closed) == nil {
		return b.conn, nil
	}
	b.renew() // a caller that gave up has closed it
	conn, err := b.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	if err := lock(ctx, conn); err != nil {
		discard(conn)
		return nil, err
	}
	b.conn = conn
	return conn, nil
}

func lock(ctx context.Context, conn *sql.Conn) error {
	for end := time.Now().Add(lockWithin); ; {
		var got bool
		if err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", int64(lockKey)).Scan(&got); err != nil {
			return err
		}
		if got {
			break
		}
		if time.Now().After(end) {
			return errTaken
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	// What is acknowledged must be on the disk, whatever the server's default is.
	_, err := conn.ExecContext(ctx, "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'")
	return err
}

// discard ends a connection for good, so that no one else gets it with the lock.
func discard(conn *sql.Conn) {
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = conn.Close()
}

func (b *postgresBackend) renew() {
	if b.conn != nil {
		discard(b.conn)
		b.conn = nil
	}
}

func (b *postgresBackend) close() error {
	b.renew()
	return nil
}

func (b *postgresBackend) lost(err error) bool {
	var said *pgconn.PgError
	if errors.As(err, &said) {
		return strings.HasPrefix(said.Code, "08") || strings.HasPrefix(said.Code, "57P") || said.Code == "25P03" // connection, shutdown, idle in a transaction
	}
	var refused *pgconn.ConnectError
	var broken *net.OpError // not net.Error: a context's end is one
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.As(err, &refused) || errors.As(err, &broken) || err != nil && pgconn.SafeToRetry(err)
}

// closed returns an error if c, a connection, is closed.
func closed(c any) error {
	if p, ok := c.(*stdlib.Conn); !ok || p.Conn().IsClosed() {
		return driver.ErrBadConn
	}
	return nil
}

// atOnce is large, for each statement is a question and an answer on the network.
func (b *postgresBackend) atOnce() int { return 250 }

func (b *postgresBackend) snapshot() *sql.TxOptions {
	return &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead}
}

// postgresWords are PostgreSQL's for SQLite's. Texts are ordered by their bytes,
// as SQLite's are.
var postgresWords = strings.NewReplacer(
	" STRICT, WITHOUT ROWID;", ";", " STRICT;", ";", " AUTOINCREMENT", "",
	"INTEGER", "BIGINT", "BLOB", "BYTEA", "TEXT", `TEXT COLLATE "C"`)

func (b *postgresBackend) ddl(text string) string { return postgresWords.Replace(text) }

func (b *postgresBackend) form(ctx context.Context, tx *sql.Tx) (n int, err error) {
	var there bool
	if err := tx.QueryRowContext(ctx, "SELECT to_regclass('form') IS NOT NULL").Scan(&there); err != nil || !there {
		return 0, err
	}
	err = tx.QueryRowContext(ctx, "SELECT n FROM form").Scan(&n)
	return n, err
}

func (b *postgresBackend) setForm(ctx context.Context, tx *sql.Tx, n int) error {
	for _, text := range []string{"CREATE TABLE IF NOT EXISTS form (n BIGINT NOT NULL)", "DELETE FROM form", fmt.Sprintf("INSERT INTO form (n) VALUES (%d)", n)} {
		if _, err := tx.ExecContext(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

func (b *postgresBackend) explain(err error) error {
	var said *pgconn.PgError
	var refused *pgconn.ConnectError
	hint := ""
	switch {
	case errors.As(err, &said):
		switch said.Code {
		case "28P01", "28000":
			hint = "write the password into a file that passfile= in the URL, or PGPASSFILE, names"
		case "3D000":
			hint = "create it: createdb -E UTF8 -T template0 NAME"
		case "42501":
			hint = "make noroshi's user the owner of the database"
		case "53100":
			hint = "make room on the server's disk; nothing that was acknowledged is lost"
		case "53300":
			hint = "raise max_connections; noroshi uses 8"
		case "25006":
			hint = "the server is a standby; name the primary"
		case "57014":
			hint = "the server took longer than a minute"
		}
	case errors.As(err, &refused):
		hint = "is the server running, and does the URL name it?"
	}
	if hint == "" {
		return err
	}
	return fmt.Errorf("%w (%s)", err, hint)
}
