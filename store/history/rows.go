package history

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"unsafe"

	"noroshi/event"
)

// MaxText is the longest text that is taken from an answer. No event has a
// longer one; a length beyond it is a broken answer and no reason to allocate.
const MaxText = 1 << 20

// maxArray bounds the arrays in an answer: quantiles, of which there are a few.
const maxArray = 1024

// rows is a streamed answer in the RowBinary format, read in the order and the
// types of the statement's columns. The first error stays: what is read after it
// is zero. An answer that ends inside a row, or a connection that ends before
// the answer does, is an error; so fewer rows than there are never look like all.
type rows struct {
	body io.ReadCloser
	in   *bufio.Reader
	err  error
	buf  [16]byte
	text []byte
}

// query runs a SELECT. The caller closes the rows.
func (c *Client) query(ctx context.Context, sql string, params Params) (*rows, error) {
	resp, err := c.do(ctx, sql+" FORMAT RowBinary", params, nil)
	if err != nil {
		return nil, err
	}
	return newRows(resp.Body), nil
}

func newRows(body io.ReadCloser) *rows {
	return &rows{body: body, in: bufio.NewReaderSize(body, 64<<10)}
}

func (r *rows) close() { _ = r.body.Close() }

// next reports whether there is another row. After false, err says whether the
// answer is whole.
func (r *rows) next() bool {
	if r.err != nil {
		return false
	}
	if _, err := r.in.Peek(1); err != nil {
		if err != io.EOF {
			r.fail(err)
		}
		return false
	}
	return true
}

func (r *rows) fail(err error) {
	if r.err != nil {
		return
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		r.err = errors.New("history: the answer was cut off: the server stopped in the middle; ask again, for less if it repeats")
		return
	}
	r.err = fmt.Errorf("history: reading the answer: %w", bare(err))
}

func (r *rows) fixed(n int) []byte {
	b := r.buf[:n]
	if r.err == nil {
		if _, err := io.ReadFull(r.in, b); err != nil {
			r.fail(err)
		}
	}
	if r.err != nil {
		clear(b)
	}
	return b
}

func (r *rows) u8() uint8            { return r.fixed(1)[0] }
func (r *rows) u16() uint16          { return binary.LittleEndian.Uint16(r.fixed(2)) }
func (r *rows) u32() uint32          { return binary.LittleEndian.Uint32(r.fixed(4)) }
func (r *rows) u64() uint64          { return binary.LittleEndian.Uint64(r.fixed(8)) }
func (r *rows) f64() float64         { return math.Float64frombits(r.u64()) }
func (r *rows) bool() bool           { return r.u8() != 0 }
func (r *rows) addr() (a event.Addr) { copy(a[:], r.fixed(16)); return a }

// time reads a DateTime64(6), microseconds.
func (r *rows) time() event.Time { return event.Time(int64(r.u64()) * 1000) }

// date reads a DateTime, seconds.
func (r *rows) date() event.Time { return event.Time(int64(r.u32()) * 1e9) }

// bytes reads a String. They are valid until the next read.
func (r *rows) bytes() []byte {
	n := r.length(MaxText)
	if cap(r.text) < n {
		r.text = make([]byte, n)
	}
	b := r.text[:n]
	if r.err == nil {
		if _, err := io.ReadFull(r.in, b); err != nil {
			r.fail(err)
		}
	}
	if r.err != nil {
		return nil
	}
	return b
}

func (r *rows) length(limit uint64) int {
	if r.err != nil {
		return 0
	}
	n, err := binary.ReadUvarint(r.in)
	switch {
	case err != nil:
		r.fail(err)
		return 0
	case n > limit:
		r.err = fmt.Errorf("history: the answer has a length of %d where at most %d is possible: it is no answer of this query", n, limit)
		return 0
	}
	return int(n)
}

// floats reads an Array(Float64).
func (r *rows) floats() []float64 {
	list := make([]float64, r.length(maxArray))
	for i := range list {
		list[i] = r.f64()
	}
	return list
}

// value reads one value of a key.
func (r *rows) value(o op) Value {
	switch o {
	case op8:
		return uint64(r.u8())
	case op16:
		return uint64(r.u16())
	case op32:
		return uint64(r.u32())
	case op64:
		return r.u64()
	case opTime:
		return r.time()
	case opAddr:
		return r.addr().Std()
	case opText:
		return string(r.bytes())
	}
	panic("history: unknown op")
}

// event reads one row with all columns of t into the struct at p, its texts into
// batch.
func (r *rows) event(t *table, batch *event.Batch, p unsafe.Pointer) {
	for i := range t.columns {
		// The offset is that of a field of this type in t.row, to which p points.
		f := unsafe.Add(p, t.columns[i].offset)
		switch t.columns[i].op {
		case op8:
			*(*uint8)(f) = r.u8()
		case op16:
			*(*uint16)(f) = r.u16()
		case op32:
			*(*uint32)(f) = r.u32()
		case op64:
			*(*uint64)(f) = r.u64()
		case opTime:
			*(*event.Time)(f) = r.time()
		case opAddr:
			*(*event.Addr)(f) = r.addr()
		case opText:
			*(*event.Text)(f) = batch.AddText(r.bytes())
		}
	}
}

// events reads the rows of a SELECT of all columns of k into batch.
func (r *rows) events(k Kind, batch *event.Batch) error {
	for r.next() {
		t := &tables[k]
		switch k {
		case Flows:
			r.event(t, batch, unsafe.Pointer(batch.NewFlow()))
		case DNS:
			batch.DNS = append(batch.DNS, event.DNS{})
			r.event(t, batch, unsafe.Pointer(&batch.DNS[len(batch.DNS)-1]))
		case Sessions:
			batch.Sessions = append(batch.Sessions, event.Session{})
			r.event(t, batch, unsafe.Pointer(&batch.Sessions[len(batch.Sessions)-1]))
		case Logs:
			batch.Logs = append(batch.Logs, event.Log{})
			r.event(t, batch, unsafe.Pointer(&batch.Logs[len(batch.Logs)-1]))
		}
	}
	return r.err
}

// Value is one value of a column: uint64, string, [event.Time], [netip.Addr]
// (not valid = unknown) or [netip.Prefix]. Describe gives it in words.
type Value any

var _ = []Value{netip.Addr{}, netip.Prefix{}}
