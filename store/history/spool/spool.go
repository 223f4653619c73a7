// Package spool keeps blocks in files until they are delivered: for each table
// a bounded queue on disk that survives the death of the program.
//
//	Put ─► number-table-instance.tmp, fsync ─► ….block, fsync of the folder ─► Next, Read ─► Remove
//	                                                                              └─► SetAside: ….bad
//
// What Put has returned nil for is there after a crash, whole and once. A file
// that was torn or altered is recognized when it is read.
package spool

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Limits bound what a spool takes of the disk.
type Limits struct {
	// Size is how many octets the files may take, counted in whole blocks of
	// 4 KiB. 0 means 8 GiB.
	Size int64
	// Reserve is how many octets of the disk are left to others. 0 means 1 GiB.
	Reserve int64
}

const (
	defaultSize    = 8 << 30
	defaultReserve = 1 << 30
	// noteRoom is what notes may take beyond Size: hours of them.
	noteRoom = 16 << 20
	// maxFiles bounds the memory of the index, and the folder, when blocks are
	// small: 10 MB, and 18 hours at four tables and one block a second.
	maxFiles = 1 << 18
	// badFor is how long a file that was set aside stays. It may hold addresses
	// that mustn't be kept whole for longer.
	badFor = 24 * time.Hour
)

// Errors of Put and Note on which the caller acts.
var (
	ErrFull = errors.New("spool: full")
	ErrDisk = errors.New("spool: the disk is full")
	// ErrFinished is what Next returns when Finish was called and nothing waits.
	ErrFinished = errors.New("spool: finished")
)

// Spool is a folder of blocks that wait. It is safe for concurrent use; each
// table has one reader.
type Spool struct {
	dir      string
	limits   Limits
	folder   *os.File // open for its lock and for fsync
	instance string

	putting sync.Mutex // one Put at a time: numbers are in the order of the files
	number  uint64     // the last used; guarded by putting
	head    []byte     // guarded by putting

	mu       sync.Mutex // guards what follows
	queues   map[string]*queue
	files    int
	bytes    int64
	bad      []file // oldest first
	badBytes int64
	finished bool
}

// queue is the files of one table, oldest first.
type queue struct {
	files []file
	wake  chan struct{} // has one element when something changed
}

type file struct {
	name string
	size int64 // octets of the disk, in whole blocks
	made time.Time
}

// Entry is a record that waits. It is valid until Remove or SetAside.
type Entry struct {
	table string
	file
}

// Made is when the record was written.
func (e *Entry) Made() time.Time { return e.made }

// Open takes the folder, which is made if it isn't there, for this program
// alone. What another run left in it waits, in its order.
func Open(dir string, limits Limits) (_ *Spool, err error) {
	if limits.Size == 0 {
		limits.Size = defaultSize
	}
	if limits.Reserve == 0 {
		limits.Reserve = defaultReserve
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	folder, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	defer func() {
		if err != nil {
			_ = folder.Close()
		}
	}()
	if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("spool: %s: another noroshi uses it; end that one or use another folder", dir)
		}
		return nil, fmt.Errorf("spool: %s: %w", dir, err)
	}
	s := &Spool{dir: dir, limits: limits, folder: folder, queues: map[string]*queue{}}
	// A new name for each run: an ID can't come again, whatever happened to the
	// folder, and nothing must be remembered.
	var random [8]byte
	_, _ = rand.Read(random[:])
	s.instance = hex.EncodeToString(random[:])
	if err := s.scan(); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return s, nil
}

// Names are "0000000000000012-flows-0123456789abcdef.block": the number gives
// the order, and the instance makes the number an ID.
func name(number uint64, table, instance string) string {
	return fmt.Sprintf("%016d-%s-%s", number, table, instance)
}

func parseName(s string) (number uint64, table string, ok bool) {
	p := strings.Split(s, "-")
	if len(p) != 3 || len(p[0]) != 16 || !validTable(p[1]) || !validID(p[2]) {
		return 0, "", false
	}
	number, err := strconv.ParseUint(p[0], 10, 64)
	return number, p[1], err == nil
}

// scan finds what is there. It reads names only: files are looked into when
// their turn comes.
func (s *Spool) scan() error {
	list, err := os.ReadDir(s.dir) // sorted by name, so by number
	if err != nil {
		return err
	}
	for _, d := range list {
		info, err := d.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		base, kind := strings.TrimSuffix(d.Name(), filepath.Ext(d.Name())), filepath.Ext(d.Name())
		number, table, ok := parseName(base)
		if !ok {
			continue // not ours
		}
		s.number = max(s.number, number)
		f := file{d.Name(), onDisk(info.Size()), info.ModTime()}
		switch kind {
		case ".tmp": // never acknowledged
			if err := os.Remove(filepath.Join(s.dir, d.Name())); err != nil {
				return err
			}
		case ".block":
			s.add(table, f)
		case ".bad":
			s.bad = append(s.bad, f)
			s.badBytes += f.size
		}
	}
	slices.SortStableFunc(s.bad, func(a, b file) int { return a.made.Compare(b.made) })
	s.sweep()
	return nil
}

func onDisk(size int64) int64 { return (size + 4095) &^ 4095 }

// queue returns the queue of a table. The caller holds s.mu, or s alone.
func (s *Spool) queue(table string) *queue {
	q := s.queues[table]
	if q == nil {
		q = &queue{wake: make(chan struct{}, 1)}
		s.queues[table] = q
	}
	return q
}

func (s *Spool) add(table string, f file) {
	q := s.queue(table)
	q.files = append(q.files, f)
	s.files++
	s.bytes += f.size
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Put writes a record; when it returns nil the record will be delivered. With
// any error there is nothing of it on disk. ErrFull and ErrDisk say that it
// found no room: it is the new record that is refused, for those that wait have
// been promised, keep their order, and one of them may be on its way. r.ID is
// set if it was empty.
func (s *Spool) Put(r *Record) error { return s.put(r, 0) }

// Note is Put for the few octets that say what was lost: they may take 16 MiB
// beyond Size, and the disk's reserve.
func (s *Spool) Note(r *Record) error { return s.put(r, noteRoom) }

func (s *Spool) put(r *Record, beyond int64) error {
	s.putting.Lock()
	defer s.putting.Unlock()
	s.number++ // also if nothing comes of it: a number, and so an ID, is used once
	number := s.number
	if r.ID == "" {
		r.ID = fmt.Sprintf("%s-%016d", s.instance, number)
	}
	var err error
	if s.head, err = appendHeader(s.head[:0], r); err != nil {
		return err
	}
	size := onDisk(int64(len(s.head) + len(r.Data)))
	if err := s.room(size, beyond); err != nil {
		return err
	}
	base := name(number, r.Table, s.instance)
	if err := s.write(base, s.head, r.Data); err != nil {
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			return ErrDisk
		}
		return fmt.Errorf("spool: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(r.Table, file{base + ".block", size, time.Now()})
	return nil
}

// room says whether size more octets may be written.
func (s *Spool) room(size, beyond int64) error {
	s.mu.Lock()
	s.sweep()
	full := s.bytes+s.badBytes+size > s.limits.Size+beyond || s.files >= maxFiles+int(beyond>>12)
	s.mu.Unlock()
	if full {
		return ErrFull
	}
	if beyond > 0 {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(s.folder.Fd()), &st); err == nil && int64(st.Bavail)*int64(st.Bsize)-size < s.limits.Reserve {
		return ErrDisk
	}
	return nil
}

// write makes a file that is whole or isn't there.
func (s *Spool) write(base string, parts ...[]byte) (err error) {
	tmp, final := filepath.Join(s.dir, base+".tmp"), filepath.Join(s.dir, base+".block")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	where := tmp
	defer func() {
		if err != nil {
			_ = os.Remove(where)
		}
	}()
	for _, p := range parts {
		if _, err := f.Write(p); err != nil {
			_ = f.Close()
			return err
		}
	}
	if err := f.Sync(); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp, final); err != nil {
		return err
	}
	where = final
	return s.folder.Sync()
}

// Tables returns the tables for which records wait, sorted.
func (s *Spool) Tables() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for table, q := range s.queues {
		if len(q.files) > 0 {
			list = append(list, table)
		}
	}
	slices.Sort(list)
	return list
}

// Next waits for the oldest record of a table. It returns the same one until
// that is removed or set aside, ErrFinished when no other will come, or ctx's
// error.
func (s *Spool) Next(ctx context.Context, table string) (*Entry, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.mu.Lock()
		q, finished := s.queue(table), s.finished
		if len(q.files) > 0 {
			e := &Entry{table, q.files[0]}
			s.mu.Unlock()
			return e, nil
		}
		s.mu.Unlock()
		if finished {
			return nil, ErrFinished
		}
		select {
		case <-ctx.Done():
		case <-q.wake:
		}
	}
}

// Finish says that no record will be put any more.
func (s *Spool) Finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = true
	for _, q := range s.queues {
		q.signal()
	}
}

// Read reads a record, its data into buf's memory if that is long enough. With
// ErrDamaged it returns the record without its data if the header was whole,
// else one without ID.
func (s *Spool) Read(e *Entry, buf []byte) (Record, error) {
	f, err := os.Open(filepath.Join(s.dir, e.name))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return Record{}, fmt.Errorf("%w: it is gone", ErrDamaged)
		}
		return Record{}, fmt.Errorf("spool: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Record{}, fmt.Errorf("spool: %w", err)
	}
	return decode(io.ReaderAt(f), info.Size(), buf[:0])
}

// Remove ends a record that was delivered.
func (s *Spool) Remove(e *Entry) error {
	if err := os.Remove(filepath.Join(s.dir, e.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("spool: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(e)
	return nil
}

// SetAside ends a record that can't be delivered. Its file is kept for a day,
// with the ending .bad, for whoever wants to know why; of all such files as
// much as an eighth of the spool's size.
func (s *Spool) SetAside(e *Entry) error {
	to := strings.TrimSuffix(e.name, ".block") + ".bad"
	path := filepath.Join(s.dir, to)
	err := os.Rename(filepath.Join(s.dir, e.name), path)
	gone := errors.Is(err, fs.ErrNotExist)
	if err != nil && !gone {
		return fmt.Errorf("spool: %w", err)
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // it only lives shorter if this fails
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(e)
	if !gone {
		s.bad = append(s.bad, file{to, e.size, now})
		s.badBytes += e.size
	}
	s.sweep()
	return nil
}

// drop takes e out of the index. The caller holds s.mu.
func (s *Spool) drop(e *Entry) {
	q := s.queue(e.table)
	if len(q.files) == 0 || q.files[0].name != e.name {
		return
	}
	if q.files = q.files[1:]; len(q.files) == 0 {
		q.files = nil
	}
	s.files--
	s.bytes -= e.size
}

// sweep removes bad files that are too old or too many. The caller holds s.mu.
func (s *Spool) sweep() {
	for len(s.bad) > 0 && (s.badBytes > s.limits.Size/8 || time.Since(s.bad[0].made) > badFor) {
		_ = os.Remove(filepath.Join(s.dir, s.bad[0].name))
		s.badBytes -= s.bad[0].size
		s.bad = s.bad[1:]
	}
}

// Stats is what waits.
type Stats struct {
	Blocks, Bad int
	Bytes       int64     // of the disk, bad files included
	Oldest      time.Time // when the oldest that waits was written; zero if none does
}

// Stats returns the figures as they stand.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Blocks: s.files, Bad: len(s.bad), Bytes: s.bytes + s.badBytes}
	for _, q := range s.queues {
		if len(q.files) > 0 && (st.Oldest.IsZero() || q.files[0].made.Before(st.Oldest)) {
			st.Oldest = q.files[0].made
		}
	}
	return st
}

// Close gives the folder back. Nothing may be called after it.
func (s *Spool) Close() error { return s.folder.Close() }
