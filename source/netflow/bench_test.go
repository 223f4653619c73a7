package netflow

import (
	"bytes"
	"testing"
	"time"

	oracle "github.com/netsampler/goflow2/v2/decoders/netflow"
	oracle5 "github.com/netsampler/goflow2/v2/decoders/netflowlegacy"
	"golang.org/x/sys/unix"

	"noroshi/event"
)

// benchmarks are the datagrams of both the benchmarks and the tests of
// allocations: what teaches the template, and 24 flows.
var benchmarks = []struct {
	name        string
	teach, data []byte
}{
	{"v5", nil, v5Datagram(1, 1<<14|100, 24)},
	{"v9", v9Datagram(1, 7, set(0, tpl(256, nine4...))), v9Datagram(2, 7, set(256, nineRecords(nine4, 24)))},
	{"v9-IPv6", v9Datagram(1, 7, set(0, tpl(256, nine6...))), v9Datagram(2, 7, set(256, nineRecords(nine6, 24)))},
	{"ipfix", ipfixDatagram(1, 7, set(2, tpl(256, common4...))), ipfixDatagram(1, 7, set(256, commonRecords(common4, 24)))},
	{"ipfix-IPv6", ipfixDatagram(1, 7, set(2, tpl(256, common6...))), ipfixDatagram(1, 7, set(256, commonRecords(common6, 24)))},
	{"ipfix-variable", ipfixDatagram(1, 7, set(2, tpl(256, append([]field{{82, variableLength}}, common4...)...))), variableDatagram(24)},
	{"ipfix-biflow", ipfixDatagram(1, 7, set(2, tpl(256, append([]field{{reverse(1), 8}, {reverse(2), 8}}, common4...)...))), biflowDatagram(12)},
}

// variableDatagram has n records of common4, with a name of six octets before each.
func variableDatagram(n int) []byte {
	var p []byte
	for i := range n {
		all := commonRecords(common4, i+1)
		p = append(p, rec([]byte("\x06ge-0/0"), all[len(all)*i/(i+1):])...)
	}
	return ipfixDatagram(1, 7, set(256, p))
}

// biflowDatagram has n records of common4, each with the volume of the answer before it.
func biflowDatagram(n int) []byte {
	var p []byte
	for i := range n {
		all := commonRecords(common4, i+1)
		p = append(p, rec(uint64(900), uint64(2), all[len(all)*i/(i+1):])...)
	}
	return ipfixDatagram(1, 7, set(256, p))
}

func TestDecodeAllocatesNothing(t *testing.T) {
	for _, bm := range benchmarks {
		d := NewDecoder(Config{})
		var b event.Batch
		if bm.teach != nil {
			d.Decode(bm.teach, router, arrival, &b)
		}
		if n, err := d.Decode(bm.data, router, arrival, &b); n != 24 || err != nil {
			t.Errorf("%s: Decode = %d, %v, want 24", bm.name, n, err)
		}
		if n := testing.AllocsPerRun(100, func() { b.Reset(); d.Decode(bm.data, router, arrival, &b) }); n != 0 {
			t.Errorf("%s: Decode allocates %v times", bm.name, n)
		}
		if bm.teach == nil {
			continue
		}
		if n := testing.AllocsPerRun(100, func() { d.Decode(bm.teach, router, arrival, &b) }); n != 0 {
			t.Errorf("%s: a template that comes again allocates %v times", bm.name, n)
		}
	}
}

// BenchmarkDecode measures ns/flow of this decoder and of goflow2's on the same
// datagrams. goflow2 keeps every field; what makes a record of its fields is
// not counted.
func BenchmarkDecode(b *testing.B) {
	for _, bm := range benchmarks {
		b.Run("noroshi/"+bm.name, func(b *testing.B) {
			d := NewDecoder(Config{})
			var batch event.Batch
			if bm.teach != nil {
				d.Decode(bm.teach, router, arrival, &batch)
			}
			b.SetBytes(int64(len(bm.data)))
			b.ReportAllocs()
			flows, began := 0, processTime()
			for b.Loop() {
				batch.Reset()
				n, _ := d.Decode(bm.data, router, arrival, &batch)
				flows += n
			}
			perFlow(b, flows, began)
		})
		b.Run("goflow2/"+bm.name, func(b *testing.B) {
			templates := oracle.CreateTemplateSystem()
			if bm.teach != nil {
				oracleDecode(b, bm.teach, templates)
			}
			b.SetBytes(int64(len(bm.data)))
			b.ReportAllocs()
			began := processTime()
			for b.Loop() {
				oracleDecode(b, bm.data, templates)
			}
			perFlow(b, 24*b.N, began)
		})
	}
}

// oracleDecode decodes p by goflow2, which must not fail.
func oracleDecode(t testing.TB, p []byte, templates oracle.NetFlowTemplateSystem) any {
	packet, err := oracleTry(p, templates)
	if err != nil {
		t.Fatal(err)
	}
	return packet
}

// oracleTry decodes p by goflow2 into a packet of its version.
func oracleTry(p []byte, templates oracle.NetFlowTemplateSystem) (packet any, err error) {
	buf := bytes.NewBuffer(p)
	if be.Uint16(p) == v5 {
		var five oracle5.PacketNetFlowV5
		err = oracle5.DecodeMessageVersion(buf, &five)
		return &five, err
	}
	var nine oracle.NFv9Packet
	var ten oracle.IPFIXPacket
	err = oracle.DecodeMessageVersion(buf, templates, &nine, &ten)
	if be.Uint16(p) == v9 {
		return &nine, err
	}
	return &ten, err
}

// processTime is the processor time that this process has used: on a machine
// with other work, what a flow costs is better told by it than by the clock.
func processTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// perFlow reports what each of the flows cost, by the clock and in processor
// time since began.
func perFlow(b *testing.B, flows int, began time.Duration) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(flows), "ns/flow")
	b.ReportMetric(float64((processTime()-began).Nanoseconds())/float64(flows), "cpu-ns/flow")
}
