package packet

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"noroshi/event"
)

// pcap writes a capture of one packet in one of the format's variants.
func pcap(order binary.AppendByteOrder, magic uint32, extra int, frac uint32, data []byte) []byte {
	p := order.AppendUint32(nil, magic)
	p = cat(p, make([]byte, 12))
	p = order.AppendUint32(p, 65535)
	p = order.AppendUint32(p, uint32(Raw))
	for _, v := range []uint32{1000, frac, uint32(len(data)), uint32(len(data)) + 4} {
		p = order.AppendUint32(p, v)
	}
	return cat(p, make([]byte, extra), data)
}

// block writes a pcapng block.
func block(order binary.AppendByteOrder, kind uint32, body ...[]byte) []byte {
	b := cat(body...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	p := order.AppendUint32(nil, kind)
	p = order.AppendUint32(p, uint32(len(b)+12))
	return order.AppendUint32(append(p, b...), uint32(len(b)+12))
}

func words(order binary.AppendByteOrder, v ...uint32) (p []byte) {
	for _, x := range v {
		p = order.AppendUint32(p, x)
	}
	return p
}

func section(order binary.AppendByteOrder) []byte {
	return block(order, blockSection, words(order, 0x1a2b3c4d, 1, ^uint32(0), ^uint32(0)))
}

// anInterface is raw IP with the options given.
func anInterface(order binary.AppendByteOrder, options ...[]byte) []byte {
	return block(order, blockInterface, order.AppendUint16(nil, uint16(Raw)), make([]byte, 2), words(order, 0), cat(options...))
}

func option(order binary.AppendByteOrder, code uint16, value ...byte) []byte {
	p := order.AppendUint16(nil, code)
	p = append(order.AppendUint16(p, uint16(len(value))), value...)
	for len(p)%4 != 0 {
		p = append(p, 0)
	}
	return p
}

func enhanced(order binary.AppendByteOrder, i uint32, units uint64, data []byte) []byte {
	return block(order, blockEnhanced, words(order, i, uint32(units>>32), uint32(units), uint32(len(data)), uint32(len(data)+4)), data)
}

func compress(t testing.TB, w io.WriteCloser, buf *bytes.Buffer, p []byte) []byte {
	t.Helper()
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

var le, bigEndian = binary.LittleEndian, binary.BigEndian

func TestReader(t *testing.T) {
	data := ip4(17, 0, udp([]byte("x")))
	ng := cat(section(le), anInterface(le), enhanced(le, 0, 1000_000_005, data))
	micro := pcap(le, 0xa1b2c3d4, 0, 5, data)
	var gz, zs, xzs bytes.Buffer
	zw, _ := zstd.NewWriter(&zs)
	xw, _ := xz.NewWriter(&xzs)
	const when = 1000*1e9 + 5000
	for _, c := range []struct {
		name string
		file []byte
		want event.Time
	}{
		{"pcap, microseconds", micro, when},
		{"pcap, big-endian", pcap(bigEndian, 0xa1b2c3d4, 0, 5, data), when},
		{"pcap, nanoseconds", pcap(le, 0xa1b23c4d, 0, 5000, data), when},
		{"pcap, Kuznetzov", pcap(le, 0xa1b2cd34, 8, 5, data), when},
		{"gzip", compress(t, gzip.NewWriter(&gz), &gz, micro), when},
		{"zstd", compress(t, zw, &zs, ng), when},
		{"xz", compress(t, xw, &xzs, micro), when},
		{"pcapng", ng, when},
		{"pcapng, big-endian", cat(section(bigEndian), anInterface(bigEndian), enhanced(bigEndian, 0, 1000_000_005, data)), when},
		{"pcapng, nanoseconds", cat(section(le), anInterface(le, option(le, 9, 9)), enhanced(le, 0, when, data)), when},
		{"pcapng, 2^-10 s and an offset", cat(section(le), anInterface(le, option(le, 9, 0x80|10), option(le, 14, le.AppendUint64(nil, 10)...)),
			enhanced(le, 0, 990<<10, data)), 1000 * 1e9},
		{"pcapng, picoseconds", cat(section(le), anInterface(le, option(le, 9, 12)), enhanced(le, 0, 1000_000_005_000_000, data)), when},
		{"pcapng, second interface", cat(section(le), anInterface(le), anInterface(le, option(le, 9, 3)), enhanced(le, 1, 1000_000, data)), 1000 * 1e9},
		{"pcapng, sections of both orders", cat(section(bigEndian), section(le), anInterface(le), enhanced(le, 0, 1000_000_005, data)), when},
		{"pcapng, unknown blocks", cat(section(le), block(le, 99, make([]byte, 7)), anInterface(le), block(le, 5, make([]byte, 8)), enhanced(le, 0, 1000_000_005, data)), when},
		{"pcapng, obsolete packet", cat(section(le), anInterface(le), block(le, blockPacket, words(le, 0, 0, 1000_000_005, uint32(len(data)), uint32(len(data))), data)), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := NewReader(bytes.NewReader(c.file))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			var p Packet
			if err := r.Next(&p); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(p.Data, data) || p.Link != Raw || c.want != 0 && (p.Time != c.want || p.Wire != len(data)+4) {
				t.Errorf("%+v, want time %d", p, c.want)
			}
			if err := r.Next(&p); err != io.EOF {
				t.Errorf("after the last packet: %v", err)
			}
		})
	}
	// Simple packets have no time of their own, and the interface's limit.
	limited := block(le, blockInterface, le.AppendUint16(nil, uint16(Raw)), make([]byte, 2), words(le, 24))
	simple := cat(section(le), limited, enhanced(le, 0, 1000_000_005, data[:24]), block(le, blockSimple, words(le, uint32(len(data))), data[:24], []byte("pad!")))
	r, err := NewReader(bytes.NewReader(simple))
	if err != nil {
		t.Fatal(err)
	}
	var p Packet
	if err := cmp.Or(r.Next(&p), r.Next(&p)); err != nil || !bytes.Equal(p.Data, data[:24]) || p.Wire != len(data) || p.Time != when {
		t.Errorf("simple packet: %+v, %v", p, err)
	}
	// A link type may stand below flags about checksums, and a file may be
	// compressed twice.
	flagged := bytes.Clone(micro)
	flagged[23] = 0x24
	var once, twice bytes.Buffer
	packed := compress(t, gzip.NewWriter(&twice), &twice, compress(t, gzip.NewWriter(&once), &once, flagged))
	if r, err = NewReader(bytes.NewReader(packed)); err != nil {
		t.Fatal(err)
	}
	if err := r.Next(&p); err != nil || p.Link != Raw || !bytes.Equal(p.Data, data) {
		t.Errorf("link type with flags, compressed twice: %+v, %v", p, err)
	}
}

func TestBadCaptures(t *testing.T) {
	data := ip4(17, 0, udp([]byte("x")))
	good := pcap(le, 0xa1b2c3d4, 0, 5, data)
	ng := cat(section(le), anInterface(le), enhanced(le, 0, 1, data))
	huge := cat(good[:32], words(le, 1<<30, 1<<30))
	for _, c := range []struct {
		name    string
		file    []byte
		packets int
		want    error
	}{
		{"empty", nil, 0, ErrFormat},
		{"text", []byte("hello, world"), 0, ErrFormat},
		{"half a file header", good[:20], 0, ErrTruncated},
		{"only a file header", good[:24], 0, io.EOF},
		{"cut within a packet's header", cat(good, good[24:30]), 1, ErrTruncated},
		{"cut within a packet", cat(good, good[24:len(good)-3]), 1, ErrTruncated},
		{"a packet of a gigabyte", huge, 0, ErrDamaged},
		{"pcapng cut", cat(ng, ng[len(ng)-40:len(ng)-10]), 1, ErrDamaged},
		{"pcapng cut within a block", ng[:len(ng)-10], 0, ErrTruncated},
		{"unknown interface", cat(section(le), enhanced(le, 3, 1, data)), 0, ErrDamaged},
		{"packet longer than its block", cat(section(le), anInterface(le), block(le, blockEnhanced, words(le, 0, 0, 0, 99, 99))), 0, ErrDamaged},
		{"block of 3 octets", cat(section(le), words(le, 6, 3)), 0, ErrDamaged},
		{"section without byte order", cat(words(le, blockSection, 28), make([]byte, 20)), 0, ErrDamaged},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := 0
			r, err := NewReader(bytes.NewReader(c.file))
			for err == nil {
				var p Packet
				if err = r.Next(&p); err == nil {
					n++
				}
			}
			if !errors.Is(err, c.want) || n != c.packets {
				t.Errorf("%d packets, then %v; want %d, %v", n, err, c.packets, c.want)
			}
		})
	}
}

func TestWriter(t *testing.T) {
	var buf bytes.Buffer
	w, err := NewWriter(&buf, Raw)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := w.Write(event.Time(1e18+i), []byte{0x45, byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(&buf)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		var p Packet
		if err := r.Next(&p); err != nil || p.Time != event.Time(1e18+i) || p.Data[1] != byte(i) {
			t.Errorf("packet %d: %+v, %v", i, p, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	data := ip4(17, 0, udp([]byte("x")))
	f.Add(pcap(le, 0xa1b2c3d4, 0, 5, data))
	f.Add(pcap(bigEndian, 0xa1b2cd34, 8, 5, data))
	f.Add(cat(section(le), anInterface(le, option(le, 9, 0x8a), option(le, 14, make([]byte, 8)...)), enhanced(le, 0, 1, data), block(le, blockSimple, words(le, 29), data)))
	f.Add(cat(section(bigEndian), anInterface(bigEndian), enhanced(bigEndian, 0, 1, data)))
	var gz bytes.Buffer
	f.Add(compress(f, gzip.NewWriter(&gz), &gz, pcap(le, 0xa1b2c3d4, 0, 5, data)))
	var zs, xzs bytes.Buffer
	zw, _ := zstd.NewWriter(&zs)
	xw, _ := xz.NewWriter(&xzs)
	f.Add(compress(f, zw, &zs, pcap(le, 0xa1b23c4d, 0, 5, data)))
	f.Add(compress(f, xw, &xzs, pcap(le, 0xa1b2c3d4, 0, 5, data)))
	f.Fuzz(func(t *testing.T, file []byte) {
		read := func() (n, octets int, err error) {
			r, err := NewReader(io.LimitReader(bytes.NewReader(file), 1<<20))
			if err != nil {
				return 0, 0, err
			}
			defer r.Close()
			for n < 1e5 {
				var p Packet
				if err := r.Next(&p); err != nil {
					return n, octets, err
				}
				if p.Wire < len(p.Data) {
					t.Fatalf("%d octets captured of %d", len(p.Data), p.Wire)
				}
				if cap(r.buf) > maxBlock || len(r.interfaces) > maxInterfaces {
					t.Fatalf("a buffer of %d octets, %d interfaces", cap(r.buf), len(r.interfaces))
				}
				n, octets = n+1, octets+len(p.Data)
			}
			return n, octets, nil
		}
		n, octets, err := read()
		if again, _, _ := read(); again != n {
			t.Fatal("reading twice gives two results")
		}
		if !bytes.HasPrefix(file, []byte{0x1f, 0x8b}) && !bytes.HasPrefix(file, []byte{0x28, 0xb5}) && !bytes.HasPrefix(file, []byte{0xfd, '7'}) && octets > len(file) {
			t.Fatalf("%d octets out of %d", octets, len(file))
		}
		_ = err
	})
}

// corpus returns the folder of real captures, or skips.
func corpus(t *testing.T) string {
	dir := os.Getenv("NOROSHI_CORPUS")
	if dir == "" {
		dir = "../../../shared/corpus"
	}
	if _, err := os.Stat(filepath.Join(dir, "packets")); err != nil {
		t.Skip("SKIPPED: the corpus of real captures is not here; set NOROSHI_CORPUS")
	}
	return dir
}

// Facts of real captures, counted by others (corpus/packets/labels.tsv).
func TestCorpus(t *testing.T) {
	dir := filepath.Join(corpus(t), "packets")
	mirai := func(f *event.Flow) bool { return f.Has(event.SeqIsDst) }
	for _, c := range []struct {
		file    string
		packets int
		what    string
		is      func(*event.Flow) bool
		want    int
	}{
		{"mirai-syn-2020.pcap", 2, "marked SYNs to 23 with a bad offset", func(f *event.Flow) bool {
			return f.Has(event.SeqIsDst|event.BadOffset) && f.DstPort == 23 && f.TTL == 54 && f.TCPFlags == event.SYN
		}, 2},
		{"mirai-syn-2017-anonymised.pcap", 16, "quotes of marked SYNs", func(f *event.Flow) bool { return f.Has(event.QuoteSeqIsDst) }, 6},
		{"mirai-syn-2017-anonymised.pcap", 16, "marked SYNs", mirai, 0},
		{"mirai-syn-2017-anonymised.pcap", 16, "SYNs to 80", func(f *event.Flow) bool {
			return f.TCPFlags == event.SYN && f.DstPort == 80 && f.Window == 1460 && f.Bytes == 40
		}, 6},
		{"adb-worm.pcap", 13, "segments of the ADB session", func(f *event.Flow) bool { return f.SrcPort == 5555 || f.DstPort == 5555 }, 13},
		{"adb-worm.pcap", 13, "marked SYNs", mirai, 0},
		{"amp-snmp.pcapng", 4373, "UDP from 161", func(f *event.Flow) bool { return f.Proto == event.UDP && f.SrcPort == 161 }, 4079},
		{"amp-isakmp.pcap", 3984, "UDP from 4500 with 204 octets", func(f *event.Flow) bool { return f.SrcPort == 4500 && f.Bytes == 204+28 }, 3984},
		{"amp-bacnet-dvr.pcapng", 9617, "UDP from 47808", func(f *event.Flow) bool { return f.SrcPort == 47808 }, 6737},
		{"amp-bacnet-dvr.pcapng", 9617, "UDP from 37810", func(f *event.Flow) bool { return f.SrcPort == 37810 }, 2377},
		{"backscatter-24h.pcap", 4771, "SYN+ACK from the victim", func(f *event.Flow) bool { return f.TCPFlags == event.SYN|event.ACK && f.SrcPort == 80 }, 3431},
		{"backscatter-24h.pcap", 4771, "SYNs", func(f *event.Flow) bool { return f.Proto == event.TCP && f.TCPFlags&(event.SYN|event.ACK) == event.SYN }, 0},
		{"scan-445.pcap", 21, "SYNs to 445", func(f *event.Flow) bool {
			return f.TCPFlags == event.SYN && f.DstPort == 445 && !f.Has(event.NoOptions)
		}, 21},
		{"scan-telnet-zero-window.pcap", 10, "SYNs with window 0", func(f *event.Flow) bool { return f.Window == 0 && f.Bytes == 40 && !mirai(f) }, 10},
		{"telnet-login.pcap", 92, "segments of telnet", func(f *event.Flow) bool { return f.SrcPort == 23 || f.DstPort == 23 }, 92},
	} {
		file, err := os.Open(filepath.Join(dir, c.file))
		if err != nil {
			t.Error(err)
			continue
		}
		r, err := NewReader(file)
		if err != nil {
			t.Errorf("%s: %v", c.file, err)
			continue
		}
		var b event.Batch
		packets := 0
		var p Packet
		for err = r.Next(&p); err == nil; err = r.Next(&p) {
			packets++
			Decode(&p, 0, &b)
		}
		_ = file.Close()
		n := 0
		for i := range b.Flows {
			if c.is(&b.Flows[i]) {
				n++
			}
		}
		if err != io.EOF || packets != c.packets || n != c.want {
			t.Errorf("%s: %d packets, %d %s, end %v; want %d, %d", c.file, packets, n, c.what, err, c.packets, c.want)
		}
	}
	// Other people's captures of every kind: whatever is inside, they are read
	// to the end.
	files, _ := filepath.Glob(filepath.Join(dir, "../flow/*/*.pcap*"))
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := NewReader(file)
		var p Packet
		for n := 0; err == nil; n++ {
			if err = r.Next(&p); err == nil {
				var b event.Batch
				Decode(&p, 0, &b)
			}
		}
		if err != io.EOF && !strings.Contains(name, "trunc") {
			t.Errorf("%s: %v", name, err)
		}
		_ = file.Close()
	}
}
