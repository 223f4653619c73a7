package packet

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"noroshi/event"
)

// Each frame and the records it becomes, in the notation of package event.
func TestDecode(t *testing.T) {
	hello := []byte("hello")
	syn := ip4(6, 0, tcp(7, 5, event.SYN))
	plain := "192.0.2.1:53 > 198.51.100.2:5353 udp"
	six := "[2001:db8::1]:53 > [2001:db8::2]:5353 udp"
	u4, u6 := ip4(17, 0, udp(hello)), ip6(17, udp(hello))
	for _, c := range []struct {
		name string
		link LinkType
		data []byte
		want string // a part of each record's line, joined by " | "
	}{
		{"ethernet", Ethernet, eth(0x0800, u4), plain},
		{"ethernet IPv6", Ethernet, eth(0x86dd, u6), six},
		{"padding isn't payload", Ethernet, eth(0x0800, ip4(17, 0, udp()), make([]byte, 18)), plain},
		{"VLAN", Ethernet, eth(0x8100, vlan(5, 0x0800, u4)), plain},
		{"QinQ", Ethernet, eth(0x88a8, vlan(5, 0x8100, vlan(6, 0x86dd, u6))), six},
		{"QinQ, older types", Ethernet, eth(0x9100, vlan(5, 0x9200, vlan(6, 0x0800, u4))), plain},
		{"MPLS", Ethernet, eth(0x8847, label(false, label(true, u4))), plain},
		{"MPLS, upstream-assigned", Ethernet, eth(0x8848, label(true, u4)), plain},
		{"MPLS behind a VLAN", Ethernet, eth(0x8100, vlan(5, 0x8847, label(true, u6))), six},
		{"MPLS pseudowire", Ethernet, eth(0x8847, label(true, make([]byte, 4), eth(0x0800, u4))), plain},
		{"PPPoE", Ethernet, eth(0x8864, []byte{0x11, 0, 0, 1, 0, 50}, u16(0x0021), u4), plain},
		{"PPPoE IPv6", Ethernet, eth(0x8864, []byte{0x11, 0, 0, 1, 0, 90}, u16(0x0057), u6), six},
		{"PPPoE behind QinQ", Ethernet, eth(0x88a8, vlan(5, 0x8100, vlan(6, 0x8864, []byte{0x11, 0, 0, 1, 0, 50}, u16(0x0021), u4))), plain},
		{"MPLS in PPP", PPP, cat(u16(0x0281), label(true, u4)), plain},
		{"link type PPPoE", PPPoE, cat([]byte{0x11, 0, 0, 1, 0, 50}, u16(0x0021), u4), plain},
		{"backbone bridging", Ethernet, eth(0x88e7, make([]byte, 4), eth(0x0800, u4)), plain},
		{"802.3 with SNAP", Ethernet, eth(60, []byte{0xaa, 0xaa, 3, 0, 0, 0}, u16(0x0800), u4), plain},
		{"802.3 with IP", Ethernet, eth(60, []byte{6, 6, 3}, u4, make([]byte, 8)), plain},
		{"cooked", LinuxSLL, cat(make([]byte, 14), u16(0x0800), u4), plain},
		{"cooked, tagged", LinuxSLL, cat(make([]byte, 14), u16(0x8100), vlan(1, 0x0800, u4)), plain},
		{"cooked 2", LinuxSLL2, cat(u16(0x86dd), make([]byte, 18), u6), six},
		{"cooked 2, tagged", LinuxSLL2, cat(u16(0x8100), make([]byte, 18), vlan(1, 0x86dd, u6)), six},
		{"raw", Raw, u4, plain},
		{"raw IPv6", Raw, u6, six},
		{"raw, as old systems write it", rawBSD, u4, plain},
		{"link type IPv4", IPv4, u4, plain},
		{"null, little-endian", Null, cat([]byte{2, 0, 0, 0}, u4), plain},
		{"null, big-endian", Null, cat([]byte{0, 0, 0, 30}, u6), six},
		{"loop", Loop, cat([]byte{0, 0, 0, 2}, u4), plain},
		{"PPP in HDLC", PPP, cat([]byte{0xff, 3, 0, 0x21}, u4), plain},
		{"PPP compressed", PPP, cat([]byte{0x21}, u4), plain},
		{"link type MPLS", MPLS, label(true, u6), six},

		{"SYN", Raw, syn, "192.0.2.1:1111 > 198.51.100.2:23 tcp S"},
		{"Mirai's mark", Raw, ip4(6, 0, tcp(mark, 5, event.SYN)), "seqdst"},
		{"the mark on a SYN+ACK is chance", Raw, ip4(6, 0, tcp(mark, 5, event.SYN|event.ACK)), "tcp SA"},
		{"SCTP", Raw, ip4(132, 0, u16(9, 10), make([]byte, 8)), "192.0.2.1:9 > 198.51.100.2:10"},
		{"ICMP", Raw, ip4(1, 0, []byte{8, 0, 0, 0, 0, 0, 0, 0}), "icmp"},

		{"first fragment", Raw, ip4(17, 0x2000, udp(hello)), plain},
		{"later fragment", Raw, ip4(17, 0x00b9, udp(hello)), "192.0.2.1 > 198.51.100.2 udp"},
		{"IPv6 extension headers", Raw, ip6(0, []byte{60, 0, 0, 0, 0, 0, 0, 0}, []byte{43, 0, 0, 0, 0, 0, 0, 0},
			[]byte{51, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, []byte{17, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, udp(hello)), six},
		{"IPv6 later fragment", Raw, ip6(44, []byte{17, 0, 0x05, 0xa8, 0, 0, 0, 1}, udp(hello)), "2001:db8::1 > 2001:db8::2 udp"},

		{"IPv6 mobility, HIP, Shim6", Raw, ip6(135, []byte{139, 0, 0, 0, 0, 0, 0, 0}, []byte{140, 0, 0, 0, 0, 0, 0, 0}, []byte{17, 0, 0, 0, 0, 0, 0, 0}, udp(hello)), six},
		{"IPv6 first fragment", Raw, ip6(44, []byte{17, 0, 0, 1, 0, 0, 0, 1}, udp(hello)), six + " 1p 61B ttl=61 firstfrag"},
		{"IPv6 atomic fragment", Raw, ip6(44, []byte{17, 0, 0, 0, 0, 0, 0, 1}, udp(hello)), six + " 1p 61B ttl=61 payload"},
		{"IPv6 later fragment of extension headers", Raw, ip6(44, []byte{60, 0, 0x05, 0xa8, 0, 0, 0, 1}, []byte{17, 0, 0, 0, 0, 0, 0, 0}, udp(hello)), "2001:db8::1 > 2001:db8::2 proto=60"},
		{"IPv6 extension header running past the end", Raw, ip6(60, []byte{17, 9, 0, 0, 0, 0, 0, 0}, udp(hello)), "2001:db8::1 > 2001:db8::2 proto=60"},
		{"IPv6 padding isn't payload", Ethernet, eth(0x86dd, ip6(6, tcp(1, 5, event.ACK)), make([]byte, 20)), "[2001:db8::1]:1111 > [2001:db8::2]:23 tcp A 1p 60B ttl=61 win=5840"},
		{"IPv4 padding isn't payload", Ethernet, eth(0x0800, ip4(6, 0, tcp(1, 5, event.ACK)), make([]byte, 20)), "tcp A 1p 40B ttl=60 win=5840"},

		{"GRE with checksum", Raw, ip4(47, 0, u16(0x8000, 0x0800, 0, 0), u4), "gre | " + plain},
		{"PPTP with acknowledgment", Raw, ip4(47, 0, u16(0x3081, 0x880b), make([]byte, 12), []byte{0x21}, u4), "gre | " + plain},
		{"later fragment of GRE", Raw, ip4(47, 0x00b9, u16(0, 0x0800), u4), "gre 1p 57B ttl=60 frag"},
		{"GRE in IPv6", Raw, ip6(47, u16(0, 0x0800), u4), "gre | " + plain},
		{"GRE behind an MPLS label", MPLS, label(true, ip4(47, 0, u16(0, 0x8847), label(true, u4))), "gre | " + plain},
		{"GRE", Raw, ip4(47, 0, u16(0, 0x0800), u4), "gre | " + plain},
		{"GRE with key and sequence", Raw, ip4(47, 0, u16(0x3000, 0x86dd), make([]byte, 8), u6), "gre | " + six},
		{"GRE of Ethernet", Raw, ip4(47, 0, u16(0, 0x6558), eth(0x0800, u4)), "gre | " + plain},
		{"PPTP", Raw, ip4(47, 0, u16(0x3001, 0x880b), make([]byte, 8), []byte{0xff, 3, 0, 0x21}, u4), "gre | " + plain},
		{"ERSPAN", Raw, ip4(47, 0, u16(0x1000, 0x88be), make([]byte, 12), eth(0x0800, u4)), "gre | " + plain},
		{"GRE of nothing", Raw, ip4(47, 0, u16(0, 0x0800), make([]byte, 40)), "gre"},
		{"IP in IP", Raw, ip4(4, 0, u4), "198.51.100.2 proto=4 1p 53B ttl=60 | " + plain},
		{"6in4", Raw, ip4(41, 0, u6), "198.51.100.2 proto=41 1p 73B ttl=60 | " + six},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, res := decode(c.link, c.data)
			want := strings.Split(c.want, " | ")
			if res.N != b.Len() || res.N != len(want) || res.Reason != None {
				t.Fatalf("%d records, reason %q; want %d", res.N, res.Reason, len(want))
			}
			for i := range b.Flows {
				f := &b.Flows[i]
				line := b.Line(f)
				if !strings.Contains(line, want[i]) || strings.HasPrefix(c.name, "IPv") && strings.Contains(c.name, "padding") && !strings.HasSuffix(line, want[i]) {
					t.Errorf("record %d is %s, want %s", i, line, want[i])
				}
				if tunnelled := f.Has(event.Tunnelled); tunnelled != (i == 1) || !f.Has(event.OnePacket) {
					t.Errorf("record %d: marks %b", i, f.Marks)
				}
			}
		})
	}
}

func TestReasons(t *testing.T) {
	u4 := ip4(17, 0, udp())
	tags := eth(0x8100)
	for range 20 {
		tags = cat(tags, vlan(1, 0x8100))
	}
	for _, c := range []struct {
		name string
		link LinkType
		data []byte
		want Reason
	}{
		{"nothing", Ethernet, nil, Truncated},
		{"half an Ethernet header", Ethernet, make([]byte, 9), Truncated},
		{"ARP", Ethernet, eth(0x0806, make([]byte, 28)), NotIP},
		{"spanning tree", Ethernet, eth(38, []byte{0x42, 0x42, 3}, make([]byte, 35)), NotIP},
		{"Wi-Fi", 105, u4, UnknownLink},
		{"20 tags", Ethernet, tags, TooDeep},
		{"endless labels", MPLS, bytes.Repeat([]byte{0, 1, 0, 64}, 30), TooDeep},
		{"IP version 5", Raw, []byte{0x55, 0, 0, 20}, NotIP},
		{"half an IP header", Raw, u4[:19], Truncated},
		{"half an IPv6 header", Raw, ip6(17, udp())[:39], Truncated},
		{"header of four words", Raw, cat([]byte{0x44}, u4[1:]), BadHeader},
		{"length below the header's", Raw, cat(u4[:2], u16(19), u4[4:]), BadHeader},
		{"endless extension headers", Raw, ip6(60, bytes.Repeat([]byte{60, 0, 0, 0, 0, 0, 0, 0}, 12)), TooDeep},
	} {
		if b, res := decode(c.link, c.data); res.Reason != c.want || b.Len() != 0 {
			t.Errorf("%s: %q and %d records, want %q", c.name, res.Reason, b.Len(), c.want)
		}
	}
}

// What the record says beyond addresses and ports.
func TestFields(t *testing.T) {
	one := func(data []byte) (*event.Flow, *event.Batch) {
		t.Helper()
		b, res := decode(Raw, data)
		if res.N == 0 {
			t.Fatalf("no record: %v", res.Reason)
		}
		return &b.Flows[0], b
	}
	f, b := one(ip4(17, 0, udp([]byte("hello"))))
	if f.Bytes != 33 || f.Packets != 1 || f.Sampling != 1 || f.TTL != 60 || f.TOS != 0x10 || f.Seen != 1e9 || b.Text(f.Payload) != "hello" {
		t.Errorf("UDP: %+v payload %q", f, b.Text(f.Payload))
	}
	f, b = one(ip4(6, 0, tcp(mark, 5, event.SYN)))
	if !f.Has(event.SeqIsDst|event.NoOptions) || f.Has(event.BadOffset) || f.Window != 5840 || f.TCPFlags != event.SYN || f.Payload.Len != 0 {
		t.Errorf("SYN: %+v payload %q", f, b.Text(f.Payload))
	}
	// The offset of real Mirai: 24 octets of TCP header in a packet with room for 20.
	f, _ = one(cat(ip4(6, 0, tcp(mark, 6, event.SYN)), make([]byte, 6)))
	if !f.Has(event.SeqIsDst|event.BadOffset) || f.Has(event.NoOptions) || f.SrcPort != 1111 || f.DstPort != 23 {
		t.Errorf("bad offset: %+v", f)
	}
	f, _ = one(ip4(6, 0, tcp(1, 10, event.SYN, make([]byte, 20))))
	if f.Marks != event.OnePacket {
		t.Errorf("SYN with options: marks %b", f.Marks)
	}
	quoted := ip4(1, 0, []byte{3, 13, 0, 0, 0, 0, 0, 0}, ip4(6, 0, tcp(mark, 5, event.SYN))[:28])
	if f, _ := one(quoted); !f.Has(event.QuoteSeqIsDst) || f.DstPort != 3<<8|13 {
		t.Errorf("quote: %+v", f)
	}
	if f, _ := one(ip4(1, 0, []byte{3, 13, 0, 0, 0, 0, 0, 0}, ip4(6, 0, tcp(1, 5, event.SYN))[:28])); f.Has(event.QuoteSeqIsDst) {
		t.Error("a quote without the mark has it")
	}
	// Every ICMP error that quotes; and no other packet, nor the middle of one.
	for _, kind := range []byte{3, 4, 5, 11, 12} {
		if f, _ := one(ip4(1, 0, []byte{kind, 0, 0, 0, 0, 0, 0, 0}, ip4(6, 0, tcp(mark, 5, event.SYN))[:28])); !f.Has(event.QuoteSeqIsDst) {
			t.Errorf("ICMP type %d: the mark isn't found", kind)
		}
	}
	if f, _ := one(ip4(1, 0, []byte{8, 0, 0, 0, 0, 0, 0, 0}, ip4(6, 0, tcp(mark, 5, event.SYN))[:28])); f.Has(event.QuoteSeqIsDst) {
		t.Error("an echo quotes nothing")
	}
	if f, _ := one(ip4(1, 0, []byte{3, 1, 0, 0, 0, 0, 0, 0}, ip4(6, 5, tcp(mark, 5, event.SYN))[:28])); f.Has(event.QuoteSeqIsDst) {
		t.Error("a later fragment has no sequence number")
	}
	if f, b := one(ip4(17, 0, udp([]byte("hello")), []byte("more than UDP says"))); b.Text(f.Payload) != "hello" {
		t.Errorf("payload %q beyond UDP's length", b.Text(f.Payload))
	}
	forged := ip6(17, udp())
	copy(forged[8:], "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x01")
	if f, _ := one(forged); f.Src != (event.Addr{}) || f.Dst == (event.Addr{}) {
		t.Errorf("a forged mapped address is %v", f.Src)
	}
	six := ip6(17, udp(make([]byte, 1400)))
	if f, _ := one(cat(six[:4], u16(0), six[6:])); f.Bytes != 1448 {
		t.Errorf("IPv6 length left to the link: %d octets", f.Bytes)
	}
	if f, _ := one(ip4(17, 0x2000, udp())); !f.Has(event.FirstFragment) {
		t.Errorf("first fragment: marks %b", f.Marks)
	}
	if f, _ := one(ip4(17, 1, udp())); !f.Has(event.Fragment) || f.SrcPort != 0 {
		t.Errorf("fragment: %+v", f)
	}
	long := ip4(17, 0, udp(make([]byte, 1400)))
	if f, _ := one(long); f.Payload.Len != event.MaxPayload {
		t.Errorf("%d octets of payload kept", f.Payload.Len)
	}
	if f, _ := one(long[:100]); f.Bytes != 1428 || f.Payload.Len != 72 {
		t.Errorf("cut at capture: %d octets, %d of payload", f.Bytes, f.Payload.Len)
	}
	offload := cat(long[:2], u16(0), long[4:])
	if f, _ := one(offload); f.Bytes != 1428 {
		t.Errorf("length left to the link: %d octets", f.Bytes)
	}
	// What was not kept is still there for the caller.
	var none event.Batch
	if res := Decode(&Packet{Link: Raw, Data: long, Wire: len(long)}, 0, &none); len(res.Payload) != 1400 || none.TextLen() != 0 {
		t.Errorf("payload of %d octets, %d kept", len(res.Payload), none.TextLen())
	}
}

func FuzzDecode(f *testing.F) {
	for _, l := range []LinkType{Ethernet, Raw, Null, LinuxSLL, LinuxSLL2, PPP, PPPoE, MPLS} {
		f.Add(uint16(l), eth(0x8100, vlan(1, 0x0800, ip4(6, 0, tcp(mark, 6, event.SYN)))), 64)
		f.Add(uint16(l), ip4(47, 0, u16(0x3000, 0x86dd), make([]byte, 8), ip6(44, []byte{17, 0, 0, 1, 0, 0, 0, 1}, udp())), 2000)
		f.Add(uint16(l), label(true, make([]byte, 4), eth(0x8864, []byte{0x11, 0, 0, 1, 0, 50}, u16(0x0021), ip4(1, 0, []byte{3, 1, 0, 0, 0, 0, 0, 0}, ip4(6, 0, tcp(mark, 5, 2))))), 0)
	}
	f.Fuzz(func(t *testing.T, link uint16, data []byte, wire int) {
		p := Packet{Time: 5, Link: LinkType(link), Data: data, Wire: max(wire, len(data))}
		var b, again event.Batch
		res := Decode(&p, event.MaxPayload, &b)
		switch {
		case res.N != b.Len() || res.N > 2:
			t.Fatalf("says %d records and appends %d", res.N, b.Len())
		case (res.N == 0) != (res.Reason != None):
			t.Fatalf("%d records and the reason %q", res.N, res.Reason)
		case len(res.Payload) > len(data):
			t.Fatalf("payload of %d octets in %d", len(res.Payload), len(data))
		case b.TextLen() > 2*event.MaxPayload:
			t.Fatalf("keeps %d octets", b.TextLen())
		}
		for i := range b.Flows {
			if f := &b.Flows[i]; f.Packets != 1 || f.Sampling != 1 || f.First != 5 || !f.Has(event.OnePacket) || f.Src.Is4() != f.Dst.Is4() {
				t.Fatalf("record %+v", f)
			}
		}
		if r := Decode(&p, event.MaxPayload, &again); r.N != res.N || fmt.Sprint(again.Flows) != fmt.Sprint(b.Flows) {
			t.Fatal("decoding twice gives two results")
		}
	})
}
