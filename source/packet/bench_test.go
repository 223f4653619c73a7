package packet

import (
	"testing"

	"noroshi/event"
)

// benchmarks are frames of ordinary and of odd shape.
var benchmarks = []struct {
	name string
	data []byte
}{
	{"udp", eth(0x0800, ip4(17, 0, udp(make([]byte, 100))))},
	{"tcp-vlan", eth(0x8100, vlan(1, 0x0800, ip4(6, 0, tcp(mark, 5, event.SYN))))},
	{"udp6", eth(0x86dd, ip6(17, udp(make([]byte, 100))))},
	{"qinq-mpls-gre6", eth(0x88a8, vlan(1, 0x8100, vlan(2, 0x8847, label(true, ip4(47, 0, u16(0, 0x86dd), ip6(0, []byte{17, 0, 0, 0, 0, 0, 0, 0}, udp(make([]byte, 400))))))))},
	{"icmp-quote", eth(0x0800, ip4(1, 0, []byte{3, 13, 0, 0, 0, 0, 0, 0}, ip4(6, 0, tcp(mark, 5, event.SYN))[:28]))},
}

// Decode allocates nothing, payloads kept.
func TestDecodeAllocatesNothing(t *testing.T) {
	for _, bm := range benchmarks {
		b := event.Batch{Flows: make([]event.Flow, 0, 16)}
		b.AddText(make([]byte, 1<<12))
		p := Packet{Link: Ethernet, Data: bm.data, Wire: len(bm.data)}
		n := testing.AllocsPerRun(100, func() {
			b.Reset()
			Decode(&p, event.MaxPayload, &b)
		})
		if n != 0 || b.Len() == 0 {
			t.Errorf("%s: %v allocations, %d records", bm.name, n, b.Len())
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, bm := range benchmarks {
		b.Run(bm.name, func(b *testing.B) {
			var batch event.Batch
			p := Packet{Link: Ethernet, Data: bm.data, Wire: len(bm.data)}
			b.ReportAllocs()
			for b.Loop() {
				if batch.Len() >= event.BatchSize {
					batch.Reset()
				}
				Decode(&p, 0, &batch)
			}
		})
	}
}
