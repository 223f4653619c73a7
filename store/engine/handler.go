package engine

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"

	"noroshi/store/engine/chdb"
	"noroshi/store/engine/gate"
)

// Limits of a request.
const (
	maxStatement = 1 << 20   // octets of a statement
	maxData      = 256 << 20 // octets of the rows of an insert, as sent and unpacked
	maxWaiting   = 256       // requests that wait for a connection of one sort
	readWait     = 10 * time.Second
	writeWait    = 30 * time.Second
	idle         = 60 * time.Second // how long a client may send or take nothing
)

// handler serves the HTTP interface in front of the engine in this process.
type handler struct {
	gate              *gate.Gate
	keep              *chdb.Conn // holds the engine open, and ends statements
	keepUse           sync.Mutex
	writers, readers  *pool
	version, confined string
	began             time.Time

	serial  atomic.Uint64 // marks statements
	reads   atomic.Uint64
	writes  atomic.Uint64
	inserts atomic.Uint64
	rows    atomic.Uint64 // written by inserts
	refused atomic.Uint64
	gone    atomic.Uint64 // clients that left before their answer was whole
	mu      sync.Mutex
	errors  map[int]uint64 // by the engine's code
}

// pool is a number of connections for one sort of statement. Readers have theirs
// and writers theirs, so that neither can keep the other out.
//
// A connection on which a statement failed is not used again: the library may keep
// what that statement had said, and give it as the beginning of the next answer.
type pool struct {
	open    func() (*chdb.Conn, error)
	idle    chan *chdb.Conn // nil stands for one to be opened
	wait    time.Duration
	waiting atomic.Int64
	waits   atomic.Uint64 // that had to wait
	busy    atomic.Uint64 // that waited in vain
}

func newHandler(c Config, open func() (*chdb.Conn, error)) *handler {
	return &handler{
		writers: newPool(c.Writers, writeWait, open),
		readers: newPool(c.Readers, readWait, open),
		began:   time.Now(),
		errors:  map[int]uint64{},
	}
}

func newPool(n int, wait time.Duration, open func() (*chdb.Conn, error)) *pool {
	p := &pool{open: open, idle: make(chan *chdb.Conn, n), wait: wait}
	for range n {
		p.idle <- nil
	}
	return p
}

// close closes the connections, and so the engine. No request may be running.
func (h *handler) close() {
	for _, p := range []*pool{h.writers, h.readers} {
		for range len(p.idle) {
			if c := <-p.idle; c != nil {
				c.Close()
			}
		}
	}
	if h.keep != nil {
		h.keep.Close()
	}
}

var errBusy = errors.New("engine: every connection was busy for too long; try again later, or set more readers or writers")

// take returns a connection that the caller gives back.
func (p *pool) take(ctx context.Context) (*chdb.Conn, error) {
	var c *chdb.Conn
	select {
	case c = <-p.idle:
	default:
		p.waits.Add(1)
		defer p.waiting.Add(-1)
		if p.waiting.Add(1) > maxWaiting {
			p.busy.Add(1)
			return nil, errBusy
		}
		timer := time.NewTimer(p.wait)
		defer timer.Stop()
		select {
		case c = <-p.idle:
		case <-timer.C:
			p.busy.Add(1)
			return nil, errBusy
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if c != nil {
		return c, nil
	}
	c, err := p.open()
	if err != nil {
		p.idle <- nil
	}
	return c, err
}

// give takes a connection back; failed says that a statement on it did.
func (p *pool) give(c *chdb.Conn, failed bool) {
	if failed {
		c.Close()
		c = nil
	}
	p.idle <- c
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	get := r.Method == http.MethodGet
	switch {
	case r.URL.Path == "/ping" && get:
		_, _ = io.WriteString(w, "Ok.\n")
	case r.URL.Path == "/status" && get:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(h.status())
	case r.URL.Path == "/" && r.Method == http.MethodPost:
		h.statement(w, r)
	case r.URL.Path == "/":
		http.Error(w, "engine: statements are sent with POST", http.StatusMethodNotAllowed)
	default:
		http.Error(w, "engine: there is /, /ping and /status", http.StatusNotFound)
	}
}

// request is one statement on its way.
type request struct {
	gate.Statement
	params []chdb.Param
	format string
}

func (h *handler) statement(w http.ResponseWriter, r *http.Request) {
	body, err := unpack(w, r)
	if err != nil {
		h.fail(w, err)
		return
	}
	defer func() { _ = body.Close() }()
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		h.fail(w, &httpError{http.StatusBadRequest, fmt.Errorf("engine: the query string: %w", err)})
		return
	}
	sql := values.Get("query")
	q, err := h.gate.Check(sql)
	if err != nil || !q.Data {
		// The statement is the body, or goes on in it.
		var rest strings.Builder
		if n, err := io.Copy(&rest, io.LimitReader(body, maxStatement+1)); err != nil {
			h.fail(w, err)
			return
		} else if n > maxStatement {
			h.fail(w, errLarge)
			return
		}
		if sql != "" && rest.Len() > 0 {
			sql += "\n"
		}
		q, err = h.gate.Check(sql + rest.String())
	}
	if err == nil && q.Data && len(values["query"]) == 0 {
		err = fmt.Errorf("gate: the statement is %w: the rows of an INSERT are the body, and the statement stands in ?query=", gate.ErrRefused)
	}
	if err != nil {
		h.refused.Add(1)
		h.fail(w, err)
		return
	}
	req := request{Statement: q, format: q.Format}
	if req.format == "" {
		if req.format = values.Get("default_format"); req.format == "" {
			req.format = "TabSeparated"
		}
	}
	if !formatName(req.format) {
		h.fail(w, &httpError{http.StatusBadRequest, fmt.Errorf("engine: there is no format %q", req.format)})
		return
	}
	for k, v := range values {
		switch name, ok := strings.CutPrefix(k, "param_"); {
		case k == "readonly" && (v[0] == "1" || v[0] == "2"):
			if !q.Reads {
				h.fail(w, &httpError{http.StatusForbidden, fmt.Errorf("engine: readonly=%s, and the statement is none that reads", v[0])})
				return
			}
		case k == "cancel_http_readonly_queries_on_client_close" || k == "wait_end_of_query":
			// A client's end always ends its statement, and a late error is always
			// told: by a broken connection.
		case ok:
			req.params = append(req.params, chdb.Param{Name: name, Value: v[0]})
		case k != "query" && k != "default_format":
			h.fail(w, &httpError{http.StatusBadRequest, fmt.Errorf("engine: the parameter %s is not known; settings stand in the statement (SETTINGS a = b)", k)})
			return
		}
	}
	pool := h.writers
	if q.Reads {
		pool = h.readers
	}
	conn, err := pool.take(r.Context())
	if err != nil {
		if errors.Is(err, errBusy) {
			w.Header().Set("Retry-After", "1")
		}
		h.fail(w, err)
		return
	}
	failed := true // also if the answer is broken off by a panic
	defer func() { pool.give(conn, failed) }()
	switch {
	case q.Data:
		h.inserts.Add(1)
		err = h.insert(w, conn, req, &timed{body, http.NewResponseController(w)})
	case q.Verb == "SELECT" && streamed[req.format]:
		h.reads.Add(1)
		err = h.stream(w, r, conn, req)
	default:
		if q.Reads {
			h.reads.Add(1)
		} else {
			h.writes.Add(1)
		}
		err = h.query(w, r, conn, req)
	}
	failed = err != nil
	if failed {
		h.fail(w, err)
	}
}

// streamed are the formats with neither head nor foot, whose pieces make a whole.
var streamed = map[string]bool{"RowBinary": true, "Native": true, "TabSeparated": true, "TSV": true, "CSV": true, "JSONEachRow": true, "NDJSON": true}

func formatName(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == ""
}

func (h *handler) insert(w http.ResponseWriter, conn *chdb.Conn, req request, body io.Reader) error {
	if len(req.params) > 0 {
		return &httpError{http.StatusBadRequest, errors.New("engine: an INSERT of data takes no parameters")}
	}
	stats, err := conn.Insert(req.Text, req.format, body)
	if err == nil {
		h.rows.Add(stats.RowsWritten)
		summary(w, stats)
	}
	return err
}

// summary sets the header by which ClickHouse says what a statement did.
func summary(w http.ResponseWriter, s chdb.Stats) {
	w.Header().Set("X-ClickHouse-Summary", fmt.Sprintf(`{"read_rows":"%d","read_bytes":"%d","written_rows":"%d"}`, s.RowsRead, s.BytesRead, s.RowsWritten))
}

func (h *handler) query(w http.ResponseWriter, r *http.Request, conn *chdb.Conn, req request) error {
	mark := h.mark()
	done := h.endWith(r.Context(), mark)
	out, stats, err := conn.Query(mark+req.Text, req.format, req.params...)
	done()
	if err != nil {
		return err
	}
	summary(w, stats)
	_, _ = w.Write(out)
	return nil
}

// stream writes an answer as it comes. An error before it began is returned. Later
// the status was sent: then the connection breaks, so that a client never takes
// half an answer for a whole one.
func (h *handler) stream(w http.ResponseWriter, r *http.Request, conn *chdb.Conn, req request) error {
	mark := h.mark()
	done := h.endWith(r.Context(), mark)
	control := http.NewResponseController(w)
	begun := false
	_, err := conn.Select(r.Context(), mark+req.Text, req.format, req.params, func(b []byte) error {
		if len(b) == 0 {
			return nil
		}
		begun = true
		_ = control.SetWriteDeadline(time.Now().Add(idle))
		_, err := w.Write(b)
		return err
	})
	done()
	switch {
	case err != nil && r.Context().Err() != nil:
		h.gone.Add(1)
		panic(http.ErrAbortHandler)
	case err != nil && begun:
		h.count(err)
		panic(http.ErrAbortHandler)
	}
	return err
}

// mark returns a comment by which a statement is found among those that run.
func (h *handler) mark() string { return fmt.Sprintf("/* noroshi %d */ ", h.serial.Add(1)) }

// endWith ends the statement that begins with mark when ctx ends, until the
// function it returns was called. It asks again and again: the statement may not
// have begun yet.
func (h *handler) endWith(ctx context.Context, mark string) (done func()) {
	over, finished := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(finished)
		select {
		case <-over:
			return
		case <-ctx.Done():
		}
		for {
			h.keepUse.Lock()
			_, _, _ = h.keep.Query("KILL QUERY WHERE startsWith(query, '"+mark+"') ASYNC", "Null")
			h.keepUse.Unlock()
			select {
			case <-over:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return func() {
		close(over)
		<-finished
	}
}

// httpError is an error with the status it becomes.
type httpError struct {
	status int
	error
}

var errLarge = &httpError{http.StatusRequestEntityTooLarge, fmt.Errorf("engine: a statement has at most %d octets and its rows %d; send several", maxStatement, maxData)}

// unpack returns the body without its packing, bounded on both sides.
func unpack(w http.ResponseWriter, r *http.Request) (io.ReadCloser, error) {
	packed := http.MaxBytesReader(w, r.Body, maxData)
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "":
		return packed, nil
	case "zstd":
		z, err := zstd.NewReader(packed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
		if err != nil {
			return nil, &httpError{http.StatusBadRequest, fmt.Errorf("engine: zstd: %w", err)}
		}
		return &bounded{z.IOReadCloser(), maxData}, nil
	case "gzip":
		z, err := gzip.NewReader(packed)
		if err != nil {
			return nil, &httpError{http.StatusBadRequest, fmt.Errorf("engine: gzip: %w", err)}
		}
		return &bounded{z, maxData}, nil
	default:
		return nil, &httpError{http.StatusUnsupportedMediaType, fmt.Errorf("engine: Content-Encoding %q; zstd and gzip are known", encoding)}
	}
}

// bounded fails when more than left octets are in it.
type bounded struct {
	io.ReadCloser
	left int64
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errLarge
	}
	return n, err
}

// timed fails when the client sends nothing for a time.
type timed struct {
	io.Reader
	control *http.ResponseController
}

// Read implements io.Reader.
func (t *timed) Read(p []byte) (int, error) {
	_ = t.control.SetReadDeadline(time.Now().Add(idle))
	return t.Reader.Read(p)
}

// codes are statuses by the engine's code, where it isn't 500.
var codes = map[int]int{
	60: http.StatusNotFound, 81: http.StatusNotFound, // no such table, database
	46: http.StatusBadRequest, 47: http.StatusBadRequest, 62: http.StatusBadRequest, // no such function, column; syntax
	159: http.StatusRequestTimeout,
	241: http.StatusInsufficientStorage, 243: http.StatusInsufficientStorage, // memory, disk
	452: http.StatusForbidden, 497: http.StatusForbidden, // constraint, rights
}

// fail answers with err. The header X-ClickHouse-Exception-Code has the engine's
// code, and ClickHouse's own for what is refused before it (497) or finds no
// connection (202).
func (h *handler) fail(w http.ResponseWriter, err error) {
	status, code := http.StatusInternalServerError, 0
	var e *chdb.Error
	var he *httpError
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &e):
		code = e.Code
		if s, ok := codes[code]; ok {
			status = s
		}
	case errors.Is(err, gate.ErrRefused):
		status, code = http.StatusForbidden, 497
	case errors.Is(err, errBusy):
		status, code = http.StatusServiceUnavailable, 202
	case errors.As(err, &large):
		err, status = errLarge, errLarge.status
	case errors.As(err, &he):
		status = he.status
	case errors.Is(err, context.Canceled):
		h.gone.Add(1) // nobody hears this
	}
	h.count(err)
	w.Header().Set("X-ClickHouse-Exception-Code", strconv.Itoa(code))
	http.Error(w, err.Error(), status)
}

func (h *handler) count(err error) {
	code := 0
	if e := new(chdb.Error); errors.As(err, &e) {
		code = e.Code
	}
	h.mu.Lock()
	h.errors[code]++
	h.mu.Unlock()
}

// Status is what GET /status answers, as JSON: numbers since the child began.
type Status struct {
	Version  string         `json:"version"`  // of the library
	Confined string         `json:"confined"` // by what the process is confined
	Uptime   float64        `json:"uptime"`   // seconds
	Reads    uint64         `json:"reads"`
	Writes   uint64         `json:"writes"`  // other than inserts of data
	Inserts  uint64         `json:"inserts"` // of data
	Rows     uint64         `json:"rows"`    // written by them, those of views included
	Refused  uint64         `json:"refused"` // statements that the gate did not let pass
	Gone     uint64         `json:"gone"`    // clients that left before the answer was whole
	Errors   map[int]uint64 `json:"errors"`  // by ClickHouse's code; 0 is an error that has none
	Readers  PoolStatus     `json:"readers"`
	Writers  PoolStatus     `json:"writers"`
	Usage
}

// PoolStatus describes the connections for one sort of statement.
type PoolStatus struct {
	Connections int    `json:"connections"`
	Idle        int    `json:"idle"`
	Waits       uint64 `json:"waits"` // requests that had to wait for one
	Busy        uint64 `json:"busy"`  // and those that waited in vain
}

func (p *pool) status() PoolStatus {
	return PoolStatus{cap(p.idle), len(p.idle), p.waits.Load(), p.busy.Load()}
}

func (h *handler) status() Status {
	s := Status{
		Version: h.version, Confined: h.confined, Uptime: time.Since(h.began).Seconds(),
		Reads: h.reads.Load(), Writes: h.writes.Load(), Inserts: h.inserts.Load(), Rows: h.rows.Load(),
		Refused: h.refused.Load(), Gone: h.gone.Load(), Errors: map[int]uint64{},
		Readers: h.readers.status(), Writers: h.writers.status(), Usage: usageOf(os.Getpid()),
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for code, n := range h.errors {
		s.Errors[code] = n
	}
	return s
}
