package asnames

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func lines(t *Table) string {
	var b strings.Builder
	for e := range t.All() {
		fmt.Fprintf(&b, "%v %d %s %s\n", e.Prefix, e.ASN, e.Name, e.Country)
	}
	return b.String()
}

func TestRead(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		var x Table
		if err := x.Read(strings.NewReader(in)); err != nil {
			t.Error(err)
		} else if got := lines(&x); got != want {
			t.Errorf("%q gave\n%swant\n%s", in, got, want)
		}
	}
	f("prefix,asn,name,country\n192.0.2.0/24,AS64500,\"Example, Inc.\",JP\n# x\n2001:db8::/32,64501,狼煙,\n",
		"192.0.2.0/24 64500 Example, Inc. JP\n2001:db8::/32 64501 狼煙 \n")
	f("192.0.2.77/24,64500\n", "192.0.2.0/24 64500  \n")
	f("192.0.2.1\t192.0.2.4\t64500\tJP\tEXAMPLE - x\n198.51.100.0\t198.51.100.255\t0\tNone\tNot routed\n2001:db8::\t2001:db8:ffff:ffff:ffff:ffff:ffff:ffff\t64501\tNone\tSIX\n",
		"192.0.2.1/32 64500 EXAMPLE - x JP\n192.0.2.2/31 64500 EXAMPLE - x JP\n192.0.2.4/32 64500 EXAMPLE - x JP\n2001:db8::/32 64501 SIX \n")
	f("0.0.0.0\t255.255.255.255\t1\tJP\tall\n", "0.0.0.0/0 1 all JP\n")

	bad := func(in, want string) {
		t.Helper()
		var x Table
		if err := x.Read(strings.NewReader(in)); err == nil || !strings.Contains(err.Error(), want) || len(x.files) > 0 {
			t.Errorf("%q gave %v, want %q", in, err, want)
		}
	}
	bad("", "no prefix")
	bad("192.0.2.0/24,1\nhello,2\n", "line 2")
	bad("::ffff:192.0.2.0/120,1\n", "no prefix")
	bad("192.0.2.0/24,many,x,JP\n", "no AS number")
	bad("192.0.2.9\t192.0.2.1\t1\tJP\tx\n", "no range")
	bad("192.0.2.9\t2001:db8::\t1\tJP\tx\n", "no range")
	bad(metadata, "")
}

// Two files that part the addresses differently: each prefix has what both know.
func TestTogether(t *testing.T) {
	var x Table
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	fmt.Fprint(w, "198.51.0.0/16,64500,AS,\n198.51.100.128/25,64501,Inner,\n")
	w.Close()
	if err := x.Read(&z); err != nil {
		t.Fatal(err)
	}
	if err := x.Read(strings.NewReader("198.51.100.0/24,,,JP\n203.0.113.0/24,,,DE\n")); err != nil {
		t.Fatal(err)
	}
	want := "198.51.0.0/16 64500 AS \n198.51.100.0/24 64500 AS JP\n198.51.100.128/25 64501 Inner JP\n203.0.113.0/24 0  DE\n"
	if got := lines(&x); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// mmdb makes a file in MaxMind's format (MaxMind DB File Format Specification
// v2.0) with one record size, 32 bits, of IPv4 prefixes.
func mmdb(entries map[netip.Prefix]map[string]any) []byte {
	type node [2]uint32
	const empty, isData = 0, 1 << 31
	nodes := []node{{}}
	var data []byte
	for p, v := range entries {
		at := uint32(len(data))
		data = appendMMDB(data, v)
		a, n := p.Addr().As4(), 0
		for i := range p.Bits() {
			bit := a[i/8] >> (7 - i%8) & 1
			if i == p.Bits()-1 {
				nodes[n][bit] = isData | at
				break
			}
			if nodes[n][bit] == empty {
				nodes[n][bit] = uint32(len(nodes))
				nodes = append(nodes, node{})
			}
			n = int(nodes[n][bit])
		}
	}
	var out []byte
	for _, n := range nodes {
		for _, r := range n {
			switch {
			case r == empty:
				r = uint32(len(nodes))
			case r&isData != 0:
				r = uint32(len(nodes)) + 16 + r&^isData
			}
			out = binary.BigEndian.AppendUint32(out, r)
		}
	}
	out = append(out, make([]byte, 16)...)
	out = append(out, data...)
	out = append(out, metadata...)
	return appendMMDB(out, map[string]any{
		"binary_format_major_version": uint16(2), "binary_format_minor_version": uint16(0), "build_epoch": uint64(1),
		"database_type": "Test", "ip_version": uint16(4), "node_count": uint32(len(nodes)), "record_size": uint16(32),
		"languages": []any{}, "description": map[string]any{"en": "x"},
	})
}

func appendMMDB(b []byte, v any) []byte {
	control := func(typ, n int) {
		size := min(n, 29)
		if typ > 7 {
			b = append(b, byte(size), byte(typ-7))
		} else {
			b = append(b, byte(typ<<5|size))
		}
		if size == 29 {
			b = append(b, byte(n-29))
		}
	}
	switch v := v.(type) {
	case string:
		control(2, len(v))
		b = append(b, v...)
	case uint16:
		control(5, 2)
		b = binary.BigEndian.AppendUint16(b, v)
	case uint32:
		control(6, 4)
		b = binary.BigEndian.AppendUint32(b, v)
	case uint64:
		control(9, 8)
		b = binary.BigEndian.AppendUint64(b, v)
	case []any:
		control(11, len(v))
	case map[string]any:
		control(7, len(v))
		for k, x := range v {
			b = appendMMDB(appendMMDB(b, k), x)
		}
	}
	return b
}

func sample() []byte {
	return mmdb(map[netip.Prefix]map[string]any{
		netip.MustParsePrefix("192.0.2.0/24"):    {"autonomous_system_number": uint32(64500), "autonomous_system_organization": "Example"},
		netip.MustParsePrefix("198.51.100.0/25"): {"country": map[string]any{"iso_code": "JP"}},
		netip.MustParsePrefix("203.0.113.0/24"):  {"registered_country": map[string]any{"iso_code": "DE"}},
	})
}

func TestMMDB(t *testing.T) {
	var x Table
	if err := x.Read(bytes.NewReader(sample())); err != nil {
		t.Fatal(err)
	}
	want := "192.0.2.0/24 64500 Example \n198.51.100.0/25 0  JP\n203.0.113.0/24 0  DE\n"
	if got := lines(&x); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(sample())
	f.Add([]byte("192.0.2.0/24,64500,Example,JP\n"))
	f.Add([]byte("192.0.2.1\t192.0.2.4\t64500\tJP\tEXAMPLE\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var x Table
		if len(in) > 1<<16 || x.Read(bytes.NewReader(in)) != nil {
			return
		}
		var last netip.Prefix
		for e := range x.All() {
			if !e.Prefix.IsValid() || e.Prefix != e.Prefix.Masked() || e.Prefix.Addr().Is4In6() || e.Prefix == last || len(e.Name) > maxName+4 {
				t.Fatalf("%+v after %v", e, last)
			}
			last = e.Prefix
		}
	})
}

func FuzzPrefixes(f *testing.F) {
	f.Add(uint32(1), uint32(4))
	f.Fuzz(func(t *testing.T, a, b uint32) {
		four := func(n uint32) netip.Addr {
			return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
		}
		list := prefixes(four(min(a, b)), four(max(a, b)))
		if list[0].Addr() != four(min(a, b)) || end(list[len(list)-1]) != four(max(a, b)) || len(list) > 62 {
			t.Fatal(list)
		}
		for i := range list[1:] {
			if end(list[i]).Next() != list[i+1].Addr() || list[i] != list[i].Masked() {
				t.Fatal(list)
			}
		}
	})
}
