package desk

import (
	"log/slog"
	"sync"
	"time"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
)

// Bounds of what waits for the store: about 40 MB of incidents and 100 MB of
// members. The Correlator opens 60 incidents an hour.
const (
	maxIncidents = 4096
	maxMembers   = 1 << 20
)

// StoreStats say how the store is.
type StoreStats struct {
	Failing  string    // the store's error while it fails; empty when it works
	Since    time.Time // since when it has failed
	Failures uint64    // transactions that failed
	Saved    uint64    // incidents written, each as often as it was
	Waiting  int       // incidents not yet written
	// LostIncidents and LostMembers are changes given up because too much waited.
	LostIncidents, LostMembers uint64
}

// waiting holds the latest state of each incident that the store lacks, with
// all members it lacks.
type waiting struct {
	mu      sync.Mutex
	list    map[finding.ID]*incident.Incident
	members int
	state   StoreStats
	logged  time.Time
}

func newWaiting() waiting { return waiting{list: map[finding.ID]*incident.Incident{}} }

// put adds in, which nobody changes from then on.
func (w *waiting) put(in *incident.Incident) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.list[in.ID]
	if old == nil && len(w.list) >= maxIncidents {
		w.state.LostIncidents++
		w.state.LostMembers += uint64(len(in.NewMembers))
		return
	}
	if old != nil {
		w.members -= len(old.NewMembers)
		in.NewMembers = join(old.NewMembers, in.NewMembers, maxMembers-w.members)
	}
	if over := w.members + len(in.NewMembers) - maxMembers; over > 0 {
		in.NewMembers = in.NewMembers[:max(len(in.NewMembers)-over, 0)]
		w.state.LostMembers += uint64(over)
	}
	w.members += len(in.NewMembers)
	w.list[in.ID] = in
}

// join returns what two lists of changed members say together, without what is
// said twice if that would exceed room.
func join(a, b []incident.Member, room int) []incident.Member {
	if len(a) == 0 {
		return b
	}
	all := make([]incident.Member, 0, len(a)+len(b))
	all = append(append(all, a...), b...)
	if len(all) <= room {
		return all // saving the same twice changes nothing
	}
	type key struct {
		addr event.Addr
		port uint16
	}
	place := map[key]int{}
	once := all[:0]
	for _, m := range all {
		k := key{m.Addr, m.Port}
		if i, known := place[k]; known {
			once[i] = m
			continue
		}
		place[k] = len(once)
		once = append(once, m)
	}
	return once
}

// drop counts an incident that can't be stored at all.
func (w *waiting) drop(in *incident.Incident) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state.LostIncidents++
	w.state.LostMembers += uint64(len(in.NewMembers))
}

func (w *waiting) get(id finding.ID) *incident.Incident {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.list[id]
}

func (w *waiting) all() []*incident.Incident {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := make([]*incident.Incident, 0, len(w.list))
	for _, in := range w.list {
		list = append(list, in)
	}
	return list
}

// done forgets what was stored, unless it has changed meanwhile.
func (w *waiting) done(list []*incident.Incident) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state.Saved += uint64(len(list))
	for _, in := range list {
		if w.list[in.ID] == in {
			w.members -= len(in.NewMembers)
			delete(w.list, in.ID)
		}
	}
}

// note takes down whether the store works, and says so in the log: when that
// changes, and once a minute while it fails.
func (w *waiting) note(err error, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &w.state
	if err == nil {
		if s.Failing != "" {
			slog.Info("the incident store works again", "failed_for", now.Sub(s.Since).Round(time.Second).String(), "lost_incidents", s.LostIncidents, "lost_members", s.LostMembers)
		}
		s.Failing, s.Since, w.logged = "", time.Time{}, time.Time{}
		return
	}
	s.Failures++
	if s.Failing == "" {
		s.Since = now
	}
	s.Failing = err.Error()
	if now.Sub(w.logged) >= time.Minute {
		w.logged = now
		slog.Error("the incident store fails; detection goes on and changes wait", "error", err, "waiting", len(w.list), "failures", s.Failures)
	}
}

func (w *waiting) stats() StoreStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.state
	s.Waiting = len(w.list)
	return s
}
