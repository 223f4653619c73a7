// Package api serves what noroshi knows over HTTP: incidents as JSON and as a
// live stream, infected hosts by day, sources, health and metrics. docs/api.md
// has the requests and answers.
//
// It is for loopback only: there are no accounts yet. What protects it is that
// no other machine can connect, and that a web page which the operator happens
// to have open can't speak for the operator: requests must name a loopback host
// (against DNS rebinding), changes must come as JSON and not from another
// site's page (against forged requests).
package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"noroshi/console/desk"
	"noroshi/pipeline"
	"noroshi/source"
	"noroshi/store/memory"
)

// Config says what is served.
type Config struct {
	Desk     *desk.Desk
	Pipeline *pipeline.Pipeline
	Sources  []Source
	History  func() memory.Stats // nil: none is kept
	Version  string
}

// Source is a source with the name that answers and metrics give it.
type Source struct {
	Name    string // "udp", "capture eth0"
	Packets bool   // it reads packets, not datagrams of exports
	source.Source
}

// Limits of requests.
const (
	maxBody     = 64 << 10
	maxHeader   = 16 << 10
	readWithin  = 10 * time.Second
	writeWithin = 30 * time.Second
)

// API answers requests. Make one with New.
type API struct {
	cfg      Config
	mux      *http.ServeMux
	ready    atomic.Bool
	answers  [6]atomic.Uint64 // by hundreds of the status
	exporter exporters
}

// New returns an API.
func New(cfg Config) *API {
	a := &API{cfg: cfg, mux: http.NewServeMux()}
	a.exporter.names = map[string]bool{}
	for pattern, h := range map[string]handler{
		"GET /api/incidents":              a.incidents,
		"GET /api/incidents/stream":       a.stream,
		"GET /api/incidents/{id}":         a.incident,
		"GET /api/incidents/{id}/members": a.members,
		"POST /api/incidents/{id}/move":   a.move,
		"GET /api/incidents/{id}/notes":   a.notes,
		"POST /api/incidents/{id}/notes":  a.addNote,
		"GET /api/audit":                  a.audit,
		"GET /api/exceptions":             a.exceptions,
		"POST /api/exceptions":            a.addException,
		"DELETE /api/exceptions/{id}":     a.removeException,
		"GET /api/infected":               a.infected,
		"GET /api/sources":                a.sources,
		"GET /healthz":                    a.health,
		"GET /readyz":                     a.readiness,
	} {
		a.mux.Handle(pattern, h)
	}
	a.mux.Handle("GET /metrics", a.metrics())
	return a
}

// SetReady says whether the program is receiving: what /readyz answers.
func (a *API) SetReady(ready bool) { a.ready.Store(ready) }

// Server returns a server of the API with its limits. The caller serves and
// shuts it down.
func (a *API) Server() *http.Server {
	return &http.Server{
		Handler: a, MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: readWithin, ReadTimeout: readWithin, WriteTimeout: writeWithin, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &counted{ResponseWriter: w}
	defer func() {
		if why := recover(); why != nil && why != http.ErrAbortHandler {
			slog.Error("a request failed", "path", r.URL.Path, "why", why, "stack", string(debug.Stack()))
			if c.status == 0 {
				fail(c, problem{Status: http.StatusInternalServerError})
			}
		}
		a.answers[min(c.status/100, 5)].Add(1)
	}()
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	if p := refuse(r); p != nil {
		fail(c, *p)
		return
	}
	r.Body = http.MaxBytesReader(c, r.Body, maxBody)
	if _, pattern := a.mux.Handler(r); pattern == "" {
		a.nowhere(c, r)
		return
	}
	a.mux.ServeHTTP(c, r)
}

// crossOrigin knows a request made by another site's page (Fetch Metadata, or
// the Origin header).
var crossOrigin = http.NewCrossOriginProtection()

// refuse says why r is not answered at all, or nil.
func refuse(r *http.Request) *problem {
	if !loopback(r.Host) {
		return &problem{Status: http.StatusMisdirectedRequest, Detail: fmt.Sprintf("the host %q isn't this machine's loopback; use 127.0.0.1, [::1] or localhost", r.Host)}
	}
	if err := crossOrigin.Check(r); err != nil {
		return &problem{Status: http.StatusForbidden, Detail: "a page of another site may not change anything"}
	}
	if r.Method == http.MethodPost {
		kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
		if !strings.EqualFold(strings.TrimSpace(kind), "application/json") {
			return &problem{Status: http.StatusUnsupportedMediaType, Detail: "send Content-Type: application/json"}
		}
	}
	return nil
}

// loopback reports whether a Host header names this machine alone.
func loopback(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.IsLoopback()
}

// nowhere answers a request for which there is no handler.
func (a *API) nowhere(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		other := r.Clone(r.Context())
		other.Method = m
		if _, pattern := a.mux.Handler(other); pattern != "" {
			allowed = append(allowed, m)
		}
	}
	if len(allowed) == 0 {
		fail(w, problem{Status: http.StatusNotFound, Detail: "there is nothing at " + r.URL.Path})
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	fail(w, problem{Status: http.StatusMethodNotAllowed, Detail: "use " + strings.Join(allowed, " or ")})
}

// counted remembers the status of an answer.
type counted struct {
	http.ResponseWriter
	status int
}

func (c *counted) WriteHeader(status int) {
	if c.status == 0 {
		c.status = status
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *counted) Write(p []byte) (int, error) {
	if c.status == 0 {
		c.status = http.StatusOK
	}
	return c.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// problem is an error for a client (RFC 9457). Type is always about:blank, and
// so isn't sent.
type problem struct {
	Title  string `json:"title"` // the status in words
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// State is where the incident stands, when that is why.
	State string `json:"state,omitempty"`
}

func (p problem) Error() string { return p.Detail }

func fail(w http.ResponseWriter, p problem) {
	p.Title = http.StatusText(p.Status)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

// wrong is the problem of a request that can't be understood.
func wrong(format string, args ...any) error {
	return problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(format, args...)}
}

// handler answers a request with a value for JSON, or an error. A problem is
// shown; of any other error the client learns only that the store failed, and
// the log learns why.
type handler func(w http.ResponseWriter, r *http.Request) (any, error)

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v, err := h(w, r)
	var p problem
	switch {
	case errors.As(err, &p):
		fail(w, p)
	case err != nil:
		if r.Context().Err() == nil {
			slog.Error("a request could not be answered", "path", r.URL.Path, "error", err)
		}
		fail(w, problem{Status: http.StatusServiceUnavailable, Detail: "the incident store fails; the log says why"})
	case v != nil:
		answer(w, http.StatusOK, v)
	}
}

func answer(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
}
