package engine

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"noroshi/store/engine/chdb"
	"noroshi/store/engine/confine"
	"noroshi/store/engine/gate"
)

// Child is the process that holds the library: `noroshi engine`.
type Child struct {
	Config        // Library is the file itself
	Socket string // absolute path; its folder is this user's alone
}

// Flags declares the child's flags; [Child.args] sets them.
func (c *Child) Flags(fs *flag.FlagSet) {
	c.Config = Default()
	fs.StringVar(&c.Library, "library", "", "libchdb.so, as an absolute `file`")
	fs.StringVar(&c.Data, "data", "", "`folder` of the data, as an absolute path")
	fs.StringVar(&c.Socket, "socket", "", "unix socket to answer on, as an absolute `path`")
	fs.Int64Var(&c.Memory, "memory", c.Memory, "`octets` that the engine may use")
	fs.IntVar(&c.Threads, "threads", 0, "`cores` for one statement; 0 is all")
	fs.IntVar(&c.Writers, "writers", c.Writers, "how `many` statements write at a time")
	fs.IntVar(&c.Readers, "readers", c.Readers, "how `many` statements read at a time")
}

func (c *Child) args() []string {
	return []string{"--library", c.Library, "--data", c.Data, "--socket", c.Socket, "--memory", strconv.FormatInt(c.Memory, 10),
		"--threads", strconv.Itoa(c.Threads), "--writers", strconv.Itoa(c.Writers), "--readers", strconv.Itoa(c.Readers)}
}

// ErrInUse says that another process has the data folder open.
var ErrInUse = errors.New("another noroshi has it open; end that one, or give this one another folder")

// confined is set in the child's environment once it confined itself, and says how.
const confined = "NOROSHI_ENGINE_CONFINED"

// drain is how long statements may go on when the child ends.
const drain = 7 * time.Second

// Run confines this process (which for that begins anew, with the same
// arguments), loads the library and serves the socket until ctx or stdin ends:
// the parent holds stdin open, so its end means that the parent is gone. Then
// statements may go on for some seconds, and Run returns nil.
//
// It changes the whole process and can't be undone: it belongs in a process of
// its own.
func (c *Child) Run(ctx context.Context, stdin io.Reader, log *slog.Logger) error {
	if err := c.mistakes(); err != nil {
		return err
	}
	for _, p := range []string{c.Library, c.Data, c.Socket} {
		if !filepath.IsAbs(p) {
			return fmt.Errorf("engine: %q is not an absolute path", p)
		}
	}
	if err := c.folders(); err != nil {
		return err
	}
	how := os.Getenv(confined)
	if how == "" {
		return c.confine(log)
	}
	lock, err := c.lock()
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()

	version, err := chdb.Load(c.Library)
	if err != nil {
		return fmt.Errorf("engine: %s is not the library: %w", c.Library, err)
	}
	if err := confine.Calls(); err != nil {
		log.Warn("engine not confined", "error", err)
	} else {
		how += ", seccomp"
	}
	h, err := c.open()
	if err != nil {
		return err
	}
	h.version, h.confined = version, how
	l, err := listen(c.Socket)
	if err != nil {
		h.close()
		return err
	}
	log.Info("engine ready", "version", version, "confined", how)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		cancel()
	}()
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 2 << 20, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("engine: %w", err)
	case <-ctx.Done():
	}
	end, stop := context.WithTimeout(context.Background(), drain)
	defer stop()
	if err := server.Shutdown(end); err != nil {
		// Statements run, and a connection in use can't be closed. What they wrote
		// is either stored whole or not at all, as after a crash.
		return fmt.Errorf("engine: statements still ran after %v: %w", drain, err)
	}
	h.close()
	return nil
}

// folders makes the folders of data and socket, this user's alone.
func (c *Child) folders() error {
	for _, dir := range []string{c.Data, filepath.Dir(c.Socket)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("engine: %w", err)
		}
		info, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("engine: %w", err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			return fmt.Errorf("engine: others may enter %s (mode %o); chmod 700 it, or name a folder for the engine alone", dir, info.Mode().Perm())
		}
	}
	return nil
}

// confine limits this process and begins it anew, so that Landlock holds for
// every thread. A kernel without Landlock is no reason not to run: it is logged,
// and stands in the status.
func (c *Child) confine(log *slog.Logger) error {
	if err := confine.Limits(); err != nil {
		log.Warn("engine not limited", "error", err)
	}
	paths, err := c.paths()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	abi, err := confine.Files(paths)
	how := fmt.Sprintf("landlock %d", abi)
	if err != nil {
		log.Warn("engine not confined", "error", err)
		how = "no landlock"
	}
	return confine.Exec(append(os.Environ(), confined+"="+how))
}

// paths is all the child sees of the file system: its data and socket, this
// program, the library, and what the C library and the engine look up.
func (c *Child) paths() ([]confine.Path, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	library, err := filepath.EvalSymlinks(c.Library)
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	paths := []confine.Path{{Path: c.Data, Access: confine.Write}, {Path: filepath.Dir(c.Socket), Access: confine.Write}, {Path: self, Access: confine.Execute},
		{Path: library}, {Path: "/dev/null", Access: confine.Write}}
	for _, p := range strings.Fields("/lib /lib64 /usr/lib /usr/lib64") {
		paths = append(paths, confine.Path{Path: p, Access: confine.Execute})
	}
	// A dictionary over a table looks up "localhost", from /etc/hosts alone.
	for _, p := range strings.Fields(`/etc/ld.so.cache /etc/hosts /etc/nsswitch.conf /etc/host.conf /etc/localtime /usr/share/zoneinfo /proc/self /proc/meminfo /proc/cpuinfo /proc/stat
		/proc/loadavg /proc/sys/vm /proc/sys/kernel /sys/fs/cgroup /sys/devices/system /sys/kernel/mm/transparent_hugepage /dev/urandom /dev/zero`) {
		paths = append(paths, confine.Path{Path: p})
	}
	return paths, nil
}

// lock takes the data folder for this process.
func (c *Child) lock() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(c.Data, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("engine: data %s: %w", c.Data, ErrInUse)
		}
		return nil, fmt.Errorf("engine: %s: %w", f.Name(), err)
	}
	return f, nil
}

// open starts the engine and its connections.
func (c *Child) open() (h *handler, err error) {
	files := map[string]string{"users.xml": users(c.Config), "config.xml": server(c.Config, escapeXML(filepath.Join(c.Data, "users.xml")))}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(c.Data, name), []byte(content), 0o600); err != nil {
			return nil, fmt.Errorf("engine: %w", err)
		}
	}
	db := filepath.Join(c.Data, "db")
	if err := os.MkdirAll(db, 0o700); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	connect := func() (*chdb.Conn, error) {
		conn, err := chdb.Open(db, "--config-file="+filepath.Join(c.Data, "config.xml"))
		if err != nil {
			return nil, fmt.Errorf("engine: %w", err)
		}
		return conn, nil
	}
	h = newHandler(c.Config, connect)
	// This connection keeps the engine open, and serves for nothing but to end
	// statements.
	if h.keep, err = connect(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	names, _, err := h.keep.Query("SELECT name FROM system.table_functions", "TabSeparated")
	if err != nil {
		return nil, fmt.Errorf("engine: table functions: %w", err)
	}
	h.gate = gate.New(strings.Fields(string(names)))
	if err = c.verify(h.keep); err != nil {
		return nil, err
	}
	return h, nil
}

// verify makes sure that the two files were read: the engine passes over what it
// does not know without a word.
func (c *Child) verify(conn *chdb.Conn) error {
	grants, _, err := conn.Query("SHOW GRANTS", "TabSeparated")
	if err != nil {
		return fmt.Errorf("engine: its rights: %w", err)
	}
	answer, _, err := conn.Query(`SELECT (SELECT value FROM system.server_settings WHERE name = 'max_server_memory_usage'), getSetting('max_execution_time')`, "TabSeparated")
	if err != nil {
		return fmt.Errorf("engine: its settings: %w", err)
	}
	want := fmt.Sprintf("%d\t%d\n", c.Memory, maxExecutionTime)
	if string(answer) != want || strings.Contains(string(grants), "SOURCES") || strings.Contains(string(grants), "FILE") {
		return fmt.Errorf("engine: %s does not keep to its settings (%q, want %q); take the version that docs/engine.md names", c.Library, answer, want)
	}
	return nil
}

// listen makes the socket, for this user alone, in place of one left behind: the
// lock says that nobody serves it.
func listen(socket string) (net.Listener, error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("engine: %w", err)
	}
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	return l, nil
}
