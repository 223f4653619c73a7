package statetest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

// Postgres is a server of PostgreSQL for tests: on a socket in a folder of its
// own, on no port. It ends with the process that started it, however that ends.
type Postgres struct {
	dir, bin string
	as       *syscall.SysProcAttr
	server   *exec.Cmd
	hold     io.Closer // the server runs until this is closed
	log      *os.File
	made     int
}

// ErrNoPostgres is the error of StartPostgres where PostgreSQL isn't installed.
var ErrNoPostgres = errors.New("SKIPPED: PostgreSQL isn't installed (apt-get install postgresql)")

// StartPostgres starts a server. The caller stops it.
func StartPostgres() (*Postgres, error) {
	bin, err := postgresPrograms()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "noroshi-pg")
	if err != nil {
		return nil, err
	}
	p := &Postgres{dir: dir, bin: bin}
	if err := p.begin(); err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return p, nil
}

func postgresPrograms() (string, error) {
	places, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // Debian's
	slices.SortFunc(places, func(a, b string) int { return strings.Compare(b, a) })
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			places = append([]string{filepath.Dir(path)}, places...)
		}
	}
	for _, dir := range places {
		if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil {
			return dir, nil
		}
	}
	return "", ErrNoPostgres
}

func (p *Postgres) begin() error {
	if os.Getuid() == 0 { // PostgreSQL refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			if u, err = user.Lookup("nobody"); err != nil {
				return err
			}
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		if err := os.Chown(p.dir, uid, gid); err != nil {
			return err
		}
		p.as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	init := exec.Command(filepath.Join(p.bin, "initdb"), "-D", filepath.Join(p.dir, "data"), "-U", "noroshi", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	init.SysProcAttr, init.Dir = p.as, p.dir
	if out, err := init.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	var err error
	if p.log, err = os.Create(p.dir + ".log"); err != nil {
		return err
	}
	return p.Start()
}

// Start starts a server that was stopped, and returns when it answers.
func (p *Postgres) Start() error {
	p.server = exec.Command("sh", "-c", `"$0" "$@" </dev/null & server=$!; read end; kill -INT $server 2>/dev/null; wait $server`,
		filepath.Join(p.bin, "postgres"), "-D", filepath.Join(p.dir, "data"), "-k", p.dir, "-c", "listen_addresses=")
	p.server.SysProcAttr, p.server.Dir, p.server.Stderr, p.server.Stdout = p.as, p.dir, p.log, p.log
	hold, err := p.server.StdinPipe()
	if err != nil {
		return err
	}
	if err := p.server.Start(); err != nil {
		return err
	}
	p.hold = hold
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if err = p.Exec("postgres", "SELECT 1"); err == nil {
			return nil
		}
		if time.Now().After(end) {
			said, _ := os.ReadFile(p.log.Name())
			p.Stop()
			return fmt.Errorf("PostgreSQL does not answer: %w\n%s", err, said)
		}
	}
}

// Halt stops the server: at once, as a crash would, or after ending its sessions.
func (p *Postgres) Halt(crash bool) {
	if text, err := os.ReadFile(filepath.Join(p.dir, "data", "postmaster.pid")); crash && err == nil {
		line, _, _ := strings.Cut(string(text), "\n")
		if pid, err := strconv.Atoi(line); err == nil {
			_ = syscall.Kill(pid, syscall.SIGQUIT)
		}
	}
	_ = p.hold.Close()
	_ = p.server.Wait()
}

// Stop stops the server and removes its files.
func (p *Postgres) Stop() {
	p.Halt(false)
	_ = p.log.Close()
	_ = os.Remove(p.log.Name())
	_ = os.RemoveAll(p.dir)
}

// URL returns the URL of a database.
func (p *Postgres) URL(database string) string {
	return "postgres://noroshi@/" + database + "?host=" + url.QueryEscape(p.dir)
}

// Socket returns the name of the socket.
func (p *Postgres) Socket() string { return filepath.Join(p.dir, ".s.PGSQL.5432") }

// Make makes an empty database and returns its URL.
func (p *Postgres) Make() (string, error) {
	p.made++
	name := fmt.Sprint("state", p.made)
	return p.URL(name), p.Exec("postgres", "CREATE DATABASE "+name)
}

// Exec runs a statement, as somebody would who changes the database behind
// noroshi.
func (p *Postgres) Exec(database, text string) error {
	db, err := sql.Open("pgx", p.URL(database))
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err = db.ExecContext(ctx, text)
	return err
}
