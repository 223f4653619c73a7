package sflow

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"noroshi/event"
	"noroshi/source/packet"
)

const arrival = event.Time(1_700_000_000e9)

var relay = addr("192.0.2.99")

func addr(s string) event.Addr { return event.AddrOf(netip.MustParseAddr(s)) }

func words(v ...uint32) (p []byte) {
	for _, x := range v {
		p = be.AppendUint32(p, x)
	}
	return p
}

func cat(parts ...[]byte) (p []byte) {
	for _, x := range parts {
		p = append(p, x...)
	}
	return p
}

// tagged is a sample or record: its format, its length, its octets.
func tagged(kind uint32, body ...[]byte) []byte {
	b := cat(body...)
	return cat(words(kind, uint32(len(b))), b)
}

// datagram of agent 198.51.100.1, sub-agent 7.
func datagram(seq uint32, samples ...[]byte) []byte {
	return cat(words(5, 1), []byte{198, 51, 100, 1}, words(7, seq, 1e6, uint32(len(samples))), cat(samples...))
}

// flow is a flow sample of 1 in rate, from interface 3 to 4.
func flow(seq, rate, drops uint32, records ...[]byte) []byte {
	return tagged(flowSample, words(seq, 9, rate, 0, drops, 3, 4, uint32(len(records))), cat(records...))
}

func raw(protocol uint32, p []byte) []byte {
	n := len(p)
	return tagged(rawHeader, words(protocol, uint32(n+4), 4, uint32(n)), p, make([]byte, (4-n%4)%4))
}

// syn is an Ethernet frame with Mirai's probe of 192.0.2.5:23.
func syn() []byte {
	p := make([]byte, 54)
	be.PutUint16(p[12:], 0x0800)
	ip := p[14:]
	ip[0], ip[8], ip[9] = 0x45, 64, event.TCP
	be.PutUint16(ip[2:], 40)
	copy(ip[12:], []byte{10, 0, 0, 1, 192, 0, 2, 5})
	be.PutUint16(ip[20:], 40000)
	be.PutUint16(ip[22:], 23)
	copy(ip[24:], []byte{192, 0, 2, 5})
	ip[32], ip[33] = 5<<4, event.SYN
	return p
}

func decode(t testing.TB, d *Decoder, p []byte) *event.Batch {
	t.Helper()
	var b event.Batch
	if n, err := d.Decode(p, relay, arrival, &b); err != nil || n != b.Len() {
		t.Fatalf("Decode = %d, %v with %d flows", n, err, b.Len())
	}
	return &b
}

func counts(d *Decoder) map[string]uint64 {
	m := map[string]uint64{}
	for c := range d.Counts() {
		m[strings.TrimSuffix(c.Name+": "+c.Reason, ": ")] += c.Value
	}
	return m
}

func TestRawHeader(t *testing.T) {
	d := NewDecoder(Config{})
	gateway := tagged(extendedGateway, words(1), []byte{192, 0, 2, 254}, words(64500, 64501, 64502, 1, 2, 2, 64503, 64504, 0, 100))
	b := decode(t, d, datagram(1, flow(1, 1000, 0, raw(1, syn()), gateway)))
	if b.Len() != 1 {
		t.Fatalf("%d flows", b.Len())
	}
	f := b.Flows[0]
	want := event.Flow{
		First: arrival, Last: arrival, Seen: arrival, Src: addr("10.0.0.1"), Dst: addr("192.0.2.5"), Exporter: addr("198.51.100.1"),
		Bytes: 40_000, Packets: 1000, Sampling: 1000, InIf: 3, OutIf: 4, SrcAS: 64501, DstAS: 64504,
		SrcPort: 40000, DstPort: 23, Proto: event.TCP, TCPFlags: event.SYN, TTL: 64,
		Marks: event.OnePacket | event.SeqIsDst | event.NoOptions,
	}
	if f != want {
		t.Errorf("got  %+v\nwant %+v", f, want)
	}
}

func TestSamples(t *testing.T) {
	v4 := tagged(sampledIPv4, words(60, event.TCP), []byte{10, 0, 0, 1, 192, 0, 2, 5}, words(1000, 23, event.SYN, 0))
	six := netip.MustParseAddr("2001:db8::1").As16()
	v6 := tagged(sampledIPv6, words(80, event.UDP), six[:], six[:], words(53, 5353, 0, 0))
	arp := make([]byte, 60)
	be.PutUint16(arp[12:], 0x0806)
	gre := make([]byte, 14+20+4+20)
	copy(gre, syn()[:34])
	be.PutUint16(gre[16:], 44)
	gre[14+9] = event.GRE
	be.PutUint16(gre[14+20+2:], 0x0800)
	copy(gre[14+24:], syn()[14:34])
	be.PutUint16(gre[14+24+2:], 20)
	expanded := tagged(expandedFlow, words(1, 0, 9, 100, 0, 0, 0, 77, 1, 88, 1), raw(11, syn()[14:]))
	v6raw := cat([]byte{0x60, 0, 0, 0, 0, 8, event.UDP, 64}, six[:], six[:], []byte{0, 53, 0x14, 0xe9, 0, 8, 0, 0})
	ping := tagged(sampledIPv4, words(60, event.ICMP), []byte{10, 0, 0, 1, 192, 0, 2, 5}, words(8, 0, 0, 0))
	odd := cat(words(rawHeader, 16+55), words(1, 59, 4, 55), syn(), []byte{0, 0}) // 55 octets and one of padding
	for _, c := range []struct {
		name   string
		sample []byte
		flows  []string // a part of each one's line
		count  string   // a counter that must be 1
	}{
		{"parsed IPv4", flow(1, 10, 0, v4), []string{"10.0.0.1:1000 > 192.0.2.5:23 tcp S 10p 600B"}, ""},
		{"parsed IPv6", flow(1, 10, 0, v6), []string{"[2001:db8::1]:53 > [2001:db8::1]:5353 udp 10p 800B"}, ""},
		{"the header goes before parsed fields", flow(1, 10, 0, v4, raw(1, syn())), []string{"40000 > 192.0.2.5:23 tcp S 10p 400B"}, ""},
		{"parsed fields help when the header isn't understood", flow(1, 10, 0, raw(5, syn()), v4), []string{"10p 600B"}, ""},
		{"expanded, raw IPv4", expanded, []string{"tcp S 100p 4000B"}, ""},
		{"raw IPv6", flow(1, 10, 0, raw(12, v6raw)), []string{"[2001:db8::1]:53 > [2001:db8::1]:5353 udp 10p 480B"}, ""},
		{"raw MPLS", flow(1, 10, 0, raw(13, cat([]byte{0, 1, 0x11, 64}, syn()[14:]))), []string{"tcp S 10p 400B"}, ""},
		{"raw PPP", flow(1, 10, 0, raw(7, cat([]byte{0xff, 3, 0, 0x21}, syn()[14:]))), []string{"tcp S 10p 400B"}, ""},
		{"parsed ICMP", flow(1, 10, 0, ping), []string{"icmp type=8/0 10p 600B"}, ""},
		{"a record behind padding", flow(1, 10, 0, odd, tagged(extendedGateway, words(1), []byte{192, 0, 2, 254}, words(1, 2, 3, 0, 0, 0))), []string{"tcp S 10p 400B 1:10"}, ""},
		{"a tunnel", flow(1, 10, 0, raw(1, gre)), []string{"gre 10p 440B", "tunnelled"}, ""},
		{"rate unknown", flow(1, 0, 0, v4), []string{"1p 60B 1:0"}, "flows: sampling unknown"},
		{"ARP", flow(1, 10, 0, raw(1, arp)), nil, "samples: no IP packet"},
		{"no record", flow(1, 10, 0), nil, "samples: no IP packet"},
		{"counters", tagged(countersSample, make([]byte, 40)), nil, "samples: interface counters"},
		{"expanded counters", tagged(expandedCounter, make([]byte, 40)), nil, "samples: interface counters"},
		{"discards", tagged(discardedPacket, make([]byte, 40)), nil, "samples: discarded packets"},
		{"another enterprise's", tagged(4413<<12|1, make([]byte, 40)), nil, "samples: unknown format"},
	} {
		d := NewDecoder(Config{})
		b := decode(t, d, datagram(1, c.sample))
		if b.Len() != len(c.flows) {
			t.Errorf("%s: %d flows, want %d", c.name, b.Len(), len(c.flows))
			continue
		}
		for i, want := range c.flows {
			if line := b.Line(&b.Flows[i]); !strings.Contains(line, want) {
				t.Errorf("%s: %s, want %s", c.name, line, want)
			}
		}
		if m := counts(d); m["datagrams"] != 1 || m["flows"] != uint64(len(c.flows)) || c.count != "" && m[c.count] != 1 {
			t.Errorf("%s: counts %v, want 1 %q", c.name, m, c.count)
		}
	}
}

// A gap is not so large, an agent may not know its address, and payloads come
// only of TCP and ICMP, if at all.
func TestDetails(t *testing.T) {
	d := NewDecoder(Config{})
	decode(t, d, datagram(1, flow(1, 10, 0, raw(1, syn()))))
	decode(t, d, datagram(1<<16+2, flow(1<<16+2, 10, 0, raw(1, syn()))))
	if got := counts(d); got["lost datagrams: sequence gap"] != 0 || got["restarts: sequence began anew"] != 1 || got["lost samples: sequence gap"] != 0 {
		t.Errorf("a step of 65,537: %v", got)
	}
	nobody := datagram(1, flow(1, 10, 0, raw(1, syn())))
	copy(nobody[8:], make([]byte, 4))
	if f := decode(t, NewDecoder(Config{}), nobody).Flows[0]; f.Exporter != relay {
		t.Errorf("agent 0.0.0.0 is %v, want the sender", f.Exporter)
	}
	segment := cat(syn(), []byte("hello"))
	be.PutUint16(segment[16:], 45)
	dgram := cat(segment[:34], []byte{0, 53, 0, 53, 0, 13, 0, 0}, []byte("hello"))
	dgram[23] = event.UDP
	be.PutUint16(dgram[16:], 33)
	for _, c := range []struct {
		cfg   Config
		frame []byte
		want  string
	}{{Config{}, segment, "hello"}, {Config{NoPayload: true}, segment, ""}, {Config{}, dgram, ""}} {
		b := decode(t, NewDecoder(c.cfg), datagram(1, flow(1, 10, 0, raw(1, c.frame))))
		if got := b.Text(b.Flows[0].Payload); got != c.want {
			t.Errorf("payload %q, want %q", got, c.want)
		}
	}
}

func TestInterfaces(t *testing.T) {
	sample := func(in uint32) []byte {
		return tagged(flowSample, words(1, 9, 10, 0, 0, in, 4, 1), raw(1, syn()))
	}
	for _, c := range []struct{ word, want uint32 }{{5, 5}, {0x3fffffff, 0}, {1<<30 | 2, 0}, {2<<30 | 8, 0}} {
		if b := decode(t, NewDecoder(Config{}), datagram(1, sample(c.word))); b.Flows[0].InIf != c.want {
			t.Errorf("%#x is interface %d, want %d", c.word, b.Flows[0].InIf, c.want)
		}
	}
	expanded := tagged(expandedFlow, words(1, 0, 9, 100, 0, 0, 0, 1<<30, 1, 88, 1), raw(11, syn()[14:]))
	if b := decode(t, NewDecoder(Config{}), datagram(1, expanded)); b.Flows[0].InIf != 1<<30 || b.Flows[0].OutIf != 0 {
		t.Errorf("expanded: interfaces %d, %d", b.Flows[0].InIf, b.Flows[0].OutIf)
	}
}

// Where an interface samples both ways, or its neighbour samples too, detectors
// must know who saw the packet leave.
func TestEgress(t *testing.T) {
	const several = 2<<30 | 3
	for _, c := range []struct {
		source, in, out uint32
		want            bool
	}{
		{3, 3, 4, false}, {4, 3, 4, true}, {3, 3, 3, false}, {9, 3, 4, false}, {9, 3, several, true}, {3, 3, several, false},
		{3, 0x3fffffff, 4, false}, {4, 0x3fffffff, 4, true}, {1<<24 | 4, 3, 4, false}, // VLAN 4
	} {
		p := datagram(1, tagged(flowSample, words(1, c.source, 10, 0, 0, c.in, c.out, 1), raw(1, syn())))
		if got := decode(t, NewDecoder(Config{}), p).Flows[0].Has(event.Egress); got != c.want {
			t.Errorf("sampled at %#x from %#x to %#x: leaving %v", c.source, c.in, c.out, got)
		}
	}
	expanded := tagged(expandedFlow, words(1, 0, 1<<30, 100, 0, 0, 0, 77, 0, 1<<30, 1), raw(11, syn()[14:]))
	if b := decode(t, NewDecoder(Config{}), datagram(1, expanded)); !b.Flows[0].Has(event.Egress) {
		t.Error("expanded: not seen leaving")
	}
}

// A bot can write any length into its IP header; the switch says what it took.
func TestLyingLength(t *testing.T) {
	p := syn()
	be.PutUint16(p[16:], 65535)
	if f := decode(t, NewDecoder(Config{}), datagram(1, flow(1, 10, 0, raw(1, p)))).Flows[0]; f.Bytes != 540 {
		t.Errorf("%d octets of a frame of 54, sampled 1 in 10", f.Bytes)
	}
}

func TestBad(t *testing.T) {
	good := datagram(1, flow(1, 10, 0, raw(1, syn())))
	for _, c := range []struct {
		name  string
		p     []byte
		flows int
		err   error
		count string
	}{
		{"empty", nil, 0, ErrShort, "refused: short header"},
		{"version 4", words(4, 1, 0, 0, 0, 0, 0), 0, ErrVersion, "refused: unknown version"},
		{"half a header", good[:20], 0, ErrShort, "refused: short header"},
		{"half a sample", good[:60], 0, ErrShort, "samples: cut short"},
		{"more samples promised", cat(good[:24], words(2), good[28:]), 1, ErrShort, "samples: cut short"},
		{"record runs past its sample", datagram(1, flow(1, 10, 0, words(rawHeader, 999))), 0, ErrSample, "samples: malformed"},
		{"a good record before a bad one", datagram(1, tagged(flowSample, words(1, 9, 10, 0, 0, 3, 4, 2), raw(1, syn()), words(1, 50))), 1, ErrSample, "samples: malformed"},
	} {
		d := NewDecoder(Config{})
		var b event.Batch
		n, err := d.Decode(c.p, relay, arrival, &b)
		if n != c.flows || b.Len() != n || !errors.Is(err, c.err) || counts(d)[c.count] != 1 {
			t.Errorf("%s: %d flows, %v, %v; want %d, %v, 1 %q", c.name, n, err, counts(d), c.flows, c.err, c.count)
		}
		for i := range b.Flows {
			if b.Flows[i].Packets != 10 {
				t.Errorf("%s: a flow was not multiplied", c.name)
			}
		}
	}
}

func TestSequences(t *testing.T) {
	d := NewDecoder(Config{})
	for _, c := range []struct{ datagram, sample, drops uint32 }{
		{100, 50, 3}, {101, 51, 3}, {105, 54, 3}, {103, 55, 8}, {106, 56, 8}, {1, 1, 0}, {2, 2, 0},
	} {
		decode(t, d, datagram(c.datagram, flow(c.sample, 10, c.drops, raw(1, syn()))))
	}
	got := counts(d)
	for name, want := range map[string]uint64{
		"lost datagrams: sequence gap": 3, "datagrams: reordered": 1, "restarts: sequence began anew": 1,
		"lost samples: sequence gap": 2, "lost samples: agent overloaded": 5, "flows": 7,
	} {
		if got[name] != want {
			t.Errorf("%s: %d, want %d", name, got[name], want)
		}
	}
}

// Each data source of an agent has its own numbers.
func TestSourcesApart(t *testing.T) {
	d := NewDecoder(Config{})
	for i := range uint32(5) {
		one, other := flow(100+i, 10, 3, raw(1, syn())), flow(9000+i, 10, 8, raw(1, syn()))
		be.PutUint32(other[12:], 10)
		decode(t, d, datagram(i, one, other))
	}
	if got := counts(d); got["lost samples: sequence gap"]+got["lost samples: agent overloaded"] != 0 || d.sources != 2 {
		t.Errorf("%v, %d sources", got, d.sources)
	}
}

// An agent that isn't followed is decoded all the same, and memory is bounded.
func TestAgentsBounded(t *testing.T) {
	d := NewDecoder(Config{MaxAgents: 2})
	for i := range byte(9) {
		p := datagram(1, flow(1, 10, 0, raw(1, syn())))
		p[11] = i
		decode(t, d, p)
	}
	if got := counts(d); got["flows"] != 9 || got["datagrams: agent not followed"] != 7 || len(d.agents) != 2 {
		t.Errorf("%v, %d agents", got, len(d.agents))
	}
	for i := range uint32(100) {
		s := flow(1, 10, 0, raw(1, syn()))
		be.PutUint32(s[12:], i)
		p := datagram(1, s)
		p[11] = 0
		decode(t, d, p)
	}
	if d.sources > 2*maxSources {
		t.Errorf("%d data sources", d.sources)
	}
}

func TestIsDatagram(t *testing.T) {
	good := datagram(1, flow(1, 10, 0, raw(1, syn())))
	for name, c := range map[string]struct {
		p    []byte
		want bool
	}{
		"good": {good, true}, "cut": {good[:len(good)-4], false}, "longer": {append(bytes.Clone(good), 0), false},
		"empty": {nil, false}, "no sample": {datagram(1), false}, "zeros": {make([]byte, 200), false},
	} {
		if got := IsDatagram(c.p); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// structure is what another decoder found in the corpus (structure.jsonl).
type structure struct {
	Set, Case string
	Datagrams []struct {
		File    string
		Frame   int
		Version int
		Error   string
		Agent   string
		Seq     uint32
		Samples []struct {
			Type          int
			Rate          uint32
			Input, Output []uint32
			Records       []struct{ Format, Protocol int }
		}
	}
}

// Real agents' datagrams, against what other decoders say is in them.
func TestCorpus(t *testing.T) {
	dir := os.Getenv("NOROSHI_CORPUS")
	if dir == "" {
		dir = "../../../shared/corpus"
	}
	dir = filepath.Join(dir, "flow")
	text, err := os.ReadFile(filepath.Join(dir, "structure.jsonl"))
	if err != nil {
		t.Skip("SKIPPED: the corpus of real datagrams is not here; set NOROSHI_CORPUS")
	}
	datagrams, flows := 0, 0
	for line := range strings.Lines(string(text)) {
		var s structure
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			continue // cases of the other protocols have other shapes
		}
		var frames map[int][]byte
		for _, want := range s.Datagrams {
			if want.Version != 5 || want.Agent == "" {
				continue
			}
			var p []byte
			if want.File != "" {
				p, err = os.ReadFile(filepath.Join(dir, s.Set, want.File))
			} else {
				if frames == nil {
					frames = payloads(t, filepath.Join(dir, s.Set, s.Case))
				}
				p = frames[want.Frame]
			}
			if err != nil || p == nil {
				t.Errorf("%s %s frame %d: no datagram, %v", s.Case, want.File, want.Frame, err)
				continue
			}
			name := fmt.Sprintf("%s %s %d", s.Case, want.File, want.Frame)
			if !IsDatagram(p) {
				t.Errorf("%s isn't recognised", name)
			}
			d := NewDecoder(Config{})
			b := decode(t, d, p)
			got := counts(d)
			wantCounters, wantFlows := uint64(0), 0
			for _, smp := range want.Samples {
				switch smp.Type {
				case 2, 4:
					wantCounters++
				case 1, 3:
					wantFlows++
				}
			}
			outer := 0
			for i := range b.Flows {
				f := &b.Flows[i]
				if f.Has(event.Tunnelled) {
					continue
				}
				outer++
				if hex := fmt.Sprintf("%x", f.Exporter.Std().AsSlice()); hex != want.Agent {
					t.Errorf("%s: agent %s, want %s", name, hex, want.Agent)
				}
				rates := map[uint32]bool{}
				ins := map[uint32]bool{0: true}
				for _, smp := range want.Samples {
					rates[smp.Rate] = true
					if n := len(smp.Input); n > 0 {
						ins[smp.Input[n-1]] = true
					}
				}
				if !rates[f.Sampling] || !ins[f.InIf] || f.Packets != uint64(max(f.Sampling, 1)) {
					t.Errorf("%s: flow %+v", name, f)
				}
			}
			if got["samples: interface counters"] != wantCounters || outer+int(got["samples: no IP packet"]) != wantFlows || got["samples: malformed"] != 0 {
				t.Errorf("%s: %d flows, %v; want %d flow and %d counter samples", name, outer, got, wantFlows, wantCounters)
			}
			datagrams++
			flows += outer
		}
	}
	if datagrams < 50 || flows < 20 {
		t.Errorf("only %d datagrams with %d flows were compared", datagrams, flows)
	}
	t.Logf("%d datagrams, %d flows", datagrams, flows)
}

// payloads returns the UDP payloads of a capture by the number of their frame.
func payloads(t *testing.T, name string) map[int][]byte {
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := packet.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	m := map[int][]byte{}
	for n := 1; ; n++ {
		var p packet.Packet
		if err := r.Next(&p); err == io.EOF || errors.Is(err, packet.ErrTruncated) {
			return m
		} else if err != nil {
			t.Fatal(err)
		}
		var b event.Batch
		m[n] = bytes.Clone(packet.Decode(&p, 0, &b).Payload)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(datagram(1, flow(1, 10, 0, raw(1, syn()))))
	f.Add(datagram(1, tagged(expandedFlow, words(1, 0, 9, 100, 0, 0, 0, 77, 1, 88, 2), raw(11, syn()[14:]),
		tagged(extendedGateway, words(1, 0, 1, 2, 3, 1, 2, 1, 5)))))
	f.Add(datagram(1, flow(1, 10, 0, tagged(sampledIPv4, words(60, 6, 1, 2, 3, 4, 5, 6))), tagged(countersSample, make([]byte, 40))))
	f.Fuzz(func(t *testing.T, p []byte) {
		d := NewDecoder(Config{MaxAgents: 1})
		var b, again event.Batch
		n, err := d.Decode(p, relay, arrival, &b)
		if n != b.Len() || n > len(p)/8 {
			t.Fatalf("says %d flows and appends %d from %d octets", n, b.Len(), len(p))
		}
		if got := counts(d); got["flows"] != uint64(n) {
			t.Fatalf("counts %v", got)
		}
		if len(d.agents) > 1 || d.sources > maxSources || b.TextLen() > 2*len(p) {
			t.Fatalf("%d agents, %d data sources, %d octets of text", len(d.agents), d.sources, b.TextLen())
		}
		if IsDatagram(p) && err != nil && !errors.Is(err, ErrSample) {
			t.Fatalf("recognised, and then %v", err)
		}
		for i := range b.Flows {
			if f := &b.Flows[i]; f.First != arrival || f.Last != arrival || f.Seen != arrival || f.Packets != uint64(max(f.Sampling, 1)) ||
				int(f.Payload.Off)+int(f.Payload.Len) > b.TextLen() {
				t.Fatalf("flow %+v", f)
			}
		}
		if m, _ := NewDecoder(Config{MaxAgents: 1}).Decode(p, relay, arrival, &again); m != n || fmt.Sprint(b.Flows) != fmt.Sprint(again.Flows) {
			t.Fatal("decoding twice gives two results")
		}
	})
}
