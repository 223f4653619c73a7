package api

import (
	"net/http"
	"net/netip"
	"time"

	"noroshi/event"
	"noroshi/store/memory"
)

// health answers GET /healthz: always 200 while the program can answer, because
// a restart mends nothing of what it reports.
func (a *API) health(_ http.ResponseWriter, r *http.Request) (any, error) {
	s := a.cfg.Desk.Stats()
	p := a.cfg.Pipeline.Stats()
	type store struct {
		Status        string     `json:"status"` // "ok" or "failing"
		Error         string     `json:"error,omitempty"`
		Since         event.Time `json:"since,omitzero"`
		Waiting       int        `json:"waiting"` // incidents not yet stored
		LostIncidents uint64     `json:"lost_incidents"`
		LostMembers   uint64     `json:"lost_members"`
	}
	out := struct {
		Status  string   `json:"status"` // "ok" or "degraded"
		Version string   `json:"version"`
		Store   store    `json:"store"`
		History *history `json:"history"` // null: none is kept
		// Clock is the pipeline's event time; absent before it has begun.
		Clock  event.Time `json:"clock,omitzero"`
		Flows  uint64     `json:"flows"`
		Panics uint64     `json:"detector_panics"`
		Open   int        `json:"open_incidents"`
	}{
		Status: "ok", Version: a.cfg.Version, Clock: p.Clock, Flows: p.Flows, Panics: p.Panics, Open: s.Open,
		Store: store{Status: "ok", Waiting: s.Store.Waiting, LostIncidents: s.Store.LostIncidents, LostMembers: s.Store.LostMembers},
	}
	if s.Store.Failing != "" {
		out.Status = "degraded"
		out.Store.Status, out.Store.Error, out.Store.Since = "failing", s.Store.Failing, event.TimeOf(s.Store.Since)
	}
	if a.cfg.History != nil {
		if out.History = healthOf(a.cfg.History()); out.History.Status != "ok" {
			out.Status = "degraded"
		}
	}
	return out, nil
}

// history is how the memory of events stands.
type history struct {
	Status  string     `json:"status"` // "ok", "waiting" (the store takes nothing) or "overdue" (masking is)
	Error   string     `json:"error,omitempty"`
	Since   event.Time `json:"since,omitzero"` // of waiting
	Waiting int        `json:"waiting_blocks"`
	Kept    uint64     `json:"kept"`             // rows of all tables, since the start
	Lost    uint64     `json:"lost"`             // events, since the start; metrics have the reasons
	Engine  string     `json:"engine,omitempty"` // state of the embedded engine
}

func healthOf(s memory.Stats) *history {
	h := &history{Status: "ok", Waiting: s.Writer.Spool.Blocks}
	for _, n := range s.Writer.Kept {
		h.Kept += n
	}
	for _, reasons := range s.Writer.Lost {
		for _, n := range reasons {
			h.Lost += n
		}
	}
	if s.Engine != nil {
		h.Engine = string(s.Engine.State)
	}
	switch {
	case s.Writer.Away != nil:
		h.Status, h.Error, h.Since = "waiting", s.Writer.Away.Error(), event.TimeOf(s.Writer.Since)
	case s.MaskingOverdue:
		h.Status = "overdue"
		if s.Masker.Failing != nil {
			h.Error = s.Masker.Failing.Error()
		}
	}
	return h
}

// readiness answers GET /readyz: 200 while the sources are read.
func (a *API) readiness(http.ResponseWriter, *http.Request) (any, error) {
	if !a.ready.Load() {
		return nil, problem{Status: http.StatusServiceUnavailable, Detail: "starting or ending"}
	}
	return map[string]string{"status": "ready"}, nil
}

// sources answers GET /api/sources with every counter of every source.
func (a *API) sources(_ http.ResponseWriter, r *http.Request) (any, error) {
	if err := query(r).done(); err != nil {
		return nil, err
	}
	type count struct {
		Name     string     `json:"name"`
		Reason   string     `json:"reason,omitempty"`
		Exporter netip.Addr `json:"exporter,omitzero"`
		Domain   uint32     `json:"domain,omitempty"`
		Value    uint64     `json:"value"`
	}
	type from struct {
		Name   string  `json:"name"`
		Counts []count `json:"counts"`
	}
	out := []from{}
	for _, s := range a.cfg.Sources {
		f := from{Name: s.Name, Counts: []count{}}
		for c := range s.Counts() {
			f.Counts = append(f.Counts, count{c.Name, c.Reason, address(c.Exporter), c.Domain, c.Value})
		}
		out = append(out, f)
	}
	return map[string]any{"at": time.Now().UTC().Format(time.RFC3339), "sources": out}, nil
}

// address returns a in the standard library's form, in which the unknown is the
// zero value.
func address(a event.Addr) netip.Addr {
	if a == (event.Addr{}) {
		return netip.Addr{}
	}
	return a.Std()
}
