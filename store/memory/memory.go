// Package memory is what the program remembers of events, as one thing: the
// embedded engine's child or a ClickHouse elsewhere, the writer before it, and
// the job that masks. It joins packages engine and history, which don't know one
// another.
package memory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"noroshi/event"
	"noroshi/store/engine"
	"noroshi/store/history"
	"noroshi/store/history/spool"
)

// Config is both configurations. Engine.Data follows from History.Folder.
type Config struct {
	History history.Config
	Engine  engine.Config
	// Recording: events come from files. Nothing is dropped, the end waits until
	// all is stored, and nothing is masked: it is a copy of what somebody has.
	Recording bool
	// BlockRows is how many rows a block has at most; 0 is the writer's default.
	BlockRows int
}

// Memory writes history. Make one with Open; its methods may be called from
// several goroutines.
type Memory struct {
	engine *engine.Engine // nil: the store is elsewhere
	client *history.Client
	layout history.Layout
	writer *history.Writer
	masker *history.Masker // nil for a recording
	began  time.Time
}

// Open opens what c names, and starts nothing. The error is engine.ErrNoLibrary
// where the embedded engine is wanted and its library isn't there; everything
// else works without. watched are the kinds of events that have a source.
func Open(c Config, watched []history.Kind) (*Memory, error) {
	m := &Memory{layout: c.History.Layout(), began: time.Now()}
	var err error
	if m.client, m.engine, err = open(c); err != nil {
		return nil, err
	}
	cfg := history.WriterConfig{Folder: c.History.SpoolFolder(), Spool: spool.Limits{Size: c.History.Spool}, Watched: watched, Rows: c.BlockRows}
	if c.Recording {
		cfg.Recording, cfg.Finish = true, time.Hour
	}
	m.writer, err = history.NewWriter(cfg, m.client, m.layout)
	if err != nil {
		return nil, err
	}
	if !c.Recording {
		m.masker = history.NewMasker(m.client, m.layout)
	}
	return m, nil
}

// open returns the client, and the engine it needs if that is the embedded one.
func open(c Config) (*history.Client, *engine.Engine, error) {
	if c.History.URL != "" {
		client, err := c.History.Remote()
		return client, nil, err
	}
	data, err := c.History.Data()
	if err != nil {
		return nil, nil, fmt.Errorf("memory: %w", err)
	}
	c.Engine.Data = data
	e, err := engine.New(c.Engine, slog.Default(), engine.Options{})
	if err != nil {
		return nil, nil, err
	}
	return &history.Client{HTTP: engine.Client(e.Socket()), URL: "http://engine"}, e, nil
}

// Close gives up what was opened and not Run; after Run it does nothing of use.
func (m *Memory) Close() error { return m.writer.Close() }

// Keep remembers a copy of b's events. It never waits, but for a recording. It is
// not called after Run's context has ended.
func (m *Memory) Keep(b *event.Batch) { m.writer.Keep(b) }

// Run runs the engine, if it is the embedded one, writes and masks, until ctx
// ends; then what was kept before is written. The error says what could not be,
// and will be at the next start.
func (m *Memory) Run(ctx context.Context) error {
	beyond, stop := context.WithCancel(context.WithoutCancel(ctx))
	var others sync.WaitGroup
	if m.engine != nil {
		others.Go(func() { _ = m.engine.Run(beyond) }) // always nil
	}
	if m.masker != nil {
		others.Go(func() {
			if m.engine != nil && m.engine.Wait(ctx) != nil {
				return
			}
			_ = m.masker.Run(ctx)
		})
	}
	err := m.writer.Run(ctx)
	stop()
	others.Wait()
	return err
}

// Stats say how things stand.
type Stats struct {
	Writer history.WriterStats
	Masker history.MaskerStats
	// MaskingOverdue: clients of resolvers are kept unmasked for too long.
	MaskingOverdue bool
	Engine         *engine.Stats // nil: the store is elsewhere
}

// Stats returns how things stand.
func (m *Memory) Stats() Stats {
	s := Stats{Writer: m.writer.Stats()}
	if m.masker != nil {
		s.Masker = m.masker.Stats()
		s.MaskingOverdue = s.Masker.Overdue(time.Now(), m.began)
	}
	if m.engine != nil {
		e := m.engine.Stats()
		s.Engine = &e
	}
	return s
}

// Connect returns a client to ask with: of the store that c names, of the engine
// of another noroshi that runs on the same folder, or of one that runs until
// end is called. It waits until the store answers.
func Connect(ctx context.Context, c Config) (client *history.Client, end func(), err error) {
	client, e, err := open(c)
	if err != nil {
		return nil, nil, err
	}
	if err := client.Ping(ctx); err == nil || e == nil {
		return client, func() {}, err
	}
	if data, _ := c.History.Data(); !isFolder(data) {
		return nil, nil, fmt.Errorf("memory: there is no history in %s; noroshi serve keeps one, and noroshi replay --history FOLDER makes one of a recording", c.History.Folder)
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = e.Run(run)
	}()
	end = func() { cancel(); <-ended }
	within, done := context.WithTimeout(ctx, time.Minute)
	defer done()
	if err := e.Wait(within); err != nil {
		end()
		return nil, nil, fmt.Errorf("memory: the engine doesn't start: %w", err)
	}
	return client, end, nil
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// Missing reports whether err says that the embedded engine's library isn't
// there: a state to tell, not a failure.
func Missing(err error) bool { return errors.Is(err, engine.ErrNoLibrary) }
