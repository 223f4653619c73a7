package iotbot

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"noroshi/detect"
	"noroshi/event"
	"noroshi/finding"
	"noroshi/intel"
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

const own = 10 << 24

// syn appends an attempt from an own host.
func syn(b *event.Batch, host, dst uint32, port uint16, octets uint64, at event.Time) *event.Flow {
	f := b.NewFlow()
	f.First, f.Last, f.Seen, f.Sampling, f.Packets, f.Bytes = at, at, at, 1, 1, octets
	f.Proto, f.TCPFlags, f.SrcPort, f.DstPort, f.SrcNet = event.TCP, event.SYN, 40000, port, 1
	f.Src, f.Dst, f.Marks = four(own+host), four(dst), event.ForSrc|event.ForDst
	return f
}

// skips says whether Mirai's scanner leaves an address out.
func skips(a uint32) bool {
	for _, p := range intel.Mirai().Skipped {
		if p.Contains(four(a).Std()) {
			return true
		}
	}
	return false
}

// R37: a scanner that leaves out Mirai's ranges is told from one that leaves out
// only what is reserved, by that alone; but not if its mix of ports is another's.
func TestExcludedRanges(t *testing.T) {
	reserved := func(a uint32) bool { o := a >> 24; return o == 0 || o == 10 || o == 127 || o >= 224 }
	families := func(leaves func(uint32) bool, probes int, ports ...uint16) (n int) {
		d := fresh(t, nil)
		rnd := rand.New(rand.NewPCG(3, 4))
		last := map[event.Addr]string{}
		for host := range uint32(100) {
			var b event.Batch
			at := start
			for i := range probes {
				a := rnd.Uint32()
				for leaves(a) {
					a = rnd.Uint32()
				}
				at += 6e6
				syn(&b, host, a, ports[i%len(ports)], 40, at)
			}
			d.Detect(&b, func(f *finding.Finding) { last[f.Subject.Addr] = f.Family })
		}
		d.Advance(start+event.Time(48e13), func(f *finding.Finding) { last[f.Subject.Addr] = f.Family })
		for _, f := range last {
			if f == "mirai" {
				n++
			}
		}
		return n
	}
	mix := []uint16{23, 23, 23, 23, 23, 23, 23, 23, 23, 2323}
	for _, ports := range [][]uint16{mix, {7547}} {
		if n := families(skips, 400, ports...); n < 95 {
			t.Errorf("%d of 100 with the ranges left out are called Mirai (ports %v)", n, ports)
		}
		if n := families(reserved, 400, ports...); n > 0 {
			t.Errorf("%d of 100 scanners of all addresses are called Mirai (ports %v)", n, ports)
		}
	}
	for _, ports := range [][]uint16{{23}, {23, 2323}} {
		if n := families(skips, 400, ports...); n > 0 {
			t.Errorf("%d of 100 with Mirai's ranges and another's ports %v are called Mirai", n, ports)
		}
	}
	if n := families(skips, 100, 7547); n > 0 {
		t.Errorf("%d of 100 are called Mirai after 100 probes, which can't be known", n)
	}
}

// Web ports alone: few targets say nothing, hundreds all over the address space
// do.
func TestWide(t *testing.T) {
	for targets, want := range map[int]int{150: 0, 400: 1} {
		d := fresh(t, nil)
		rnd := rand.New(rand.NewPCG(1, 2))
		var b event.Batch
		for i := range targets {
			syn(&b, 1, rnd.Uint32(), 80, 60, start+event.Time(i)*1e9)
		}
		found := map[finding.ID]bool{}
		d.Detect(&b, func(f *finding.Finding) {
			found[f.ID] = true
			if f.Rule != "iotbot.scan" || f.Family != "unmarked" {
				t.Errorf("%s %s", f.Rule, f.Family)
			}
		})
		if len(found) != want {
			t.Errorf("%d targets: %d findings, want %d", targets, len(found), want)
		}
	}
}

// Forged sources by the million stay in the bound and hide no bot.
func TestForgedSources(t *testing.T) {
	d := fresh(t, func(c *Config) { c.MaxHosts, c.MaxSuspects = 50_000, 1000 })
	rnd := rand.New(rand.NewPCG(1, 2))
	bots := map[event.Addr]bool{}
	report := func(f *finding.Finding) {
		if f.Rule == "iotbot.scan" {
			bots[f.Subject.Addr] = true
		}
	}
	at := start
	var b event.Batch
	for k := range 1000 {
		b.Reset()
		for i := range event.BatchSize {
			at += 1000
			if i%256 == 0 { // one of 200 bots tries another
				syn(&b, uint32(k*4+i/256)%200, rnd.Uint32(), 23, 60, at)
				continue
			}
			f := syn(&b, 0, own+rnd.Uint32N(256), 23, 40, at)
			f.Src, f.SrcNet, f.DstNet = four(rnd.Uint32()), 0, 1
		}
		d.Detect(&b, report)
	}
	own := 0
	for a := range bots {
		if a[12] == 10 {
			own++
		}
	}
	if own < 199 {
		t.Errorf("%d of 200 bots found", own)
	}
	u := d.Usage()
	if u.Bytes > 10<<20 || len(d.suspects) > 1001 || u.Evicted == 0 {
		t.Errorf("%d octets, %d suspects, %d evicted", u.Bytes, len(d.suspects), u.Evicted)
	}
}

// Flows that are no attempts, and attempts of known suspects, allocate nothing.
func TestNoAllocation(t *testing.T) {
	d := fresh(t, nil)
	var b event.Batch
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range event.BatchSize {
		f := syn(&b, uint32(i)%64, rnd.Uint32(), 23, 60, start+event.Time(i)*1e6)
		switch i % 4 {
		case 1:
			f.TCPFlags, f.DstPort = event.SYN|event.ACK|event.PSH, 443
		case 2:
			f.Proto = event.UDP
		case 3:
			f.DstPort = 443
		}
	}
	none := func(*finding.Finding) {}
	for range 64 {
		d.Detect(&b, none)
	}
	// A report now and then is made of new memory; an event isn't.
	if n := testing.AllocsPerRun(20, func() { d.Detect(&b, none) }); n > 100 {
		t.Errorf("%v allocations for %d flows of suspects", n, b.Len())
	}
	var plain event.Batch
	for i := range event.BatchSize {
		f := syn(&plain, uint32(1000+i), rnd.Uint32(), 443, 60, start+event.Time(i)*1e6)
		if i%2 == 0 {
			f.TCPFlags = event.SYN | event.ACK | event.PSH
		}
	}
	d.Detect(&plain, none)
	if n := testing.AllocsPerRun(20, func() { d.Detect(&plain, none) }); n > 0 {
		t.Errorf("%v allocations for %d ordinary flows", n, plain.Len())
	}
}

func TestKnobs(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"min_targets": func(c *Config) { c.MinTargets = 3 }, "fail_share": func(c *Config) { c.FailShare = 1.5 },
		"max_hosts": func(c *Config) { c.MaxHosts = 0 }, "update": func(c *Config) { c.Update = 1 }, "too many": func(c *Config) { c.MinTargetsWeb = 5000 },
	} {
		cfg := defaults().(*Config)
		change(cfg)
		if _, err := newDetector(detect.Env{Config: cfg}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func BenchmarkDetect(b *testing.B) {
	d := fresh(b, nil)
	rnd := rand.New(rand.NewPCG(1, 2))
	none := func(*finding.Finding) {}
	batches := make([]event.Batch, 1024)
	for i := range batches {
		for k := range event.BatchSize {
			f := syn(&batches[i], rnd.Uint32N(131_000), rnd.Uint32(), 443, 60, start+event.Time(i)*1e6)
			switch {
			case k%20 == 0: // one in twenty is an attempt in vain
			case k%4 == 0:
				f.Proto = event.UDP
			default:
				f.TCPFlags = event.SYN | event.ACK | event.PSH | event.FIN
			}
		}
		d.Detect(&batches[i], none)
	}
	flows := 0
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		d.Detect(&batches[i%len(batches)], none)
		flows += event.BatchSize
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(flows), "ns/flow")
}

// Every knob decides at its value, and one short of it doesn't.
func TestBoundaries(t *testing.T) {
	find := func(change func(*Config), fill func(b *event.Batch)) (rules []string) {
		d := fresh(t, change)
		var b event.Batch
		fill(&b)
		seen := map[finding.ID]bool{}
		report := func(f *finding.Finding) {
			if !seen[f.ID] {
				seen[f.ID] = true
				rules = append(rules, f.Rule)
			}
		}
		d.Detect(&b, report)
		d.Finish(report)
		return rules
	}
	tries := func(n int, port uint16) func(*event.Batch) {
		return func(b *event.Batch) {
			for i := range n { // one in each of many networks, none in the same place of the books
				syn(b, 1, uint32(20+i%200)<<24|uint32(i), port, 60, start+event.Time(i)*1e9)
			}
		}
	}
	answered := func(silent, answers int) func(*event.Batch) {
		return func(b *event.Batch) {
			tries(1, 23)(b)
			for i := range answers {
				f := syn(b, 1, uint32(20+i%200)<<24|uint32(i), 23, 900, start)
				f.TCPFlags, f.Packets = event.SYN|event.ACK|event.PSH, 9
			}
			tries(silent+answers, 23)(b)
		}
	}
	echo := func(n int) func(*event.Batch) {
		return func(b *event.Batch) {
			for i := range n {
				f := syn(b, 0, own+uint32(i), 5000, 40, start+event.Time(i)*1e6)
				f.Src, f.SrcNet, f.DstNet, f.SrcPort, f.TCPFlags = four(0xC0000201), 0, 1, 80, event.SYN|event.ACK
			}
		}
	}
	for _, c := range []struct {
		name   string
		change func(*Config)
		fill   func(*event.Batch)
		want   string
	}{
		{"targets", nil, tries(9, 23), "iotbot.scan"},
		{"a target fewer", nil, tries(8, 23), ""},
		{"targets, knob", func(c *Config) { c.MinTargets = 8 }, tries(8, 23), "iotbot.scan"},
		{"targets of servers", nil, tries(9, 22), "scan.horizontal"},
		{"websites", nil, tries(230, 8080), "iotbot.scan"},
		{"fewer websites", nil, tries(180, 8080), ""},
		{"websites, knob", func(c *Config) { c.MinTargetsWeb = 100 }, tries(180, 8080), "iotbot.scan"},
		{"everybody's port", nil, tries(500, 443), ""},
		{"another port", nil, tries(115, 4444), "scan.horizontal"},
		{"another port, fewer", nil, tries(90, 4444), ""},
		{"another port, knob", func(c *Config) { c.MinTargetsOther = 50 }, tries(90, 4444), "scan.horizontal"},
		{"echoes", nil, echo(60), "scan.backscatter"},
		{"fewer echoes", nil, echo(42), ""},
		{"echoes, knob", func(c *Config) { c.MinEchoes = 30 }, echo(42), "scan.backscatter"},
		{"answers", func(c *Config) { c.MinTargets = 100 }, answered(110, 20), "iotbot.scan"},
		{"more answers", func(c *Config) { c.MinTargets = 100 }, answered(110, 40), ""},
		{"more answers, knob", func(c *Config) { c.MinTargets, c.FailShare = 100, 0.6 }, answered(110, 40), "iotbot.scan"},
	} {
		got := strings.Join(find(c.change, c.fill), " ")
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// A host that goes on is said again every Update, and has stopped after MaxQuiet
// at most.
func TestUpdateAndQuiet(t *testing.T) {
	for _, c := range []struct {
		update, quiet time.Duration
		reports, ends int
	}{{time.Minute, 6 * time.Hour, 9, 1}, {10 * time.Minute, 6 * time.Hour, 3, 1}, {time.Minute, time.Minute, 8, 2}} {
		d := fresh(t, func(k *Config) { k.Update, k.MaxQuiet = c.update, c.quiet })
		var b event.Batch
		for i := range 40 { // ten minutes, and again after five
			at := start + event.Time(i)*15e9
			if i >= 20 {
				at += 300e9
			}
			syn(&b, 1, uint32(20+i)<<24, 23, 60, at)
		}
		n, ends := 0, 0
		report := func(f *finding.Finding) {
			if n++; f.Ended {
				ends++
			}
		}
		d.Detect(&b, report)
		d.Advance(start.Add(48*time.Hour), report)
		if n != c.reports || ends != c.ends {
			t.Errorf("update %v, quiet %v: %d reports, %d ends; want %d and %d", c.update, c.quiet, n, ends, c.reports, c.ends)
		}
	}
}
