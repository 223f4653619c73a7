package event

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Whatever a line says: no panic, memory within the bound, nothing appended by a
// line that is refused, the same events twice, and text for people that stays
// on its line.
func FuzzAppendLine(f *testing.F) {
	for _, line := range []string{
		"flow +1.5s 10.0.0.5:40000 > 192.0.2.[1-120]:23 tcp S 3p 180B 2s ttl=64 win=1400 seqdst x2 /10ms",
		"flow +0s [2001:db8::1]:[53-60] > 2001:db8::2 udp 1:1000 late=30s via=192.0.2.9",
		"flow -1h 10.0.0.5 > 192.0.2.1 icmp type=8/0 payload=0011aabb x3",
		"flow 9s 10.0.0.[250-255]:1 > 10.0.1.[0-9]:[1-3] proto=47 SEW none 18446744073709551615B",
		"flow 0s 10.0.0.1 > 10.0.0.2 gre x2147483647",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		const start = Time(1e18)
		var b, again Batch
		err := b.AppendLine(line, start)
		if b.Len() > MaxLineEvents || b.TextLen() > MaxPayload {
			t.Fatalf("%d events, %d octets of text", b.Len(), b.TextLen())
		}
		if b.Len() > 1<<12 {
			return // slow, and no different
		}
		if err != nil && (b.Len() > 0 || b.TextLen() > 0) {
			t.Fatalf("%v, and %d events", err, b.Len())
		}
		if (again.AppendLine(line, start) == nil) != (err == nil) || !slices.Equal(b.Flows, again.Flows) {
			t.Fatal("reading twice gives two results")
		}
		for i := range b.Flows[:min(b.Len(), 100)] {
			fl := &b.Flows[i]
			if fl.First > fl.Last || fl.Last > fl.Seen {
				t.Fatalf("event %d: %v, %v, %v", i, fl.First, fl.Last, fl.Seen)
			}
			text := b.Line(fl)
			if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' && r != 'µ' }) {
				t.Fatalf("%q", text)
			}
			// What is written can be read again, but for what Line rounds.
			_, rest, _ := strings.Cut(text, " ")
			if fl.Last.Sub(fl.First)%time.Millisecond != 0 || strings.HasPrefix(rest, "-") || strings.Contains(rest, "> -") {
				continue
			}
			var c Batch
			if err := c.AppendLine("flow +"+fl.First.Sub(start).String()+" "+rest, start); err != nil || c.Len() != 1 {
				t.Fatalf("%q: %v", text, err)
			}
			got := c.Flows[0]
			if got.First != fl.First || got.Last != fl.Last || got.Src != fl.Src || got.Dst != fl.Dst || got.SrcPort != fl.SrcPort ||
				got.Bytes != fl.Bytes || got.Packets != fl.Packets || got.Sampling != fl.Sampling || got.Proto != fl.Proto {
				t.Fatalf("%q is read as %+v, was %+v", text, got, *fl)
			}
		}
	})
}
