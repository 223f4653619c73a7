package export

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"noroshi/event"
	"noroshi/source"
	"noroshi/source/netflow"
	"noroshi/source/sflow"
)

var (
	be     = binary.BigEndian
	router = event.AddrOf(netip.MustParseAddr("192.0.2.99"))
)

const arrival = event.Time(1_700_000_000e9)

func words(v ...uint32) (p []byte) {
	for _, x := range v {
		p = be.AppendUint32(p, x)
	}
	return p
}

// One datagram of each protocol with one flow.
var (
	v5       = append(words(5<<16|1, 1000, 1_700_000_000, 0, 0, 0), append(words(0x0a000001, 0xc0000201, 0, 0, 1, 64, 900, 950, 0, 0x00001100), make([]byte, 8)...)...)
	template = words(10<<16|36, 1_700_000_000, 0, 0, 2<<16|20, 256<<16|2, 8<<16|4, 12<<16|4, 0)
	data     = words(10<<16|28, 1_700_000_000, 0, 0, 256<<16|12, 0x0a000001, 0xc0000201)
	sampled  = words(5, 1, 0xc6336401, 0, 1, 1000, 1, 1, 88, 1, 9, 100, 0, 0, 3, 4, 1, 1, 48, 11, 40, 0, 32,
		0x4500001c, 0, 0x40110000, 0x0a000001, 0xc0000201, 0x00350035, 0x00080000, 0)
)

func TestProtocols(t *testing.T) {
	d := NewDecoder(Config{})
	for _, c := range []struct {
		name  string
		p     []byte
		flows int
		err   error
	}{
		{"v5", v5, 1, nil}, {"IPFIX", template, 0, nil}, {"IPFIX", data, 1, nil}, {"sFlow", sampled, 1, nil},
		{"text", []byte("GET / HTTP/1.1"), 0, ErrProtocol}, {"nothing", nil, 0, ErrProtocol},
	} {
		var b event.Batch
		n, err := d.Decode(c.p, router, arrival, &b)
		if n != c.flows || b.Len() != n || !errors.Is(err, c.err) {
			t.Errorf("%s: %d flows, %v; want %d, %v", c.name, n, err, c.flows, c.err)
		}
		if n > 0 && b.Flows[0].Src != event.AddrOf(netip.MustParseAddr("10.0.0.1")) {
			t.Errorf("%s: %s", c.name, b.Line(&b.Flows[0]))
		}
		if recognised := c.flows > 0 && c.err == nil; IsDatagram(c.p) != (recognised || c.name == "IPFIX") {
			t.Errorf("%s is recognised: %v", c.name, IsDatagram(c.p))
		}
	}
	var all []source.Count
	flows, unknown := uint64(0), uint64(0)
	for c := range d.Counts() {
		all = append(all, c)
		switch {
		case c.Name == "flows" && c.Reason == "":
			flows += c.Value
		case c.Reason == "unknown protocol":
			unknown += c.Value
		}
	}
	if flows != 3 || unknown != 2 {
		t.Errorf("%d flows and %d unknown are counted: %v", flows, unknown, all)
	}
}

func TestTemplatesFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "templates")
	first := NewDecoder(Config{})
	if err := first.LoadFile(path); err != nil {
		t.Errorf("no file yet: %v", err)
	}
	var b event.Batch
	_, _ = first.Decode(template, router, arrival, &b)
	if err := first.SaveFile(path); err != nil {
		t.Fatal(err)
	}
	second := NewDecoder(Config{})
	if err := second.LoadFile(path); err != nil {
		t.Fatal(err)
	}
	if n, err := second.Decode(data, router, arrival, &b); n != 1 || err != nil {
		t.Errorf("%d flows, %v: the template is forgotten", n, err)
	}
	if err := os.WriteFile(path, []byte("garbage\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := NewDecoder(Config{}).LoadFile(path); err == nil {
		t.Error("garbage is accepted")
	}
	if err := first.SaveFile(filepath.Join(t.TempDir(), "no", "such")); err == nil {
		t.Error("saved into a folder that isn't there")
	}
	if left, _ := filepath.Glob(path + ".new-*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Whatever two datagrams hold: the number returned is appended and counted, the
// flows are whole, memory is what the input can justify, and the same again gives
// the same.
func FuzzDecode(f *testing.F) {
	for _, p := range [][]byte{v5, template, data, sampled} {
		f.Add(p, data)
		f.Add(data, p)
	}
	f.Fuzz(func(t *testing.T, p, q []byte) {
		run := func() (d *Decoder, all event.Batch) {
			d = NewDecoder(Config{NetFlow: netflow.Config{MaxExporters: 2, MaxTemplates: 8, PendingBytes: 2048}, SFlow: sflow.Config{MaxAgents: 2}})
			for i, x := range [][]byte{p, q, p} {
				var b event.Batch
				seen := arrival.Add(time.Duration(i) * time.Second)
				n, err := d.Decode(x, router, seen, &b)
				if n != b.Len() || n > 2*(len(p)+len(q)+2048) || b.TextLen() > 2*len(x) {
					t.Fatalf("says %d flows and appends %d with %d octets of text", n, b.Len(), b.TextLen())
				}
				if IsDatagram(x) && (errors.Is(err, ErrProtocol) || errors.Is(err, netflow.ErrVersion) || errors.Is(err, sflow.ErrVersion)) {
					t.Fatalf("recognised, and then %v", err)
				}
				for i := range b.Flows {
					fl := &b.Flows[i]
					if fl.First > fl.Last || fl.Last > fl.Seen || fl.Seen != seen || int(fl.Payload.Off)+int(fl.Payload.Len) > b.TextLen() {
						t.Fatalf("flow %+v", *fl)
					}
				}
				all.Append(&b)
			}
			return d, all
		}
		d, b := run()
		flows := uint64(0)
		for c := range d.Counts() {
			if c.Name == "flows" && c.Reason == "" {
				flows += c.Value
			}
		}
		if flows != uint64(b.Len()) {
			t.Fatalf("counts %d flows and appends %d", flows, b.Len())
		}
		again, c := run()
		if !slices.Equal(b.Flows, c.Flows) || !slices.Equal(slices.Collect(d.Counts()), slices.Collect(again.Counts())) {
			t.Fatal("decoding twice gives two results")
		}
	})
}
