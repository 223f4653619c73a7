// Command history measures what the memory of events can take and answer, on
// flows of a generated network:
//
//	go run ./bench/history load  -folder F -rows 50000000      rows/s, CPU a row, octets a row, memory
//	go run ./bench/history ask   -folder F                     questions over what was loaded
//	go run ./bench/history mixed -folder F -rate 100000 -for 2m   the same while rows are written
//	go run ./bench/history outage -folder F -rate 50000 -for 10m  the store is away that long
//	go run ./bench/history soak  -folder F -for 30m -plot soak.svg
//
// bin/libchdb.so must be there (make engine). It opens no port.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"noroshi/event"
	"noroshi/scenario"
	"noroshi/store/engine"
	"noroshi/store/history"
	"noroshi/store/memory"
)

// options are the flags of all measurements.
type options struct {
	folder string
	rows   int
	rate   float64
	length time.Duration
	plot   string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "engine" { // this program is the engine's child too
		os.Exit(child(os.Args[2:]))
	}
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "history: name a measurement: load, ask, mixed, outage or soak")
		os.Exit(2)
	}
	var o options
	fs := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	fs.StringVar(&o.folder, "folder", "", "folder of the history")
	fs.IntVar(&o.rows, "rows", 50_000_000, "rows to load, over the day that ends now")
	fs.Float64Var(&o.rate, "rate", 100_000, "rows a second")
	fs.DurationVar(&o.length, "for", 2*time.Minute, "how long, at most 2h")
	fs.StringVar(&o.plot, "plot", "", "file for a picture (SVG)")
	_ = fs.Parse(os.Args[2:])
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	run, known := map[string]func(context.Context, *options) error{"load": load, "ask": ask, "mixed": mixed, "outage": outage, "soak": soak}[os.Args[1]]
	var err error
	switch {
	case !known:
		err = fmt.Errorf("there is no measurement %q", os.Args[1])
	case o.folder == "":
		err = fmt.Errorf("-folder is missing")
	case o.length > 2*time.Hour:
		err = fmt.Errorf("-for %v: at most 2h", o.length)
	default:
		err = run(ctx, &o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "history:", err)
		os.Exit(1)
	}
}

func child(args []string) int {
	var c engine.Child
	fs := flag.NewFlagSet("engine", flag.ExitOnError)
	c.Flags(fs)
	_ = fs.Parse(args)
	if err := c.Run(context.Background(), os.Stdin, slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (o *options) config() memory.Config {
	c := memory.Config{History: history.Default(), Engine: engine.Default()}
	c.History.Folder = o.folder
	c.Engine.Library = os.Getenv("NOROSHI_ENGINE_LIB")
	if c.Engine.Library == "" {
		c.Engine.Library = "bin/libchdb.so"
	}
	return c
}

// generator repeats two million flows of an ordinary day.
type generator struct {
	flows []event.Flow
	n     int
}

func newGenerator() *generator {
	g := &generator{}
	for _, s := range scenario.All() {
		if s.Name != "ordinary-day" {
			continue
		}
		s.Play(1, s.Start(), func(b *event.Batch) bool {
			for _, f := range b.Flows {
				f.Payload = event.Text{}
				g.flows = append(g.flows, f)
			}
			b.Release()
			return len(g.flows) < 2_000_000
		})
	}
	return g
}

// fill puts n flows in b, the i-th of them seen at at(i).
func (g *generator) fill(b *event.Batch, n int, at func(i int) event.Time) {
	b.Reset()
	for i := range n {
		f := g.flows[g.n%len(g.flows)]
		g.n++
		seen := at(i)
		d := seen - f.Seen
		f.Seen, f.First, f.Last = seen, f.First+d, f.Last+d
		b.Flows = append(b.Flows, f)
	}
}

// running is a memory at work.
type running struct {
	*memory.Memory
	end func() error
}

func start(c memory.Config) (*running, error) {
	m, err := memory.Open(c, []history.Kind{history.Flows})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	return &running{m, func() error { cancel(); return <-ended }}, nil
}

// write keeps rows at a rate until ctx ends, and returns how many.
func (g *generator) write(ctx context.Context, m *memory.Memory, rate float64) (rows int) {
	const each = 1000
	began := time.Now()
	var b event.Batch
	for ctx.Err() == nil {
		due := began.Add(time.Duration(float64(rows) / rate * float64(time.Second)))
		if d := time.Until(due); d > 0 {
			time.Sleep(d)
		}
		now := event.TimeOf(time.Now())
		g.fill(&b, each, func(int) event.Time { return now })
		m.Keep(&b)
		rows += each
	}
	return rows
}
