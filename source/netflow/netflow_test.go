package netflow

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"noroshi/event"
)

// exact is a Config under which nothing is multiplied.
var exact = Config{Sampling: func(event.Addr, uint32) uint32 { return 1 }}

// Whole flows, every field, of the datagrams that routers send most.
func TestDecode(t *testing.T) {
	want := event.Flow{
		First: (sent - 2) * 1e9, Last: (sent - 1) * 1e9, Seen: arrival,
		Src: event.AddrOf4([4]byte{192, 0, 2, 23}), Dst: event.AddrOf4([4]byte{198, 51, 100, 1}), Exporter: router,
		Bytes: 1500, Packets: 3, InIf: 11, OutIf: 12, SrcPort: 40023, DstPort: 443,
		Proto: event.TCP, TCPFlags: event.SYN | event.ACK, TOS: 0x10,
	}
	for _, bm := range benchmarks[:5] {
		d := NewDecoder(Config{})
		var b event.Batch
		if bm.teach != nil {
			d.Decode(bm.teach, router, arrival, &b)
		}
		if n, err := d.Decode(bm.data, router, arrival, &b); n != 24 || err != nil {
			t.Errorf("%s: Decode = %d, %v, want 24", bm.name, n, err)
			continue
		}
		want := want
		switch {
		case bm.name == "v5": // its header has nanoseconds, and sampling
			want.First += 250e6
			want.Last += 250e6
			want.SrcAS, want.DstAS = 64496, 64497
			want.Sampling, want.Bytes, want.Packets = 100, 150000, 300
		case strings.HasPrefix(bm.name, "v9"):
			want.SrcAS, want.DstAS = 64496, 65551
		}
		if strings.HasSuffix(bm.name, "IPv6") {
			want.Src = event.Addr{0x20, 0x01, 0x0d, 0xb8, 15: 23}
			want.Dst = event.Addr{0x20, 0x01, 0x0d, 0xb8, 5: 1, 15: 1}
		}
		if got := b.Flows[23]; got != want {
			t.Errorf("%s: the last flow is\n%+v, want\n%+v", bm.name, got, want)
		}
	}
}

// lines are the flows of b in the text notation, without the exporter.
func lines(b *event.Batch) (all []string) {
	for i := range b.Flows {
		all = append(all, strings.TrimSuffix(b.Line(&b.Flows[i]), " via=192.0.2.1"))
	}
	return all
}

// key4 are the fields at the beginning of most templates below, and hosts their values.
var (
	key4  = []field{{8, 4}, {12, 4}, {7, 2}, {11, 2}, {4, 1}}
	hosts = rec("192.0.2.5", "198.51.100.1", uint16(4000), uint16(80), uint8(event.TCP))
	icmps = rec("192.0.2.5", "198.51.100.1", uint16(9), uint16(0x0800), uint8(event.ICMP))
)

func with(base []field, more ...field) []field { return append(slices.Clone(base), more...) }

const at = "2027-01-15T08:00:00.000Z "

// What each element becomes. One record in IPFIX, or in v9 where the name says so.
func TestElements(t *testing.T) {
	for _, c := range []struct {
		name   string
		fields []field
		record []byte
		want   []string
	}{
		{"delta before total before outgoing", with(key4, field{23, 4}, field{85, 4}, field{1, 4}, field{24, 4}, field{86, 4}, field{2, 4}),
			rec(hosts, uint32(1), uint32(2), uint32(300), uint32(4), uint32(5), uint32(6)),
			[]string{at + "192.0.2.5:4000 > 198.51.100.1:80 tcp none 6p 300B"}},
		{"total", with(key4, field{23, 4}, field{85, 4}, field{24, 4}, field{86, 4}),
			rec(hosts, uint32(1), uint32(200), uint32(4), uint32(5)),
			[]string{at + "192.0.2.5:4000 > 198.51.100.1:80 tcp none 5p 200B"}},
		{"outgoing", with(key4, field{23, 4}, field{24, 4}),
			rec(hosts, uint32(100), uint32(4)),
			[]string{at + "192.0.2.5:4000 > 198.51.100.1:80 tcp none 4p 100B"}},
		{"reduced sizes", with(key4, field{1, 3}, field{2, 1}, field{6, 2}),
			rec(hosts, []byte{1, 0, 0}, uint8(2), uint16(0x0102)),
			[]string{at + "192.0.2.5:4000 > 198.51.100.1:80 tcp S 2p 65536B"}},
		{"a field of no octets, one of another enterprise, one too long for a number", with(key4, field{1, 0}, field{enterprise(35632, 1), 4}, field{2, 9}, field{2, 2}),
			rec(hosts, uint32(77), make([]byte, 9), uint16(5)),
			[]string{at + "192.0.2.5:4000 > 198.51.100.1:80 tcp none 5p 0B"}},
		{"variable length", with(key4, field{82, variableLength}, field{1, 4}, field{96, variableLength}, field{2, 4}),
			rec(hosts, []byte("\x02xe"), uint32(60), []byte("\xff\x01\x00"), make([]byte, 256), uint32(1), hosts, []byte{0}, uint32(70), []byte{0}, uint32(2)),
			[]string{at + "192.0.2.5:4000 > 198.51.100.1:80 tcp none 1p 60B", at + "192.0.2.5:4000 > 198.51.100.1:80 tcp none 2p 70B"}},
		{"a number of variable length", with(key4, field{1, variableLength}),
			rec(hosts, []byte{2, 1, 0}, hosts, []byte{0}, hosts, []byte{9}, make([]byte, 9)),
			[]string{at + "192.0.2.5:4000 > 198.51.100.1:80 tcp none 0p 256B", at + "192.0.2.5:4000 > 198.51.100.1:80 tcp none 0p 0B", at + "192.0.2.5:4000 > 198.51.100.1:80 tcp none 0p 0B"}},
		{"both families, IPv4", []field{{8, 4}, {27, 16}, {12, 4}, {28, 16}, {4, 1}},
			rec("192.0.2.5", "::", "198.51.100.1", "::", uint8(event.UDP)),
			[]string{at + "192.0.2.5 > 198.51.100.1 udp 0p 0B"}},
		{"both families, IPv6", []field{{27, 16}, {8, 4}, {28, 16}, {12, 4}, {4, 1}},
			rec("2001:db8::5", "0.0.0.0", "2001:db8::1", "0.0.0.0", uint8(event.UDP)),
			[]string{at + "2001:db8::5 > 2001:db8::1 udp 0p 0B"}},
		{"IPv4 address zero is an address where there is no other", []field{{8, 4}, {12, 4}},
			rec("0.0.0.0", "255.255.255.255"),
			[]string{at + "0.0.0.0 > 255.255.255.255 proto=0 0p 0B"}},
		{"addresses and ports after translation are left alone", with(key4, field{225, 4}, field{226, 4}, field{227, 2}, field{228, 2}),
			rec(hosts, "203.0.113.1", "203.0.113.2", uint16(1), uint16(2)),
			[]string{at + "192.0.2.5:4000 > 198.51.100.1:80 tcp none 0p 0B"}},
		{"egress, fragment", with(key4, field{61, 1}, field{88, 2}),
			rec(hosts, uint8(1), uint16(1480)),
			[]string{at + "192.0.2.5:4000 > 198.51.100.1:80 tcp none 0p 0B frag egress"}},
		{"flags of a flow that isn't TCP", with(key4, field{6, 1}),
			rec("192.0.2.5", "198.51.100.1", uint16(53), uint16(4000), uint8(event.UDP), uint8(event.SYN)),
			[]string{at + "192.0.2.5:53 > 198.51.100.1:4000 udp 0p 0B"}},
		{"flags of YAF", with(key4, field{cert(14), 1}, field{cert(15), 1}, field{cert(16398), 1}, field{cert(16399), 1}, field{85, 4}, field{reverse(85), 4}),
			rec(hosts, uint8(event.SYN), uint8(event.ACK), uint8(event.SYN|event.ACK), uint8(event.FIN), uint32(60), uint32(50)),
			[]string{at + "192.0.2.5:4000 > 198.51.100.1:80 tcp SA 0p 60B", at + "198.51.100.1:80 > 192.0.2.5:4000 tcp FSA 0p 50B reverse"}},
		{"ICMP type and code", with(key4, field{32, 2}), rec(icmps, uint16(0x0301)),
			[]string{at + "192.0.2.5 > 198.51.100.1 icmp type=3/1 0p 0B"}},
		{"ICMP type, code", with(key4, field{176, 1}, field{177, 1}), rec(icmps, uint8(11), uint8(1)),
			[]string{at + "192.0.2.5 > 198.51.100.1 icmp type=11/1 0p 0B"}},
		{"ICMP by destination port", with(key4, field{32, 2}), rec(icmps, uint16(0)),
			[]string{at + "192.0.2.5 > 198.51.100.1 icmp type=8/0 0p 0B"}},
		{"ICMPv6", []field{{27, 16}, {28, 16}, {4, 1}, {32, 2}, {139, 2}},
			rec("2001:db8::5", "2001:db8::1", uint8(event.ICMPv6), uint16(0x0303), uint16(0x8000)),
			[]string{at + "2001:db8::5 > 2001:db8::1 icmp6 type=128/0 0p 0B"}},
		{"biflow", with(key4, field{1, 4}, field{2, 4}, field{6, 1}, field{reverse(1), 4}, field{reverse(2), 4}, field{reverse(6), 1}, field{10, 2}, field{14, 2}),
			rec(hosts, uint32(180), uint32(3), uint8(event.SYN), uint32(40), uint32(1), uint8(event.RST|event.ACK), uint16(1), uint16(2)),
			[]string{at + "192.0.2.5:4000 > 198.51.100.1:80 tcp S 3p 180B", at + "198.51.100.1:80 > 192.0.2.5:4000 tcp RA 1p 40B reverse"}},
		{"biflow whose answer has only packets", with(key4, field{1, 4}, field{2, 4}, field{reverse(2), 4}),
			rec(hosts, uint32(180), uint32(3), uint32(2)),
			[]string{at + "192.0.2.5:4000 > 198.51.100.1:80 tcp none 3p 180B", at + "198.51.100.1:80 > 192.0.2.5:4000 tcp none 2p 0B reverse"}},
		{"biflow without an answer", with(key4, field{1, 4}, field{reverse(1), 4}),
			rec(hosts, uint32(180), uint32(0)),
			[]string{at + "192.0.2.5:4000 > 198.51.100.1:80 tcp none 0p 180B"}},
		{"biflow of ICMP, with times of its own", with(key4, field{1, 4}, field{reverse(1), 4}, field{152, 8}, field{153, 8}, field{reverse(152), 8}, field{reverse(153), 8}, field{reverse(5), 1}),
			rec(icmps, uint32(84), uint32(84), uint64(sent*1000-3000), uint64(sent*1000-1000), uint64(sent*1000-2000), uint64(sent*1000), uint8(8)),
			[]string{"2027-01-15T07:59:57.000Z 192.0.2.5 > 198.51.100.1 icmp type=8/0 0p 84B 2s", "2027-01-15T07:59:58.000Z 198.51.100.1 > 192.0.2.5 icmp type=0/0 0p 84B 2s reverse"}},
		{"ICMPv6 type, code", []field{{27, 16}, {28, 16}, {4, 1}, {178, 1}, {179, 1}},
			rec("2001:db8::5", "2001:db8::1", uint8(event.ICMPv6), uint8(1), uint8(4)),
			[]string{at + "2001:db8::5 > 2001:db8::1 icmp6 type=1/4 0p 0B"}},
		{"initiator and responder", with(key4, field{231, 4}, field{232, 4}, field{298, 4}, field{299, 4}),
			rec(hosts, uint32(180), uint32(3000), uint32(3), uint32(2)),
			[]string{at + "192.0.2.5:4000 > 198.51.100.1:80 tcp none 3p 180B", at + "198.51.100.1:80 > 192.0.2.5:4000 tcp none 2p 3000B reverse"}},
		{"both sides' sum and the responder's part: the sum", with(key4, field{1, 4}, field{232, 4}),
			rec(hosts, uint32(180), uint32(80)),
			[]string{at + "192.0.2.5:4000 > 198.51.100.1:80 tcp none 0p 180B"}},
		{"firewall: alert", with(key4, field{233, 1}, field{1, 4}), rec(hosts, uint8(4), uint32(60)), nil},
		{"firewall: created, denied", with(key4, field{233, 1}, field{231, 4}, field{232, 4}),
			rec(hosts, uint8(1), uint32(60), uint32(0), hosts, uint8(3), uint32(60), uint32(0)), nil},
		{"firewall: deleted, with volume and without", with(key4, field{233, 1}, field{231, 4}, field{232, 4}),
			rec(hosts, uint8(2), uint32(0), uint32(0), hosts, uint8(2), uint32(60), uint32(0)),
			[]string{at + "192.0.2.5:4000 > 198.51.100.1:80 tcp none 0p 60B"}},
		{"firewall: still there", with(key4, field{233, 1}, field{231, 4}, field{232, 4}),
			rec(hosts, uint8(5), uint32(0), uint32(40)),
			[]string{at + "192.0.2.5:4000 > 198.51.100.1:80 tcp none 0p 0B", at + "198.51.100.1:80 > 192.0.2.5:4000 tcp none 0p 40B reverse"}},
		{"a firewall's element in an ordinary record", with(key4, field{233, 1}, field{1, 4}),
			rec(hosts, uint8(0), uint32(0)),
			[]string{at + "192.0.2.5:4000 > 198.51.100.1:80 tcp none 0p 0B"}},
		{"translation events", with(key4, field{230, 1}), rec(hosts, uint8(1)), nil},
		{"no address", []field{{56, 6}, {57, 6}, {1, 4}}, make([]byte, 32), nil},
		{"v9: element ids have no enterprise bit", with(key4, field{40005, 1}, field{231, 4}),
			rec(hosts, uint8(1), uint32(60), hosts, uint8(2), uint32(60)),
			[]string{at + "192.0.2.5:4000 > 198.51.100.1:80 tcp none 0p 60B"}},
		{"v9: variable length", with(key4, field{82, variableLength}, field{1, 4}),
			rec(hosts, []byte("\x02xe"), uint32(60)),
			[]string{at + "192.0.2.5:4000 > 198.51.100.1:80 tcp none 0p 60B"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := NewDecoder(exact)
			var b event.Batch
			p := ipfixDatagram(0, 0, set(2, tpl(256, c.fields...)), set(256, c.record))
			if strings.HasPrefix(c.name, "v9") {
				specs := make([]byte, 0, 4*len(c.fields))
				for _, f := range c.fields {
					specs = append(specs, rec(uint16(f.element), f.length)...)
				}
				p = v9Datagram(0, 0, set(0, rec(uint16(256), uint16(len(c.fields)), specs)), set(256, c.record))
			}
			n, err := d.Decode(p, router, arrival, &b)
			if err != nil || n != len(b.Flows) {
				t.Errorf("Decode = %d, %v, appended %d", n, err, len(b.Flows))
			}
			if got := lines(&b); !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// The other direction of a biflow has everything the other way round.
func TestBiflowTurns(t *testing.T) {
	d := NewDecoder(exact)
	var b event.Batch
	fields := with(key4, field{1, 4}, field{reverse(1), 4}, field{10, 4}, field{14, 4}, field{16, 4}, field{17, 4})
	d.Decode(ipfixDatagram(0, 0, set(2, tpl(256, fields...)), set(256, hosts, rec(uint32(180), uint32(40), uint32(1), uint32(2), uint32(64496), uint32(64497)))), router, arrival, &b)
	if len(b.Flows) != 2 {
		t.Fatalf("%d flows", len(b.Flows))
	}
	f, back := b.Flows[0], b.Flows[1]
	if f.InIf != 1 || f.OutIf != 2 || f.SrcAS != 64496 || f.DstAS != 64497 {
		t.Errorf("forward: %+v", f)
	}
	if back.InIf != 2 || back.OutIf != 1 || back.SrcAS != 64497 || back.DstAS != 64496 || back.Src != f.Dst || back.Dst != f.Src || back.SrcPort != f.DstPort {
		t.Errorf("backward: %+v", back)
	}
}

// The difference to an exporter's clock is the smallest seen, until the clock is
// set.
func TestClock(t *testing.T) {
	const s, hour = event.Time(1e9), event.Time(3600e9)
	type o struct{ off, want event.Time } // ours less theirs in one datagram; what is added
	for _, c := range []struct {
		name string
		o    []o
	}{
		{"agrees", []o{{0, 0}, {9 * s, 0}, {-9 * s, 0}}},
		{"an hour behind, with delays", []o{{hour + s, hour + s}, {hour + 2*s, hour + s}, {hour, hour}, {hour + s, hour}}},
		{"set back by an hour, then right again", []o{{0, 0}, {hour, hour}, {hour + s, hour}, {s, 0}}},
		{"ahead", []o{{-hour, -hour}, {-hour + s, -hour}}},
	} {
		var k clock
		for i, o := range c.o {
			if got := k.shift(10*hour, 10*hour-o.off); got != o.want {
				t.Errorf("%s: datagram %d: %v is added, want %v", c.name, i, time.Duration(got), time.Duration(o.want))
			}
		}
	}
}

// When flows were, by what the exporter says. Times are relative to arrival,
// which is half a second after the export time in the header.
func TestTimes(t *testing.T) {
	const (
		ms   = uint64(sent * 1000)
		half = 500 * time.Millisecond
	)
	ntp := func(sec, frac uint64) uint64 { return (sec+2208988800)<<32 | frac }
	for _, c := range []struct {
		name        string
		version     uint16
		skew        time.Duration // how far the exporter's clock is behind
		fields      []field
		values      []any
		first, last time.Duration // before arrival
		clamped     bool
	}{
		{"milliseconds", ipfix, 0, []field{{152, 8}, {153, 8}}, []any{ms - 3000, ms - 1000}, 3*time.Second + half, time.Second + half, false},
		{"seconds", ipfix, 0, []field{{150, 4}, {151, 4}}, []any{uint32(sent - 3), uint32(sent - 1)}, 3*time.Second + half, time.Second + half, false},
		{"microseconds are NTP", ipfix, 0, []field{{154, 8}, {155, 8}}, []any{ntp(sent-3, 1<<31), ntp(sent-1, 1<<30)}, 3 * time.Second, 1250 * time.Millisecond, false},
		{"NTP of 2036 and later is not believed, but read", ipfix, 0, []field{{154, 8}, {155, 8}}, []any{uint64(1<<32 | 1<<31), uint64(1<<32 | 1<<31)}, 0, 0, true},
		{"NTP of zero is unknown", ipfix, 0, []field{{154, 8}, {155, 8}}, []any{uint64(0), ntp(sent-1, 0)}, time.Second + half, time.Second + half, false},
		{"nanoseconds are NTP", ipfix, 0, []field{{156, 8}, {157, 8}}, []any{ntp(sent-3, 1<<31), ntp(sent-1, 1<<30)}, 3 * time.Second, 1250 * time.Millisecond, false},
		{"microseconds before export", ipfix, 0, []field{{158, 4}, {159, 4}}, []any{uint32(3e6), uint32(1e6)}, 3*time.Second + half, time.Second + half, false},
		{"milliseconds before seconds", ipfix, 0, []field{{150, 4}, {152, 8}, {151, 4}, {153, 8}}, []any{uint32(1), ms - 3000, uint32(2), ms - 1000}, 3*time.Second + half, time.Second + half, false},
		{"start and duration", ipfix, 0, []field{{152, 8}, {161, 4}}, []any{ms - 3000, uint32(2000)}, 3*time.Second + half, time.Second + half, false},
		{"end and duration in microseconds", ipfix, 0, []field{{162, 4}, {153, 8}}, []any{uint32(2e6), ms - 1000}, 3*time.Second + half, time.Second + half, false},
		{"start only", ipfix, 0, []field{{152, 8}}, []any{ms - 3000}, 3*time.Second + half, 3*time.Second + half, false},
		{"none: export", ipfix, 0, nil, nil, half, half, false},
		{"zero: export", ipfix, 0, []field{{152, 8}, {153, 8}}, []any{uint64(0), uint64(0)}, half, half, false},
		{"an event's time is its end", ipfix, 0, []field{{152, 8}, {323, 8}}, []any{ms - 3000, ms - 1000}, 3*time.Second + half, time.Second + half, false},
		{"v9 uptime", v9, 0, []field{{22, 4}, {21, 4}}, []any{uint32(uptime - 3000), uint32(uptime - 1000)}, 3*time.Second + half, time.Second + half, false},
		{"v9 uptime wrapped since the start", v9, 0, []field{{22, 4}, {21, 4}}, []any{uint32(math.MaxUint32), uint32(uptime - 1000)}, 3600*time.Second + time.Millisecond + half, time.Second + half, false},
		{"IPFIX uptime, boot in the record", ipfix, 0, []field{{22, 4}, {21, 4}, {160, 8}}, []any{uint32(7000), uint32(9000), ms - 10000}, 3*time.Second + half, time.Second + half, false},
		{"IPFIX uptime, boot unknown: it ended at export", ipfix, 0, []field{{22, 4}, {21, 4}}, []any{uint32(7000), uint32(9000)}, 2*time.Second + half, half, false},
		{"nine seconds behind: the clocks agree", ipfix, 9 * time.Second, []field{{152, 8}, {153, 8}}, []any{ms - 3000, ms - 1000}, 12*time.Second + half, 10*time.Second + half, false},
		{"an hour behind", ipfix, time.Hour, []field{{152, 8}, {153, 8}}, []any{ms - 3000, ms - 1000}, 3 * time.Second, time.Second, false},
		{"an hour ahead", v9, -time.Hour, []field{{22, 4}, {21, 4}}, []any{uint32(uptime - 3000), uint32(uptime - 1000)}, 3 * time.Second, time.Second, false},
		{"five seconds ahead: moved, not impossible", ipfix, -5 * time.Second, []field{{152, 8}, {153, 8}}, []any{ms - 3000, ms - 1000}, 2 * time.Second, 0, false},
		{"ended 20 s after its export", ipfix, 0, []field{{152, 8}, {153, 8}}, []any{ms, ms + 20000}, 20 * time.Second, 0, true},
		{"ended before it began", ipfix, 0, []field{{152, 8}, {153, 8}}, []any{ms - 1000, ms - 3000}, 3*time.Second + half, 3*time.Second + half, true},
		{"lasted 25 hours", ipfix, 0, []field{{152, 8}, {153, 8}}, []any{ms - 90000*1000, ms - 1000}, 24*time.Hour + time.Second + half, time.Second + half, true},
		{"a month ago", ipfix, 0, []field{{152, 8}, {153, 8}}, []any{ms - 30*86400*1000 - 2000, ms - 30*86400*1000}, 2 * time.Second, 0, true},
		{"beyond time", ipfix, 0, []field{{152, 8}, {153, 8}}, []any{uint64(1), uint64(math.MaxUint64)}, 0, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			arrival := arrival.Add(c.skew)
			if c.skew.Abs() > 10*time.Second {
				arrival = arrival.Add(-half) // the difference is believed to be all skew
			}
			fields := with(key4, c.fields...)
			sets := [][]byte{set(2, tpl(256, fields...)), set(256, hosts, rec(c.values...))}
			p := ipfixDatagram(0, 0, sets...)
			if c.version == v9 {
				sets[0] = set(0, tpl(256, fields...))
				p = v9Datagram(0, 0, sets...)
			}
			d := NewDecoder(exact)
			var b event.Batch
			if n, err := d.Decode(p, router, arrival, &b); n != 1 || err != nil {
				t.Fatalf("Decode = %d, %v", n, err)
			}
			f := &b.Flows[0]
			if first, last := arrival.Sub(f.First), arrival.Sub(f.Last); first != c.first || last != c.last {
				t.Errorf("first, last are %v, %v before arrival; want %v, %v", first, last, c.first, c.last)
			}
			if marked, counted := f.Has(event.Clamped), total(d, flowsClamped) == 1; marked != c.clamped || counted != c.clamped {
				t.Errorf("clamped: marked %v, counted %v, want %v", marked, counted, c.clamped)
			}
		})
	}
}
