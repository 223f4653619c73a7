package history

import (
	"bytes"
	"encoding/binary"
	"io"
	"reflect"
	"strings"
	"testing"

	"noroshi/event"
)

func read(p []byte, k Kind) (event.Batch, error) {
	var b event.Batch
	err := newRows(io.NopCloser(bytes.NewReader(p))).events(k, &b)
	return b, err
}

// row writes one event as RowBinary.
func row(k Kind, texts string) (p []byte) {
	for _, c := range tables[k].columns {
		switch c.op {
		case op8:
			p = append(p, 1)
		case op16:
			p = append(p, 1, 0)
		case op32:
			p = append(p, 1, 0, 0, 0)
		case op64, opTime:
			p = binary.LittleEndian.AppendUint64(p, 1)
		case opAddr:
			p = append(p, make([]byte, 16)...)
		case opText:
			p = appendString(p, texts)
		}
	}
	return p
}

// An answer that is cut anywhere but between rows is an error, and never looks
// like a short answer.
func TestCutAnswer(t *testing.T) {
	for _, k := range Kinds {
		one := row(k, "text")
		p := append(one, one...)
		for n := range p {
			b, err := read(p[:n], k)
			if whole := n%len(one) == 0; (err == nil) != whole || whole && Count(&b, k) != n/len(one) {
				t.Fatalf("%v: %d of %d octets: %d events, %v", k, n, len(p), Count(&b, k), err)
			}
		}
	}
	// A connection that breaks between rows.
	p := io.MultiReader(bytes.NewReader(row(Logs, "x")), broken{})
	var b event.Batch
	if err := newRows(io.NopCloser(p)).events(Logs, &b); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Error(err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestAbsurdLength(t *testing.T) {
	r := newRows(io.NopCloser(bytes.NewReader(binary.AppendUvarint(nil, 1<<40))))
	if r.bytes() != nil || r.err == nil || !strings.Contains(r.err.Error(), "at most") {
		t.Error(r.err)
	}
	r = newRows(io.NopCloser(bytes.NewReader(bytes.Repeat([]byte{0xff}, 20))))
	if r.floats(); r.err == nil {
		t.Error("a length without end was accepted")
	}
}

func FuzzRows(f *testing.F) {
	for _, k := range Kinds {
		f.Add(uint8(k), row(k, "text"))
	}
	f.Fuzz(func(t *testing.T, kind uint8, p []byte) {
		k := Kind(kind % 4)
		b, err := read(p, k)
		if b.TextLen() > len(p) || Count(&b, k) > len(p)/40+1 {
			t.Fatalf("%d events with %d octets of text out of %d octets", Count(&b, k), b.TextLen(), len(p))
		}
		if c, again := read(p, k); (err == nil) != (again == nil) || !reflect.DeepEqual(b, c) {
			t.Fatal("read twice, it differs")
		}
	})
}
