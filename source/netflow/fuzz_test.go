package netflow

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"noroshi/event"
)

// small are bounds that fuzzing can reach.
var small = Config{MaxExporters: 2, MaxTemplates: 8, PendingBytes: 2048, PendingAge: time.Minute}

// checkBounds fails if d holds more than its Config allows, or if its books
// don't balance.
func checkBounds(t testing.TB, d *Decoder) {
	t.Helper()
	var domains, templates, samplers, held, heldBytes int
	for _, e := range d.exporters {
		own, ownSamplers := 0, 0
		for _, dom := range e.domains {
			domains++
			own += len(dom.templates)
			ownSamplers += len(dom.sampling.of)
			for id, tpl := range dom.templates {
				if tpl.id != id || tpl.dom != dom || len(tpl.fields) > maxFields || tpl.size == 0 {
					t.Fatalf("template %d is %+v", id, tpl)
				}
			}
			for _, w := range dom.waiting {
				held += len(w.sets)
				for _, s := range w.sets {
					heldBytes += s.size()
				}
			}
		}
		if own != e.announced.Len() || own > max(d.cfg.MaxTemplates/4, 1) || ownSamplers != e.samplers || len(e.domains) > maxDomains {
			t.Fatalf("an exporter has %d templates, %d announced; %d samplers, %d counted; %d domains", own, e.announced.Len(), ownSamplers, e.samplers, len(e.domains))
		}
		templates += own
		samplers += ownSamplers
	}
	if len(d.exporters) > d.cfg.MaxExporters || domains != d.domains || domains > 2*d.cfg.MaxExporters ||
		templates != d.templates || templates > d.cfg.MaxTemplates || samplers != d.samplers || samplers > maxAllSamplers {
		t.Fatalf("%d exporters, %d domains (%d counted), %d templates (%d), %d samplers (%d)", len(d.exporters), domains, d.domains, templates, d.templates, samplers, d.samplers)
	}
	if held != d.held.queue.Len() || heldBytes != d.held.bytes || heldBytes > d.cfg.PendingBytes {
		t.Fatalf("%d sets held (%d queued), %d octets (%d counted)", held, d.held.queue.Len(), heldBytes, d.held.bytes)
	}
}

// checkFlows fails if a flow breaks the contract of event.Flow.
func checkFlows(t testing.TB, b *event.Batch, seen event.Time) {
	t.Helper()
	for i := range b.Flows {
		f := &b.Flows[i]
		if f.First > f.Last || f.Last > f.Seen || f.Seen != seen || f.Last-f.First > longest ||
			f.Proto != event.TCP && f.TCPFlags != 0 || f.Proto == event.ICMP && f.SrcPort != 0 {
			t.Fatalf("flow %d of %d: %+v", i, len(b.Flows), *f)
		}
	}
}

// Whatever two datagrams hold: the number returned is the number appended and
// counted, the flows are whole, memory is within what the input can justify, and
// the same input gives the same flows and counters again, also when it comes a
// third time after a restart.
func FuzzDecode(f *testing.F) {
	for _, bm := range benchmarks {
		f.Add(bm.teach, bm.data)
		f.Add(bm.data, bm.teach) // data before its template
	}
	if _, err := findCorpus(); err == nil {
		structure(f, func(_ testing.TB, _ structureCase, p [][]byte) { f.Add(p[0], p[len(p)-1]) })
	}
	f.Fuzz(func(t *testing.T, p, q []byte) {
		run := func() (*Decoder, *event.Batch) {
			d, b := NewDecoder(small), new(event.Batch)
			for i, p := range [][]byte{p, q, p} {
				from := router
				from[15] += byte(i % 2)
				before, seen := len(b.Flows), arrival.Add(time.Duration(i)*40*time.Second)
				n, _ := d.Decode(p, from, seen, b)
				if n != len(b.Flows)-before {
					t.Fatalf("Decode = %d, appended %d", n, len(b.Flows)-before)
				}
				checkFlows(t, &event.Batch{Flows: b.Flows[before:]}, seen)
				d.Decode(q, from, seen, b)
				checkBounds(t, d)
			}
			return d, b
		}
		d, b := run()
		if got := total(d, flows); got != uint64(len(b.Flows)) {
			t.Fatalf("counted %d flows, appended %d", got, len(b.Flows))
		}
		// A flow has an octet at least, and a biflow's record gives two.
		if most := 2 * (6*(len(p)+len(q)) + small.PendingBytes); len(b.Flows) > most {
			t.Fatalf("%d flows of %d octets", len(b.Flows), len(p)+len(q))
		}
		again, c := run()
		if !slices.Equal(b.Flows, c.Flows) || !slices.Equal(d.snapshot(), again.snapshot()) {
			t.Fatal("the same input gave other flows")
		}
		var file bytes.Buffer
		if err := d.Save(&file); err != nil {
			t.Fatal(err)
		}
		if err := NewDecoder(small).Load(&file); err != nil {
			t.Fatalf("Load of what was saved: %v", err)
		}
	})
}

// Whatever a file holds: no panic, and the bounds hold. What was taken in can be
// saved and loaded again.
func FuzzLoad(f *testing.F) {
	file, err := os.ReadFile(filepath.Join("testdata", "templates.txt"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, file []byte) {
		// The sums are made right, or nothing behind them would be tested.
		var whole []byte
		for line := range bytes.Lines(file) {
			_, object, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
			whole = append(whole, sealed(string(object))...)
		}
		d := NewDecoder(small)
		d.Load(bytes.NewReader(whole))
		checkBounds(t, d)
		var first, second bytes.Buffer
		if err := d.Save(&first); err != nil {
			t.Fatal(err)
		}
		again := NewDecoder(small)
		if err := again.Load(bytes.NewReader(first.Bytes())); err != nil {
			t.Fatalf("Load of what was saved: %v\n%s", err, first.Bytes())
		}
		again.Save(&second)
		if !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Fatalf("saved\n%s\nthen\n%s", first.Bytes(), second.Bytes())
		}
	})
}

// However long hostile exporters invent domains, templates, samplers and data
// without templates, what is held stays within the bounds.
func TestChurn(t *testing.T) {
	chance := rand.New(rand.NewPCG(3, 4))
	d := NewDecoder(Config{MaxExporters: 20, MaxTemplates: 100, PendingBytes: 1 << 13, PendingAge: time.Minute})
	var b event.Batch
	seen := arrival
	for i := range 50_000 {
		seen = seen.Add(time.Duration(chance.IntN(400)) * time.Millisecond)
		from := event.AddrOf4([4]byte{192, 0, 2, byte(chance.IntN(40))})
		domain, id := chance.Uint32N(4), uint16(256+chance.IntN(200))
		var p []byte
		switch chance.IntN(4) {
		case 0:
			p = randomDatagram(chance, v9)
			be.PutUint32(p[16:], domain)
		case 1:
			p = ipfixDatagram(0, domain, set(2, tpl(id, field{8, 4}, field{element(1 + chance.Uint32N(400)), 4})))
		case 2:
			p = ipfixDatagram(0, domain, set(id, make([]byte, chance.IntN(200))))
		case 3:
			p = ipfixDatagram(0, domain, set(3, optionsTpl10(id, 1, field{302, 4}, field{34, 4})), set(id, rec(chance.Uint32(), uint32(100))))
		}
		b.Reset()
		if n, _ := d.Decode(p, from, seen, &b); n != len(b.Flows) {
			t.Fatalf("Decode = %d, appended %d", n, len(b.Flows))
		}
		if i%500 == 0 {
			checkBounds(t, d)
		}
	}
	for _, c := range []counter{templatesEvicted, templatesChanged, lostEvicted, refusedExporters, flows, recordsOptions} {
		if total(d, c) == 0 {
			t.Errorf("%v never happened: the test doesn't reach its bound", counterNames[c])
		}
	}
}
