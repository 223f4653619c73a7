// Command history measures what package history can take and answer: it loads
// generated flows into an engine, and asks.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"noroshi/event"
	"noroshi/scenario"
	"noroshi/store/history"
)

func main() {
	socket := flag.String("socket", "", "unix socket of an engine")
	rows := flag.Int("rows", 4_000_000, "rows")
	name := flag.String("scenario", "ordinary-day", "scenario whose flows are tiled over a day")
	flag.Parse()
	if err := run(*socket, *name, *rows); err != nil {
		fmt.Fprintln(os.Stderr, "history:", err)
		os.Exit(1)
	}
}

func run(socket, name string, rows int) error {
	c := &history.Client{URL: "http://engine", HTTP: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
	l := history.Layout{Database: "noroshi"}
	ctx := context.Background()
	for _, s := range l.Statements() {
		if err := c.Exec(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	var flows []event.Flow
	for _, s := range scenario.All() {
		if s.Name == name {
			s.Play(1, s.Start(), func(b *event.Batch) bool {
				flows = append(flows, b.Flows...)
				b.Release()
				return len(flows) < 4_000_000
			})
		}
	}
	fmt.Println(len(flows), "flows in the scenario,", flows[0].Seen, "to", flows[len(flows)-1].Seen)
	day := event.Time(24 * time.Hour)
	end := event.TimeOf(time.Now())
	b := history.NewBuilder(history.Flows)
	began := time.Now()
	var buf []byte
	var batch event.Batch
	for n := 0; n < rows; {
		batch.Reset()
		for range 1024 {
			f := flows[n%len(flows)]
			f.Payload = event.Text{}
			at := end - day + event.Time(float64(day)*float64(n)/float64(rows))
			d := at - f.Seen
			f.Seen, f.First, f.Last = at, f.First+d, f.Last+d
			batch.Flows = append(batch.Flows, f)
			n++
		}
		b.Add(&batch, 0, 1024)
		if b.Rows() >= 100_000 || n >= rows {
			block := b.Seal(fmt.Sprintf("%d-%d", os.Getpid(), n), buf[:0])
			if err := c.Insert(ctx, l, &block); err != nil {
				return err
			}
			buf = block.Data
		}
	}
	took := time.Since(began)
	fmt.Printf("%d rows in %v, %.0f rows/s\n", rows, took, float64(rows)/took.Seconds())
	return nil
}
