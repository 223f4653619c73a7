// Package export decodes a datagram of whichever export protocol it is: NetFlow
// v5 and v9, IPFIX, sFlow. Routers are often sent to the wrong port, and a port
// says nothing in a capture, so the datagram's own first bytes decide.
package export

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sync/atomic"

	"noroshi/event"
	"noroshi/source"
	"noroshi/source/netflow"
	"noroshi/source/sflow"
)

// Config bounds and directs the decoders. The zero Config has the defaults.
type Config struct {
	NetFlow netflow.Config
	SFlow   sflow.Config
}

// ErrProtocol is the error for a datagram of none of the protocols.
var ErrProtocol = errors.New("export: neither NetFlow v5 or v9, nor IPFIX, nor sFlow v5")

// Decoder decodes the datagrams of the exporters that one goroutine serves, in
// the order they were sent: templates and sequence numbers depend on it. Only
// Counts may be called while another method runs.
type Decoder struct {
	netflow *netflow.Decoder
	sflow   *sflow.Decoder
	unknown atomic.Uint64
}

// NewDecoder returns a Decoder that knows no template.
func NewDecoder(c Config) *Decoder {
	return &Decoder{netflow: netflow.NewDecoder(c.NetFlow), sflow: sflow.NewDecoder(c.SFlow)}
}

// Decode appends the flows of the datagram p, which came from exporter at seen,
// to b, and returns their number. What was whole before an error is in b.
func (d *Decoder) Decode(p []byte, exporter event.Addr, seen event.Time, b *event.Batch) (n int, err error) {
	switch protocol(p) {
	case 5, 9, 10:
		return d.netflow.Decode(p, exporter, seen, b)
	case sflow5:
		return d.sflow.Decode(p, exporter, seen, b)
	}
	d.unknown.Add(1)
	return 0, ErrProtocol
}

// sflow5 stands for sFlow's version, which has 32 bits where the others' have
// 16: its first two octets are 0.
const sflow5 = -5

func protocol(p []byte) int {
	if len(p) < 4 {
		return 0
	}
	if binary.BigEndian.Uint32(p) == 5 {
		return sflow5
	}
	return int(binary.BigEndian.Uint16(p))
}

// IsDatagram reports whether p looks like a whole export datagram, whatever its
// port. Few other datagrams do.
func IsDatagram(p []byte) bool { return netflow.IsDatagram(p) || sflow.IsDatagram(p) }

// Counts returns the counters of all protocols.
func (d *Decoder) Counts() iter.Seq[source.Count] {
	return func(yield func(source.Count) bool) {
		for _, counts := range []iter.Seq[source.Count]{d.netflow.Counts(), d.sflow.Counts()} {
			for c := range counts {
				if !yield(c) {
					return
				}
			}
		}
		if n := d.unknown.Load(); n > 0 {
			yield(source.Count{Name: "refused", Reason: "unknown protocol", Value: n})
		}
	}
}

// SaveFile writes the templates and sampling rates to the file at path, which
// is replaced as a whole.
func (d *Decoder) SaveFile(path string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return fmt.Errorf("templates can't be kept: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
			err = fmt.Errorf("templates can't be kept: %w", err)
		}
	}()
	err = d.netflow.Save(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// LoadFile reads what SaveFile wrote. A file that isn't there is no error. What
// a damaged file still says is kept, and the error says what is wrong with it.
func (d *Decoder) LoadFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("templates can't be read: %w", err)
	}
	defer f.Close()
	if err := d.netflow.Load(f); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
