package netflow

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"noroshi/event"
)

// counted returns the counters that aren't zero as "name, reason: value", all
// domains together, without those of ordinary work.
func counted(d *Decoder) []string {
	sums := map[string]uint64{}
	for c := range d.Counts() {
		if c.Reason != "" && c.Reason != "sampling unknown" {
			sums[c.Name+", "+c.Reason] += c.Value
		}
	}
	var all []string
	for name, n := range sums {
		all = append(all, fmt.Sprintf("%s: %d", name, n))
	}
	slices.Sort(all)
	return all
}

func checkCounted(t *testing.T, d *Decoder, want ...string) {
	t.Helper()
	if got := counted(d); !slices.Equal(got, want) {
		t.Errorf("counted\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The rate is taken from whom is trusted most of those who say one. Each record
// has 60 octets in 2 packets.
func TestSampling(t *testing.T) {
	var (
		plain    = with(key4, field{1, 4}, field{2, 4})
		volume   = rec(hosts, uint32(60), uint32(2))
		sampler  = with(plain, field{48, 1})
		selector = with(plain, field{302, 8})
		from     = with(plain, field{10, 4})
		whole    = func(values ...any) []byte { return set(300, rec(values...)) }
	)
	override := func(event.Addr, uint32) uint32 { return 7 }
	for _, c := range []struct {
		name   string
		config Config
		p      [][]byte
		want   uint32
	}{
		{"nobody says", Config{}, [][]byte{ipfixDatagram(0, 0, set(2, tpl(256, plain...)), set(256, volume))}, 0},
		{"v5 header", Config{}, [][]byte{v5Datagram(0, 1<<14|100, 1)}, 100},
		{"v5 header says zero", Config{}, [][]byte{v5Datagram(0, 1<<14, 1)}, 0},
		{"what the exporter's options said before the v5 header", Config{}, [][]byte{
			ipfixDatagram(0, 1, set(3, optionsTpl10(300, 1, field{149, 4}, field{34, 4})), whole(uint32(1), uint32(64))), v5Datagram(0, 100, 1)}, 64},
		{"the operator before the v5 header", Config{Sampling: override}, [][]byte{v5Datagram(0, 100, 1)}, 7},
		{"the operator before the record", Config{Sampling: override}, [][]byte{ipfixDatagram(0, 0, set(2, tpl(256, with(plain, field{34, 4})...)), set(256, volume, rec(uint32(50))))}, 7},
		{"record, 34", Config{}, [][]byte{ipfixDatagram(0, 0, set(2, tpl(256, with(plain, field{34, 4})...)), set(256, volume, rec(uint32(50))))}, 50},
		{"record, 50", Config{}, [][]byte{ipfixDatagram(0, 0, set(2, tpl(256, with(plain, field{50, 4})...)), set(256, volume, rec(uint32(50))))}, 50},
		{"record, 305 and 306", Config{}, [][]byte{ipfixDatagram(0, 0, set(2, tpl(256, with(plain, field{305, 4}, field{306, 4})...)), set(256, volume, rec(uint32(2), uint32(998))))}, 500},
		{"record, 305 alone says nothing", Config{}, [][]byte{ipfixDatagram(0, 0, set(2, tpl(256, with(plain, field{305, 4})...)), set(256, volume, rec(uint32(500))))}, 0},
		{"record, n of N", Config{}, [][]byte{ipfixDatagram(0, 0, set(2, tpl(256, with(plain, field{309, 4}, field{310, 4})...)), set(256, volume, rec(uint32(3), uint32(600))))}, 200},
		{"record, probability", Config{}, [][]byte{ipfixDatagram(0, 0, set(2, tpl(256, with(plain, field{311, 8})...)), set(256, volume, rec(float64(0.001))))}, 1000},
		{"options for the exporter, in the same datagram", Config{}, [][]byte{v9Datagram(0, 0,
			set(1, optionsTpl9(300, 1, field{1, 4}, field{34, 4}, field{35, 1})), whole(uint32(0), uint32(512), uint8(1)),
			set(0, tpl(256, plain...)), set(256, volume))}, 512},
		{"options with a scope of no octets", Config{}, [][]byte{v9Datagram(0, 0,
			set(1, optionsTpl9(300, 1, field{1, 0}, field{35, 1}, field{34, 4})), whole(uint8(2), uint32(512), []byte{0, 0, 0}),
			set(0, tpl(256, plain...)), set(256, volume))}, 512},
		{"options 1:500 as 1 and 499", Config{}, [][]byte{ipfixDatagram(0, 0,
			set(3, optionsTpl10(300, 1, field{143, 4}, field{304, 2}, field{305, 2}, field{306, 4})), whole(uint32(1), uint16(1), uint16(1), uint32(499)),
			set(2, tpl(256, plain...)), set(256, volume))}, 500},
		{"options of another domain of the same exporter", Config{}, [][]byte{
			ipfixDatagram(0, 1, set(3, optionsTpl10(300, 1, field{149, 4}, field{34, 4})), whole(uint32(1), uint32(64))),
			ipfixDatagram(0, 2, set(2, tpl(256, plain...)), set(256, volume))}, 64},
		{"options for samplers: the record's", Config{}, [][]byte{v9Datagram(0, 0,
			set(1, optionsTpl9(300, 1, field{1, 4}, field{48, 1}, field{49, 1}, field{50, 4})), whole(uint32(0), uint8(1), uint8(2), uint32(100), uint32(0), uint8(2), uint8(2), uint32(200)),
			set(0, tpl(256, sampler...)), set(256, volume, rec(uint8(2))))}, 200},
		{"options for samplers: the record's is another", Config{}, [][]byte{v9Datagram(0, 0,
			set(1, optionsTpl9(300, 1, field{1, 4}, field{48, 1}, field{50, 4})), whole(uint32(0), uint8(1), uint32(100)),
			set(0, tpl(256, sampler...)), set(256, volume, rec(uint8(2))))}, 0},
		{"options for samplers: a sampler without a rate", Config{}, [][]byte{v9Datagram(0, 0,
			set(1, optionsTpl9(300, 1, field{1, 4}, field{48, 2}, field{84, 8})), whole(uint32(0), uint16(2), make([]byte, 8)),
			set(0, tpl(256, sampler...)), set(256, volume, rec(uint8(2))))}, 0},
		{"options for selectors: the record's", Config{}, [][]byte{ipfixDatagram(0, 0,
			set(3, optionsTpl10(300, 1, field{302, 8}, field{305, 4}, field{306, 4})), whole(uint64(1<<40), uint32(1), uint32(999)),
			set(2, tpl(256, selector...)), set(256, volume, rec(uint64(1<<40))))}, 1000},
		{"options for selectors: records don't name one, and there is one", Config{}, [][]byte{ipfixDatagram(0, 0,
			set(3, optionsTpl10(300, 1, field{302, 8}, field{305, 4}, field{306, 4})), whole(uint64(4), uint32(1), uint32(999)),
			set(2, tpl(256, plain...)), set(256, volume))}, 1000},
		{"options for selectors: records don't name one, and there are two", Config{}, [][]byte{ipfixDatagram(0, 0,
			set(3, optionsTpl10(300, 1, field{302, 8}, field{305, 4}, field{306, 4})), whole(uint64(4), uint32(1), uint32(999), uint64(5), uint32(1), uint32(99)),
			set(2, tpl(256, plain...)), set(256, volume))}, 0},
		{"options for interfaces", Config{}, [][]byte{v9Datagram(0, 0,
			set(1, optionsTpl9(300, 1, field{2, 4}, field{34, 4})), whole(uint32(1), uint32(100), uint32(2), uint32(200)),
			set(0, tpl(256, from...)), set(256, volume, rec(uint32(2))))}, 200},
		{"options for interfaces, as the flow left", Config{}, [][]byte{v9Datagram(0, 0,
			set(1, optionsTpl9(300, 1, field{2, 4}, field{34, 4})), whole(uint32(1), uint32(100), uint32(2), uint32(200)),
			set(0, tpl(256, with(from, field{14, 4}, field{61, 1})...)), set(256, volume, rec(uint32(1), uint32(2), uint8(1))))}, 200},
		{"options for interfaces in IPFIX", Config{}, [][]byte{ipfixDatagram(0, 0,
			set(3, optionsTpl10(300, 1, field{10, 4}, field{34, 4})), whole(uint32(1), uint32(100), uint32(2), uint32(200)),
			set(2, tpl(256, from...)), set(256, volume, rec(uint32(1))))}, 100},
		{"a rate that changes", Config{}, [][]byte{
			ipfixDatagram(0, 0, set(3, optionsTpl10(300, 1, field{149, 4}, field{34, 4})), whole(uint32(0), uint32(64))),
			ipfixDatagram(1, 0, whole(uint32(0), uint32(32)), set(2, tpl(256, plain...)), set(256, volume))}, 32},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := NewDecoder(c.config)
			var b event.Batch
			for _, p := range c.p {
				// Fields of scope in v9 are scope types.
				if _, err := d.Decode(p, router, arrival, &b); err != nil {
					t.Fatal(err)
				}
			}
			if len(b.Flows) != 1 {
				t.Fatalf("%d flows", len(b.Flows))
			}
			f := &b.Flows[0]
			bytes, packets := uint64(60), uint64(2)
			if be.Uint16(c.p[len(c.p)-1]) == v5 {
				bytes, packets = 1500, 3
			}
			rate := uint64(max(c.want, 1))
			if f.Sampling != c.want || f.Bytes != bytes*rate || f.Packets != packets*rate {
				t.Errorf("sampling %d, %d bytes, %d packets; want %d, %d, %d", f.Sampling, f.Bytes, f.Packets, c.want, bytes*rate, packets*rate)
			}
			if unknown := total(d, flowsUnsampled) == 1; unknown != (c.want == 0) {
				t.Errorf("counted as unknown: %v", unknown)
			}
		})
	}
}

func TestVolumeStaysInRange(t *testing.T) {
	f := event.Flow{Bytes: 1 << 63, Packets: 5, Sampling: 1000}
	finish(&f)
	if f.Bytes != 1<<64-1 || f.Packets != 5000 {
		t.Errorf("%d bytes, %d packets", f.Bytes, f.Packets)
	}
}

func TestSequence(t *testing.T) {
	type o struct { // one datagram: its number, what it adds, uptime; what it tells
		seq, n, uptime uint32
		want           step
	}
	for _, c := range []struct {
		name string
		o    []o
	}{
		{"in order", []o{{10, 5, 0, step{}}, {15, 5, 0, step{}}, {20, 5, 0, step{}}}},
		{"across the end of 32 bits", []o{{1<<32 - 3, 5, 0, step{}}, {2, 5, 0, step{}}}},
		{"a gap", []o{{10, 5, 0, step{}}, {22, 5, 0, step{lost: 7}}, {27, 5, 0, step{}}}},
		{"one late", []o{{10, 5, 0, step{}}, {20, 5, 0, step{lost: 5}}, {15, 5, 0, step{reordered: true}}, {25, 5, 0, step{}}}},
		{"one twice", []o{{10, 5, 0, step{}}, {10, 5, 0, step{reordered: true}}, {15, 5, 0, step{}}}},
		{"began anew, uptime fell", []o{{500, 5, 900_000, step{}}, {0, 5, 2_000, step{restarted: true}}, {5, 5, 2_100, step{}}}},
		{"uptime wrapped", []o{{10, 5, 1<<32 - 100, step{}}, {15, 5, 900, step{}}}},
		{"uptime falls a little: late", []o{{10, 5, 900_000, step{}}, {5, 5, 895_000, step{reordered: true}}}},
		{"began anew, no uptime", []o{{5000, 5, 0, step{}}, {0, 5, 0, step{reordered: true}}, {5, 5, 0, step{restarted: true}}, {10, 5, 0, step{}}}},
		{"a step of half the numbers is no loss", []o{{10, 5, 0, step{}}, {1 << 31, 5, 0, step{restarted: true}}, {1<<31 + 5, 5, 0, step{}}}},
		{"the largest loss", []o{{0, 0, 0, step{}}, {1 << 22, 1, 0, step{lost: 1 << 22}}}},
		{"a step larger than that", []o{{0, 0, 0, step{}}, {1<<22 + 1, 1, 0, step{restarted: true}}}},
	} {
		var s sequence
		for i, o := range c.o {
			if got := s.observe(o.seq, o.n, o.uptime); got != o.want {
				t.Errorf("%s: datagram %d tells %+v, want %+v", c.name, i, got, o.want)
			}
		}
	}
}

// What is lost on the way is counted in flows, whatever the numbers count.
func TestGaps(t *testing.T) {
	options := set(3, optionsTpl10(300, 1, field{149, 4}, field{34, 4}))
	for _, c := range []struct {
		name string
		p    [][]byte
		want string
	}{
		{"v5 counts flows", [][]byte{v5Datagram(100, 1, 10), v5Datagram(120, 1, 10)}, "lost, sequence gap: 10"},
		{"v9 counts datagrams", [][]byte{
			v9Datagram(1, 0, set(0, tpl(256, nine4...)), set(256, nineRecords(nine4, 20))),
			v9Datagram(2, 0, set(256, nineRecords(nine4, 20))),
			v9Datagram(5, 0, set(256, nineRecords(nine4, 20)))}, "lost, sequence gap: 40"},
		{"IPFIX counts records, of options too", [][]byte{
			ipfixDatagram(100, 0, set(2, tpl(256, common4...)), options, set(300, rec(uint32(0), uint32(1))), set(256, commonRecords(common4, 4))),
			ipfixDatagram(105, 0, set(256, commonRecords(common4, 4))),
			ipfixDatagram(112, 0, set(256, commonRecords(common4, 4)))}, "lost, sequence gap: 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := NewDecoder(Config{})
			var b event.Batch
			for _, p := range c.p {
				d.Decode(p, router, arrival, &b)
			}
			got := slices.DeleteFunc(counted(d), func(s string) bool { return !strings.HasPrefix(s, "lost") })
			if !slices.Equal(got, []string{c.want}) {
				t.Errorf("counted %q, want %q", got, c.want)
			}
		})
	}
}

// A gap can't be told after data that could not be counted.
func TestGapAfterUnknown(t *testing.T) {
	d := NewDecoder(Config{})
	var b event.Batch
	d.Decode(ipfixDatagram(100, 0, set(256, commonRecords(common4, 4))), router, arrival, &b)
	d.Decode(ipfixDatagram(104, 0, set(2, tpl(256, common4...))), router, arrival, &b)
	if n := total(d, lostGap); n != 0 || len(b.Flows) != 4 {
		t.Errorf("%d lost, %d flows; want 0, 4", n, len(b.Flows))
	}
}

// Data before its template waits and comes out in order, with the times of its
// own header, as seen when it became readable.
func TestHeld(t *testing.T) {
	d := NewDecoder(exact)
	var b event.Batch
	early := with(key4, field{22, 4}, field{21, 4})
	record := func(port uint16) []byte {
		return rec("192.0.2.5", "198.51.100.1", port, uint16(80), uint8(event.TCP), uint32(uptime-2000), uint32(uptime-1000))
	}
	d.Decode(v9Datagram(1, 0, set(256, record(1), record(2)), set(257, record(9))), router, arrival, &b)
	d.Decode(v9Datagram(2, 0, set(256, record(3))), router, arrival, &b)
	if len(b.Flows) != 0 {
		t.Fatalf("%d flows without a template", len(b.Flows))
	}
	want := []Waiting{{router, v9, 0, 256, arrival, 2, 3 * 21}, {router, v9, 0, 257, arrival, 1, 21}}
	if got := d.Waiting(); !slices.Equal(got, want) {
		t.Errorf("waiting\n%+v, want\n%+v", got, want)
	}
	later := arrival.Add(time.Minute)
	p := v9Datagram(3, 0, set(0, tpl(256, early...)), set(256, record(4)))
	be.PutUint32(p[4:], uptime+60_000)
	be.PutUint32(p[8:], sent+60)
	if n, err := d.Decode(p, router, later, &b); n != 4 || err != nil {
		t.Fatalf("Decode = %d, %v, want 4", n, err)
	}
	for i, f := range b.Flows {
		last := event.Time((sent - 1) * 1e9)
		if f.SrcPort != uint16(i+1) || f.Last != last || f.Seen != later {
			t.Errorf("flow %d: port %d, last %v, seen %v; want %d, %v, %v", i, f.SrcPort, f.Last, f.Seen, i+1, last, later)
		}
	}
	if got := d.Waiting(); !slices.Equal(got, want[1:]) {
		t.Errorf("then waiting\n%+v, want\n%+v", got, want[1:])
	}
	checkCounted(t, d, "sets, held for template: 3")
}

// A flow that waited can't have ended after it was exported, whenever it becomes
// readable.
func TestHeldTimes(t *testing.T) {
	d := NewDecoder(exact)
	var b event.Batch
	ahead := rec(hosts, uint32(uptime+1000), uint32(uptime+5000))
	d.Decode(v9Datagram(1, 0, set(256, ahead)), router, arrival, &b)
	d.Decode(v9Datagram(2, 0, set(0, tpl(256, with(key4, field{22, 4}, field{21, 4})...))), router, arrival.Add(time.Minute), &b)
	if f := b.Flows[0]; f.Last != arrival || f.First != arrival.Add(-4*time.Second) || f.Seen != arrival.Add(time.Minute) {
		t.Errorf("first %v, last %v, seen %v", f.First, f.Last, f.Seen)
	}
}

func TestHeldIsBounded(t *testing.T) {
	const room = 4 * (heldOverhead + lead + 21)
	d := NewDecoder(Config{PendingBytes: room, PendingAge: time.Minute})
	var b event.Batch
	send := func(id uint16, seen event.Time) {
		d.Decode(v9Datagram(0, 0, set(id, make([]byte, 21))), router, seen, &b)
	}
	for i := range 6 {
		send(uint16(256+i%2), arrival)
	}
	if d.held.bytes != room || d.held.queue.Len() != 4 {
		t.Errorf("%d octets in %d sets are held, want %d in 4", d.held.bytes, d.held.queue.Len(), room)
	}
	send(256, arrival.Add(time.Minute))   // one more goes for room
	send(256, arrival.Add(time.Minute+1)) // the other three are too old
	if n := d.held.queue.Len(); n != 2 {
		t.Errorf("%d sets are held, want 2", n)
	}
	got := slices.DeleteFunc(counted(d), func(s string) bool { return !strings.HasPrefix(s, "lost") })
	want := []string{"lost sets, no room to wait for template: 3", "lost sets, template did not come: 3"}
	if !slices.Equal(got, want) {
		t.Errorf("counted %q, want %q", got, want)
	}
	none := NewDecoder(Config{PendingBytes: -1})
	none.Decode(v9Datagram(0, 0, set(256, make([]byte, 21))), router, arrival, &b)
	if none.held.bytes != 0 || len(none.Waiting()) != 0 {
		t.Error("held a set with room for none")
	}
}

// A template of tiny records can't turn what is held into gigabytes of flows.
func TestReleaseIsBounded(t *testing.T) {
	d := NewDecoder(Config{})
	var b event.Batch
	for i := range 40 {
		d.Decode(v9Datagram(uint32(i), 0, set(256, make([]byte, 60_000))), router, arrival, &b)
	}
	n, _ := d.Decode(v9Datagram(40, 0, set(0, tpl(256, field{8, 4}))), router, arrival, &b)
	if n < maxReleased || n > maxReleased+15_000 {
		t.Errorf("%d flows at once", n)
	}
	if lost := total(d, lostCrowd); lost != 40-uint64(n)/15_000 || d.held.bytes != 0 {
		t.Errorf("%d sets lost, %d octets still held", lost, d.held.bytes)
	}
}

// A template belongs to one exporter, version and domain.
func TestTemplateKey(t *testing.T) {
	other := event.AddrOf4([4]byte{192, 0, 2, 2})
	d := NewDecoder(exact)
	var b event.Batch
	decode := func(p []byte, from event.Addr, want int) {
		t.Helper()
		if n, err := d.Decode(p, from, arrival, &b); n != want || err != nil {
			t.Errorf("Decode = %d, %v, want %d", n, err, want)
		}
	}
	decode(ipfixDatagram(0, 1, set(2, tpl(256, field{8, 4}))), router, 0)
	decode(ipfixDatagram(0, 1, set(256, rec("192.0.2.5"))), other, 0)
	decode(ipfixDatagram(0, 2, set(256, rec("192.0.2.5"))), router, 0)
	decode(v9Datagram(0, 1, set(256, rec("192.0.2.5"))), router, 0)
	decode(ipfixDatagram(0, 1, set(256, rec("192.0.2.5"))), router, 1)
	decode(ipfixDatagram(0, 1, set(2, tpl(256, field{12, 4}))), other, 1)
	if b.Flows[0].Src != b.Flows[1].Dst || b.Flows[1].Exporter != other {
		t.Errorf("got %+v", b.Flows)
	}
}

func TestTemplateChanges(t *testing.T) {
	d := NewDecoder(exact)
	var b event.Batch
	data := set(256, rec("192.0.2.5"))
	for _, p := range [][]byte{
		ipfixDatagram(0, 0, set(2, tpl(256, field{8, 4})), data),
		ipfixDatagram(1, 0, set(2, tpl(256, field{8, 4})), data),  // again
		ipfixDatagram(2, 0, set(2, tpl(256)), data),               // withdrawn: ignored over UDP
		ipfixDatagram(3, 0, set(2, tpl(256, field{12, 4})), data), // redefined
	} {
		if n, err := d.Decode(p, router, arrival, &b); n != 1 || err != nil {
			t.Errorf("Decode = %d, %v", n, err)
		}
	}
	a := event.AddrOf4([4]byte{192, 0, 2, 5})
	for i, f := range b.Flows {
		if want := map[bool][2]event.Addr{true: {a, {}}, false: {{}, a}}[i < 3]; f.Src != want[0] || f.Dst != want[1] {
			t.Errorf("flow %d is %v > %v", i, f.Src, f.Dst)
		}
	}
	if d.templates != 1 || total(d, templatesLearned) != 2 {
		t.Errorf("%d templates, %d learned", d.templates, total(d, templatesLearned))
	}
	checkCounted(t, d, "templates, changed: 1", "templates, withdrawal ignored: 1")
}

func TestTemplatesAreBounded(t *testing.T) {
	d := NewDecoder(Config{MaxTemplates: 8})
	var b event.Batch
	for i := range 4 {
		from := event.AddrOf4([4]byte{192, 0, 2, byte(i)})
		for id := range uint16(5) {
			d.Decode(ipfixDatagram(0, 0, set(2, tpl(256+id, field{8, 4}))), from, arrival, &b)
		}
	}
	// Announced again, the older of the last's two is now the younger.
	last := event.AddrOf4([4]byte{192, 0, 2, 3})
	d.Decode(ipfixDatagram(0, 0, set(2, tpl(259, field{8, 4}), tpl(261, field{8, 4}))), last, arrival, &b)
	late := event.AddrOf4([4]byte{192, 0, 2, 99})
	if _, err := d.Decode(ipfixDatagram(0, 0, set(2, tpl(256, field{8, 4}))), late, arrival, &b); !errors.Is(err, ErrTemplate) {
		t.Errorf("a template too many gives %v", err)
	}
	ids := d.exporters[last].domains[domainKey{ipfix, 0}].templates
	if d.templates != 8 || len(ids) != 2 || ids[259] == nil || ids[261] == nil {
		t.Errorf("%d templates in all, and of the last %v; want 8, and the latest two", d.templates, ids)
	}
	checkCounted(t, d, "templates, evicted: 13", "templates, no room: 1")
}

// Forged exporters that filled the room for templates and rates keep newcomers
// out no longer than they are heard.
func TestRoomComesBack(t *testing.T) {
	d := NewDecoder(Config{MaxTemplates: 8})
	var b event.Batch
	announce := func(host byte, seen event.Time) error {
		from := event.AddrOf4([4]byte{192, 0, 2, host})
		_, err := d.Decode(ipfixDatagram(0, 0, set(2, tpl(256, field{8, 4}), tpl(257, field{8, 4}))), from, seen, &b)
		return err
	}
	for host := range byte(4) {
		announce(host, arrival)
	}
	if err := announce(99, arrival.Add(idle)); !errors.Is(err, ErrTemplate) {
		t.Errorf("too soon: %v", err)
	}
	if err := announce(99, arrival.Add(idle+2*time.Second)); err != nil || d.templates != 2 {
		t.Errorf("%v, %d templates", err, d.templates)
	}
	rates := NewDecoder(Config{})
	rates.samplers = maxAllSamplers // as forged exporters of long ago would leave it
	old := &domain{exporter: &exporter{domains: map[domainKey]*domain{}}, heard: arrival, sampling: sampling{of: map[samplerKey]told{}}}
	old.exporter.domains[old.key] = old
	for i := range uint64(maxAllSamplers) {
		old.sampling.of[samplerKey{id: i}] = told{1, arrival}
	}
	rates.exporters[router], rates.domains = old.exporter, 1
	later := arrival.Add(idle + time.Second)
	rates.Decode(ipfixDatagram(0, 0, set(3, optionsTpl10(300, 1, field{302, 8}, field{34, 4})), set(300, rec(uint64(1), uint32(100)))), event.Addr{15: 1}, later, &b)
	if rates.samplers != 1 || total(rates, samplersRefused) != 0 {
		t.Errorf("%d samplers, %v", rates.samplers, counted(rates))
	}
}

// Newcomers can't push out who is living; who is silent makes room.
func TestExportersAreBounded(t *testing.T) {
	d := NewDecoder(Config{MaxExporters: 2})
	var b event.Batch
	from := func(i byte) event.Addr { return event.AddrOf4([4]byte{192, 0, 2, i}) }
	data := v5Datagram(0, 1, 1)
	for i := range byte(2) {
		d.Decode(data, from(i), arrival, &b)
	}
	if n, err := d.Decode(data, from(2), arrival, &b); n != 0 || !errors.Is(err, ErrRefused) {
		t.Errorf("a third exporter: %d, %v", n, err)
	}
	d.Decode(data, from(1), arrival.Add(idle), &b)
	if n, err := d.Decode(data, from(2), arrival.Add(idle+2), &b); n != 1 || err != nil {
		t.Errorf("a third exporter when the first is silent: %d, %v", n, err)
	}
	if d.exporters[from(0)] != nil || d.exporters[from(1)] == nil || d.domains != 2 {
		t.Errorf("%d domains; the silent or the living one was forgotten", d.domains)
	}
	if n := total(d, flows); n != 4 {
		t.Errorf("%d flows counted, want 4: those of the forgotten too", n)
	}
}

func TestDomainsAreBounded(t *testing.T) {
	d := NewDecoder(Config{})
	var b event.Batch
	for i := range uint32(300) {
		d.Decode(ipfixDatagram(0, i, set(256, make([]byte, 8))), router, arrival, &b)
	}
	if d.domains != maxDomains || total(d, refusedDomains) != 300-maxDomains {
		t.Errorf("%d domains, %d refused", d.domains, total(d, refusedDomains))
	}
	d.Decode(ipfixDatagram(0, 999, set(256, make([]byte, 8))), router, arrival.Add(idle+time.Second), &b)
	if d.domains != 1 || d.held.queue.Len() != 1 || total(d, lostForgotten) != 0 {
		t.Errorf("%d domains, %d sets held, %d forgotten; the old ones had expired", d.domains, d.held.queue.Len(), total(d, lostForgotten))
	}
}

// With an exporter goes all that belongs to it.
func TestForget(t *testing.T) {
	d := NewDecoder(Config{MaxExporters: 1, PendingAge: time.Hour})
	var b event.Batch
	d.Decode(ipfixDatagram(0, 0, set(2, tpl(256, field{8, 4})), set(3, optionsTpl10(300, 1, field{302, 4}, field{34, 4})), set(300, rec(uint32(1), uint32(100)))), router, arrival, &b)
	d.Decode(ipfixDatagram(1, 0, set(257, make([]byte, 9)), set(257, make([]byte, 9))), router, arrival, &b)
	other := event.AddrOf4([4]byte{192, 0, 2, 2})
	if n, err := d.Decode(v5Datagram(0, 1, 1), other, arrival.Add(idle+1), &b); n != 1 || err != nil {
		t.Errorf("Decode = %d, %v", n, err)
	}
	if d.templates != 0 || d.samplers != 0 || d.held.bytes != 0 || d.domains != 1 || len(d.Waiting()) != 0 {
		t.Errorf("left: %d templates, %d samplers, %d octets held, %d domains", d.templates, d.samplers, d.held.bytes, d.domains)
	}
	checkCounted(t, d, "datagrams, clock shifted: 1", "lost sets, exporter forgotten: 2", "records, options: 1", "sets, held for template: 2")
}

func TestSamplersAreBounded(t *testing.T) {
	d := NewDecoder(Config{})
	var b event.Batch
	d.Decode(ipfixDatagram(0, 0, set(3, optionsTpl10(300, 1, field{302, 4}, field{34, 4}))), router, arrival, &b)
	for i := range uint32(maxSamplers + 10) {
		d.Decode(ipfixDatagram(i, 0, set(300, rec(i, uint32(100)))), router, arrival, &b)
	}
	if d.samplers != maxSamplers || total(d, samplersRefused) != 10 {
		t.Errorf("%d samplers, %d refused", d.samplers, total(d, samplersRefused))
	}
}

// Odd and broken datagrams: what is whole is decoded, the rest has a counter.
func TestMalformed(t *testing.T) {
	one := rec("192.0.2.5")
	teach := set(2, tpl(256, field{8, 4}))
	shorten := func(p []byte, n int) []byte { return p[:len(p)-n] }
	length := func(p []byte, n int) []byte { be.PutUint16(p[2:], uint16(n)); return p }
	for _, c := range []struct {
		name   string
		p      []byte
		want   int
		err    error
		counts []string
	}{
		{"empty", nil, 0, ErrShort, []string{"refused, short header: 1"}},
		{"sFlow", rec(uint32(5), make([]byte, 40))[:1], 0, ErrShort, []string{"refused, short header: 1"}},
		{"version 8", rec(uint16(8), make([]byte, 40)), 0, ErrVersion, []string{"refused, unknown version: 1"}},
		{"v5 header cut", v5Datagram(0, 0, 0)[:23], 0, ErrShort, []string{"refused, short header: 1"}},
		{"v9 header cut", v9Datagram(0, 0)[:19], 0, ErrShort, []string{"refused, short header: 1"}},
		{"IPFIX header cut", ipfixDatagram(0, 0)[:15], 0, ErrShort, []string{"refused, short header: 1"}},
		{"v5 record cut", shorten(v5Datagram(0, 0, 3), 1), 2, ErrShort, []string{"records, cut short: 1"}},
		{"v5 count is nonsense", length(v5Datagram(0, 0, 30), 55582), 30, ErrShort, nil},
		{"v5 with zeros behind", append(v5Datagram(0, 0, 2), make([]byte, 960)...), 2, nil, nil},
		{"no sets", ipfixDatagram(0, 0), 0, nil, nil},
		{"padding in a set", ipfixDatagram(0, 0, teach, set(256, one, []byte{0, 0, 0})), 1, nil, nil},
		{"padding behind a template", ipfixDatagram(0, 0, set(2, tpl(256, field{8, 4}), make([]byte, 7)), set(256, one)), 1, nil, nil},
		{"zeros behind the sets", v9Datagram(0, 0, set(0, tpl(256, field{8, 4})), set(256, one), make([]byte, 1000)), 1, nil, nil},
		{"a set of length 2", v9Datagram(0, 0, set(0, tpl(256, field{8, 4})), rec(uint16(256), uint16(2), one)), 0, ErrSet, []string{"sets, impossible length: 1"}},
		{"a set cut", shorten(v9Datagram(0, 0, set(0, tpl(256, field{8, 4})), set(256, one, one)), 1), 1, ErrShort, []string{"sets, cut short: 1"}},
		{"IPFIX says less than it has: the last set crosses", length(ipfixDatagram(0, 0, teach, set(256, one, one)), 16+12+4), 2, nil, nil},
		{"IPFIX says less than it has: the rest is not read", length(ipfixDatagram(0, 0, teach, set(256, one), set(256, one)), 16+12+8), 1, nil, nil},
		{"zeros in a template set of v9", v9Datagram(0, 0, set(0, tpl(256, field{8, 4}), make([]byte, 5)), set(256, one)), 1, nil, nil},
		{"IPFIX says more than it has", length(ipfixDatagram(0, 0, teach, set(256, one)), 500), 1, ErrShort, nil},
		{"reserved set ids", ipfixDatagram(0, 0, set(0, one), set(4, one), set(255, one)), 0, nil, []string{"sets, reserved id: 3"}},
		{"a record of no octets", ipfixDatagram(0, 0, set(2, tpl(256, field{8, 0}, field{7, 0})), set(256, one)), 0, ErrTemplate, []string{"sets, held for template: 1", "templates, malformed: 1"}},
		{"a record longer than any set", ipfixDatagram(0, 0, set(2, tpl(256, field{8, 60000}, field{7, 60000}))), 0, ErrTemplate, []string{"templates, malformed: 1"}},
		{"a template cut", ipfixDatagram(0, 0, set(2, rec(uint16(256), uint16(9), uint16(8), uint16(4)))), 0, ErrTemplate, []string{"templates, malformed: 1"}},
		{"a template cut in an enterprise number", ipfixDatagram(0, 0, set(2, rec(uint16(256), uint16(1), uint16(0x8008), uint16(4)))), 0, ErrTemplate, []string{"templates, malformed: 1"}},
		{"a template with an id of sets", ipfixDatagram(0, 0, set(2, tpl(5, field{8, 4}))), 0, ErrTemplate, []string{"templates, malformed: 1"}},
		{"all withdrawn", ipfixDatagram(0, 0, set(2, rec(uint16(2), uint16(0))), set(3, rec(uint16(3), uint16(0)))), 0, nil, []string{"templates, withdrawal ignored: 2"}},
		{"an options template cut in its header", ipfixDatagram(0, 0, set(3, rec(uint16(256), uint16(1)))), 0, ErrTemplate, []string{"templates, malformed: 1"}},
		{"more scope than fields", ipfixDatagram(0, 0, set(3, optionsTpl10(256, 9, field{149, 4}))), 0, ErrTemplate, []string{"templates, malformed: 1"}},
		{"257 fields, and another template after them", ipfixDatagram(0, 0, set(2, tpl(300, make([]field, 257)...), tpl(256, field{8, 4})), set(256, one)), 1, ErrTemplate, []string{"templates, too many fields: 1"}},
		{"an address of one octet", ipfixDatagram(0, 0, set(2, tpl(256, field{8, 1}, field{7, 2})), set(256, []byte{1, 2, 3})), 0, nil, []string{"records, no IP address: 1"}},
		{"a variable length that runs out", ipfixDatagram(0, 0, set(2, tpl(256, field{8, 4}, field{82, variableLength})), set(256, one, []byte("\x01x"), one, []byte("\x09x"))), 1, nil, []string{"records, cut short: 1"}},
		{"a long variable length that runs out", ipfixDatagram(0, 0, set(2, tpl(256, field{8, 4}, field{82, variableLength})), set(256, one, []byte("\xff\x01"))), 0, nil, []string{"records, cut short: 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := NewDecoder(exact)
			var b event.Batch
			n, err := d.Decode(c.p, router, arrival, &b)
			if n != c.want || n != len(b.Flows) || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Errorf("Decode = %d, %v, appended %d; want %d, %v", n, err, len(b.Flows), c.want, c.err)
			}
			checkCounted(t, d, c.counts...)
		})
	}
}

func TestOptionsAreNoTraffic(t *testing.T) {
	d := NewDecoder(exact)
	var b event.Batch
	p := ipfixDatagram(0, 0, set(3, optionsTpl10(256, 1, field{149, 4}, field{8, 4}, field{1, 4})), set(256, make([]byte, 24)))
	if n, err := d.Decode(p, router, arrival, &b); n != 0 || err != nil {
		t.Errorf("Decode = %d, %v", n, err)
	}
	checkCounted(t, d, "records, options: 2")
}

// The boot that an options record tells makes times since boot readable.
func TestBootFromOptions(t *testing.T) {
	d := NewDecoder(exact)
	var b event.Batch
	d.Decode(ipfixDatagram(0, 0, set(3, optionsTpl10(300, 1, field{144, 4}, field{160, 8})), set(300, rec(uint32(0), uint64(sent-100)*1000))), router, arrival, &b)
	d.Decode(ipfixDatagram(1, 0, set(2, tpl(256, with(key4, field{22, 4}, field{21, 4})...)), set(256, hosts, rec(uint32(90_000), uint32(95_000)))), router, arrival, &b)
	if f := b.Flows[0]; f.First != (sent-10)*1e9 || f.Last != (sent-5)*1e9 {
		t.Errorf("first, last are %v, %v", f.First, f.Last)
	}
}

// taught returns a Decoder that knows templates and rates of all kinds.
func taught(t *testing.T) *Decoder {
	d := NewDecoder(Config{})
	var b event.Batch
	six := event.Addr{0x20, 0x01, 0x0d, 0xb8, 15: 9}
	for _, p := range [][]byte{
		v9Datagram(1, 3, set(0, tpl(256, nine4...)), set(1, optionsTpl9(300, 1, field{2, 4}, field{34, 4}), optionsTpl9(301, 1, field{1, 4}, field{48, 1}, field{50, 4})),
			set(300, rec(uint32(4), uint32(100))), set(301, rec(uint32(0), uint8(7), uint32(200)))),
		ipfixDatagram(1, 4, set(2, tpl(400, with(common4, field{enterprise(35632, 7), 2}, field{82, variableLength})...)), set(3, optionsTpl10(300, 1, field{149, 4}, field{34, 4})), set(300, rec(uint32(4), uint32(50)))),
	} {
		for _, from := range []event.Addr{router, six} {
			if _, err := d.Decode(p, from, arrival, &b); err != nil {
				t.Fatal(err)
			}
		}
	}
	return d
}

func save(t *testing.T, d *Decoder) []byte {
	t.Helper()
	var file bytes.Buffer
	if err := d.Save(&file); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// A restart loses no flow and no rate.
func TestSaveLoad(t *testing.T) {
	old := taught(t)
	file := save(t, old)
	d := NewDecoder(Config{})
	if err := d.Load(bytes.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	if again := save(t, d); !bytes.Equal(again, file) {
		t.Errorf("saved again\n%s\nwas\n%s", again, file)
	}
	data := []([]byte){
		v9Datagram(2, 3, set(256, nineRecords(nine4, 20))),
		ipfixDatagram(2, 4, set(400, commonRecords(common4, 1), []byte("\x00\x00\x02xe"))),
	}
	var want, got event.Batch
	for _, p := range data {
		old.Decode(p, router, arrival, &want)
		if n, err := d.Decode(p, router, arrival, &got); n == 0 || err != nil {
			t.Errorf("Decode = %d, %v", n, err)
		}
	}
	if !slices.Equal(got.Flows, want.Flows) {
		t.Errorf("after the restart\n%+v\nbefore\n%+v", got.Flows, want.Flows)
	}
}

// The form is a promise to the next version: change it knowingly, and raise its number.
func TestSavedForm(t *testing.T) {
	d := NewDecoder(Config{})
	var b event.Batch
	d.Decode(v9Datagram(1, 3, set(0, tpl(256, field{8, 4}, field{12, 4})), set(1, optionsTpl9(300, 1, field{2, 4}, field{34, 4})), set(300, rec(uint32(4), uint32(100)))), router, arrival, &b)
	want, err := os.ReadFile(filepath.Join("testdata", "templates.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if got := save(t, d); !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A template from a file is believed for a day, and longer once it is announced.
func TestLoadedTemplateGrowsStale(t *testing.T) {
	file := save(t, taught(t))
	for _, c := range []struct {
		name     string
		later    time.Duration
		announce bool
		want     int
	}{
		{"a day later", staleAfter, false, 20},
		{"more than a day later", staleAfter + 1, false, 0},
		{"announced within the day", staleAfter + 1, true, 20},
	} {
		d := NewDecoder(Config{})
		if err := d.Load(bytes.NewReader(file)); err != nil {
			t.Fatal(err)
		}
		var b event.Batch
		if c.announce {
			d.Decode(v9Datagram(2, 3, set(0, tpl(256, nine4...))), router, arrival.Add(time.Hour), &b)
		}
		if n, _ := d.Decode(v9Datagram(3, 3, set(256, nineRecords(nine4, 20))), router, arrival.Add(c.later), &b); n != c.want {
			t.Errorf("%s: %d flows, want %d", c.name, n, c.want)
		}
	}
}

// Of a damaged file all that is whole is taken, and the error says what was not.
func TestLoadDamaged(t *testing.T) {
	file := save(t, taught(t))
	lines := bytes.SplitAfter(file, []byte("\n"))
	whole := NewDecoder(Config{})
	if err := whole.Load(bytes.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(file)
	flipped[len(lines[0])+40] ^= 1
	for _, c := range []struct {
		name      string
		file      []byte
		err       error
		templates int
	}{
		{"empty", nil, ErrForm, 0},
		{"another file", []byte("hello\n"), ErrForm, 0},
		{"a later version", bytes.Replace(file, lines[0], sealed(`{"form":"noroshi netflow templates","version":2}`), 1), ErrForm, 0},
		{"cut between lines", file[:len(file)-len(lines[len(lines)-2])], ErrCut, whole.templates},
		{"cut in the first template", file[:len(lines[0])+30], ErrDamaged, 0},
		{"a bit flipped in the first template", flipped, ErrDamaged, whole.templates - 1},
		{"a template too long", withLine(lines, `{"exporter":"192.0.2.9","protocol":9,"domain":0,"seen":"2026-11-24T00:00:00Z","template":{"id":256,"fields":[`+strings.Repeat("[0,8,4],", 256)+`[0,8,4]]}}`), ErrDamaged, whole.templates},
		{"a template of no octets", withLine(lines, `{"exporter":"192.0.2.9","protocol":9,"domain":0,"seen":"2026-11-24T00:00:00Z","template":{"id":256,"fields":[]}}`), ErrTemplate, whole.templates},
		{"an id of sets", withLine(lines, `{"exporter":"192.0.2.9","protocol":9,"domain":0,"seen":"2026-11-24T00:00:00Z","template":{"id":2,"fields":[[0,8,4]]}}`), ErrDamaged, whole.templates},
		{"no exporter", withLine(lines, `{"protocol":9,"domain":0,"seen":"2026-11-24T00:00:00Z","template":{"id":256,"fields":[[0,8,4]]}}`), ErrDamaged, whole.templates},
		{"version 5 has none", withLine(lines, `{"exporter":"192.0.2.9","protocol":5,"domain":0,"seen":"2026-11-24T00:00:00Z","template":{"id":256,"fields":[[0,8,4]]}}`), ErrDamaged, whole.templates},
		{"neither template nor rate", withLine(lines, `{"exporter":"192.0.2.9","protocol":9,"domain":0,"seen":"2026-11-24T00:00:00Z"}`), ErrDamaged, whole.templates},
	} {
		d := NewDecoder(Config{})
		if err := d.Load(bytes.NewReader(c.file)); !errors.Is(err, c.err) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.err)
		}
		if d.templates != c.templates {
			t.Errorf("%s: %d templates, want %d", c.name, d.templates, c.templates)
		}
	}
}

// withLine returns a file with one more line after the first.
func withLine(lines [][]byte, text string) []byte {
	return bytes.Join(slices.Insert(slices.Clone(lines), 1, sealed(text)), nil)
}

func TestIsDatagram(t *testing.T) {
	dns := rec(uint16(10), uint16(0x8180), uint16(1), uint16(1), uint32(0), []byte("\x07example\x03org\x00"), uint32(0x00010001), make([]byte, 40))
	f := func(name string, p []byte, want bool) {
		t.Helper()
		if IsDatagram(p) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
	for _, bm := range benchmarks {
		f(bm.name, bm.data, true)
		if bm.teach != nil {
			f(bm.name+" template", bm.teach, true)
		}
		f(bm.name+" cut", bm.data[:len(bm.data)-1], false)
	}
	f("zeros behind v5", append(v5Datagram(0, 0, 1), make([]byte, 96)...), true)
	f("zeros behind v9", v9Datagram(0, 0, set(256, hosts), make([]byte, 99)), true)
	f("reserved set", ipfixDatagram(0, 0, set(9, hosts)), false)
	f("v9's template set in IPFIX", ipfixDatagram(0, 0, set(0, tpl(256, field{8, 4}))), false)
	f("no set", ipfixDatagram(0, 0, []byte{0, 0, 0, 0, 0, 0, 0, 0}), false)
	f("DNS whose id is 10", dns, false)
	dns[1] = 9
	f("DNS whose id is 9", dns, false)
	f("sFlow", rec(uint32(5), uint32(1), "192.0.2.1", make([]byte, 60)), false)
	f("empty", nil, false)
}

// Of the recorded datagrams only those are not recognised whose lengths or
// counts are wrong, and files that hold several.
func TestCorpusIsDatagram(t *testing.T) {
	wrong := []string{"Netflow 5 valid 01", "Netflow 5 invalid 01", "Netflow 5 invalid 02", "issue_14370", "IPFIX"}
	structure(t, func(t testing.TB, c structureCase, datagrams [][]byte) {
		for i, p := range datagrams {
			if IsDatagram(p) == slices.Contains(wrong, c.Case) {
				t.Errorf("datagram %d: %v", i, IsDatagram(p))
			}
		}
	})
}

// Counters and what waits may be read while datagrams are decoded (run under the
// race detector), and totals never fall.
func TestReadersMayWatch(t *testing.T) {
	d := NewDecoder(Config{MaxExporters: 3})
	done := make(chan struct{})
	go func() {
		defer close(done)
		var b event.Batch
		seen := arrival
		for i := range 2000 {
			seen = seen.Add(time.Minute)
			from := event.AddrOf4([4]byte{192, 0, 2, byte(i / 20)}) // the silent are forgotten
			d.Decode(ipfixDatagram(0, uint32(i%3), set(uint16(256+i%7), make([]byte, 8))), from, seen, &b)
		}
	}()
	var before uint64
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		d.Waiting()
		now := total(d, datagrams)
		if now < before {
			t.Fatalf("%d datagrams, then %d", before, now)
		}
		before = now
	}
	if before != 2000 {
		t.Errorf("%d datagrams counted, want 2000", before)
	}
}
