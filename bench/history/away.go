package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"noroshi/event"
	"noroshi/store/history"
	"noroshi/store/memory"
)

// outage writes while the store is away, because its folder is taken, and counts
// what comes of it.
func outage(ctx context.Context, o *options) error {
	g := newGenerator()
	c := o.config()
	data, err := c.History.Data()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	taken, err := os.OpenFile(filepath.Join(data, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(taken.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	c.History.Spool = 16 << 30
	m, err := start(c)
	if err != nil {
		return err
	}
	writing, stop := context.WithTimeout(ctx, o.length)
	defer stop()
	rows := g.write(writing, m.Memory, o.rate)
	time.Sleep(2 * time.Second)
	s := m.Stats().Writer
	fmt.Printf("outage of %v: %d rows at %.0f/s wait in %d blocks, %d MB; lost %v\n", o.length, rows, o.rate, s.Spool.Blocks, s.Spool.Bytes>>20, s.Lost)
	if err := taken.Close(); err != nil {
		return err
	}
	began := time.Now()
	for m.Stats().Writer.Away != nil && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	back := time.Since(began)
	for m.Stats().Writer.Kept["flows"] < uint64(rows) && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	took := time.Since(began)
	asking, end, err := memory.Connect(ctx, c)
	if err != nil {
		return err
	}
	q := &history.Questions{Client: asking, Layout: c.History.Layout()}
	now := event.TimeOf(time.Now().Add(time.Minute).Truncate(time.Minute))
	r := history.Range{From: now.Add(-o.length - 10*time.Minute).Add(0), To: now}
	r.From -= r.From % event.Time(time.Minute)
	a, err := q.Top(ctx, history.Top{Range: r, By: []string{"sampling"}, N: 100, Raw: true})
	if err != nil {
		return err
	}
	var stored uint64
	for _, x := range a.Rows {
		stored += x.Records
	}
	end()
	fmt.Printf("stored again after %.1f s, all of it after %.1f s (%.0f rows/s): %d rows asked for, %d written; lost %v\n",
		back.Seconds(), took.Seconds(), float64(rows)/took.Seconds(), stored, rows, m.Stats().Writer.Lost)
	err = m.end()
	if stored != uint64(rows) {
		err = errors.Join(err, errors.New("rows are missing or doubled"))
	}
	return err
}

// soak writes and asks for a long time, and notes what that takes.
func soak(ctx context.Context, o *options) error {
	g := newGenerator()
	host, subscriber := subject(g)
	m, err := start(o.config())
	if err != nil {
		return err
	}
	running, stop := context.WithTimeout(ctx, o.length)
	defer stop()
	written := make(chan int, 1)
	go func() { written <- g.write(running, m.Memory, o.rate) }()
	time.Sleep(3 * time.Second)
	c, end, err := memory.Connect(ctx, o.config())
	if err != nil {
		return err
	}
	q := &history.Questions{Client: c, Layout: layout}
	list := questions(host, subscriber)
	var asked, failed int
	asking := make(chan struct{})
	go func() {
		defer close(asking)
		for i := 0; running.Err() == nil; i++ {
			if _, err := list[i%len(list)].ask(running, q, event.TimeOf(time.Now())); err == nil {
				asked++
			} else if running.Err() == nil {
				failed++
				fmt.Fprintln(os.Stderr, list[i%len(list)].name, err)
			}
			time.Sleep(time.Second)
		}
	}()
	began := time.Now()
	var minutes []float64
	var engineMB, ownMB, threads, files []float64
	for running.Err() == nil {
		e := m.Stats().Engine
		minutes = append(minutes, time.Since(began).Minutes())
		engineMB, ownMB = append(engineMB, float64(e.RSS)/1e6), append(ownMB, float64(memoryOfSelf())/1e6)
		threads, files = append(threads, float64(e.Threads)), append(files, float64(e.Files))
		select {
		case <-running.Done():
		case <-time.After(5 * time.Second):
		}
	}
	rows := <-written
	<-asking
	end()
	s := m.Stats()
	if err := m.end(); err != nil {
		return err
	}
	n := len(minutes)
	fmt.Printf("soak of %v: %d rows written, lost %v; %d questions, %d failed; engine restarts %d\n", o.length, rows, s.Writer.Lost, asked, failed, s.Engine.Restarts)
	for _, at := range []int{n / 6, n / 2, n - 1} {
		fmt.Printf("  after %4.1f min: engine %4.0f MB, %3.0f threads, %4.0f files; this program %4.0f MB\n", minutes[at], engineMB[at], threads[at], files[at], ownMB[at])
	}
	if o.plot == "" {
		return nil
	}
	f, err := os.Create(o.plot)
	if err != nil {
		return err
	}
	defer f.Close()
	return plot(f, fmt.Sprintf("%.0f rows/s written, a question a second", o.rate), minutes, []panel{
		{"resident memory", " MB", []curve{{"engine", engineMB}, {"writer and generator", ownMB}}},
		{"threads of the engine", "", []curve{{"threads", threads}}},
		{"open files of the engine", "", []curve{{"files", files}}},
	})
}
