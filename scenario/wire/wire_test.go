package wire_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"noroshi/event"
	"noroshi/scenario"
	"noroshi/scenario/wire"
	"noroshi/source/export"
	"noroshi/source/packet"
)

// decoded plays s and returns what it told and what decoding gave, sorted.
func decoded(t *testing.T, s *scenario.Scenario, most int) (told, got []string) {
	dec := export.NewDecoder(export.Config{})
	enc := wire.NewEncoder(s.Provider, s.Start().Add(-240*time.Hour))
	last := event.Time(0)
	send := func(d *wire.Datagram) {
		if d.At < last {
			t.Errorf("a datagram of %v after one of %v", d.At, last)
		}
		last = d.At
		var b event.Batch
		if d.Exporter.Protocol == scenario.Packets {
			packet.Decode(&packet.Packet{Time: d.At, Link: packet.Raw, Data: d.Data, Wire: len(d.Data)}, event.MaxPayload, &b)
		} else if _, err := dec.Decode(d.Data, d.Exporter.Addr, d.At, &b); err != nil {
			t.Fatalf("%v: %v", d.Exporter.Protocol, err)
		}
		if d.Exporter.Protocol != scenario.Packets && (len(d.Data) > 1472 || !export.IsDatagram(d.Data)) {
			t.Fatalf("%v: %d octets", d.Exporter.Protocol, len(d.Data))
		}
		for i := range b.Flows {
			if f := &b.Flows[i]; !f.Has(event.Tunnelled) {
				got = append(got, describe(&b, f))
			}
		}
	}
	s.Play(7, s.Start(), func(b *event.Batch) bool {
		for i := range b.Flows {
			told = append(told, describe(b, &b.Flows[i]))
		}
		enc.Encode(b, send)
		return len(told) < most
	})
	enc.Flush(send)
	for c := range dec.Counts() {
		if c.Name == "lost" || c.Name == "refused" || c.Reason == "clamped" || c.Reason == "restart" {
			t.Errorf("%+v", c)
		}
	}
	slices.Sort(told)
	slices.Sort(got)
	return told, got
}

// describe writes all of a flow. Of a payload it writes as much as the scenario
// gives, which the packet's noise follows.
func describe(b *event.Batch, f *event.Flow) string {
	c := *f
	c.Payload = event.Text{}
	text := b.Text(f.Payload)
	if i := min(len(text), 8); i > 0 && isText(text[:i]) {
		text = text[:i]
	} else {
		text = ""
	}
	return fmt.Sprintf("%+v %q", c, text)
}

// isText tells what a dialog says from noise: noise of eight octets is hardly
// ever ASCII.
func isText(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 || s[i] < 0x20 && s[i] != '\r' && s[i] != '\n' {
			return false
		}
	}
	return true
}

// What is encoded comes back, for every exporter and kind of packet.
func TestRoundTrip(t *testing.T) {
	for _, name := range []string{"ordinary-day", "mirai-outbreak", "mirai-roles", "unmarked-bots", "mirai-variants", "adb-worm", "flood-gre", "flood-fragments", "flood-icmp", "flood-syn", "dns-amplification", "wrong-sampling", "own-reflectors"} {
		t.Run(name, func(t *testing.T) {
			told, got := decoded(t, scenario.Find(name), 60_000)
			if len(told) != len(got) {
				t.Errorf("%d records told, %d decoded", len(told), len(got))
			}
			bad := 0
			for i := range min(len(told), len(got)) {
				if cmp.Compare(told[i], got[i]) != 0 {
					if bad++; bad < 4 {
						t.Errorf("told\n%s\ndecoded\n%s", told[i], got[i])
					}
				}
			}
		})
	}
}
