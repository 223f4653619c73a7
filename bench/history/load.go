package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"noroshi/event"
)

// load writes a day of rows as fast as they are taken.
func load(ctx context.Context, o *options) error {
	g := newGenerator()
	c := o.config()
	c.Recording = true // waits instead of dropping
	c.History.Spool = 1 << 30
	m, err := start(c)
	if err != nil {
		return err
	}
	for m.Stats().Engine.PID == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	w := watch(m)
	self := cpuOfSelf()
	began := time.Now()
	end := event.TimeOf(began)
	step := float64(24*time.Hour) / float64(o.rows)
	var b event.Batch
	runtime.LockOSThread() // so that what generating costs can be told apart
	defer runtime.UnlockOSThread()
	generating := time.Duration(0)
	for n := 0; n < o.rows && ctx.Err() == nil; n += 1000 {
		t := cpuOfThread()
		g.fill(&b, 1000, func(i int) event.Time { return end - event.Time(24*time.Hour) + event.Time(step*float64(n+i)) })
		generating += cpuOfThread() - t
		m.Keep(&b)
	}
	for s := m.Stats(); s.Writer.Kept["flows"] < uint64(o.rows) && ctx.Err() == nil; s = m.Stats() {
		time.Sleep(10 * time.Millisecond)
	}
	took := time.Since(began)
	own, engine := cpuOfSelf()-self-generating, cpuOf(w.pid)
	peak := w.stop()
	s := m.Stats().Writer
	size := folderSize(filepath.Join(o.folder, "engine", "db"))
	g.others(m.Memory, o.rows/10)
	if err := m.end(); err != nil {
		return err
	}
	rows := float64(o.rows)
	fmt.Printf("load: %d rows in %.1f s: %.0f rows/s from batch to queryable; lost %v\n", o.rows, took.Seconds(), rows/took.Seconds(), s.Lost)
	fmt.Printf("CPU a row: %.2f us, of it the writer %.2f us and the engine, merges so far and rollups included, %.2f us\n",
		(own+engine).Seconds()*1e6/rows, own.Seconds()*1e6/rows, engine.Seconds()*1e6/rows)
	fmt.Printf("engine's memory at most %d MB\n", peak>>20)
	fmt.Printf("on disk %.1f octets a row, rollups included (%d MB)\n", float64(size)/rows, size>>20)
	return nil
}

func cpuOfSelf() time.Duration { return cpuUsage(syscall.RUSAGE_SELF) }

// cpuOfThread is exact for a goroutine that is locked to its thread.
func cpuOfThread() time.Duration { return cpuUsage(1) } // RUSAGE_THREAD

func cpuUsage(who int) time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(who, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cpuOf is the CPU time of another process.
func cpuOf(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// watcher notes the engine's memory twice a second.
type watcher struct {
	pid  int
	done chan struct{}
	peak chan uint64
}

func watch(m *running) *watcher {
	w := &watcher{pid: m.Stats().Engine.PID, done: make(chan struct{}), peak: make(chan uint64)}
	go func() {
		var peak uint64
		for {
			select {
			case <-w.done:
				w.peak <- peak
				return
			case <-time.After(500 * time.Millisecond):
				peak = max(peak, m.Stats().Engine.RSS)
			}
		}
	}()
	return w
}

func (w *watcher) stop() uint64 { close(w.done); return <-w.peak }

func folderSize(path string) (size int64) {
	_ = filepath.Walk(path, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return nil
	})
	return size
}
