// Package recording reads recorded telemetry: captures of packets, captures of
// exports, single datagrams saved to files, alone or in folders, compressed or
// not. Content decides what a file is, never its name.
//
// Several files are merged by time, and packets that a capture holds out of
// order are put in order, because detectors follow the clock of the records. A
// datagram of NetFlow, IPFIX or sFlow inside a capture becomes its flows; any
// other packet becomes a record itself.
package recording

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"noroshi/event"
	"noroshi/source"
	"noroshi/source/export"
	"noroshi/source/packet"
)

// Config says how to read. The zero Config has the defaults.
type Config struct {
	// Keep is how many octets of each packet's payload go into its record;
	// default event.MaxPayload, negative for none.
	Keep int
	// Export is for the decoders of recorded exports.
	Export export.Config
	// Stdin is what the path "-" stands for; nil means os.Stdin.
	Stdin io.Reader
	// window is how many records are put in order at a time; default 65,536.
	window int
}

// A FileError says what is wrong with one file. What could be read of it was.
type FileError struct {
	Path string
	Err  error
}

func (e *FileError) Error() string { return e.Path + ": " + e.Err.Error() }
func (e *FileError) Unwrap() error { return e.Err }

// ErrUnknown is the error for a file that holds nothing that is understood.
var ErrUnknown = errors.New("not recorded telemetry; want a capture (pcap, pcapng; gzip, zstd or xz) of packets or of NetFlow, IPFIX, sFlow, or one such datagram")

// Recording is the source. Make one with New.
type Recording struct {
	cfg   Config
	files []*file
	bad   []error

	progress struct{ octets, total, packets atomic.Int64 }
	late     atomic.Uint64
	exports  atomic.Uint64
	skipped  atomic.Uint64
	why      [packet.NumReasons]atomic.Uint64

	mu       sync.Mutex // guards decoders: the reader adds, Counts lists
	decoders []*export.Decoder
	places   map[exporter]int // whose decoder is which
	ports    map[event.Addr]int
}

// exporter is who sent a recorded export. Its port belongs to it: one machine
// may run several exporters, and their templates differ.
type exporter struct {
	addr event.Addr
	port uint16
}

// A decoder tells exporters apart by their address. The first port of each
// address shares one decoder, the second another, and so on; each has the bounds
// of export.Config.
const (
	maxDecoders = 8    // of the ports of one address, the others share the last
	maxKnown    = 4096 // exporters remembered; the others share the first decoder
)

// New lists the files at paths: files, folders with all that is in them, or "-"
// for standard input. What is wrong with a path is an error of Run.
func New(paths []string, cfg Config) *Recording {
	if cfg.Keep == 0 {
		cfg.Keep = event.MaxPayload
	}
	if cfg.Stdin == nil {
		cfg.Stdin = os.Stdin
	}
	if cfg.window == 0 {
		cfg.window = 1 << 16
	}
	r := &Recording{cfg: cfg, places: map[exporter]int{}, ports: map[event.Addr]int{}}
	for _, p := range paths {
		if p == "-" {
			r.files = append(r.files, &file{path: "standard input", in: cfg.Stdin})
			continue
		}
		r.list(p)
	}
	return r
}

func (r *Recording) list(root string) {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			r.bad = append(r.bad, &FileError{path, reason(err)})
		case path != root && strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return filepath.SkipDir
			}
		case !d.IsDir():
			f := &file{path: path, inFolder: path != root}
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				r.progress.total.Add(info.Size())
			}
			r.files = append(r.files, f)
		}
		return nil
	})
	if err != nil {
		r.bad = append(r.bad, &FileError{root, err})
	}
}

// reason drops the path from an error that names it already.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// Files returns how many files there are to read.
func (r *Recording) Files() int { return len(r.files) }

// Progress is how far the reading has come.
type Progress struct {
	Octets, Total int64 // of files; Total is 0 when not known
	Packets       int64
}

// Progress may be called while Run runs.
func (r *Recording) Progress() Progress {
	return Progress{r.progress.octets.Load(), r.progress.total.Load(), r.progress.packets.Load()}
}

// Run reads all files in the order of their packets' times. The error joins a
// FileError for each file that could not be read, or not to its end.
func (r *Recording) Run(ctx context.Context, emit func(*event.Batch)) error {
	w := &window{size: r.cfg.window, emit: emit, late: &r.late}
	var waiting []*file // begun, by the time of their first packet
	for _, f := range r.files {
		if ctx.Err() != nil {
			return nil
		}
		switch err := f.begin(r); {
		case err == nil:
			waiting = append(waiting, f)
		case errors.Is(err, ErrUnknown) && f.inFolder:
			r.skipped.Add(1)
		case err != io.EOF:
			r.bad = append(r.bad, &FileError{f.path, reason(err)})
		}
	}
	slices.SortStableFunc(waiting, func(a, b *file) int { return cmp.Compare(a.next.Time, b.next.Time) })
	var open []*file
	for n := 0; len(open)+len(waiting) > 0 && (n%256 != 0 || ctx.Err() == nil); n++ {
		first := r.earliest(&open, &waiting)
		if first == nil {
			continue
		}
		r.take(&first.next, w)
		if err := first.advance(); err != nil {
			first.close()
			open = slices.DeleteFunc(open, func(f *file) bool { return f == first })
			if err != io.EOF {
				r.bad = append(r.bad, &FileError{first.path, reason(err)})
			}
		}
	}
	for _, f := range open {
		f.close()
	}
	w.finish()
	return errors.Join(r.bad...)
}

// earliest returns the open file with the earliest packet, after opening those
// that begin no later.
func (r *Recording) earliest(open, waiting *[]*file) *file {
	var first *file
	for _, f := range *open {
		if first == nil || f.next.Time < first.next.Time {
			first = f
		}
	}
	for len(*waiting) > 0 && (first == nil || (*waiting)[0].next.Time <= first.next.Time) {
		f := (*waiting)[0]
		*waiting = (*waiting)[1:]
		if err := f.resume(r); err != nil {
			if err != io.EOF {
				r.bad = append(r.bad, &FileError{f.path, reason(err)})
			}
			continue
		}
		*open = append(*open, f)
		if first == nil || f.next.Time < first.next.Time {
			first = f
		}
	}
	return first
}

// take makes records of one packet.
func (r *Recording) take(p *packet.Packet, w *window) {
	r.progress.packets.Add(1)
	b := &w.batch
	n := b.Len()
	if p.Link == linkDatagram {
		r.exports.Add(1)
		_, _ = r.decoder(exporter{}).Decode(p.Data, event.Addr{}, p.Time, b)
		w.grew()
		return
	}
	res := packet.Decode(p, 0, b)
	if res.Reason != packet.None {
		r.why[res.Reason].Add(1)
	}
	if res.N == 0 {
		return
	}
	f := &b.Flows[n]
	if f.Proto == event.UDP && len(res.Payload) >= 16 {
		from := exporter{f.Src, f.SrcPort}
		if r.known(from) || export.IsDatagram(res.Payload) {
			b.Truncate(n)
			r.exports.Add(1)
			if _, err := r.decoder(from).Decode(res.Payload, from.addr, p.Time, b); !errors.Is(err, export.ErrProtocol) {
				w.grew()
				return
			}
			packet.Decode(p, 0, b) // an exporter's other traffic
			f = &b.Flows[n]
		}
	}
	if keep := min(len(res.Payload), r.cfg.Keep, event.MaxPayload); keep > 0 {
		f.Payload = b.AddText(res.Payload[:keep])
	}
	w.grew()
}

func (r *Recording) known(e exporter) bool {
	_, ok := r.places[e]
	return ok
}

func (r *Recording) decoder(e exporter) *export.Decoder {
	i, ok := r.places[e]
	if !ok && len(r.places) < maxKnown {
		i = min(r.ports[e.addr], maxDecoders-1)
		r.ports[e.addr]++
		r.places[e] = i
	}
	if i == len(r.decoders) {
		r.mu.Lock()
		r.decoders = append(r.decoders, export.NewDecoder(r.cfg.Export))
		r.mu.Unlock()
	}
	return r.decoders[i]
}

// Counts returns the counters of the files and of the decoders of exports.
func (r *Recording) Counts() iter.Seq[source.Count] {
	return func(yield func(source.Count) bool) {
		own := []source.Count{
			{Name: "packets", Value: uint64(r.progress.packets.Load())},
			{Name: "exports", Value: r.exports.Load()},
			{Name: "records", Reason: "out of order", Value: r.late.Load()},
			{Name: "files", Reason: "not telemetry", Value: r.skipped.Load()},
		}
		for i := range r.why {
			own = append(own, source.Count{Name: "refused", Reason: packet.Reason(i).String(), Value: r.why[i].Load()})
		}
		for _, c := range own {
			if c.Value > 0 && !yield(c) {
				return
			}
		}
		r.mu.Lock()
		decoders := slices.Clone(r.decoders)
		r.mu.Unlock()
		for _, d := range decoders {
			for c := range d.Counts() {
				if !yield(c) {
					return
				}
			}
		}
	}
}
