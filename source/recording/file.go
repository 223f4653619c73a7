package recording

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync/atomic"

	"noroshi/event"
	"noroshi/source/export"
	"noroshi/source/packet"
)

// linkDatagram stands for a file that is one datagram and has no link.
const linkDatagram packet.LinkType = 0xffff

// file is one file to read, with the packet that is next.
type file struct {
	path     string
	inFolder bool
	in       io.Reader // given, not opened here: standard input
	f        *os.File
	reader   *packet.Reader // nil for a single datagram
	next     packet.Packet
	kept     bool // stayed open since begin
	octets   *atomic.Int64
}

// begin finds out what the file is and when its first packet was. It closes the
// file again: a folder may hold more of them than may be open at once.
func (f *file) begin(r *Recording) error {
	f.octets = new(atomic.Int64) // a look isn't progress
	if err := f.open(); err != nil {
		f.close()
		return err
	}
	if f.kept = f.in != nil || f.reader == nil; !f.kept {
		f.close()
	}
	f.octets = &r.progress.octets
	return nil
}

// resume opens the file again at its first packet.
func (f *file) resume(*Recording) error {
	if f.kept {
		return nil
	}
	return f.open()
}

func (f *file) open() error {
	in := f.in
	if in == nil {
		var err error
		if f.f, err = os.Open(f.path); err != nil {
			return err
		}
		in = f.f
	}
	head := &headReader{in: in}
	counted := &countingReader{in: head, n: f.octets}
	reader, err := packet.NewReader(counted)
	if errors.Is(err, packet.ErrFormat) {
		return f.datagram(head)
	}
	if err != nil {
		return err
	}
	f.reader = reader
	return f.advance()
}

// advance reads the next packet.
func (f *file) advance() error {
	if f.reader == nil {
		return io.EOF
	}
	return f.reader.Next(&f.next)
}

func (f *file) close() {
	if f.reader != nil {
		f.reader.Close()
	}
	if f.f != nil {
		_ = f.f.Close()
		f.f = nil
	}
}

// datagram takes the file as the payload of one export, when it is that.
func (f *file) datagram(head *headReader) error {
	rest, err := io.ReadAll(io.LimitReader(head.in, 1<<16))
	if err != nil {
		return err
	}
	if f.f != nil {
		_ = f.f.Close()
		f.f = nil
	}
	p := append(head.seen, rest...)
	if len(p) == 0 {
		return errors.New("empty")
	}
	if len(p) > 1<<16 || !export.IsDatagram(p) {
		return ErrUnknown
	}
	f.next = packet.Packet{Time: exportTime(p), Link: linkDatagram, Data: p, Wire: len(p)}
	return nil
}

// exportTime is the time a NetFlow or IPFIX datagram says it was sent; sFlow's
// has none, and gets the beginning of time.
func exportTime(p []byte) event.Time {
	be := binary.BigEndian
	switch be.Uint16(p) {
	case 5, 9:
		return event.Time(be.Uint32(p[8:])) * 1e9
	case 10:
		return event.Time(be.Uint32(p[4:])) * 1e9
	}
	return 1
}

// headReader remembers the first octets read, for a second opinion on them.
type headReader struct {
	in   io.Reader
	seen []byte
}

func (h *headReader) Read(p []byte) (int, error) {
	n, err := h.in.Read(p)
	if room := 1<<16 + 1 - len(h.seen); room > 0 {
		h.seen = append(h.seen, p[:min(n, room)]...)
	}
	return n, err
}

// countingReader counts octets for the progress.
type countingReader struct {
	in io.Reader
	n  *atomic.Int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.n.Add(int64(n))
	return n, err
}
