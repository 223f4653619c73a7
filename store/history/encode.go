package history

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"time"
	"unsafe"

	"noroshi/event"
	"noroshi/store/history/spool"
)

// Builder encodes events of one kind into a Block, column by column. It is for
// one goroutine at a time and allocates nothing once its buffers have grown.
type Builder struct {
	table       *table
	kind        Kind
	columns     [][]byte // the values so far, in the order of table.columns
	rows        int
	size        int // octets of all columns, about
	seen        uintptr
	first, last event.Time
	minutes     map[uint32]uint64 // rows by the minute of their Seen
}

// NewBuilder returns an empty Builder.
func NewBuilder(k Kind) *Builder {
	b := &Builder{table: &tables[k], kind: k, columns: make([][]byte, len(tables[k].columns)), minutes: map[uint32]uint64{}}
	for _, c := range b.table.columns {
		if c.name == "seen" {
			b.seen = c.offset
		}
	}
	b.reset()
	return b
}

// Rows returns the number of events held.
func (b *Builder) Rows() int { return b.rows }

// Size returns about how many octets the block would have.
func (b *Builder) Size() int { return b.size }

// Add appends the events from from to to-1 of the Builder's kind in batch. It
// keeps nothing of the batch.
func (b *Builder) Add(batch *event.Batch, from, to int) {
	switch b.kind {
	case Flows:
		add(b, batch, batch.Flows[from:to])
	case DNS:
		add(b, batch, batch.DNS[from:to])
	case Sessions:
		add(b, batch, batch.Sessions[from:to])
	case Logs:
		add(b, batch, batch.Logs[from:to])
	}
}

// Count returns how many events of a kind a batch has.
func Count(batch *event.Batch, k Kind) int {
	switch k {
	case Flows:
		return len(batch.Flows)
	case DNS:
		return len(batch.DNS)
	case Sessions:
		return len(batch.Sessions)
	case Logs:
		return len(batch.Logs)
	}
	return 0
}

// seenOf returns the Seen of the i-th event of a kind in batch.
func seenOf(batch *event.Batch, k Kind, i int) event.Time {
	switch k {
	case Flows:
		return batch.Flows[i].Seen
	case DNS:
		return batch.DNS[i].Seen
	case Sessions:
		return batch.Sessions[i].Seen
	}
	return batch.Logs[i].Seen
}

func add[T any](b *Builder, batch *event.Batch, rows []T) {
	if len(rows) == 0 {
		return
	}
	// The offsets are those of T's own fields, so every access stays inside rows.
	base, stride := unsafe.Pointer(&rows[0]), unsafe.Sizeof(rows[0])
	minute, n := uint32(0), uint64(0)
	for i := range rows {
		t := *(*event.Time)(unsafe.Add(base, uintptr(i)*stride+b.seen))
		b.first, b.last = min(b.first, t), max(b.last, t)
		if m := minuteOf(t); m != minute {
			b.count(minute, n)
			minute, n = m, 0
		}
		n++
	}
	b.count(minute, n)
	b.size = 0
	for i := range b.table.columns {
		c := &b.table.columns[i]
		p, out := unsafe.Add(base, c.offset), b.columns[i]
		switch c.op {
		case op8:
			for j := range rows {
				out = append(out, *(*uint8)(unsafe.Add(p, uintptr(j)*stride)))
			}
		case op16:
			for j := range rows {
				out = binary.LittleEndian.AppendUint16(out, *(*uint16)(unsafe.Add(p, uintptr(j)*stride)))
			}
		case op32:
			for j := range rows {
				out = binary.LittleEndian.AppendUint32(out, *(*uint32)(unsafe.Add(p, uintptr(j)*stride)))
			}
		case op64:
			for j := range rows {
				out = binary.LittleEndian.AppendUint64(out, *(*uint64)(unsafe.Add(p, uintptr(j)*stride)))
			}
		case opTime:
			for j := range rows {
				out = binary.LittleEndian.AppendUint64(out, uint64(*(*int64)(unsafe.Add(p, uintptr(j)*stride))/1000))
			}
		case opAddr:
			for j := range rows {
				out = append(out, (*[16]byte)(unsafe.Add(p, uintptr(j)*stride))[:]...)
			}
		case opText:
			for j := range rows {
				s := batch.Text(*(*event.Text)(unsafe.Add(p, uintptr(j)*stride)))
				out = binary.AppendUvarint(out, uint64(len(s)))
				out = append(out, s...)
			}
		}
		b.columns[i] = out
		b.size += len(out)
	}
	b.rows += len(rows)
}

func (b *Builder) count(minute uint32, n uint64) {
	if n > 0 {
		b.minutes[minute] += n
	}
}

// minuteOf returns the minute of t, by its beginning, in seconds since 1970; what
// doesn't fit is 0.
func minuteOf(t event.Time) uint32 {
	const minute = event.Time(time.Minute)
	if m := t / minute * 60; m > 0 && m <= math.MaxUint32 {
		return uint32(m)
	}
	return 0
}

// Seal returns the block of what was added, with Data appended to buf, and
// empties b.
func (b *Builder) Seal(id string, buf []byte) Block {
	buf = appendBlock(buf, len(b.columns), b.rows)
	for i := range b.table.columns {
		c := &b.table.columns[i]
		buf = appendColumn(buf, c.name, c.wire(), b.columns[i])
	}
	block := Block{ID: id, Table: b.table.name, Rows: b.rows, First: b.first, Last: b.last, Data: buf}
	for m, n := range b.minutes {
		block.Minutes = append(block.Minutes, spool.Minute{Start: m, Rows: n})
	}
	slices.SortFunc(block.Minutes, func(x, y spool.Minute) int { return cmp.Compare(x.Start, y.Start) })
	b.reset()
	return block
}

// wire is the type a column travels in: LowCardinality is the server's to make.
func (c *column) wire() string {
	if c.op == opText {
		return "String"
	}
	return c.typ
}

func (b *Builder) reset() {
	for i := range b.columns {
		b.columns[i] = b.columns[i][:0]
	}
	b.rows, b.size, b.first, b.last = 0, 0, math.MaxInt64, 0
	clear(b.minutes)
}

// appendBlock begins a block in the Native format; as many columns follow as it
// says.
func appendBlock(buf []byte, columns, rows int) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(buf, uint64(columns)), uint64(rows))
}

// appendColumn appends a column: its name, its type, the values of all rows.
func appendColumn(buf []byte, name, typ string, values []byte) []byte {
	return append(appendString(appendString(buf, name), typ), values...)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
