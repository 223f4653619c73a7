package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"noroshi/console/api"
	"noroshi/console/desk"
	"noroshi/event"
	"noroshi/internal/config"
	"noroshi/pipeline"
	"noroshi/source"
	"noroshi/source/packet"
	"noroshi/source/udp"
	"noroshi/store/history"
	"noroshi/store/memory"
	"noroshi/store/state"
)

var serveCommand = command{
	name: "serve", synopsis: "[flags]",
	short: "Receive telemetry, keep incidents, serve them",
	long: `Without a configuration it listens on loopback for NetFlow (2055), IPFIX (4739)
and sFlow (6343), keeps incidents in noroshi.db and the history of events in
noroshi.history/ in the working directory, and
serves the API, the stream of incidents and metrics on http://127.0.0.1:8479.
Ctrl-C or SIGTERM ends it after what had arrived was examined and stored; a
second one ends it at once.

  noroshi serve --config noroshi.yaml
  curl -s http://127.0.0.1:8479/api/incidents | jq '.incidents[].title.en'
  curl -N http://127.0.0.1:8479/api/incidents/stream
`,
	run: serve,
}

func serve(ctx context.Context, c *call) int {
	var path string
	rest, code, ok := c.parse(func(fs *flag.FlagSet) {
		fs.StringVar(&path, "config", "", "configuration `file` (default: noroshi's own values)")
	})
	switch {
	case !ok:
		return code
	case len(rest) > 0:
		return c.wrong("unexpected argument %q; use --config FILE", rest[0])
	}
	file, code := c.configuration(path)
	if file == nil {
		return code
	}
	slog.SetDefault(slog.New(slog.NewTextHandler(c.stderr, nil)))
	s, err := openStation(file)
	if err != nil {
		return c.failed(err)
	}
	if err := s.run(ctx); err != nil {
		return c.failed(err)
	}
	return exitOK
}

// station is what serve runs: everything opened, nothing started.
type station struct {
	listener *udp.Listener
	sources  []api.Source
	store    *state.DB
	keep     time.Duration // of what closed incidents hold; 0 = for ever
	desk     *desk.Desk
	memory   *memory.Memory // nil without history
	pipeline *pipeline.Pipeline
	api      *api.API
	http     net.Listener
	open     []io.Closer // in the order they were opened
}

// openStation opens the sockets, the interfaces and the store. It reports all
// that can't be opened at once, and then leaves nothing open.
func openStation(f *config.File) (*station, error) {
	s := &station{pipeline: newPipeline(f)}
	errs := []error{s.pipeline.Check(), s.openHTTP(f.HTTP), s.openListener(f)}
	for _, c := range f.Capture {
		errs = append(errs, s.openCapture(c))
	}
	errs = append(errs, s.openStore(f), s.openMemory(f))
	if err := errors.Join(errs...); err != nil {
		s.close()
		return nil, err
	}
	s.pipeline.Live, s.pipeline.Seed, s.pipeline.Learned = true, rand.Uint64(), f.Learned
	s.pipeline.Report, s.pipeline.Clock = s.desk.Add, s.desk.Advance
	cfg := api.Config{Desk: s.desk, Pipeline: s.pipeline, Sources: s.sources, Version: version}
	if s.memory != nil {
		s.pipeline.Keep, cfg.History = s.memory.Keep, s.memory.Stats
	}
	s.api = api.New(cfg)
	return s, nil
}

func (s *station) openHTTP(at netip.AddrPort) error {
	l, err := net.Listen("tcp", at.String())
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("http %v: another program has this TCP port (ss -tlpn shows which); stop it or set http: to another port", at)
	case err != nil:
		return fmt.Errorf("http %v: %w", at, err)
	}
	s.http = l
	s.open = append(s.open, l)
	return nil
}

func (s *station) openListener(f *config.File) error {
	cfg := udp.Config{Sockets: f.Listen.Sockets, Buffer: f.Listen.Buffer, Allow: f.Listen.Allow, Export: exportConfig(f), Templates: f.Templates}
	six := hasIPv6()
	for _, a := range f.Listen.Addresses {
		if !f.OwnListen && a.Addr().Is6() && !six {
			continue // a default that this machine doesn't have
		}
		if !a.Addr().IsLoopback() && len(f.Listen.Allow) == 0 {
			slog.Warn("any host that reaches this address may send flows; name the routers in listen.allow", "listen", a.String())
		}
		cfg.Addresses = append(cfg.Addresses, a.String())
	}
	l, err := udp.Listen(cfg)
	if err != nil {
		return err
	}
	s.listener = l
	s.open = append(s.open, l)
	s.sources = append(s.sources, api.Source{Name: "udp", Source: l})
	return nil
}

func hasIPv6() bool {
	c, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

func (s *station) openCapture(c packet.LiveConfig) error {
	l, err := packet.OpenLive(c)
	if err != nil {
		return err
	}
	s.open = append(s.open, l)
	s.sources = append(s.sources, api.Source{Name: "capture " + c.Interface, Packets: true, Source: l})
	return nil
}

func (s *station) openStore(f *config.File) (err error) {
	if s.store, err = state.Open(f.State); err != nil {
		return err
	}
	s.open, s.keep = append(s.open, s.store), f.KeepClosed
	s.desk = desk.New(s.store, f.Incident)
	if err := s.desk.Load(context.Background()); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	return nil
}

// forget prunes the store, now and each day, until ctx ends.
func (s *station) forget(ctx context.Context) {
	for day := time.NewTicker(24 * time.Hour); s.keep > 0; {
		switch n, err := s.store.Prune(ctx, event.TimeOf(time.Now().Add(-s.keep))); {
		case err != nil && ctx.Err() == nil:
			slog.Error("what is too old could not be forgotten; it is tried again tomorrow", "error", err)
		case n > 0:
			slog.Info("members and evidence of old incidents were forgotten", "incidents", n, "older_than", s.keep.String())
		}
		select {
		case <-ctx.Done():
			return
		case <-day.C:
		}
	}
}

// openMemory opens the history. Without the embedded engine's library there is
// none, and all else works.
func (s *station) openMemory(f *config.File) error {
	if f.History.URL == history.Off {
		return nil
	}
	m, err := memory.Open(memory.Config{History: f.History, Engine: f.Engine}, []history.Kind{history.Flows})
	switch {
	case memory.Missing(err):
		slog.Warn("no history is kept", "why", err)
		return nil
	case err != nil:
		return err
	}
	s.memory = m
	s.open = append(s.open, m)
	return nil
}

func (s *station) close() {
	for i := len(s.open) - 1; i >= 0; i-- {
		_ = s.open[i].Close()
	}
}

// run receives until ctx ends or something fails, then finishes what has
// arrived: flows are examined, incidents stored, followers told.
func (s *station) run(ctx context.Context) error {
	defer s.close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	atDesk, leaveDesk := context.WithCancel(context.WithoutCancel(ctx))
	defer leaveDesk()
	deskEnded := make(chan error, 1)
	go func() { deskEnded <- s.desk.Run(atDesk) }()

	var forgetting sync.WaitGroup
	defer forgetting.Wait() // before the store is closed
	forgetting.Go(func() { s.forget(atDesk) })

	remembering, forget := context.WithCancel(context.WithoutCancel(ctx))
	defer forget()
	remembered := make(chan error, 1)
	if s.memory != nil {
		go func() { remembered <- s.memory.Run(remembering) }()
	} else {
		remembered <- nil
	}

	server := s.api.Server()
	go func() {
		if err := server.Serve(s.http); !errors.Is(err, http.ErrServerClosed) {
			cancel(fmt.Errorf("http: %w", err))
		}
	}()

	var sources []source.Source
	for _, src := range s.sources {
		sources = append(sources, &vital{src, cancel})
	}
	for _, a := range s.listener.Addrs() {
		slog.Info("listening", "address", a.String())
	}
	slog.Info("serving", "url", "http://"+s.http.Addr().String(), "version", version, "open_incidents", s.desk.Stats().Open)
	s.api.SetReady(true)
	err := s.pipeline.Run(ctx, sources...)
	s.api.SetReady(false)
	slog.Info("ending; what has arrived was examined", "flows", s.pipeline.Stats().Flows)

	forget()
	leaveDesk()
	if merr := <-remembered; merr != nil { // they wait for the next start
		slog.Warn("part of the history is not stored yet", "why", merr)
	}
	if derr := <-deskEnded; derr != nil {
		err = errors.Join(err, fmt.Errorf("%s could not be stored: %w", plural(s.desk.Stats().Store.Waiting, "incident", "incidents"), derr))
	}
	within, done := context.WithTimeout(context.Background(), 5*time.Second)
	defer done()
	if server.Shutdown(within) != nil {
		_ = server.Close() // somebody holds a request open
	}
	if cause := context.Cause(ctx); err == nil && ctx.Err() != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// vital is a source without which the program had better end: one that is deaf
// beside others that hear would go unnoticed.
type vital struct {
	api.Source
	end context.CancelCauseFunc
}

// Run implements source.Source.
func (v *vital) Run(ctx context.Context, emit func(*event.Batch)) error {
	err := v.Source.Run(ctx, emit)
	if err != nil {
		slog.Error("a source failed", "source", v.Name, "error", err)
		v.end(err)
	}
	return err
}
