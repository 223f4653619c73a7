package recording

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/klauspost/compress/gzip"

	"noroshi/event"
)

// Whatever comes from standard input: no panic, no more records than the input
// can hold, whole ones, in order where they lie within a window of each other,
// every packet in a counter, and the same twice.
func FuzzRecording(f *testing.F) {
	packets := []sent{{1, udp(7, 999, template)}, {2, udp(7, 999, record(1))}, {3, udp(1, 53, []byte("hello"))}, {2, udp(7, 1000, record(2))}}
	file := capture(f, "", packets...)
	f.Add(file)
	f.Add(append(bytes.Clone(file), file[24:60]...))
	f.Add(template)
	f.Add(record(9))
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	_, _ = w.Write(file)
	_ = w.Close()
	f.Add(gz.Bytes())
	f.Fuzz(func(t *testing.T, file []byte) {
		if compressed(file) {
			return // FuzzReader's; a small file may expand a thousandfold
		}
		run := func() (all event.Batch, r *Recording, text string) {
			r = New([]string{"-"}, Config{Stdin: bytes.NewReader(file), window: 64})
			err := r.Run(context.Background(), func(b *event.Batch) {
				all.Append(b)
				b.Release()
			})
			if err != nil {
				text = err.Error()
			}
			return all, r, text
		}
		all, r, text := run()
		if all.Len() > 2*len(file)+1<<12 || all.TextLen() > 2*len(file) {
			t.Fatalf("%d records with %d octets of text out of %d", all.Len(), all.TextLen(), len(file))
		}
		late, last := uint64(0), event.Time(0)
		for i := range all.Flows {
			fl := &all.Flows[i]
			if fl.First > fl.Last || fl.Last > fl.Seen {
				t.Fatalf("record %+v", *fl)
			}
			if fl.Seen < last {
				late++
			}
			last = max(last, fl.Seen)
		}
		if got := count(r, "records", "out of order"); got != late {
			t.Fatalf("%d records are late and %d counted", late, got)
		}
		packets := count(r, "packets", "")
		if refused := count(r, "refused", "not IP") + count(r, "exports", ""); packets > uint64(len(file)) || refused > packets {
			t.Fatalf("%d packets of %d octets, %d refused", packets, len(file), refused)
		}
		again, _, textAgain := run()
		if !slices.Equal(all.Flows, again.Flows) || text != textAgain {
			t.Fatal("reading twice gives two results")
		}
	})
}

func compressed(p []byte) bool {
	for _, magic := range []string{"\x1f\x8b", "\x28\xb5\x2f\xfd", "\xfd7zXZ\x00"} {
		if bytes.HasPrefix(p, []byte(magic)) {
			return true
		}
	}
	return false
}
