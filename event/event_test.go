package event

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// The size is part of the design: it decides how many events fit in cache and
// how much memory a deal copies. Change it knowingly.
func TestSize(t *testing.T) {
	if n := unsafe.Sizeof(Flow{}); n != 136 {
		t.Errorf("Flow has %d bytes, want 136", n)
	}
}

func TestAddr(t *testing.T) {
	f := func(s string) {
		t.Helper()
		if got := AddrOf(netip.MustParseAddr(s)).String(); got != s {
			t.Errorf("%s came back as %s", s, got)
		}
	}
	f("192.0.2.1")
	f("2001:db8::1")
	f("::1")
	f("0.0.0.0")

	var zero Addr
	if zero.String() != "-" || zero.Std().IsValid() || AddrOf(netip.Addr{}) != zero {
		t.Error("the zero Addr is not unknown")
	}
}

func TestMasked(t *testing.T) {
	f := func(addr string, bits int, want string) {
		t.Helper()
		if got := AddrOf(netip.MustParseAddr(addr)).Masked(bits).String(); got != want {
			t.Errorf("%s/%d is %s, want %s", addr, bits, got, want)
		}
	}
	f("192.0.2.129", 32, "192.0.2.129")
	f("192.0.2.129", 24, "192.0.2.0")
	f("192.0.2.129", 0, "0.0.0.0")
	f("2001:db8:1:2:3::4", 128, "2001:db8:1:2:3::4")
	f("2001:db8:1:2:3::4", 64, "2001:db8:1:2::")
	f("2001:db8:1:2:3::4", 48, "2001:db8:1::")
	f("2001:db8:1:2:3::4", 65, "2001:db8:1:2::")
}

func TestAppendLine(t *testing.T) {
	f := func(line string, want ...string) {
		t.Helper()
		var b Batch
		if err := b.AppendLine(line, Time(time.Hour)); err != nil {
			t.Error(err)
			return
		}
		var got []string
		for i := range b.Flows {
			got = append(got, b.Line(&b.Flows[i]))
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%q gave\n%s\nwant\n%s", line, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	f("flow +0s 10.0.0.5 > 192.0.2.1:23 tcp S", "1970-01-01T01:00:00.000Z 10.0.0.5 > 192.0.2.1:23 tcp S 1p 60B")
	f("flow +0s 10.0.0.5:4000 > 192.0.2.[1-3]:[23-24] tcp S 3p 180B 2s win=9 seqdst /1s",
		"1970-01-01T01:00:00.000Z 10.0.0.5:4000 > 192.0.2.1:23 tcp S 3p 180B 2s win=9 seqdst",
		"1970-01-01T01:00:01.000Z 10.0.0.5:4000 > 192.0.2.2:24 tcp S 3p 180B 2s win=9 seqdst",
		"1970-01-01T01:00:02.000Z 10.0.0.5:4000 > 192.0.2.3:23 tcp S 3p 180B 2s win=9 seqdst")
	f("flow +1m 2001:db8::1 > [2001:db8::2]:53 udp payload=00ff 1:1000 via=192.0.2.9",
		"1970-01-01T01:01:00.000Z 2001:db8::1 > [2001:db8::2]:53 udp 1p 60B 1:1000 via=192.0.2.9 payload=00ff")
	f("flow +0s 192.0.2.1 > 10.0.0.[1-2] icmp type=3/13 ttl=60",
		"1970-01-01T01:00:00.000Z 192.0.2.1 > 10.0.0.1 icmp type=3/13 1p 60B ttl=60",
		"1970-01-01T01:00:00.001Z 192.0.2.1 > 10.0.0.2 icmp type=3/13 1p 60B ttl=60")

	bad := func(line string) {
		t.Helper()
		var b Batch
		if err := b.AppendLine(line, 0); err == nil {
			t.Errorf("%q was accepted", line)
		}
	}
	bad("")
	bad("flow +0s 10.0.0.5 > 192.0.2.[9-1]:23 tcp")
	bad("flow +0s 10.0.0.5 > 192.0.2.[1-9:23 tcp")
	bad("flow +0s 10.0.0.5 > 192.0.2.1:[9-1] tcp")
	bad("flow +0s 10.0.0.5 > 192.0.2.1:23 tcp loud")
	bad("flow +0s 10.0.0.5 > 192.0.2.1:23 tcp ttl=256")
	bad("flow yesterday 10.0.0.5 > 192.0.2.1:23 tcp S")
	bad("flow +0s 10.0.0.5 > 192.0.2.1:23 tcp S x1048577")
	bad("flow +0s 10.0.0.5 > 192.0.2.[0-255]:23 tcp S x4097")
	bad("flow +0s 10.0.0.5 > 192.0.2.1:23 tcp S -2s")
	bad("flow +0s 10.0.0.5 > 192.0.2.1:23 tcp S late=-1s")
	bad("flow +0s 10.0.0.5 > 192.0.2.1:23 tcp S 99999h")
	bad("flow +0s 10.0.0.5 > 192.0.2.1:23 tcp S x1000 /8760h")
	bad("flow +0s 10.0.0.5 > 192.0.2.1:23 tcp S payload=" + strings.Repeat("00", MaxPayload+1))
}

// Each side of a flow is dealt exactly once, and prefixes stay together.
func TestDealNoAllocation(t *testing.T) {
	var b Batch
	if err := b.AppendLine("flow +0s 10.0.0.[1-200]:4000 > 192.0.2.[1-200]:80 udp x4", 1); err != nil {
		t.Fatal(err)
	}
	shards := make([]*Batch, 8)
	for i := range shards {
		shards[i] = &Batch{Flows: make([]Flow, 0, b.Len())}
	}
	for i := range b.Flows {
		b.Flows[i].DstNet = uint32(i % 5)
	}
	if n := testing.AllocsPerRun(10, func() {
		for _, s := range shards {
			s.Reset()
		}
		b.Deal(shards)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestDeal(t *testing.T) {
	var b Batch
	for _, line := range []string{
		"flow +0s 10.0.0.[1-200]:4000 > 192.0.2.[1-200]:80 tcp S payload=aabb",
		"flow +0s 2001:db8::1 > [2001:db8::2]:53 udp",
		"flow +0s 10.1.0.[1-99] > 10.0.0.1:53 udp",
	} {
		if err := b.AppendLine(line, 1); err != nil {
			t.Fatal(err)
		}
	}
	owned := 0
	for i := range b.Flows {
		b.Flows[i].DstNet = uint32(i % 5)
		if i%5 > 0 {
			owned++
		}
	}
	for _, n := range []int{1, 2, 8} {
		shards := make([]*Batch, n)
		for i := range shards {
			shards[i] = new(Batch)
		}
		if n == 1 {
			shards[0].Append(&b)
			shards[0].Deal(nil)
		} else {
			b.Deal(shards)
		}
		src, dst := map[Addr]int{}, map[Addr]int{}
		home := map[Addr]int{} // prefix to shard
		nets, netHome := 0, map[uint32]int{}
		for i, s := range shards {
			for j := range s.Flows {
				f := &s.Flows[j]
				if f.Payload.Len > 0 && s.Text(f.Payload) != "\xaa\xbb" {
					t.Fatalf("payload became %x", s.Text(f.Payload))
				}
				if f.Has(ForNet) {
					nets++
					if was, ok := netHome[f.DstNet]; f.DstNet == 0 || ok && was != i {
						t.Errorf("%d shards: network %d is in shards %d and %d", n, f.DstNet, was, i)
					}
					netHome[f.DstNet] = i
				}
				for _, side := range []struct {
					mark  Marks
					addr  Addr
					count map[Addr]int
				}{{ForSrc, f.Src, src}, {ForDst, f.Dst, dst}} {
					if !f.Has(side.mark) {
						continue
					}
					side.count[side.addr]++
					if was, ok := home[side.addr.Masked(16)]; ok && was != i && side.addr.Is4() {
						t.Errorf("%d shards: %v is in shards %d and %d", n, side.addr, was, i)
					}
					home[side.addr.Masked(16)] = i
				}
			}
		}
		total := 0
		for _, c := range src {
			total += c
		}
		for _, c := range dst {
			total += c
		}
		if total != 2*b.Len() {
			t.Errorf("%d shards: %d sides dealt, want %d", n, total, 2*b.Len())
		}
		if nets != owned {
			t.Errorf("%d shards: %d dealt for their networks, want %d", n, nets, owned)
		}
	}
}

func TestAppendKeepsText(t *testing.T) {
	var a, b Batch
	a.AddText([]byte("elsewhere"))
	f := b.NewFlow()
	f.Payload = b.AddText([]byte("here"))
	a.Append(&b)
	if got := a.Text(a.Flows[0].Payload); got != "here" {
		t.Errorf("payload became %q", got)
	}
}

// Text that lies elsewhere after Append is found there, whatever field of
// whatever kind refers to it.
func TestAppendMovesText(t *testing.T) {
	var one, all Batch
	all.AddText([]byte("something before"))
	fill := func(row reflect.Value) {
		for i := range row.NumField() {
			if row.Type().Field(i).Type == reflect.TypeFor[Text]() {
				row.Field(i).Set(reflect.ValueOf(one.AddText([]byte(row.Type().Field(i).Name))))
			}
		}
	}
	one.Flows, one.DNS, one.Sessions, one.Logs = make([]Flow, 1), make([]DNS, 1), make([]Session, 1), make([]Log, 1)
	kinds := []func(*Batch) reflect.Value{
		func(b *Batch) reflect.Value { return reflect.ValueOf(&b.Flows[0]).Elem() },
		func(b *Batch) reflect.Value { return reflect.ValueOf(&b.DNS[0]).Elem() },
		func(b *Batch) reflect.Value { return reflect.ValueOf(&b.Sessions[0]).Elem() },
		func(b *Batch) reflect.Value { return reflect.ValueOf(&b.Logs[0]).Elem() },
	}
	if n := reflect.TypeFor[Batch]().NumField() - 2; n != len(kinds) {
		t.Errorf("a batch holds %d kinds, and %d are examined", n, len(kinds))
	}
	for _, row := range kinds {
		fill(row(&one))
	}
	all.Append(&one)
	if all.Len() != len(kinds) {
		t.Errorf("%d events, want %d", all.Len(), len(kinds))
	}
	for _, of := range kinds {
		row := of(&all)
		for i := range row.NumField() {
			if v, ok := row.Field(i).Interface().(Text); ok && all.Text(v) != row.Type().Field(i).Name {
				t.Errorf("%v.%s became %q", row.Type(), row.Type().Field(i).Name, all.Text(v))
			}
		}
	}
}
