// Package chdb calls the ClickHouse engine inside this process, through the C
// interface of libchdb 26.7 (its header, chdb.h).
//
// There is no cgo: [Load] opens the library with purego when the program asks for
// it. A program that links this package builds and starts without the library.
//
// The library lives once per process and asks of its caller:
//
//   - one data folder, named by an absolute path, which no other process uses;
//   - that a connection stays open as long as the engine is wanted: closing the
//     last one shuts the engine down;
//   - that every connection is closed before the process exits;
//   - one statement at a time per connection, and an open insert is one.
//
// Options that concern the whole engine count on the first connection only.
package chdb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"unsafe"
)

// ErrTooOld says that the library lacks a function this package needs.
var ErrTooOld = errors.New("not libchdb 26.7 or newer")

// pointer is an address on the C side. Go never looks behind it except where
// [take] copies a result out.
type pointer = unsafe.Pointer

// lib holds the functions of chdb.h that are used. Texts and their lengths go in
// pairs; a C string that comes back is copied by purego, and NULL is "".
var lib struct {
	version   func() string
	signals   func(enabled int32)
	connect   func(argc int32, argv pointer) pointer
	close     func(conn pointer)
	query     func(conn, sql pointer, sqlLen uintptr, format pointer, formatLen uintptr, names, nameLens, values, valueLens pointer, n uintptr) pointer
	stream    func(conn, sql pointer, sqlLen uintptr, format pointer, formatLen uintptr, names, nameLens, values, valueLens pointer, n uintptr) pointer
	fetch     func(conn, stream pointer) pointer
	cancel    func(conn, stream pointer)
	err       func(result pointer) string
	buffer    func(result pointer) pointer
	length    func(result pointer) uintptr
	rowsRead  func(result pointer) uint64
	bytesRead func(result pointer) uint64
	rowsOut   func(result pointer) uint64
	free      func(result pointer)

	insert       func(conn, sql pointer, sqlLen uintptr, format pointer, formatLen uintptr) pointer
	insertAppend func(insert, data pointer, n uintptr) int32
	insertDone   func(insert pointer) pointer
	insertCancel func(insert pointer)
	insertErr    func(insert pointer) string
	insertFree   func(insert pointer)
}

var load struct {
	sync.Mutex
	path, version string
}

// Load opens the library at path and returns the engine's version. The library
// stays for the life of the process: a second call with the same path does
// nothing, one with another path fails. A library that lacks a function gives
// [ErrTooOld]. Its signal handlers are turned off, for they would take SIGSEGV
// and others from the Go runtime.
func Load(path string) (version string, err error) {
	load.Lock()
	defer load.Unlock()
	if load.path != "" {
		if load.path != path {
			return "", fmt.Errorf("chdb: %s is loaded already", load.path)
		}
		return load.version, nil
	}
	if path == "" { // to dlopen, this program itself
		return "", errors.New("chdb: no library is named")
	}
	handle, err := openLibrary(path)
	if err != nil {
		return "", fmt.Errorf("chdb: %w", err)
	}
	functions := []struct {
		name string
		in   any
	}{
		{"chdb_version", &lib.version},
		{"chdb_set_signal_handlers_enabled", &lib.signals},
		{"chdb_connect", &lib.connect},
		{"chdb_close_conn", &lib.close},
		{"chdb_query_with_params_n", &lib.query},
		{"chdb_stream_query_with_params_n", &lib.stream},
		{"chdb_stream_fetch_result", &lib.fetch},
		{"chdb_stream_cancel_query", &lib.cancel},
		{"chdb_result_error", &lib.err},
		{"chdb_result_buffer", &lib.buffer},
		{"chdb_result_length", &lib.length},
		{"chdb_result_rows_read", &lib.rowsRead},
		{"chdb_result_bytes_read", &lib.bytesRead},
		{"chdb_result_rows_written", &lib.rowsOut},
		{"chdb_destroy_query_result", &lib.free},
		{"chdb_stream_insert_n", &lib.insert},
		{"chdb_stream_append", &lib.insertAppend},
		{"chdb_stream_done", &lib.insertDone},
		{"chdb_stream_cancel_insert", &lib.insertCancel},
		{"chdb_stream_insert_error", &lib.insertErr},
		{"chdb_destroy_insert_stream", &lib.insertFree},
	}
	// All are looked up before any is bound: binding a missing one panics.
	symbols := make([]uintptr, len(functions))
	for i, f := range functions {
		if symbols[i], err = symbol(handle, f.name); err != nil {
			closeLibrary(handle)
			return "", fmt.Errorf("chdb: %s is %w: it has no %s", path, ErrTooOld, f.name)
		}
	}
	for i, f := range functions {
		bind(f.in, symbols[i])
	}
	lib.signals(0)
	load.path, load.version = path, lib.version()
	return load.version, nil
}

// Conn is a connection to the engine, for one goroutine at a time.
type Conn struct{ handle pointer } // chdb_connection *

// Open starts the engine on the folder dir, an absolute path, or joins the one
// that runs on it. Options are those of ClickHouse's command line, such as
// "--max_threads=2". [Load] comes first.
func Open(dir string, options ...string) (*Conn, error) {
	if lib.connect == nil {
		return nil, errors.New("chdb: the library is not loaded")
	}
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("chdb: %q is not an absolute path", dir)
	}
	args := append([]string{"chdb", "--path=" + dir}, options...)
	argv := make([]pointer, len(args)+1) // ends with NULL, as in main
	var pin runtime.Pinner
	defer pin.Unpin()
	for i, a := range args {
		b := append([]byte(a), 0)
		pin.Pin(&b[0])
		argv[i] = pointer(&b[0])
	}
	handle := lib.connect(int32(len(args)), pointer(&argv[0]))
	runtime.KeepAlive(argv)
	if handle == nil {
		return nil, fmt.Errorf("chdb: the engine does not open %s: an option is unknown, or another process has the folder", dir)
	}
	return &Conn{handle}, nil
}

// Close closes the connection, and with the last one the engine. It may be
// called again.
func (c *Conn) Close() {
	if c.handle != nil {
		lib.close(c.handle)
		c.handle = nil
	}
}

// conn is what the other functions want: chdb_connect returns its address.
func (c *Conn) conn() pointer { return *(*pointer)(c.handle) }

// text is s as C reads it during a call; never NULL, not even for "".
func text(s string) (pointer, uintptr) {
	if s == "" {
		return pointer(&none), 0
	}
	return pointer(unsafe.StringData(s)), uintptr(len(s))
}

var none byte

// A Param is the value of a {Name:Type} in a statement. The engine reads Value
// as a field of TabSeparated, so whoever makes one of a text escapes it:
// unescaped, a newline is an error and a backslash another value.
type Param struct{ Name, Value string }

// arrays are parameters as four C arrays.
type arrays struct {
	names, values       []pointer
	nameLens, valueLens []uintptr
}

// call runs f, one of the two functions that take a statement.
func call(f func(pointer, pointer, uintptr, pointer, uintptr, pointer, pointer, pointer, pointer, uintptr) pointer, conn pointer, sql, format string, params []Param) pointer {
	s, sn := text(sql)
	o, on := text(format)
	if len(params) == 0 {
		return f(conn, s, sn, o, on, nil, nil, nil, nil, 0)
	}
	var a arrays
	var pin runtime.Pinner
	defer pin.Unpin()
	for _, p := range params {
		n, nn := text(p.Name)
		v, vn := text(p.Value)
		pin.Pin(n)
		pin.Pin(v)
		a.names, a.nameLens = append(a.names, n), append(a.nameLens, nn)
		a.values, a.valueLens = append(a.values, v), append(a.valueLens, vn)
	}
	return f(conn, s, sn, o, on, pointer(&a.names[0]), pointer(&a.nameLens[0]), pointer(&a.values[0]), pointer(&a.valueLens[0]), uintptr(len(params)))
}

// Stats says what a statement did. In a streamed one, it is the sum so far.
type Stats struct {
	RowsRead, BytesRead uint64
	RowsWritten         uint64 // views included
}

func (s *Stats) add(o Stats) {
	s.RowsRead += o.RowsRead
	s.BytesRead += o.BytesRead
	s.RowsWritten += o.RowsWritten
}

// take copies a result out and frees it.
func take(result pointer) (data []byte, s Stats, err error) {
	if result == nil {
		return nil, s, errors.New("chdb: the engine gave no result")
	}
	defer lib.free(result)
	if e := lib.err(result); e != "" {
		return nil, s, newError(e)
	}
	if n := lib.length(result); n > 0 {
		data = make([]byte, n)
		copy(data, unsafe.Slice((*byte)(lib.buffer(result)), n))
	}
	return data, Stats{lib.rowsRead(result), lib.bytesRead(result), lib.rowsOut(result)}, nil
}

// Query runs one statement to its end and returns its whole answer. Nothing ends
// it early but its own limits and KILL QUERY; a SELECT is better streamed.
func (c *Conn) Query(sql, format string, params ...Param) ([]byte, Stats, error) {
	return take(call(lib.query, c.conn(), sql, format, params))
}

// Select runs a SELECT and gives its answer to each in pieces as they come; each
// may keep them. The last call was before the error that Select returns, so an
// answer is whole only if Select returns nil. An error of each, or the end of
// ctx, ends the statement and is returned; the end of ctx is noticed between pieces.
//
// The format must have neither head nor foot, because each piece is written as
// an answer of its own: Native, RowBinary, TabSeparated, JSONEachRow, CSV.
func (c *Conn) Select(ctx context.Context, sql, format string, params []Param, each func([]byte) error) (total Stats, err error) {
	stream := call(lib.stream, c.conn(), sql, format, params)
	if stream == nil {
		return total, errors.New("chdb: the engine gave no result")
	}
	defer lib.free(stream)
	if e := lib.err(stream); e != "" {
		return total, newError(e)
	}
	for {
		data, s, err := take(lib.fetch(c.conn(), stream))
		if err != nil {
			return total, err
		}
		if s.RowsRead == 0 && len(data) == 0 {
			return total, nil
		}
		total.add(s)
		if err = ctx.Err(); err == nil {
			err = each(data)
		}
		if err != nil {
			lib.cancel(c.conn(), stream)
			return total, err
		}
	}
}

// Insert runs "INSERT INTO t ..." (without FORMAT) on the data of r, which is in
// the given format, and returns how many rows were written, those of views
// included. If r fails nothing more is stored, but what had been cut off as a
// block stays: a batch that must be whole is smaller than a block
// (max_insert_block_size, a million rows).
func (c *Conn) Insert(sql, format string, r io.Reader) (Stats, error) {
	s, sn := text(sql)
	f, fn := text(format)
	insert := lib.insert(c.conn(), s, sn, f, fn)
	if insert == nil {
		return Stats{}, errors.New("chdb: the engine gave no insert")
	}
	defer lib.insertFree(insert)
	if e := lib.insertErr(insert); e != "" {
		return Stats{}, newError(e)
	}
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 && lib.insertAppend(insert, pointer(&buf[0]), uintptr(n)) != 0 {
			break // the reason comes with the result
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			lib.insertCancel(insert)
			return Stats{}, fmt.Errorf("chdb: data of an insert: %w", err)
		}
	}
	_, stats, err := take(lib.insertDone(insert))
	return stats, err
}

// Error is an error of the engine.
type Error struct {
	Code int    // ClickHouse's: 60 no such table, 241 memory limit, 243 disk full; 0 if it gave none
	Text string // as the engine says it
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

var code = regexp.MustCompile(`Code: (\d+)\.`)

func newError(s string) error {
	e := &Error{Text: s}
	if m := code.FindStringSubmatch(s); m != nil {
		e.Code, _ = strconv.Atoi(m[1])
	}
	return e
}
