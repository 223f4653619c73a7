package iotbot

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"noroshi/event"
	"noroshi/finding"
)

// Whatever comes, and however it is cut and dealt, the findings are the same: a
// few hosts, own and foreign, do everything at random, with pauses of all
// lengths, late records and steps back in time.
func TestSameFindings(t *testing.T) {
	for seed := range uint64(20) {
		all := mess(t, seed)
		want := run(t, all, 1, all.Len(), 0)
		if seed == 0 && len(want) < 20 {
			t.Fatalf("only %d findings: the test shows nothing", len(want))
		}
		for _, c := range []struct{ shards, step, advance int }{{1, 1, 1}, {1, 7, 3}, {2, 100, 1}, {8, 33, 2}, {8, 1, 1}, {1, 50, 0}} {
			got := run(t, all, c.shards, c.step, c.advance)
			if !slices.Equal(got, want) {
				for i := range max(len(got), len(want)) {
					if i >= len(got) || i >= len(want) || got[i] != want[i] {
						t.Fatalf("seed %d, %d shards, %d records a batch, Advance after every %d: %d findings, want %d\ngot  %s\nwant %s",
							seed, c.shards, c.step, c.advance, len(got), len(want), at(got, i), at(want, i))
					}
				}
			}
		}
	}
}

func at(list []string, i int) string {
	if i < len(list) {
		return list[i]
	}
	return "nothing"
}

// mess is random traffic of few hosts.
func mess(t testing.TB, seed uint64) *event.Batch {
	rnd := rand.New(rand.NewPCG(seed, 7))
	b := new(event.Batch)
	now := start
	ports := []uint16{23, 23, 23, 2323, 5358, 22, 445, 80, 443, 6881, 37215, 5555}
	for range 4000 {
		switch rnd.IntN(100) {
		case 0:
			now = now.Add(time.Duration(rnd.IntN(4000)) * time.Second)
		case 1, 2, 3:
			now = now.Add(time.Duration(rnd.IntN(20)) * time.Second)
		}
		now = now.Add(time.Duration(rnd.IntN(50)) * time.Millisecond)
		f := b.NewFlow()
		f.Seen = now.Add(-time.Duration(rnd.IntN(2)*rnd.IntN(900)) * time.Millisecond)
		f.Last = f.Seen.Add(-time.Duration(rnd.IntN(3)) * time.Second)
		f.First = f.Last.Add(-time.Duration(rnd.IntN(2000)) * time.Millisecond)
		host := four(uint32(own) + rnd.Uint32N(4)<<16 + rnd.Uint32N(2))
		if rnd.IntN(4) == 0 {
			host = four(0xC0000200 + rnd.Uint32N(4)<<16)
		}
		peer := four(rnd.Uint32())
		if rnd.IntN(3) == 0 {
			peer = four(uint32(own) + rnd.Uint32N(1<<20))
		}
		f.Src, f.Dst, f.Proto, f.Sampling, f.Packets, f.Bytes = host, peer, event.TCP, 1, 1, 60
		f.SrcPort, f.DstPort, f.TCPFlags = 4000+uint16(rnd.IntN(2)), ports[rnd.IntN(len(ports))], event.SYN
		switch rnd.IntN(12) {
		case 0, 1, 2:
			f.Bytes = 40
			if rnd.IntN(20) == 0 {
				f.Marks |= event.SeqIsDst | event.OnePacket
			}
		case 3:
			f.TCPFlags, f.Packets, f.Bytes = event.SYN|event.ACK|event.PSH|event.FIN, 20, 9000
		case 4:
			f.Proto, f.TCPFlags, f.SrcPort, f.DstPort = event.UDP, 0, 6881, 20000+uint16(rnd.IntN(999))
		case 5:
			f.TCPFlags, f.SrcPort, f.DstPort = event.SYN|event.ACK, 80, 5000
		case 6:
			f.Src, f.Dst = peer, host
		case 7:
			if rnd.IntN(9) == 0 {
				f.Proto, f.TCPFlags, f.Src, f.Dst, f.Marks = event.ICMP, 0, peer, host, event.QuoteSeqIsDst
			}
		case 8:
			if rnd.IntN(9) == 0 {
				f.TCPFlags, f.DstPort = event.ACK|event.PSH, 37215
				f.Payload = b.AddText([]byte("POST /ctrlt/DeviceUpgrade_1 HTTP/1.1"))
			}
		}
	}
	slices.SortStableFunc(b.Flows, func(x, y event.Flow) int { // by less than a second, out of order
		return cmp.Compare(x.Seen/1e9, y.Seen/1e9)
	})
	homes(t).Annotate(b)
	return b
}

// run returns what is found, the last of each ID, sorted. Advance is called after
// every so many batches; 0 is never.
func run(t *testing.T, all *event.Batch, shards, step, advance int) []string {
	t.Helper()
	ds := make([]*Detector, shards)
	for i := range ds {
		ds[i] = fresh(t, nil)
	}
	last := map[finding.ID]*finding.Finding{}
	said := map[finding.ID]event.Time{}
	report := func(f *finding.Finding) {
		if last[f.ID] == nil {
			said[f.ID] = f.Said
		}
		last[f.ID] = f
		if f.First == 0 || f.First > f.Last || f.Last > f.Said && !f.Ended {
			t.Errorf("%s %v: first %v, last %v, said %v", f.Rule, f.Subject, f.First, f.Last, f.Said)
		}
	}
	for i, n := 0, 0; i < all.Len(); i += step {
		var b event.Batch
		next := event.Time(1 << 62)
		for j := range all.Flows[i:] {
			f := &all.Flows[i+j]
			if j < step {
				b.AppendFlow(all, f)
			} else {
				next = min(next, f.Seen) // what the pipeline knows by its watermark
			}
		}
		parts := []*event.Batch{&b}
		if shards > 1 {
			parts = make([]*event.Batch, shards)
			for k := range parts {
				parts[k] = new(event.Batch)
			}
		}
		b.Deal(parts)
		n++
		for k, d := range ds {
			d.Detect(parts[k], report)
			if advance > 0 && n%advance == 0 && next < 1<<62 {
				d.Advance(next, report)
			}
		}
	}
	for _, d := range ds {
		d.Finish(report)
		d.Advance(all.Flows[all.Len()-1].Seen.Add(24*time.Hour), report)
	}
	var list []string
	for id, f := range last {
		list = append(list, fmt.Sprint(f.Subject, " ", f.First, " ", id, " ", f.Rule, " ", f.Family, " ", f.Cause, " ", f.Ended, " ", f.Last, " ", said[id], " ", f.Said, " ", f.Confidence, " ", f.Why.En, f.Measured))
	}
	slices.Sort(list)
	return list
}
