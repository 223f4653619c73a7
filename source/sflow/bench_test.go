package sflow

import (
	"bytes"
	"testing"
	"time"

	oracle "github.com/netsampler/goflow2/v2/decoders/sflow"
	"golang.org/x/sys/unix"

	"noroshi/event"
)

// benchmarks are datagrams of seven samples, as many as fit: what switches send
// most.
var benchmarks = []struct {
	name string
	data []byte
}{
	{"headers", sevenSamples(false)},
	{"expanded-gateway", sevenSamples(true)},
}

// sevenSamples are headers of 128 octets; or expanded samples with AS paths.
func sevenSamples(expanded bool) []byte {
	long := cat(syn(), make([]byte, 74))
	var samples [][]byte
	for i := range uint32(7) {
		if expanded {
			gateway := tagged(extendedGateway, words(1), []byte{192, 0, 2, 254}, words(64500, 64501, 64502, 1, 2, 2, 64503, 64504, 0, 100))
			samples = append(samples, tagged(expandedFlow, words(i, 0, 9, 1000, 0, 0, 0, 77, 0, 88, 2), raw(1, long), gateway))
			continue
		}
		samples = append(samples, flow(i, 1000, 0, raw(1, long)))
	}
	return datagram(1, samples...)
}

func TestDecodeAllocatesNothing(t *testing.T) {
	for _, bm := range benchmarks {
		d := NewDecoder(Config{})
		b := decode(t, d, bm.data)
		if b.Len() != 7 {
			t.Errorf("%s: %d flows", bm.name, b.Len())
		}
		if n := testing.AllocsPerRun(100, func() { b.Reset(); _, _ = d.Decode(bm.data, relay, arrival, b) }); n != 0 {
			t.Errorf("%s: Decode allocates %v times", bm.name, n)
		}
	}
}

// BenchmarkDecode measures ns/flow of this decoder and of goflow2's on the same
// datagrams. goflow2 leaves the sampled header as octets; reading it is not counted
// there and is here.
func BenchmarkDecode(b *testing.B) {
	for _, bm := range benchmarks {
		b.Run("noroshi/"+bm.name, func(b *testing.B) {
			d := NewDecoder(Config{})
			var batch event.Batch
			b.SetBytes(int64(len(bm.data)))
			b.ReportAllocs()
			began := processTime()
			for b.Loop() {
				batch.Reset()
				_, _ = d.Decode(bm.data, relay, arrival, &batch)
			}
			perFlow(b, 7*b.N, began)
		})
		b.Run("goflow2/"+bm.name, func(b *testing.B) {
			b.SetBytes(int64(len(bm.data)))
			b.ReportAllocs()
			began := processTime()
			for b.Loop() {
				var m oracle.Packet
				if err := oracle.DecodeMessageVersion(bytes.NewBuffer(bm.data), &m); err != nil {
					b.Fatal(err)
				}
			}
			perFlow(b, 7*b.N, began)
		})
	}
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
