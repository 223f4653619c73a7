// Command receive is the whole of noroshi from the socket to its detectors, and
// nothing behind them: the measured half of a measurement of which bench/load is
// the other. It listens, decodes, detects, and when it is interrupted prints one
// JSON object: flows, datagrams lost by cause, CPU time per flow (user and system, of
// the whole process, from the first datagram on) and the most memory it had.
//
//	go run ./bench/receive -detectors flood
//
// bench/collectors.sh runs it beside other collectors.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"noroshi/detect/all"
	"noroshi/event"
	"noroshi/finding"
	"noroshi/network"
	"noroshi/pipeline"
	"noroshi/source"
	"noroshi/source/udp"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:4739", "address and port")
	names := flag.String("detectors", "all", "names with commas; all; none")
	own := flag.String("own", "10.0.0.0/8", "the provider's own prefix")
	shards := flag.Int("shards", 1, "goroutines that detect; a power of two")
	buffer := flag.Int("buffer", 64<<20, "receive buffer asked for, in bytes")
	profile := flag.String("profile", "", "write a CPU profile to this file")
	flag.Parse()
	if err := run(*listen, *names, *own, *shards, *buffer, *profile); err != nil {
		fmt.Fprintln(os.Stderr, "receive:", err)
		os.Exit(1)
	}
}

func run(listen, names, own string, shards, buffer int, profile string) error {
	prefix, err := netip.ParsePrefix(own)
	if err != nil {
		return err
	}
	// bench/load's traffic is ordinary for a network of its size: a limit above
	// it, as an operator would have set or the detector would have learned.
	table, err := network.New([]network.Network{{Name: "own", Prefixes: []netip.Prefix{prefix}, HostPPS: 2_000_000, HostBPS: 20_000_000_000}})
	if err != nil {
		return err
	}
	l, err := udp.Listen(udp.Config{Addresses: []string{listen}, Buffer: buffer})
	if err != nil {
		return err
	}
	p := &pipeline.Pipeline{Network: table, Shards: shards, Live: true, Seed: uint64(time.Now().UnixNano()), Report: func(*finding.Finding) {}}
	for _, s := range all.Specs {
		if names == "all" || slices.Contains(strings.Split(names, ","), s.Name) {
			p.Detectors = append(p.Detectors, pipeline.Detector{Spec: s})
		}
	}
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	m := meter{Listener: l}
	if err := p.Run(ctx, &m); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(m.result(p))
}

// meter notes when traffic began and when it last came.
type meter struct {
	*udp.Listener
	first, last atomic.Int64 // ns since 1970
	before      unix.Rusage  // at the first batch
}

func (m *meter) Run(ctx context.Context, emit func(*event.Batch)) error {
	return m.Listener.Run(ctx, func(b *event.Batch) {
		now := time.Now().UnixNano()
		if m.first.CompareAndSwap(0, now) {
			_ = unix.Getrusage(unix.RUSAGE_SELF, &m.before)
		}
		m.last.Store(now)
		emit(b)
	})
}

func (m *meter) result(p *pipeline.Pipeline) map[string]any {
	var after unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
	cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - m.before.Utime.Nano() - m.before.Stime.Nano())
	seconds := time.Duration(m.last.Load() - m.first.Load()).Seconds()
	stats := p.Stats()
	lost := map[string]uint64{}
	for c := range m.Counts() {
		if c.Value > 0 && isLoss(c) {
			lost[c.Name+": "+c.Reason] += c.Value
		}
	}
	var detectors []string
	for _, d := range p.Detectors {
		detectors = append(detectors, d.Spec.Name)
	}
	flows := float64(max(stats.Flows, 1))
	return map[string]any{
		"detectors": detectors, "shards": p.Shards, "flows": stats.Flows, "seconds": seconds, "flows_per_s": flows / max(seconds, 1e-9),
		"lost": lost, "cpu_ns_per_flow": float64(cpu.Nanoseconds()) / flows, "cpu": cpu.Seconds() / max(seconds, 1e-9),
		"max_rss_mb": float64(after.Maxrss) / 1024, "findings": stats.Findings, "state": stats.Detectors,
	}
}

// isLoss reports whether a counter is of something that did not become flows.
func isLoss(c source.Count) bool {
	return strings.HasPrefix(c.Name, "lost") || c.Name == "refused"
}
