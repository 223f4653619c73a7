// Command alert measures how soon noroshi says so: the time on the wall from the
// first datagram of an attack, sent over a real socket, to the finding. Each run
// is a fresh pipeline with every detector, a few seconds of ordinary flows, and
// the attack laid over them; it prints a line for each kind with the median and
// the 95th percentile of its runs.
//
//	go run ./bench/alert -runs 20
//
// The router it plays samples nothing and reports each hundredth of a second.
// FastNetMon's figures under the same load are in docs/performance.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"time"

	"noroshi/detect/all"
	"noroshi/event"
	"noroshi/finding"
	"noroshi/network"
	"noroshi/pipeline"
	"noroshi/scenario"
	"noroshi/scenario/wire"
	"noroshi/source/udp"
)

// hostPPS is the limit of one host, flood's default, in packets/s.
const hostPPS = 20_000

// kind is an attack: what it sends in a step, and what must be said of it.
type kind struct {
	name   string
	budget time.Duration
	limit  string // the finding's subject
	rule   string
	step   func(g *generator)
}

func kinds() []kind {
	victim := four(10<<24 | 77)
	outside := four(198<<24 | 18<<16 | 77)
	dns := func(times float64) func(*generator) {
		return func(g *generator) {
			for range int(times * hostPPS * step.Seconds() / 10) {
				g.flow(four(198<<24|19<<16|g.IntN(4000)), victim, 53, 4444, event.UDP, 0, 10, 14000)
			}
		}
	}
	random := func(times float64) func(*generator) {
		return func(g *generator) {
			for range int(times * hostPPS * step.Seconds() / 10) {
				g.flow(four(198<<24|19<<16|g.IntN(4000)), victim, uint16(1024+g.IntN(60000)), uint16(g.IntN(65536)), event.UDP, 0, 10, 5000)
			}
		}
	}
	return []kind{
		{"UDP flood at 5 times the limit", 500 * time.Millisecond, victim.String(), "flood.inbound", random(5)},
		{"UDP flood at twice the limit", time.Second, victim.String(), "flood.inbound", random(2)},
		{"UDP flood at 1.25 times the limit", 3 * time.Second, victim.String(), "flood.inbound", random(1.25)},
		{"DNS amplification at 5 times the limit", 500 * time.Millisecond, victim.String(), "flood.inbound", dns(5)},
		{"DNS amplification at twice the limit", time.Second, victim.String(), "flood.inbound", dns(2)},
		{"DNS amplification at 1.25 times the limit", 3 * time.Second, victim.String(), "flood.inbound", dns(1.25)},
		{"carpet bombing of a /22, 200,000 packets/s", time.Second, "10.0.4.0/22", "flood.inbound", func(g *generator) {
			for range 2000 {
				g.flow(four(198<<24|19<<16|g.IntN(4000)), four(10<<24|4<<8|g.IntN(1024)), uint16(1024+g.IntN(60000)), uint16(g.IntN(65536)), event.UDP, 0, 1, 500)
			}
		}},
		{"100,000 subscribers on one victim, 200,000 packets/s", time.Second, outside.String(), "flood.outbound", func(g *generator) {
			for range 2000 {
				g.next = (g.next + 1) % 100_000
				g.flow(four(10<<24|1<<20|g.next), outside, uint16(1024+g.IntN(60000)), 80, event.UDP, 0, 1, 500)
			}
		}},
		{"Mirai's scan, 160 SYN/s, flows only", 5 * time.Second, four(10<<24 | 99).String(), "iotbot.scan", func(g *generator) {
			if g.n%5 < 4 {
				for range 2 {
					g.probes++
					port := uint16(23)
					if g.probes%10 == 0 {
						port = 2323
					}
					g.flow(four(10<<24|99), four(g.IntN(1<<31)), 4000, port, event.TCP, event.SYN, 1, 40)
				}
			}
		}},
	}
}

func four[N int | uint32](a N) event.Addr {
	return event.AddrOf4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
}

// step is how often the router reports.
const step = 10 * time.Millisecond

// generator makes the flows of one run.
type generator struct {
	*rand.Rand
	b               event.Batch
	now             event.Time
	n, next, probes int
}

var exporter = event.AddrOf(netip.MustParseAddr("192.0.2.1"))

func (g *generator) flow(src, dst event.Addr, sport, dport uint16, proto, flags uint8, packets, octets uint64) {
	f := g.b.NewFlow()
	*f = event.Flow{
		First: g.now - event.Time(g.Int64N(int64(step))), Last: g.now, Seen: g.now, Src: src, Dst: dst, Exporter: exporter,
		Bytes: octets, Packets: packets, Sampling: 1, SrcPort: sport, DstPort: dport, Proto: proto, TCPFlags: flags,
	}
}

// ordinary adds 30,000 flows/s between 20,000 hosts and the rest of the world.
func (g *generator) ordinary() {
	for range 150 {
		own, far := four(10<<24|2<<16|g.IntN(20_000)), four(198<<24|18<<16|1<<12|g.IntN(4000))
		port := uint16(32768 + g.IntN(28000))
		n := 2 + g.Uint64N(30)
		g.flow(own, far, port, 443, event.TCP, event.SYN|event.ACK|event.PSH|event.FIN, n, n*120)
		g.flow(far, own, 443, port, event.TCP, event.SYN|event.ACK|event.PSH|event.FIN, n, n*1100)
	}
}

func main() {
	runs := flag.Int("runs", 20, "runs of each kind")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	fmt.Printf("%-55s %8s %8s %8s %6s %s\n", "from the first datagram to the finding", "median", "p95", "budget", "missed", "named")
	for _, k := range kinds() {
		var took []time.Duration
		missed, named := 0, 1.0
		for i := range *runs {
			if ctx.Err() != nil {
				return
			}
			d, share, err := measure(ctx, k, uint64(i))
			switch {
			case err != nil:
				fmt.Fprintln(os.Stderr, "alert:", err)
				os.Exit(1)
			case d == 0:
				missed++
			default:
				took = append(took, d)
				named = min(named, share)
			}
		}
		if len(took) == 0 {
			fmt.Printf("%-55s %8s %8s %8v %6d\n", k.name, "-", "-", k.budget, missed)
			continue
		}
		slices.Sort(took)
		p95 := took[min(len(took)*95/100, len(took)-1)]
		who := ""
		if k.rule == "flood.outbound" {
			who = fmt.Sprintf("%.1f %% of senders, at the end", 100*named)
		}
		fmt.Printf("%-55s %8v %8v %8v %6d %s\n", k.name, took[len(took)/2].Round(time.Millisecond), p95.Round(time.Millisecond), k.budget, missed, who)
	}
}

// measure plays one run and returns how long the finding took, 0 if it did not
// come, and the share of the attackers it names when the attack has gone on for
// two seconds more.
func measure(ctx context.Context, k kind, seed uint64) (took time.Duration, named float64, err error) {
	listener, err := udp.Listen(udp.Config{Addresses: []string{"127.0.0.1:0"}})
	if err != nil {
		return 0, 0, err
	}
	table, err := network.New([]network.Network{{Name: "homes", Kind: network.Residential, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}})
	if err != nil {
		return 0, 0, err
	}
	var began, said atomic.Int64
	var members atomic.Int64
	p := &pipeline.Pipeline{Network: table, Live: true, Seed: seed, Report: func(f *finding.Finding) {
		if f.Rule == k.rule && f.Subject.String() == k.limit {
			said.CompareAndSwap(0, time.Now().UnixNano())
			members.Store(max(members.Load(), int64(len(f.Members))))
		}
	}}
	for _, s := range all.Specs {
		p.Detectors = append(p.Detectors, pipeline.Detector{Spec: s})
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- p.Run(running, listener) }()
	defer func() {
		stop()
		if rerr := <-done; err == nil {
			err = rerr
		}
	}()

	provider := &scenario.Provider{Exporters: []scenario.Exporter{{Name: "border", Addr: exporter, Protocol: scenario.IPFIX, Sampling: 1}}}
	sender, err := wire.NewSender(provider, map[scenario.Protocol]netip.AddrPort{scenario.IPFIX: listener.Addrs()[0]})
	if err != nil {
		return 0, 0, err
	}
	defer sender.Close()
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 7))}
	enc := wire.NewEncoder(provider, event.TimeOf(time.Now().Add(-time.Hour)))
	attack := 2*time.Second + time.Duration(g.Int64N(int64(time.Second)))
	start := time.Now()
	for at := time.Duration(0); at < attack+12*time.Second; at += step {
		if d := time.Until(start.Add(at)); d > 0 {
			time.Sleep(d)
		}
		g.b.Reset()
		g.now = event.TimeOf(time.Now())
		g.n++
		g.ordinary()
		attacking := at >= attack
		if attacking {
			k.step(g)
		}
		var serr error
		send := func(d *wire.Datagram) {
			if serr == nil {
				serr = sender.Send(ctx, d)
			}
		}
		if attacking {
			began.CompareAndSwap(0, time.Now().UnixNano())
		}
		enc.Encode(&g.b, send)
		enc.Flush(send)
		if serr != nil {
			return 0, 0, serr
		}
		if t := said.Load(); t != 0 && time.Since(time.Unix(0, t)) > 2*time.Second {
			break
		}
	}
	if said.Load() == 0 {
		return 0, 0, nil
	}
	return time.Duration(said.Load() - began.Load()), float64(members.Load()) / 100_000, nil
}
