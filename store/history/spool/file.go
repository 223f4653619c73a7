package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"golang.org/x/sys/unix"

	"noroshi/event"
)

// Record is one block with what must be known of it without reading it.
type Record struct {
	// ID is unique among all records ever made; letters, digits and '-'. Put
	// makes one if it is empty.
	ID string
	// Table is where the block goes; lower case letters, digits and '_'. Records
	// of one table keep their order.
	Table string
	Rows  int
	// First and Last are the least and greatest Seen of the rows.
	First, Last event.Time
	// Minutes says how many of the rows were seen in each minute, so that a block
	// that can't be delivered is a gap of known size at a known place.
	Minutes []Minute
	Data    []byte
}

// Minute is a number of rows.
type Minute struct {
	Start uint32 // Unix time in seconds
	Rows  uint64
}

// A file is
//
//	magic, version   8 octets
//	n                4 octets, little endian, as all numbers of fixed size
//	header           n octets: ID and table with their lengths, rows, first, last,
//	                 length and CRC-32C of the data, number of minutes, minutes
//	CRC-32C          4 octets, of everything before
//	data
//
// CRC-32C finds every altered octet and every burst of 32 bits, and costs a
// fifteenth of a nanosecond an octet: the processor has an instruction for it.
const (
	magic     = "nrspool\x01"
	maxHeader = 16 << 20
	maxName   = 64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged is the error of a file that isn't what was written: torn, altered,
// or no file of a spool at all.
var ErrDamaged = errors.New("spool: the file is damaged")

// header is what stands before the data.
type header struct {
	Record        // without Data
	size   uint64 // octets of data
	sum    uint32
}

// appendHeader appends what stands before r's data.
func appendHeader(buf []byte, r *Record) ([]byte, error) {
	if !validID(r.ID) || !validTable(r.Table) {
		return buf, fmt.Errorf("spool: %q for table %q: not a name", r.ID, r.Table)
	}
	start := len(buf)
	buf = append(buf, magic...)
	buf = append(buf, 0, 0, 0, 0)
	buf = appendString(buf, r.ID)
	buf = appendString(buf, r.Table)
	buf = binary.AppendUvarint(buf, uint64(r.Rows))
	buf = binary.AppendVarint(buf, int64(r.First))
	buf = binary.AppendVarint(buf, int64(r.Last))
	buf = binary.AppendUvarint(buf, uint64(len(r.Data)))
	buf = binary.LittleEndian.AppendUint32(buf, crc32.Checksum(r.Data, castagnoli))
	buf = binary.AppendUvarint(buf, uint64(len(r.Minutes)))
	for _, m := range r.Minutes {
		buf = binary.AppendUvarint(buf, uint64(m.Start))
		buf = binary.AppendUvarint(buf, m.Rows)
	}
	n := len(buf) - start - len(magic) - 4
	if n > maxHeader {
		return buf, fmt.Errorf("spool: %s: a header of %d octets; at most %d", r.ID, n, maxHeader)
	}
	binary.LittleEndian.PutUint32(buf[start+len(magic):], uint32(n))
	return binary.LittleEndian.AppendUint32(buf, crc32.Checksum(buf[start:], castagnoli)), nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decode reads a whole file of size octets. Data is appended to buf. With
// ErrDamaged the record without its data is valid if its ID isn't empty: the
// header was whole. Other errors are those of f.
func decode(f io.ReaderAt, size int64, buf []byte) (Record, error) {
	h, n, err := decodeHeader(f, size)
	if err != nil {
		return Record{}, err
	}
	if h.size != uint64(size-n) {
		return h.Record, fmt.Errorf("%w: %d octets of data, want %d", ErrDamaged, size-n, h.size)
	}
	start := len(buf)
	buf = grow(buf, int(h.size))
	if err := readFull(f, buf[start:], n); err != nil {
		return h.Record, err
	}
	if crc32.Checksum(buf[start:], castagnoli) != h.sum {
		return h.Record, fmt.Errorf("%w: the data's checksum is wrong", ErrDamaged)
	}
	r := h.Record
	r.Data = buf
	return r, nil
}

// decodeHeader returns the header and where the data begins.
func decodeHeader(f io.ReaderAt, size int64) (*header, int64, error) {
	var start [len(magic) + 4]byte
	if size < int64(len(start))+4 {
		return nil, 0, fmt.Errorf("%w: %d octets", ErrDamaged, size)
	}
	if err := readFull(f, start[:], 0); err != nil {
		return nil, 0, err
	}
	if string(start[:len(magic)]) != magic {
		return nil, 0, fmt.Errorf("%w: begins with %q", ErrDamaged, start[:len(magic)])
	}
	n := int64(binary.LittleEndian.Uint32(start[len(magic):]))
	end := int64(len(start)) + n + 4
	if n > maxHeader || end > size {
		return nil, 0, fmt.Errorf("%w: a header of %d octets", ErrDamaged, n)
	}
	all := make([]byte, end)
	if err := readFull(f, all, 0); err != nil {
		return nil, 0, err
	}
	if crc32.Checksum(all[:end-4], castagnoli) != binary.LittleEndian.Uint32(all[end-4:]) {
		return nil, 0, fmt.Errorf("%w: the header's checksum is wrong", ErrDamaged)
	}
	h, ok := parseHeader(all[len(start) : end-4])
	if !ok {
		return nil, 0, fmt.Errorf("%w: the header makes no sense", ErrDamaged)
	}
	return h, end, nil
}

// parseHeader reads what the header's checksum has vouched for; it still
// believes nothing.
func parseHeader(b []byte) (*header, bool) {
	h, ok := &header{}, true
	uvarint := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			ok = false
			return 0
		}
		b = b[n:]
		return v
	}
	varint := func() int64 {
		v, n := binary.Varint(b)
		if n <= 0 {
			ok = false
			return 0
		}
		b = b[n:]
		return v
	}
	text := func() string {
		n := uvarint()
		if n > uint64(len(b)) {
			ok = false
			return ""
		}
		s := string(b[:n])
		b = b[n:]
		return s
	}
	h.ID, h.Table = text(), text()
	rows := uvarint()
	h.Rows, h.First, h.Last, h.size = int(rows), event.Time(varint()), event.Time(varint()), uvarint()
	if len(b) < 4 {
		return nil, false
	}
	h.sum, b = binary.LittleEndian.Uint32(b), b[4:]
	minutes := uvarint()
	if minutes > uint64(len(b))/2 { // two octets at least for each
		return nil, false
	}
	for range minutes {
		start, n := uvarint(), uvarint()
		if start>>32 != 0 {
			return nil, false
		}
		h.Minutes = append(h.Minutes, Minute{uint32(start), n})
	}
	return h, ok && len(b) == 0 && rows>>31 == 0 && validID(h.ID) && validTable(h.Table)
}

// readFull fills p from the offset. A file that has become shorter is damaged.
func readFull(f io.ReaderAt, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: it ends early", ErrDamaged)
	case errors.Is(err, unix.EIO): // the disk won't give it back, now or later
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return fmt.Errorf("spool: %w", err)
}

// grow makes b longer by n octets of any value.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) < n {
		b = append(make([]byte, 0, len(b)+n), b...)
	}
	return b[:len(b)+n]
}

// validID and validTable keep what comes from a file out of SQL and of paths.
func validID(s string) bool {
	return valid(s, func(c byte) bool { return c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' })
}

func validTable(s string) bool {
	return valid(s, func(c byte) bool { return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' })
}

func valid(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return len(s) > 0 && len(s) <= maxName
}
