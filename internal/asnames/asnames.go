// Package asnames reads which AS and country a prefix belongs to, from files
// that an operator supplies: MaxMind's binary format (GeoLite2, DB-IP and others
// come in it), CSV, or the tables of iptoasn.com. Gzip is undone.
package asnames

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gaissmai/bart"
	"github.com/oschwald/maxminddb-golang/v2"
)

// Entry is what is known of a prefix. Zero values are not known.
type Entry struct {
	Prefix  netip.Prefix // never IPv4 in IPv6
	ASN     uint32
	Name    string // of the AS
	Country string // ISO 3166-1 alpha-2
}

// Bounds of what is read: hostile or wrong files end with an error.
const (
	MaxSize    = 1 << 30 // octets of a file, decompressed
	MaxEntries = 8 << 20
	maxName    = 256 // octets of a name; the rest is cut off
)

// Table is what several files together know: of each prefix what each file says
// of the longest prefix around it. One file may know the AS, another the country.
type Table struct {
	files []*bart.Table[Entry]
	n     int
}

// ReadFile adds what a file says.
func (t *Table) ReadFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("asnames: %w", err)
	}
	defer f.Close()
	if err := t.Read(f); err != nil {
		return fmt.Errorf("asnames: %s: %w", path, err)
	}
	return nil
}

// metadata begins the end of a MaxMind file.
const metadata = "\xab\xcd\xefMaxMind.com"

// Read adds what r says. After an error nothing of it is kept.
func (t *Table) Read(r io.Reader) error {
	in := bufio.NewReader(r)
	if magic, _ := in.Peek(2); string(magic) == "\x1f\x8b" {
		z, err := gzip.NewReader(in)
		if err != nil {
			return err
		}
		in = bufio.NewReader(z)
	}
	data, err := io.ReadAll(io.LimitReader(in, MaxSize+1))
	switch {
	case err != nil:
		return err
	case len(data) > MaxSize:
		return fmt.Errorf("more than %d octets", MaxSize)
	}
	file := &bart.Table[Entry]{}
	n := 0
	add := func(e Entry) error {
		if n++; t.n+n > MaxEntries {
			return fmt.Errorf("more than %d prefixes", MaxEntries)
		}
		file.Insert(e.Prefix, e)
		return nil
	}
	switch {
	case bytes.Contains(data, []byte(metadata)):
		err = readMMDB(data, add)
	case bytes.ContainsRune(data[:max(bytes.IndexByte(data, '\n'), 0)], '\t'):
		err = readRanges(data, add)
	default:
		err = readCSV(data, add)
	}
	if err == nil && n == 0 {
		err = errors.New("there is no prefix in it")
	}
	if err != nil {
		return err
	}
	t.n += n
	t.files = append(t.files, file)
	return nil
}

// All returns every prefix once, in order, with all that is known of it.
func (t *Table) All() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		seen := &bart.Table[struct{}]{}
		for _, f := range t.files {
			for p := range f.All() {
				seen.Insert(p, struct{}{})
			}
		}
		for p := range seen.AllSorted() {
			e := Entry{Prefix: p}
			for _, f := range t.files {
				if x, ok := f.LookupPrefix(p); ok {
					e.ASN, e.Name, e.Country = cmp.Or(e.ASN, x.ASN), cmp.Or(e.Name, x.Name), cmp.Or(e.Country, x.Country)
				}
			}
			if !yield(e) {
				return
			}
		}
	}
}

func readMMDB(data []byte, add func(Entry) error) error {
	db, err := maxminddb.OpenBytes(data)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := checkTree(data, db.Metadata.NodeCount, db.Metadata.RecordSize, db.Metadata.IPVersion); err != nil {
		return err
	}
	type country struct {
		ISO string `maxminddb:"iso_code"`
	}
	for r := range db.Networks() {
		var x struct {
			ASN        uint32  `maxminddb:"autonomous_system_number"`
			Name       string  `maxminddb:"autonomous_system_organization"`
			Country    country `maxminddb:"country"`
			Registered country `maxminddb:"registered_country"`
		}
		if err := r.Decode(&x); err != nil {
			return err
		}
		p := r.Prefix()
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		if err := add(Entry{p.Masked(), x.ASN, clean(x.Name), clean(cmp.Or(x.Country.ISO, x.Registered.ISO))}); err != nil {
			return err
		}
	}
	return nil
}

// checkTree refuses a search tree that isn't one. A node with two ways to it
// would be walked through as often as there are ways, which in a forged file is
// for ever. Only the IPv4 part of an IPv6 tree has several (its aliases).
func checkTree(data []byte, nodes, size, version uint) error {
	if nodes == 0 || nodes > uint(len(data)) || size != 24 && size != 28 && size != 32 || nodes*size/4 > uint(len(data)) {
		return errors.New("its search tree is broken")
	}
	child := func(n, side uint) uint {
		b := data[n*size/4:]
		switch size {
		case 24:
			b = b[3*side:]
			return uint(b[0])<<16 | uint(b[1])<<8 | uint(b[2])
		case 28:
			if side == 0 {
				return uint(b[3]>>4)<<24 | uint(b[0])<<16 | uint(b[1])<<8 | uint(b[2])
			}
			return uint(b[3]&15)<<24 | uint(b[4])<<16 | uint(b[5])<<8 | uint(b[6])
		}
		return uint(binary.BigEndian.Uint32(b[4*side:]))
	}
	four := nodes // none
	if version == 6 {
		n := uint(0)
		for i := 0; i < 96 && n < nodes; i++ {
			n = child(n, 0)
		}
		four = n
	}
	seen := make([]bool, nodes)
	walk := func(from uint) bool {
		if from >= nodes {
			return true
		}
		seen[from] = true
		for todo := []uint{from}; len(todo) > 0; {
			n := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			for side := range uint(2) {
				switch c := child(n, side); {
				case c >= nodes, c == four && from != four: // the IPv4 part is walked by itself
				case seen[c]:
					return false
				default:
					seen[c] = true
					todo = append(todo, c)
				}
			}
		}
		return true
	}
	if !walk(0) || four != 0 && !walk(four) {
		return errors.New("its search tree has a node with two ways to it")
	}
	return nil
}

// readCSV reads lines of prefix,asn,name,country; a first line of names is
// passed over.
func readCSV(data []byte, add func(Entry) error) error {
	in := csv.NewReader(bytes.NewReader(data))
	in.Comment, in.FieldsPerRecord, in.ReuseRecord = '#', -1, true
	for first := true; ; first = false {
		f, err := in.Read()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		line, _ := in.FieldPos(0)
		p, err := netip.ParsePrefix(strings.TrimSpace(f[0]))
		if err != nil || p.Addr().Is4In6() {
			if first && len(f) > 1 && f[0] == "prefix" {
				continue
			}
			return fmt.Errorf("line %d: %q is no prefix; want lines of prefix,asn,name,country", line, f[0])
		}
		e := Entry{Prefix: p.Masked()}
		for len(f) < 4 {
			f = append(f, "")
		}
		if e.ASN, err = number(f[1]); err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		e.Name, e.Country = clean(f[2]), clean(f[3])
		if err := add(e); err != nil {
			return err
		}
	}
}

// readRanges reads lines of first, last, AS, country, name, parted by tabs.
func readRanges(data []byte, add func(Entry) error) error {
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		f := strings.SplitN(strings.TrimRight(line, "\r\n"), "\t", 5)
		if len(f) < 3 {
			return fmt.Errorf("line %d: want first, last, AS, country and name, parted by tabs", n)
		}
		first, err1 := netip.ParseAddr(f[0])
		last, err2 := netip.ParseAddr(f[1])
		if err := errors.Join(err1, err2); err != nil || first.BitLen() != last.BitLen() || last.Less(first) || first.Is4In6() || first.Zone()+last.Zone() != "" {
			return fmt.Errorf("line %d: %q to %q is no range of addresses", n, f[0], f[1])
		}
		for len(f) < 5 {
			f = append(f, "")
		}
		asn, err := number(f[2])
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if asn == 0 {
			continue // not routed
		}
		if f[3] == "None" || f[3] == "Unknown" {
			f[3] = ""
		}
		for _, p := range prefixes(first, last) {
			if err := add(Entry{p, asn, clean(f[4]), clean(f[3])}); err != nil {
				return err
			}
		}
	}
	return nil
}

func number(s string) (uint32, error) {
	s = strings.TrimPrefix(strings.TrimSpace(s), "AS")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is no AS number", s)
	}
	return uint32(n), nil
}

// prefixes returns the fewest prefixes that make up first to last.
func prefixes(first, last netip.Addr) (list []netip.Prefix) {
	for {
		bits := first.BitLen()
		for bits > 0 {
			p, _ := first.Prefix(bits - 1)
			if p.Addr() != first || last.Less(end(p)) {
				break
			}
			bits--
		}
		p := netip.PrefixFrom(first, bits)
		list = append(list, p)
		e := end(p)
		if e == last {
			return list
		}
		first = e.Next()
	}
}

// end returns the last address of p.
func end(p netip.Prefix) netip.Addr {
	b := slices.Clone(p.Addr().AsSlice())
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// clean returns s as valid text of bounded length.
func clean(s string) string {
	s = strings.ToValidUTF8(strings.TrimSpace(s), "\uFFFD")
	if len(s) > maxName {
		n := maxName
		for !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return strings.Clone(s)
}
