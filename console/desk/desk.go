// Package desk is where incidents lie while the program runs: the Correlator
// behind a lock, its changes carried at once to those who follow and within
// half a second to the store.
//
// Detection never waits for the store. While it fails (a full disk), changes
// wait here, bounded, and are written when it works again; what the bound costs
// is counted. What Move, Except and Forget return without error is stored.
package desk

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
	"noroshi/store/state"
)

// How long changes may wait.
const (
	carryEvery = 50 * time.Millisecond  // between two copies to followers; the first goes at once
	saveEvery  = 300 * time.Millisecond // between two transactions
	retryEvery = 2 * time.Second        // while the store fails
	saveWithin = 30 * time.Second       // one transaction, members by the hundred thousand
)

// ErrNotStored is the error for a step that was taken and is in force, but
// would be lost if the program ended before the store works again.
var ErrNotStored = errors.New("taken, but not stored yet: the store fails; noroshi goes on trying")

// Desk joins a Correlator, a store and followers. Make one with New. Its
// methods may be called from several goroutines.
type Desk struct {
	store state.Store
	gap   time.Duration
	wall  func() time.Time

	mu         sync.Mutex // guards correlator
	correlator *incident.Correlator

	carrying sync.Mutex // changes are carried one after the other, in their order
	saving   sync.Mutex
	waiting  waiting
	stream   stream
	changed  chan struct{} // holds a token while there may be changes to carry
	unsaved  chan struct{} // the same for saving
}

// New returns a Desk. The store is the caller's to close, after Run.
func New(store state.Store, cfg incident.Config) *Desk {
	return &Desk{
		store: store, gap: cmp.Or(cfg.Gap, 6*time.Hour), wall: time.Now, correlator: incident.NewCorrelator(cfg),
		waiting: newWaiting(), stream: newStream(),
		changed: make(chan struct{}, 1), unsaved: make(chan struct{}, 1),
	}
}

// Load takes up what the store knows: incidents that are open or were until
// lately, so that a cause that goes on is not told twice, and the exceptions.
// It is called once, before anything else.
func (d *Desk) Load(ctx context.Context) error {
	found := map[finding.ID]*incident.Incident{}
	since := event.TimeOf(d.wall()).Add(-d.gap)
	for _, f := range []state.Filter{{Active: true}, {Since: since}} {
		for more := true; more; {
			page, err := d.store.Incidents(ctx, f)
			if err != nil {
				return err
			}
			for _, in := range page {
				f.Before, f.BeforeID = in.Said, in.ID
				if in.Merged == nil {
					found[in.ID] = in
				}
			}
			more = len(page) > 0
		}
	}
	list := make([]*incident.Incident, 0, len(found))
	for _, in := range found {
		list = append(list, in)
	}
	slices.SortFunc(list, func(a, b *incident.Incident) int { return -latestFirst(a, b) })
	exceptions, err := d.store.Exceptions(ctx)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.correlator.Except(exceptions)
	for _, in := range list {
		var failed error
		d.correlator.Load(in, d.members(ctx, in.ID, &failed))
		if failed != nil {
			return failed
		}
	}
	return nil
}

// members yields all members of an incident that the store has.
func (d *Desk) members(ctx context.Context, id finding.ID, failed *error) iter.Seq[incident.Member] {
	return func(yield func(incident.Member) bool) {
		var after incident.Member
		for {
			page, err := d.store.Members(ctx, id, after, 4096)
			if *failed = err; err != nil || len(page) == 0 {
				return
			}
			for _, m := range page {
				if after = m; !yield(m) {
					return
				}
			}
		}
	}
}

// Add takes a finding. It is for pipeline.Pipeline.Report.
func (d *Desk) Add(f *finding.Finding) {
	d.mu.Lock()
	d.correlator.Add(f)
	d.mu.Unlock()
	wake(d.changed)
}

// Advance tells the time. It is for pipeline.Pipeline.Clock.
func (d *Desk) Advance(now event.Time) {
	d.mu.Lock()
	d.correlator.Advance(now)
	d.mu.Unlock()
	wake(d.changed)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run carries changes until ctx ends, and returns when the last of them are
// stored. The error says what could not be.
func (d *Desk) Run(ctx context.Context) error {
	var both sync.WaitGroup
	both.Go(func() { d.carryLoop(ctx) })
	both.Go(func() { d.saveLoop(ctx) })
	both.Wait()
	d.carry()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveWithin)
	defer cancel()
	err := d.save(ctx)
	d.stream.close()
	return err
}

func (d *Desk) carryLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.changed:
		}
		if d.carry() > 0 {
			pause(ctx, carryEvery)
		}
	}
}

func (d *Desk) saveLoop(ctx context.Context) {
	wake(d.unsaved) // that the program watches today is news too
	var noted time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.unsaved:
		case <-time.After(time.Minute): // a quiet time is observed too
		}
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveWithin)
		err := d.save(within)
		if now := d.wall(); err == nil && now.Sub(noted) > time.Minute {
			if err = d.store.Observed(within, event.TimeOf(now)); err == nil {
				noted = now
			}
			d.waiting.note(err, now)
		}
		cancel()
		if err != nil {
			pause(ctx, retryEvery)
			wake(d.unsaved)
		} else {
			pause(ctx, saveEvery)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// carry takes what changed to the followers, and to what waits for the store. It
// returns how many incidents that were.
func (d *Desk) carry() int {
	d.carrying.Lock()
	defer d.carrying.Unlock()
	d.mu.Lock()
	changes := d.correlator.Changes()
	d.mu.Unlock()
	for _, in := range changes {
		text, err := json.Marshal(in)
		if err != nil { // a number that isn't one would block the store for all others
			slog.Error("an incident can't be written and is dropped", "incident", in.ID.String(), "error", err)
			d.waiting.drop(in)
			continue
		}
		d.waiting.put(in)
		d.stream.publish(in.ID, text)
	}
	if len(changes) > 0 {
		wake(d.unsaved)
	}
	return len(changes)
}

// save writes what waits.
func (d *Desk) save(ctx context.Context) error {
	d.saving.Lock()
	defer d.saving.Unlock()
	list := d.waiting.all()
	if len(list) == 0 {
		return nil
	}
	err := d.store.Save(ctx, list)
	if err == nil {
		d.waiting.done(list)
	}
	d.waiting.note(err, d.wall())
	return err
}

// Move takes a step in the life of an incident and returns the incident. The
// error is state.ErrNone, an *incident.MoveError, ErrNotStored with the
// incident as it now stands, or the store's.
func (d *Desk) Move(ctx context.Context, id finding.ID, from incident.State, s incident.Step) (*incident.Incident, error) {
	d.mu.Lock()
	held, err := d.correlator.Move(id, from, s)
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	d.carry()
	err = d.save(ctx)
	if !held {
		if err != nil {
			return nil, err
		}
		// Its last change is in the store, and the Correlator will make no other.
		return d.store.Move(ctx, id, from, s)
	}
	in, ierr := d.Incident(ctx, id)
	if err != nil {
		return in, fmt.Errorf("%w (%w)", ErrNotStored, err)
	}
	return in, ierr
}

// Incident returns an incident as it stands, or state.ErrNone.
func (d *Desk) Incident(ctx context.Context, id finding.ID) (*incident.Incident, error) {
	if in := d.waiting.get(id); in != nil {
		return in, nil
	}
	return d.store.Incident(ctx, id)
}

// Incidents returns the incidents that f selects, the latest first, among them
// those the store doesn't have yet. f.Limit must be above 0.
func (d *Desk) Incidents(ctx context.Context, f state.Filter) ([]*incident.Incident, error) {
	waiting := d.waiting.all() // first: what is stored meanwhile is in both
	list, err := d.store.Incidents(ctx, f)
	if err != nil {
		return nil, err
	}
	full := len(list) == f.Limit
	var end *incident.Incident
	if full {
		end = list[len(list)-1]
	}
	for _, in := range waiting {
		list = slices.DeleteFunc(list, func(o *incident.Incident) bool { return o.ID == in.ID })
		if f.Matches(in) && (!full || latestFirst(in, end) <= 0) {
			list = append(list, in)
		}
	}
	slices.SortFunc(list, latestFirst)
	return list[:min(len(list), f.Limit)], nil
}

func latestFirst(a, b *incident.Incident) int {
	return cmp.Or(cmp.Compare(b.Said, a.Said), bytes.Compare(b.ID[:], a.ID[:]))
}

// Members returns at most limit members of an incident, as state.Store.Members
// does, after storing those that wait. If the store fails they are missing.
func (d *Desk) Members(ctx context.Context, id finding.ID, after incident.Member, limit int) ([]incident.Member, error) {
	if d.waiting.get(id) != nil {
		_ = d.save(ctx) // counted and shown where the store's state is
	}
	return d.store.Members(ctx, id, after, limit)
}

// Infected returns the infected hosts by day: see state.Store.Infected.
func (d *Desk) Infected(ctx context.Context, from, to event.Time) ([]state.Day, error) {
	return d.store.Infected(ctx, from, to)
}

// Exceptions returns the exceptions with what they have covered.
func (d *Desk) Exceptions() []incident.Exception {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.correlator.Exceptions())
}

// Except adds an exception, from now on, and returns its ID.
func (d *Desk) Except(ctx context.Context, e incident.Exception) (int64, error) {
	d.saving.Lock()
	defer d.saving.Unlock()
	id, err := d.store.AddException(ctx, e)
	if err != nil {
		return 0, err
	}
	e.ID, e.Hits, e.Last = id, 0, 0
	d.mu.Lock()
	defer d.mu.Unlock()
	d.correlator.Except(append(slices.Clone(d.correlator.Exceptions()), e))
	return id, nil
}

// Forget ends an exception, or returns state.ErrNone. by is who wants it.
func (d *Desk) Forget(ctx context.Context, id int64, by string) error {
	d.saving.Lock()
	defer d.saving.Unlock()
	if err := d.store.RemoveException(ctx, id, by); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.correlator.Except(slices.DeleteFunc(slices.Clone(d.correlator.Exceptions()), func(e incident.Exception) bool { return e.ID == id }))
	return nil
}

// AddNote adds a note to an incident, after storing the incident if it waits. The
// error is state.ErrNone, a *state.RefusedError or the store's.
func (d *Desk) AddNote(ctx context.Context, n state.Note) (int64, error) {
	if d.waiting.get(n.Incident) != nil {
		if err := d.save(ctx); err != nil {
			return 0, err
		}
	}
	return d.store.AddNote(ctx, n)
}

// Notes returns the notes to an incident, the oldest first.
func (d *Desk) Notes(ctx context.Context, id finding.ID) ([]state.Note, error) {
	return d.store.Notes(ctx, id)
}

// Audit returns rows of the audit chain: see state.Store.Audit.
func (d *Desk) Audit(ctx context.Context, object string, before int64, limit int) ([]state.Entry, error) {
	return d.store.Audit(ctx, object, before, limit)
}

// Stats are counters since the start, and how things stand.
type Stats struct {
	incident.Stats
	Store     StoreStats
	Followers int    // connected
	Withheld  uint64 // changes that slow followers did not get
}

// Stats returns the counters.
func (d *Desk) Stats() Stats {
	d.mu.Lock()
	s := Stats{Stats: d.correlator.Stats()}
	d.mu.Unlock()
	s.Store = d.waiting.stats()
	s.Followers, s.Withheld = d.stream.stats()
	return s
}
