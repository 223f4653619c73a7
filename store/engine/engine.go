package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Times of the supervision.
const (
	shortest  = 100 * time.Millisecond // before the first new start
	longest   = 5 * time.Second        // before any later one
	settled   = time.Minute            // a child that lived so long begins anew at shortest
	ending    = 10 * time.Second       // for an orderly end
	logBurst  = 20                     // lines of the child's log in one logWindow
	logWindow = 10 * time.Second
)

// Engine keeps a child running. Make one with [New].
type Engine struct {
	child   Child
	command []string
	env     []string
	log     *slog.Logger
	client  *http.Client
	asked   time.Duration // between two questions whether the child lives, and for the answer
	silent  time.Duration // without an answer, the child is killed

	mu      sync.Mutex
	state   State
	since   time.Time
	reason  error
	starts  uint64
	pid     int
	changed chan struct{} // closed at each change
}

// State is how the child does.
type State string

// The states.
const (
	Starting State = "starting" // begun, and does not answer yet
	Up       State = "up"
	Down     State = "down" // ended; it is started again by itself
	Stopped  State = "stopped"
)

// Stats describe an engine at a moment.
type Stats struct {
	State    State
	Since    time.Time // when that state began
	Reason   error     // why it is down, or was the last time; nil if it never was
	Restarts uint64
	PID      int // 0 if there is no child
	Usage        // of the child
}

// Options are for tests and for programs other than noroshi; the zero value is
// what noroshi uses.
type Options struct {
	Command []string // program and first arguments; this program's "engine" if empty
	Env     []string // added to the child's environment, which is nearly empty
}

// New returns an engine that does nothing until [Engine.Run]. It fails with
// [ErrNoLibrary] if there is no library, and if c is wrong.
func New(c Config, log *slog.Logger, o Options) (*Engine, error) {
	err := c.mistakes()
	if err != nil {
		return nil, err
	}
	if c.Data == "" {
		return nil, errors.New("engine: no folder is named for its data")
	}
	if c.Library, err = Find(c.Library); err != nil {
		return nil, err
	}
	if c.Data, err = filepath.Abs(c.Data); err != nil {
		return nil, fmt.Errorf("engine: data: %w", err)
	}
	socket := filepath.Join(c.Data, "run", "engine.sock")
	if len(socket) > 107 { // unix(7): 108 with the end mark
		return nil, fmt.Errorf("engine: data %s: the path is too long for a unix socket in it; choose one of at most 91 octets", c.Data)
	}
	if len(o.Command) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("engine: this program: %w", err)
		}
		o.Command = []string{self, "engine"}
	}
	e := &Engine{child: Child{Config: c, Socket: socket}, env: o.Env, log: log, client: Client(socket), asked: 5 * time.Second, silent: 30 * time.Second, state: Stopped, since: time.Now(), changed: make(chan struct{})}
	e.command = append(append(e.command, o.Command...), e.child.args()...)
	return e, nil
}

// Socket returns the path of the socket, for [Client].
func (e *Engine) Socket() string { return e.child.Socket }

// Client returns a client whose every connection goes to the engine's socket,
// whatever the address: "http://engine/" is the one to use.
func Client(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		DisableCompression:  true,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     time.Minute,
	}}
}

// Stats returns how the child does.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	s := Stats{State: e.state, Since: e.since, Reason: e.reason, PID: e.pid}
	if e.starts > 0 {
		s.Restarts = e.starts - 1
	}
	e.mu.Unlock()
	if s.PID != 0 {
		s.Usage = usageOf(s.PID)
	}
	return s
}

// Status asks the child for its own numbers.
func (e *Engine) Status(ctx context.Context) (s Status, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/status", nil)
	if err != nil {
		return s, fmt.Errorf("engine: status: %w", err)
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return s, fmt.Errorf("engine: status: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&s); err != nil {
		return s, fmt.Errorf("engine: status: %w", err)
	}
	return s, nil
}

// Wait returns when the child is up, or with the error of ctx and the reason why
// it isn't.
func (e *Engine) Wait(ctx context.Context) error {
	for {
		e.mu.Lock()
		state, reason, changed := e.state, e.reason, e.changed
		e.mu.Unlock()
		if state == Up {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), reason)
		}
	}
}

func (e *Engine) set(state State, reason error, pid int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.state != state {
		e.since = time.Now()
	}
	e.state, e.pid = state, pid
	if reason != nil {
		e.reason = reason
	}
	close(e.changed)
	e.changed = make(chan struct{})
}

// Run starts the child, and again whenever it ends, until ctx does: 100 ms after
// the first end and twice as long after each further one, up to 5 s. A child that
// does not answer for 30 s is killed. At the end it gets 10 s for an orderly one.
// Run returns nil; what is wrong with the child stands in [Engine.Stats]. It is
// called once.
func (e *Engine) Run(ctx context.Context) error {
	// The kernel kills the child when the thread that started it ends, so that
	// thread lives as long as Run.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer e.client.CloseIdleConnections()
	var said string // the reason last logged, and when
	var at time.Time
	for wait := shortest; ; wait = min(2*wait, longest) {
		began := time.Now()
		err := e.once(ctx)
		if ctx.Err() != nil {
			e.set(Stopped, nil, 0)
			return nil
		}
		e.set(Down, err, 0)
		if time.Since(began) > settled {
			wait = shortest
		}
		// One reason is logged once a minute, for it may last all night.
		if text := fmt.Sprint(err); text != said || time.Since(at) >= time.Minute {
			said, at = text, time.Now()
			e.log.Error("engine down", "error", err, "again_in", wait)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			e.set(Stopped, nil, 0)
			return nil
		}
	}
}

// once runs one child and says why it ended.
func (e *Engine) once(ctx context.Context) error {
	cmd := exec.Command(e.command[0], e.command[1:]...)
	cmd.Env = append([]string{"HOME=" + e.child.Data, "TMPDIR=" + e.child.Data, "TZ=UTC", "LANG=C.UTF-8"}, e.env...)
	// A group of its own: Ctrl-C is for the parent, which ends the child when its
	// own work is written.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	e.mu.Lock()
	e.starts++
	e.mu.Unlock()
	e.set(Starting, nil, cmd.Process.Pid)

	ended := make(chan error, 1)
	go func() {
		last := e.relay(stderr)
		err := cmd.Wait()
		if err == nil {
			err = errors.New("it ended by itself")
		}
		if last != "" {
			err = fmt.Errorf("%w: %s", err, last)
		}
		ended <- fmt.Errorf("engine: child: %w", err)
	}()
	live, stop := context.WithCancel(ctx)
	defer stop()
	mute := make(chan struct{})
	go e.watch(live, cmd.Process.Pid, mute)
	select {
	case err := <-ended:
		return err
	case <-mute:
		_ = cmd.Process.Kill()
		<-ended
		return fmt.Errorf("engine: child: it gave no answer for %v and was killed", e.silent)
	case <-ctx.Done():
	}
	_ = stdin.Close()
	select {
	case err := <-ended:
		return err
	case <-time.After(ending):
		_ = cmd.Process.Kill()
		e.log.Error("engine killed", "reason", "no orderly end", "after", ending)
		return <-ended
	}
}

// watch asks the child whether it lives. It closes mute when the child gave no
// answer for too long.
func (e *Engine) watch(ctx context.Context, pid int, mute chan<- struct{}) {
	up := false
	for answered := time.Now(); ; {
		pause := 20 * time.Millisecond
		if up {
			pause = e.asked
		}
		if e.ping(ctx) {
			answered = time.Now()
			if !up {
				up = true
				e.set(Up, nil, pid)
			}
		} else if ctx.Err() != nil {
			return
		} else if time.Since(answered) > e.silent {
			close(mute)
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

func (e *Engine) ping(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, e.asked)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/ping", nil)
	if err != nil {
		return false
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// relay passes the child's lines to the log, a bounded number in a time, and
// returns the last.
func (e *Engine) relay(stderr io.Reader) (last string) {
	var window time.Time
	said, withheld := 0, 0
	r := bufio.NewReaderSize(stderr, 8<<10)
	for {
		line, long, err := r.ReadLine()
		for long && err == nil {
			_, long, err = r.ReadLine()
		}
		if len(line) > 0 {
			last = string(line[:min(len(line), 1000)])
			if now := time.Now(); now.Sub(window) > logWindow {
				if withheld > 0 {
					e.log.Warn("engine lines withheld", "lines", withheld)
				}
				window, said, withheld = now, 0, 0
			}
			if said++; said <= logBurst {
				e.log.Info("engine", "line", last)
			} else {
				withheld++
			}
		}
		if err != nil {
			if withheld > 0 {
				e.log.Warn("engine lines withheld", "lines", withheld)
			}
			return last
		}
	}
}
