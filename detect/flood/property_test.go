package flood

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"noroshi/detect"
	"noroshi/detect/detecttest"
	"noroshi/event"
	"noroshi/finding"
	"noroshi/network"
)

const start = event.Time(1_700_000_000e9)

func homes(t testing.TB) *network.Table {
	t.Helper()
	table, err := network.New([]network.Network{{Name: "home", Kind: network.Residential, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func fresh(t testing.TB, change func(*Config)) *Detector {
	t.Helper()
	cfg := defaults().(*Config)
	if change != nil {
		change(cfg)
	}
	d, err := newDetector(detect.Env{Config: cfg, Network: homes(t)})
	if err != nil {
		t.Fatal(err)
	}
	return d.(*Detector)
}

func four(a uint32) event.Addr {
	return event.AddrOf4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
}

const own, outside = 10 << 24, 198<<24 | 18<<16

// background appends an ordinary flow between an own host of n and outside.
func background(b *event.Batch, rnd *rand.Rand, n uint32, at event.Time) {
	f := b.NewFlow()
	f.First, f.Last, f.Seen, f.Sampling = at-event.Time(rnd.Int64N(30e9)), at, at, 1
	f.Proto, f.TCPFlags, f.SrcPort, f.DstPort = event.TCP, event.SYN|event.PSH|event.ACK|event.FIN, 443, uint16(32768+rnd.IntN(28000))
	f.Src, f.Dst, f.DstNet = four(outside+rnd.Uint32N(1<<16)), four(own+rnd.Uint32N(n)), 1
	f.Packets = 1 + rnd.Uint64N(40)
	f.Bytes = f.Packets * (600 + rnd.Uint64N(900))
	switch rnd.IntN(4) {
	case 0:
		f.Proto, f.TCPFlags, f.SrcPort = event.UDP, 0, 3478
	case 1:
		f.Src, f.Dst, f.SrcNet, f.DstNet = f.Dst, f.Src, 1, 0
		f.SrcPort, f.DstPort = f.DstPort, f.SrcPort
	}
	f.Marks = event.ForSrc | event.ForDst
}

// later moves the flows of b on in time.
func later(b *event.Batch, by event.Time) {
	for i := range b.Flows {
		f := &b.Flows[i]
		f.First, f.Last, f.Seen = f.First+by, f.Last+by, f.Seen+by
	}
}

// A flood of forged sources on one victim, amid millions of addresses: memory
// stays in its bound and the victim is found.
func TestSpoofedSources(t *testing.T) {
	d := fresh(t, func(c *Config) { c.MaxHosts = 100_000 })
	rnd := rand.New(rand.NewPCG(1, 2))
	found := map[event.Addr]bool{}
	report := func(f *finding.Finding) { found[f.Subject.Addr] = true }
	victim := four(own + 77)
	var b event.Batch
	at := start
	for range 600 {
		b.Reset()
		for range event.BatchSize {
			at += 2000 // 500,000 records a second
			f := b.NewFlow()
			f.First, f.Last, f.Seen, f.Sampling, f.Packets, f.Bytes = at, at, at, 1, 1, 40
			f.Proto, f.TCPFlags, f.DstPort, f.Marks = event.TCP, event.SYN, 80, event.ForSrc|event.ForDst
			f.Src, f.DstNet = four(rnd.Uint32()), 1
			f.Dst = victim
			if rnd.IntN(2) == 0 { // and a scan of the whole of our space
				f.Dst = four(own + rnd.Uint32N(1<<24))
			}
		}
		d.Detect(&b, report)
	}
	if !found[victim] {
		t.Error("the victim was not found")
	}
	u := d.Usage()
	if most := 20 << 20; u.Bytes > most {
		t.Errorf("%d octets, want at most %d", u.Bytes, most)
	}
	if u.Evicted == 0 {
		t.Error("evictions aren't counted")
	}
}

// An ordinary flow allocates nothing.
func TestNoAllocation(t *testing.T) {
	d := fresh(t, nil)
	rnd := rand.New(rand.NewPCG(1, 2))
	var b event.Batch
	for i := range event.BatchSize {
		background(&b, rnd, 1000, start+event.Time(i)*1e6)
	}
	none := func(*finding.Finding) {}
	d.Detect(&b, none)
	if n := testing.AllocsPerRun(20, func() { later(&b, 1100e6); d.Detect(&b, none) }); n > 0 {
		t.Errorf("%v allocations for %d flows", n, b.Len())
	}
}

// However many floods begin at once, a bounded number is reported, and one
// finding says so.
func TestCap(t *testing.T) {
	d := fresh(t, func(c *Config) { c.MaxPerMinute = 5 })
	ids, suspect := map[finding.ID]bool{}, 0
	report := func(f *finding.Finding) {
		detecttest.Explained(t, &Spec, f)
		if f.Rule == "flood.sampling-suspect" {
			suspect++
		} else {
			ids[f.ID] = true
		}
	}
	var b event.Batch
	for i := range 100_000 {
		at := start + event.Time(i)*1e4
		f := b.NewFlow()
		f.First, f.Last, f.Seen, f.Sampling, f.Packets, f.Bytes = at, at, at, 1, 100, 140_000
		f.Proto, f.SrcPort, f.Marks, f.DstNet = event.UDP, 53, event.ForSrc|event.ForDst, 1
		f.Src, f.Dst = four(outside+uint32(i)), four(own+uint32(i%50)<<8)
	}
	d.Detect(&b, report)
	d.Advance(start+2e9, report)
	if len(ids) != 5 || suspect != 1 {
		t.Errorf("%d floods and %d sampling suspects; want 5 and 1", len(ids), suspect)
	}
}

// Ordinary traffic raises nothing, however long; with its rates misread a
// thousandfold, at most what the cap allows and one finding that says so.
func TestOrdinaryTraffic(t *testing.T) {
	for _, factor := range []uint64{1, 1000} {
		d := fresh(t, func(c *Config) { c.MaxPerMinute = 3 })
		ids, suspects, places := map[finding.ID]bool{}, map[finding.ID]bool{}, map[event.Addr]bool{}
		report := func(f *finding.Finding) {
			detecttest.Explained(t, &Spec, f)
			if f.Rule == "flood.sampling-suspect" {
				suspects[f.ID] = true
				return
			}
			ids[f.ID] = true
			places[f.Subject.Addr.Masked(16)] = true
			if factor == 1 {
				t.Errorf("found %s: %s", f.Title.En, f.Why.En)
			}
		}
		var b event.Batch
		x, at := uint64(1), start
		for range 300 {
			b.Reset()
			for range event.BatchSize {
				x = event.Mix(x + 1)
				at += 100e3 // 10,000 records a second, for half a minute
				f := b.NewFlow()
				ordinary(f, uint32(x>>20%20_000), x, at)
				f.Packets, f.Bytes, f.Sampling = f.Packets*factor, f.Bytes*factor, uint32(factor)
			}
			d.Detect(&b, report)
			d.Advance(at-1e9, report)
		}
		if len(ids) > 3*max(len(places), 1) || len(suspects) > 1 {
			t.Errorf("times %d: %d floods in %d places, %d sampling suspects", factor, len(ids), len(places), len(suspects))
		}
		t.Logf("times %d: %d floods in %d places, %d sampling suspects", factor, len(ids), len(places), len(suspects))
	}
}

func TestDistinct(t *testing.T) {
	for _, n := range []int{0, 1, 10, 1000, 30_000, 1_000_000} {
		var d distinct
		for range 2 {
			for i := range n {
				a := four(uint32(i))
				d.add(&a)
			}
		}
		if got := float64(d.count()); math.Abs(got-float64(n)) > 0.05*float64(n) {
			t.Errorf("%d addresses are counted as %v", n, got)
		}
	}
}

// A record's packets are spread over its duration, and the past is forgotten.
func TestRing(t *testing.T) {
	var r ring
	r.add(start, start+9.95e9, start+10e9, 1000, 0) // ten seconds at 100 packets/s
	c := r.test(start+10e9, 50, 1e18)
	if c.peakPPS < 99 || c.peakPPS > 101 || c.over != start+10e9 || c.packets < 480 || c.packets > 520 {
		t.Errorf("%+v", c)
	}
	if c := r.test(start+10e9, 101, 1e18); c.packets != 0 || c.over != 0 {
		t.Errorf("below the limit: %+v", c)
	}
	r.advance(start + 100e9)
	if c := r.test(start+100e9, 50, 1e18); c.over != 0 || c.peakPPS != 0 {
		t.Errorf("long after: %+v", c)
	}
	before := r.test(start+100e9, 50, 1e18)
	if c := r.test(start+1000e9, 50, 1e18); c.peakPPS != before.peakPPS {
		t.Errorf("the past came again: %+v", c)
	}
	r.add(start, start+100e9, start+100e9, 100_000, 0) // most of it before what is remembered
	if c := r.test(start+100e9, 50, 1e18); c.peakPPS < 980 || c.peakPPS > 1020 {
		t.Errorf("half of it forgotten: %+v", c)
	}
}

// ordinary makes f an ordinary flow of the h-th own host: web and video by TCP
// and QUIC, DNS, calls and games, a third of the records outbound.
func ordinary(f *event.Flow, h uint32, x uint64, at event.Time) {
	*f = event.Flow{First: at - event.Time(x>>8%30e9), Last: at, Seen: at, Sampling: 1, Proto: event.TCP, TCPFlags: event.SYN | event.PSH | event.ACK | event.FIN}
	f.Marks = event.ForSrc | event.ForDst
	f.Packets = 1 + x>>16%40
	f.Bytes = f.Packets * (600 + x>>24%800)
	f.SrcPort, f.DstPort = 443, uint16(32768+x>>32%28000)
	server := uint32(x >> 40 % (1 << 16))
	switch x % 16 {
	case 0, 1, 2, 3: // QUIC
		f.Proto, f.TCPFlags = event.UDP, 0
	case 4, 5, 6: // DNS, by two resolvers
		f.Proto, f.TCPFlags, f.SrcPort, server = event.UDP, 0, 53, uint32(x>>12&1)
		f.Packets, f.Bytes = 1, 80+x>>24%500
	case 7: // a call or a game, by one host in eight with a few servers
		if h%8 == 0 {
			f.Proto, f.TCPFlags, f.SrcPort, server = event.UDP, 0, 3478, h*4%(1<<16)+uint32(x>>12&3)
		}
	}
	f.Src, f.Dst, f.DstNet = four(outside+server), four(own+h), 1
	if x>>4%3 == 0 {
		f.Src, f.Dst, f.SrcNet, f.DstNet = f.Dst, f.Src, 1, 0
		f.SrcPort, f.DstPort = f.DstPort, f.SrcPort
	}
}

// A report that names as many senders as one may.
func BenchmarkReport(b *testing.B) {
	d := fresh(b, nil)
	s := &suspect{key: four(outside), side: outbound, limit: d.limits[0], static: d.limits[0], now: start}
	v := &vector{class: udp, senders: map[event.Addr]float64{}, onset: start, said: start}
	for i := range uint32(d.cfg.MaxSenders) {
		v.senders[four(own+i*7919%(1<<24))] = float64(i % 97)
	}
	v.ring.add(start, start, start, 1e6, 1e9)
	for b.Loop() {
		d.report(s, v, func(*finding.Finding) {})
	}
}

func BenchmarkDetect(b *testing.B) {
	for _, n := range []struct {
		name  string
		hosts uint64
	}{{"131k", 131_000}, {"10M", 10_000_000}} {
		b.Run(n.name, func(b *testing.B) {
			d := fresh(b, nil)
			none := func(*finding.Finding) {}
			var batch event.Batch
			x, at := uint64(1), start
			next := func(i int) {
				batch.Reset()
				for range event.BatchSize {
					x = event.Mix(x + 1)
					h := x >> 20 % n.hosts
					if i >= 0 {
						h = uint64(i) % n.hosts
						i++
					}
					at += 5e3 // 200,000 records a second
					ordinary(batch.NewFlow(), uint32(h), x, at)
				}
			}
			for i := uint64(0); i < 2*n.hosts; i += event.BatchSize {
				next(int(i))
				d.Detect(&batch, none)
			}
			flows, wall, cpu := 0, time.Duration(0), time.Duration(0)
			b.ReportAllocs()
			for b.Loop() {
				next(-1)
				t, c := time.Now(), used()
				d.Detect(&batch, none)
				wall, cpu, flows = wall+time.Since(t), cpu+used()-c, flows+batch.Len()
			}
			b.ReportMetric(float64(wall.Nanoseconds())/float64(flows), "ns/flow")
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(flows), "cpu-ns/flow")
			b.ReportMetric(float64(d.Usage().Bytes)/1e6, "MB")
		})
	}
}

// used is the processor time of this process, which others on the machine don't
// lengthen.
func used() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
