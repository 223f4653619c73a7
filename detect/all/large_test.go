package all_test

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"noroshi/detect"
	"noroshi/detect/all"
	"noroshi/event"
	"noroshi/finding"
	"noroshi/network"
)

// shard is every detector of one shard.
type shard struct {
	ds      []detect.Detector
	found   map[string]bool // rule and subject
	longest time.Duration   // that one batch took
}

func newShard(t *testing.T) *shard {
	t.Helper()
	if os.Getenv("NOROSHI_LARGE") == "" {
		t.Skip("SKIPPED: takes gigabytes and minutes; set NOROSHI_LARGE=1")
	}
	table, err := network.New([]network.Network{{Name: "home", Kind: network.Residential, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}, HostPPS: 2_000_000, HostBPS: 20e9}})
	if err != nil {
		t.Fatal(err)
	}
	s := &shard{found: map[string]bool{}}
	for _, spec := range all.Specs {
		d, err := spec.New(detect.Env{Config: spec.Config(), Network: table, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		if spec.Select == nil {
			s.ds = append(s.ds, d)
		}
	}
	return s
}

func (s *shard) detect(b *event.Batch) {
	began := time.Now()
	for _, d := range s.ds {
		d.Detect(b, func(f *finding.Finding) { s.found[f.Rule+" "+f.Subject.String()] = true })
	}
	s.longest = max(s.longest, time.Since(began))
}

func (s *shard) heap() (mb uint64, entries int, evicted uint64) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	for _, d := range s.ds {
		u := d.Usage()
		entries += u.Entries
		evicted += u.Evicted
	}
	return m.HeapAlloc >> 20, entries, evicted
}

func at(b *event.Batch, t event.Time) *event.Flow {
	f := b.NewFlow()
	f.First, f.Last, f.Seen, f.Sampling, f.Packets, f.Bytes = t, t, t, 1, 1, 40
	f.Proto, f.Marks = event.TCP, event.ForSrc|event.ForDst
	return f
}

func four(a uint32) event.Addr {
	return event.AddrOf4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
}

func six(n uint32) (a event.Addr) {
	copy(a[:], []byte{0x20, 0x01, 0x0d, 0xb8, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), 15: 1})
	return a
}

// A flood whose 50 million sources are forged: memory stays in its bound, no
// batch waits long, and neither its victim nor another one, nor a bot, is hidden.
func TestFiftyMillionForgedSources(t *testing.T) {
	s := newShard(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	const start = event.Time(1_700_000_000e9)
	now, victim, other, bot := start, four(10<<24|77), four(10<<24|1<<16|5), four(10<<24|2<<16|9)
	var b event.Batch
	n := 0
	for n < 50_000_000 {
		b.Reset()
		for i := range event.BatchSize {
			now += 300 // 3.3 million packets/s
			f := at(&b, now)
			switch {
			case i%512 == 100:
				f.Src, f.Dst, f.SrcNet, f.DstPort, f.TCPFlags = bot, four(rnd.Uint32()), 1, 23, event.SYN
				continue
			case i%4 == 1 && n > 25_000_000: // 8 million packets/s, from the middle on
				f.Proto, f.SrcPort, f.DstPort, f.DstNet, f.Packets, f.Bytes = event.UDP, uint16(rnd.Uint32()), 4444, 1, 10, 5000
				f.Src, f.Dst = four(198<<24|18<<16|rnd.Uint32N(5000)), other
				continue
			}
			f.Src, f.Dst, f.DstNet, f.DstPort, f.TCPFlags = four(rnd.Uint32()), victim, 1, 80, event.SYN
			n++
		}
		s.detect(&b)
	}
	mb, entries, evicted := s.heap()
	t.Logf("%d forged sources: heap %d MB, %d entries, %d evicted, longest batch of %d flows %v", n, mb, entries, evicted, event.BatchSize, s.longest)
	if mb > 600 {
		t.Errorf("%d MB", mb)
	}
	for _, want := range []string{"flood.inbound " + victim.String(), "flood.inbound " + other.String(), "iotbot.scan " + bot.String()} {
		if !s.found[want] {
			t.Errorf("not found: %s", want)
		}
	}
}

// Ten million own hosts, of IPv4 and IPv6, a tenth of which try somebody in
// vain: within two gigabytes.
func TestTenMillionHosts(t *testing.T) {
	s := newShard(t)
	const start = event.Time(1_700_000_000e9)
	now := start
	var b event.Batch
	play := func(hosts uint32, flows int) time.Duration {
		rnd := rand.New(rand.NewPCG(1, 2))
		var took time.Duration
		for done := 0; done < flows; done += event.BatchSize {
			b.Reset()
			for i := range event.BatchSize {
				now += 1000
				f := at(&b, now)
				h := rnd.Uint32N(hosts)
				own, far := four(10<<24|h), four(198<<24|18<<16|rnd.Uint32N(1<<16))
				if h%4 == 0 {
					own, far = six(h), event.Addr{0x20, 0x01, 0x0d, 0xb9, 15: byte(rnd.Uint32())}
				}
				f.Packets, f.Bytes = 8, 6000
				switch i % 10 {
				case 0:
					f.Src, f.Dst, f.SrcNet, f.DstPort, f.TCPFlags, f.Packets, f.Bytes = own, far, 1, 443, event.SYN, 3, 180
				case 1, 2, 3:
					f.Src, f.Dst, f.SrcNet, f.DstPort, f.TCPFlags = own, far, 1, 443, event.SYN|event.ACK|event.PSH
				case 4, 5:
					f.Src, f.Dst, f.DstNet, f.SrcPort, f.Proto = far, own, 1, 443, event.UDP
				default:
					f.Src, f.Dst, f.DstNet, f.SrcPort, f.TCPFlags = far, own, 1, 443, event.SYN|event.ACK|event.PSH
				}
			}
			began := time.Now()
			s.detect(&b)
			took += time.Since(began)
		}
		return took / time.Duration(flows)
	}
	play(100_000, 1_000_000)
	small := play(100_000, 4_000_000)
	s.longest = 0
	play(10_000_000, 60_000_000)
	growing := s.longest
	s.longest = 0
	large := play(10_000_000, 4_000_000)
	mb, entries, evicted := s.heap()
	t.Logf("10 million hosts: heap %d MB, %d entries, %d evicted; %v a flow, %v with 100,000 hosts; longest batch %v while growing, %v after", mb, entries, evicted, large, small, growing, s.longest)
	if mb > 2048 {
		t.Errorf("%d MB", mb)
	}
}
