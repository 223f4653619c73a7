package recording

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"noroshi/event"
	"noroshi/source/packet"
)

var be = binary.BigEndian

// udp is an IPv4 packet from 192.0.2.src:port to 198.51.100.9:2055.
func udp(src byte, port uint16, payload []byte) []byte {
	p := make([]byte, 28, 28+len(payload))
	p[0], p[8], p[9] = 0x45, 64, event.UDP
	be.PutUint16(p[2:], uint16(28+len(payload)))
	copy(p[12:], []byte{192, 0, 2, src, 198, 51, 100, 9})
	be.PutUint16(p[20:], port)
	be.PutUint16(p[22:], 2055)
	be.PutUint16(p[24:], uint16(8+len(payload)))
	return append(p, payload...)
}

func words(v ...uint32) (p []byte) {
	for _, x := range v {
		p = be.AppendUint32(p, x)
	}
	return p
}

// An IPFIX template for the two addresses, and a record of it from 10.0.0.n.
var template = words(10<<16|36, 1_700_000_000, 0, 0, 2<<16|20, 256<<16|2, 8<<16|4, 12<<16|4, 0)

func record(n byte) []byte {
	return words(10<<16|28, 1_700_000_000, 0, 0, 256<<16|12, 0x0a000000|uint32(n), 0xc0000201)
}

type sent struct {
	at   int // seconds
	data []byte
}

// capture writes a file of raw IP packets.
func capture(t testing.TB, path string, packets ...sent) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := packet.NewWriter(&buf, packet.Raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packets {
		if err := w.Write(event.Time(p.at)*1e9, p.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if path != "" {
		write(t, path, buf.Bytes())
	}
	return buf.Bytes()
}

func write(t testing.TB, path string, p []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, p, 0o600); err != nil {
		t.Fatal(err)
	}
}

// read runs r and returns a line for each record: second, source, payload.
func read(t *testing.T, r *Recording) (lines []string, err error) {
	t.Helper()
	err = r.Run(context.Background(), func(b *event.Batch) {
		for i := range b.Flows {
			f := &b.Flows[i]
			lines = append(lines, strings.TrimSpace(f.Seen.Std().Format("05")+" "+f.Src.String()+" "+b.Text(f.Payload)))
		}
		b.Release()
	})
	return lines, err
}

func count(r *Recording, name, reason string) (n uint64) {
	for c := range r.Counts() {
		if c.Name == name && c.Reason == reason {
			n += c.Value
		}
	}
	return n
}

// Packets and exports of several files, in folders or not, come in the order of
// time, each file with the exporters' templates it needs.
func TestMerge(t *testing.T) {
	dir := t.TempDir()
	capture(t, filepath.Join(dir, "a.pcap"), sent{1, udp(1, 53, []byte("one"))}, sent{5, udp(1, 53, []byte("five"))}, sent{9, udp(1, 53, []byte("nine"))})
	capture(t, filepath.Join(dir, "sub", "name says nothing.txt"), sent{2, udp(7, 999, template)}, sent{3, udp(7, 999, record(3))}, sent{7, udp(7, 999, record(7))})
	capture(t, filepath.Join(dir, "late.pcap"), sent{8, udp(1, 53, []byte("eight"))})
	write(t, filepath.Join(dir, "README"), []byte("not telemetry"))
	write(t, filepath.Join(dir, ".hidden"), []byte("not telemetry"))
	r := New([]string{dir}, Config{})
	got, err := read(t, r)
	want := []string{"01 192.0.2.1 one", "03 10.0.0.3", "05 192.0.2.1 five", "07 10.0.0.7", "08 192.0.2.1 eight", "09 192.0.2.1 nine"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v\ngot  %q\nwant %q", err, got, want)
	}
	if count(r, "packets", "") != 7 || count(r, "exports", "") != 3 || count(r, "files", "not telemetry") != 1 {
		t.Errorf("counts: %v", slices.Collect(r.Counts()))
	}
	if p := r.Progress(); p.Octets < p.Total/2 || p.Total == 0 {
		t.Errorf("progress %+v", p)
	}
}

// Each exporter has templates of its own, and one machine may run several.
func TestExporters(t *testing.T) {
	other := bytes.Clone(template)
	copy(other[24:], words(12<<16|4, 8<<16|4)) // the two addresses the other way round
	file := capture(t, "", sent{1, udp(7, 999, template)}, sent{1, udp(7, 1000, other)}, sent{2, udp(7, 1000, record(1))}, sent{3, udp(7, 999, record(2))})
	got, err := read(t, New([]string{"-"}, Config{Stdin: bytes.NewReader(file)}))
	if want := []string{"02 192.0.2.1", "03 10.0.0.2"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %q, want %q", err, got, want)
	}
}

// However many exporters a capture invents, they share few decoders; the first
// keep their templates apart.
func TestExportersAreBounded(t *testing.T) {
	var packets []sent
	for i := range 2 * maxKnown {
		p := udp(byte(i%200), uint16(1000+i/200), template)
		p[14] = byte(i >> 8) // more addresses
		packets = append(packets, sent{1, p})
	}
	r := New([]string{"-"}, Config{Stdin: bytes.NewReader(capture(t, "", packets...))})
	if _, err := read(t, r); err != nil || len(r.decoders) > maxDecoders || len(r.places) > maxKnown || len(r.ports) > maxKnown {
		t.Errorf("%v; %d decoders, %d exporters, %d addresses", err, len(r.decoders), len(r.places), len(r.ports))
	}
	var ports []sent
	for i := range 2 * maxDecoders {
		ports = append(ports, sent{1, udp(7, uint16(999+i), template)})
	}
	r = New([]string{"-"}, Config{Stdin: bytes.NewReader(capture(t, "", ports...))})
	if _, err := read(t, r); err != nil || len(r.decoders) != maxDecoders || count(r, "exports", "") != 2*maxDecoders {
		t.Errorf("%v; %d decoders", err, len(r.decoders))
	}
}

// Some exporters get their lengths wrong; who is known to be one is believed.
func TestKnownExporter(t *testing.T) {
	crossing := record(3)
	be.PutUint16(crossing[2:], 26) // the header's length ends within the set
	file := capture(t, "", sent{1, udp(7, 999, template)}, sent{2, udp(7, 999, crossing)}, sent{3, udp(8, 999, crossing)})
	got, err := read(t, New([]string{"-"}, Config{Stdin: bytes.NewReader(file), Keep: -1}))
	if want := []string{"02 10.0.0.3", "03 192.0.2.8"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %q, want %q", err, got, want)
	}
}

// An exporter's address may send other things too.
func TestNotAnExport(t *testing.T) {
	file := capture(t, "", sent{1, udp(7, 999, template)}, sent{2, udp(7, 999, []byte("sixteen octets and more"))})
	got, err := read(t, New([]string{"-"}, Config{Stdin: bytes.NewReader(file)}))
	if want := []string{"02 192.0.2.7 sixteen octets and more"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %q, want %q", err, got, want)
	}
}

// Packets that lie less than a window apart are put in order; what comes later
// than that is passed on and counted.
func TestOrder(t *testing.T) {
	x := func(at int) sent { return sent{at, udp(1, 53, nil)} }
	file := capture(t, "", x(5), x(3), x(4), x(9), x(7), x(8), x(1))
	r := New([]string{"-"}, Config{Stdin: bytes.NewReader(file), window: 4})
	got, err := read(t, r)
	var seconds []string
	for _, l := range got {
		seconds = append(seconds, l[:2])
	}
	if want := "03 04 05 07 01 08 09"; err != nil || strings.Join(seconds, " ") != want || count(r, "records", "out of order") != 1 {
		t.Errorf("%v, %v, %d late; want %s", err, seconds, count(r, "records", "out of order"), want)
	}
}

// Payloads bound what is held back too.
func TestTextIsBounded(t *testing.T) {
	var packets []sent
	big := udp(1, 53, make([]byte, event.MaxPayload))
	const n = 2 * maxText / event.MaxPayload
	for range n {
		packets = append(packets, sent{1, big})
	}
	r := New([]string{"-"}, Config{Stdin: bytes.NewReader(capture(t, "", packets...)), window: 10 * n})
	first := int64(0)
	if err := r.Run(context.Background(), func(b *event.Batch) {
		if first == 0 {
			first = r.Progress().Packets
		}
		b.Release()
	}); err != nil || first != maxText/event.MaxPayload {
		t.Errorf("%v; the first records came after %d packets, want %d", err, first, maxText/event.MaxPayload)
	}
}

// A datagram saved to a file is an export; its header says when.
func TestDatagramFile(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "1"), template)
	write(t, filepath.Join(dir, "2"), record(5))
	got, err := read(t, New([]string{filepath.Join(dir, "1"), filepath.Join(dir, "2")}, Config{}))
	if want := []string{"20 10.0.0.5"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %q, want %q", err, got, want)
	}
}

// A file that can't be read says so by name, and takes nothing else with it.
func TestErrors(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	good := capture(t, in("good"), sent{1, udp(1, 53, []byte("good"))})
	write(t, in("cut"), append(bytes.Clone(good), good[24:50]...))
	write(t, in("text"), []byte("hello"))
	write(t, in("empty"), nil)
	r := New([]string{in("cut"), in("good"), in("text"), in("empty"), in("absent")}, Config{})
	got, err := read(t, r)
	if want := []string{"01 192.0.2.1 good", "01 192.0.2.1 good"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for name, want := range map[string]error{"cut": packet.ErrTruncated, "text": ErrUnknown, "absent": os.ErrNotExist} {
		if !errors.Is(err, want) || !strings.Contains(err.Error(), in(name)+": ") {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	if !strings.Contains(err.Error(), in("empty")+": empty") || strings.Contains(err.Error(), in("good")) {
		t.Errorf("%v", err)
	}
}

// Reading can be given up.
func TestCancel(t *testing.T) {
	var packets []sent
	for range 5000 {
		packets = append(packets, sent{1, udp(1, 53, nil)})
	}
	r := New([]string{"-"}, Config{Stdin: bytes.NewReader(capture(t, "", packets...))})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n := 0
	if err := r.Run(ctx, func(b *event.Batch) { n += b.Len() }); err != nil || n > 1000 {
		t.Errorf("%d records, %v", n, err)
	}
}

// Real captures and datagrams: all are recognised, whatever their names, and
// scan-445.pcap, whose packets are minutes out of order, comes in order.
func TestCorpus(t *testing.T) {
	dir := os.Getenv("NOROSHI_CORPUS")
	if dir == "" {
		dir = "../../../shared/corpus"
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skip("SKIPPED: the corpus is not here; set NOROSHI_CORPUS")
	}
	last, n := event.Time(0), 0
	r := New([]string{filepath.Join(dir, "packets/scan-445.pcap")}, Config{})
	err := r.Run(context.Background(), func(b *event.Batch) {
		for i := range b.Flows {
			if f := &b.Flows[i]; f.Seen < last {
				t.Errorf("%v after %v", f.Seen, last)
			} else {
				last = f.Seen
			}
			n++
		}
	})
	if err != nil || n != 21 || count(r, "records", "out of order") != 0 {
		t.Errorf("scan-445: %d records, %v", n, err)
	}
	for file, wantFlows := range map[string]int{"flow/ndpi/netflowv9.pcap": 0, "flow/ndpi/sflow.pcap": 1, "flow/logstash/netflow5_test_juniper_mx80.dat": 29} {
		r := New([]string{filepath.Join(dir, file)}, Config{})
		n := 0
		if err := r.Run(context.Background(), func(b *event.Batch) { n += b.Len() }); err != nil || n < wantFlows || count(r, "exports", "") == 0 {
			t.Errorf("%s: %d records, %d exports, %v", file, n, count(r, "exports", ""), err)
		}
	}
}
