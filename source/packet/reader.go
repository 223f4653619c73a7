package packet

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"noroshi/event"
)

// The errors of a Reader. What came before them is good.
var (
	ErrFormat    = errors.New("packet: neither pcap nor pcapng")
	ErrTruncated = errors.New("packet: capture cut short")
	ErrDamaged   = errors.New("packet: damaged capture")
)

// maxBlock bounds what one packet or block may claim to need, in octets.
const maxBlock = 16 << 20

// Reader reads a capture: pcap of any precision and byte order, or pcapng with
// any number of sections and interfaces. It may be compressed with gzip, zstd
// or xz.
type Reader struct {
	r      *bufio.Reader
	close  func()
	offset int64 // of the next byte, after decompression
	order  binary.ByteOrder
	buf    []byte
	next   func(*Packet) error

	// pcap
	link  LinkType
	nano  bool
	extra int // octets after a record's header, in Kuznetzov's variant

	// pcapng
	interfaces []iface
	last       event.Time // for simple packets, which carry no time
}

// iface is an interface of a pcapng section.
type iface struct {
	link    LinkType
	snap    uint32
	resol   uint8 // if_tsresol
	seconds int64 // if_tsoffset
}

// NewReader returns a Reader of r, recognising the format by its first bytes.
// The error is ErrFormat when it is no capture. Close releases decompressors,
// not r.
func NewReader(r io.Reader) (*Reader, error) {
	pr := &Reader{r: bufio.NewReaderSize(r, 1<<18), close: func() {}}
	for range 2 { // compressed once, or by mistake twice
		if err := pr.decompress(); err != nil {
			return nil, err
		}
	}
	head, err := pr.r.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(head) < 4 {
		return nil, ErrFormat
	}
	if binary.LittleEndian.Uint32(head) == blockSection {
		pr.next = pr.nextBlock
		return pr, nil
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		magic := order.Uint32(head)
		switch magic {
		case 0xa1b2c3d4, 0xa1b23c4d, 0xa1b2cd34:
			pr.order, pr.nano = order, magic == 0xa1b23c4d
			if magic == 0xa1b2cd34 {
				pr.extra = 8
			}
			return pr, pr.pcapHeader()
		}
	}
	return nil, ErrFormat
}

// Close releases what decompression holds.
func (r *Reader) Close() { r.close() }

// Next stores the next packet in p. The error is io.EOF at the end, ErrTruncated
// when the file ends within a packet, ErrDamaged when it contradicts itself.
func (r *Reader) Next(p *Packet) error { return r.next(p) }

func (r *Reader) decompress() error {
	head, _ := r.r.Peek(6)
	var in io.Reader
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r.r)
		if err != nil {
			return fmt.Errorf("packet: gzip: %w", err)
		}
		in = z
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(r.r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return fmt.Errorf("packet: zstd: %w", err)
		}
		in, r.close = z, z.Close
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		z, err := xz.ReaderConfig{DictCap: 1 << 26}.NewReader(r.r)
		if err != nil {
			return fmt.Errorf("packet: xz: %w", err)
		}
		in = z
	default:
		return nil
	}
	r.r = bufio.NewReaderSize(in, 1<<18)
	return nil
}

// read returns the next n octets, valid until the next call.
func (r *Reader) read(n int) ([]byte, error) {
	if cap(r.buf) < n {
		r.buf = make([]byte, max(n, 1<<16))
	}
	b := r.buf[:n]
	got, err := io.ReadFull(r.r, b)
	switch {
	case err == nil:
		r.offset += int64(n)
		return b, nil
	case err == io.EOF:
		return nil, io.EOF
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("%w at octet %d", ErrTruncated, r.offset+int64(got))
	}
	return nil, fmt.Errorf("packet: at octet %d: %w", r.offset+int64(got), err)
}

// rest is read where an end is a truncation.
func (r *Reader) rest(n int) ([]byte, error) {
	b, err := r.read(n)
	if err == io.EOF {
		return nil, fmt.Errorf("%w at octet %d", ErrTruncated, r.offset)
	}
	return b, err
}

func (r *Reader) damaged(format string, args ...any) error {
	return fmt.Errorf("%w at octet %d: %s", ErrDamaged, r.offset, fmt.Sprintf(format, args...))
}

func (r *Reader) pcapHeader() error {
	h, err := r.rest(24)
	if err != nil {
		return err
	}
	r.link = LinkType(r.order.Uint32(h[20:])) // the upper half tells of checksums at the end of frames
	r.next = r.nextPcap
	return nil
}

func (r *Reader) nextPcap(p *Packet) error {
	h, err := r.read(16 + r.extra)
	if err != nil {
		return err
	}
	sec, frac := int64(r.order.Uint32(h)), int64(r.order.Uint32(h[4:]))
	size, wire := r.order.Uint32(h[8:]), r.order.Uint32(h[12:])
	if size > maxBlock {
		return r.damaged("a packet of %d octets", size)
	}
	if !r.nano {
		frac *= 1000
	}
	data, err := r.rest(int(size))
	if err != nil {
		return err
	}
	*p = Packet{Time: event.Time(sec*1e9 + frac), Link: r.link, Data: data, Wire: max(int(wire), len(data))}
	return nil
}

// Block types of pcapng (draft-ietf-opsawg-pcapng).
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 2 // obsolete
	blockSimple    = 3
	blockEnhanced  = 6
)

// nextBlock reads blocks up to the next packet.
func (r *Reader) nextBlock(p *Packet) error {
	for {
		h, err := r.read(8)
		if err != nil {
			return err
		}
		if binary.LittleEndian.Uint32(h) == blockSection { // reads the same in both byte orders
			if err := r.section([4]byte(h[4:])); err != nil {
				return err
			}
			continue
		}
		if r.order == nil {
			return r.damaged("no section begins")
		}
		kind, size := r.order.Uint32(h), r.order.Uint32(h[4:])
		if size < 12 || size%4 != 0 || size > maxBlock {
			return r.damaged("a block of %d octets", size)
		}
		body, err := r.rest(int(size) - 8)
		if err != nil {
			return err
		}
		found, err := r.block(kind, body[:len(body)-4], p)
		if found || err != nil {
			return err
		}
	}
}

func (r *Reader) section(length [4]byte) error {
	h, err := r.rest(4)
	if err != nil {
		return err
	}
	switch {
	case binary.LittleEndian.Uint32(h) == 0x1a2b3c4d:
		r.order = binary.LittleEndian
	case binary.BigEndian.Uint32(h) == 0x1a2b3c4d:
		r.order = binary.BigEndian
	default:
		return r.damaged("a section without a byte order")
	}
	size := r.order.Uint32(length[:])
	if size < 28 || size > maxBlock {
		return r.damaged("a section header of %d octets", size)
	}
	r.interfaces = r.interfaces[:0]
	_, err = r.rest(int(size) - 12)
	return err
}

// maxInterfaces bounds the interfaces of a section.
const maxInterfaces = 4096

// block reads one block and reports whether it was a packet.
func (r *Reader) block(kind uint32, b []byte, p *Packet) (bool, error) {
	need := func(n int) error {
		if len(b) < n {
			return r.damaged("a block of type %d with %d octets", kind, len(b))
		}
		return nil
	}
	switch kind {
	case blockInterface:
		if err := need(8); err != nil {
			return false, err
		}
		if len(r.interfaces) >= maxInterfaces {
			return false, r.damaged("more than %d interfaces", maxInterfaces)
		}
		i := iface{link: LinkType(r.order.Uint16(b)), snap: r.order.Uint32(b[4:]), resol: 6}
		r.options(b[8:], &i)
		r.interfaces = append(r.interfaces, i)
		return false, nil
	case blockEnhanced:
		if err := need(20); err != nil {
			return false, err
		}
		return true, r.fill(p, r.order.Uint32(b), b[4:], b[20:])
	case blockPacket:
		if err := need(20); err != nil {
			return false, err
		}
		return true, r.fill(p, uint32(r.order.Uint16(b)), b[4:], b[20:])
	case blockSimple:
		if err := need(4); err != nil {
			return false, err
		}
		if len(r.interfaces) == 0 {
			return false, r.damaged("a packet of an unknown interface")
		}
		wire := r.order.Uint32(b)
		size := wire
		if snap := r.interfaces[0].snap; snap > 0 {
			size = min(size, snap)
		}
		data := b[4:]
		data = data[:min(uint32(len(data)), size)]
		*p = Packet{Time: r.last, Link: r.interfaces[0].link, Data: data, Wire: max(int(wire), len(data))}
		return true, nil
	}
	return false, nil // statistics, names, comments
}

// fill makes a packet of interface i from head (time, captured and original
// length) and data with its padding.
func (r *Reader) fill(p *Packet, i uint32, head, data []byte) error {
	if int64(i) >= int64(len(r.interfaces)) {
		return r.damaged("a packet of the unknown interface %d", i)
	}
	size, wire := r.order.Uint32(head[8:]), r.order.Uint32(head[12:])
	if int64(size) > int64(len(data)) {
		return r.damaged("a packet of %d octets in a block of %d", size, len(data))
	}
	in := &r.interfaces[i]
	units := uint64(r.order.Uint32(head))<<32 | uint64(r.order.Uint32(head[4:]))
	r.last = event.Time(nanoseconds(units, in.resol) + in.seconds*1e9)
	*p = Packet{Time: r.last, Link: in.link, Data: data[:size], Wire: max(int(wire), int(size))}
	return nil
}

// nanoseconds converts a time in the unit that if_tsresol names: 10^-n seconds,
// or 2^-n with the top bit set.
func nanoseconds(units uint64, resol uint8) int64 {
	n := resol & 0x7f
	if resol&0x80 != 0 {
		hi, lo := bits.Mul64(units, 1e9)
		return int64(hi<<(64-n) | lo>>n)
	}
	for ; n < 9; n++ {
		units *= 10
	}
	for ; n > 9 && units > 0; n-- {
		units /= 10
	}
	return int64(units)
}

// options reads an interface's resolution and offset of time.
func (r *Reader) options(b []byte, i *iface) {
	for len(b) >= 4 {
		code, size := r.order.Uint16(b), int(r.order.Uint16(b[2:]))
		padded := (size + 3) &^ 3
		if b = b[4:]; code == 0 || padded > len(b) {
			return
		}
		switch {
		case code == 9 && size == 1:
			i.resol = b[0]
		case code == 14 && size == 8:
			i.seconds = int64(r.order.Uint64(b))
		}
		b = b[padded:]
	}
}

// Writer writes a pcap file with times in nanoseconds.
type Writer struct {
	w   *bufio.Writer
	buf [16]byte
}

// NewWriter returns a Writer after writing the file's header. Flush ends it.
func NewWriter(w io.Writer, link LinkType) (*Writer, error) {
	var h [24]byte
	le := binary.LittleEndian
	le.PutUint32(h[:], 0xa1b23c4d)
	le.PutUint16(h[4:], 2)
	le.PutUint16(h[6:], 4)
	le.PutUint32(h[16:], 1<<18)
	le.PutUint32(h[20:], uint32(link))
	b := bufio.NewWriterSize(w, 1<<16)
	_, err := b.Write(h[:])
	return &Writer{w: b}, err
}

// Write appends a packet that was captured whole.
func (w *Writer) Write(at event.Time, data []byte) error {
	le := binary.LittleEndian
	le.PutUint32(w.buf[:], uint32(at/1e9))
	le.PutUint32(w.buf[4:], uint32(at%1e9))
	le.PutUint32(w.buf[8:], uint32(len(data)))
	le.PutUint32(w.buf[12:], uint32(len(data)))
	if _, err := w.w.Write(w.buf[:]); err != nil {
		return err
	}
	_, err := w.w.Write(data)
	return err
}

// Flush writes what is buffered.
func (w *Writer) Flush() error { return w.w.Flush() }
