package desk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
	"noroshi/store/state"
)

// unsteady is a store whose writing can be made to fail.
type unsteady struct {
	state.Store
	mu   sync.Mutex
	fail error
}

func (u *unsteady) breakDown(err error) { u.mu.Lock(); u.fail = err; u.mu.Unlock() }

func (u *unsteady) Save(ctx context.Context, list []*incident.Incident) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.fail != nil {
		return u.fail
	}
	return u.Store.Save(ctx, list)
}

func openStore(t *testing.T) *unsteady {
	t.Helper()
	db, err := state.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return &unsteady{Store: db}
}

func now() event.Time { return event.TimeOf(time.Now()) }

func nth(i int) event.Addr {
	return event.AddrOf4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// bot is a finding about the i-th host of a fleet; several fleets are several
// incidents.
func bot(i int, fleet string) *finding.Finding {
	return &finding.Finding{
		ID: finding.NewID("iotbot.scan", nth(i), fleet, now()), Rule: "iotbot.scan", Family: "mirai", Severity: finding.High, Confidence: .9,
		Subject: finding.Host(nth(i), "bot", "homes"), First: now() - 1e9, Last: now(), Said: now(),
		Cause: finding.Cause{Kind: "iotbot", Key: fleet}, Title: finding.Text{En: "a bot", Ja: "ボット"},
		Measured: []finding.Measure{{What: "targets", Value: 10, Unit: "addresses", Limit: 4}},
	}
}

// run starts d and returns a function that ends it and says how it ended.
func run(t *testing.T, d *Desk) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	var once sync.Once
	var err error
	stop = func() error { once.Do(func() { cancel(); err = <-ended }); return err }
	t.Cleanup(func() { _ = stop() })
	return stop
}

// eventually waits until ok holds, at most ten seconds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never happened: ", what)
		}
	}
}

func listed(t *testing.T, d *Desk, f state.Filter) []*incident.Incident {
	t.Helper()
	if f.Limit == 0 {
		f.Limit = 100
	}
	list, err := d.Incidents(context.Background(), f)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// What was found is stored without being asked for, is one incident, and after
// a restart goes on as the same incident.
func TestRestart(t *testing.T) {
	store := openStore(t)
	d := New(store, incident.Config{})
	stop := run(t, d)
	for i := range 100 {
		d.Add(bot(i, "mirai/homes"))
	}
	eventually(t, "the incident is stored", func() bool { s := d.Stats().Store; return s.Saved > 0 && s.Waiting == 0 })
	before := listed(t, d, state.Filter{})
	if err := stop(); err != nil || len(before) != 1 || before[0].Members != 100 {
		t.Fatalf("%v; %d incidents", err, len(before))
	}

	d = New(store, incident.Config{})
	if err := d.Load(context.Background()); err != nil {
		t.Fatal(err)
	}
	stop = run(t, d)
	for i := 50; i < 150; i++ {
		d.Add(bot(i, "mirai/homes"))
	}
	d.Add(bot(1, "other/homes"))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	after := listed(t, d, state.Filter{})
	if len(after) != 2 {
		t.Fatalf("%d incidents after a restart, want the old one and a new one", len(after))
	}
	old := after[1]
	if old.ID != before[0].ID || old.Members != 150 || old.First != before[0].First || len(old.Subjects) != incident.MaxSubjects {
		t.Errorf("after a restart: %d members, %d subjects, since %v", old.Members, len(old.Subjects), old.First)
	}
	members, err := d.Members(context.Background(), old.ID, incident.Member{}, 1000)
	if err != nil || len(members) != 150 {
		t.Errorf("%d members stored, %v", len(members), err)
	}
}

// While the store fails, detection goes on, what is found can be read, and
// nothing is lost when it works again.
func TestStoreFails(t *testing.T) {
	store := openStore(t)
	d := New(store, incident.Config{})
	stop := run(t, d)
	store.breakDown(errors.New("disk full"))
	for i := range 10 {
		d.Add(bot(i, "one"))
	}
	d.Add(bot(1, "two"))
	eventually(t, "the failure shows", func() bool { s := d.Stats().Store; return s.Failing != "" && s.Waiting == 2 })
	for i := 10; i < 20; i++ { // joins what waits already
		d.Add(bot(i, "one"))
	}
	eventually(t, "the latest state can be read", func() bool {
		list := listed(t, d, state.Filter{})
		return len(list) == 2 && list[0].Members+list[1].Members == 21
	})
	if in := listed(t, d, state.Filter{Kind: "flood."}); len(in) != 0 {
		t.Errorf("a filter lets through %v", in[0].Kind)
	}
	if in := listed(t, d, state.Filter{Limit: 1}); len(in) != 1 {
		t.Errorf("%d incidents on a page of one", len(in))
	}
	in := listed(t, d, state.Filter{})[0]
	step := incident.Step{At: now(), By: "somebody", To: incident.Acknowledged}
	got, err := d.Move(context.Background(), in.ID, incident.New, step)
	if !errors.Is(err, ErrNotStored) || got.State != incident.Acknowledged {
		t.Errorf("a step without store: %v", err)
	}

	store.breakDown(nil)
	eventually(t, "the store is well", func() bool { s := d.Stats().Store; return s.Failing == "" && s.Waiting == 0 })
	if s := d.Stats().Store; s.Failures == 0 || s.LostIncidents != 0 || s.LostMembers != 0 {
		t.Errorf("%+v", s)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	stored, err := store.Incident(context.Background(), in.ID)
	if err != nil || stored.State != incident.Acknowledged || len(stored.History) != 1 {
		t.Errorf("%+v, %v", stored, err)
	}
	n := 0
	for _, in := range listed(t, d, state.Filter{}) {
		m, err := store.Members(context.Background(), in.ID, incident.Member{}, 100)
		if err != nil {
			t.Error(err)
		}
		n += len(m)
	}
	if n != 21 {
		t.Errorf("%d members stored, want 21", n)
	}
}

// A store that stays broken is no reason to hang, but the end says so.
func TestEndWithoutStore(t *testing.T) {
	store := openStore(t)
	store.breakDown(errors.New("disk full"))
	d := New(store, incident.Config{})
	stop := run(t, d)
	d.Add(bot(1, "one"))
	if err := stop(); err == nil {
		t.Error("the last incident was lost without a word")
	}
}

// What waits for the store is bounded, and what the bound costs is counted.
func TestWaitingBounded(t *testing.T) {
	w := newWaiting()
	fleet := func(id byte, from, n int) *incident.Incident {
		in := &incident.Incident{ID: finding.ID{id}}
		for i := from; i < from+n; i++ {
			in.NewMembers = append(in.NewMembers, incident.Member{Addr: nth(i)})
		}
		return in
	}
	w.put(fleet(1, 0, maxMembers-1000))
	w.put(fleet(2, 0, 900))
	w.put(fleet(2, 0, 900)) // the same again: no more than before
	if w.members != maxMembers-100 || w.stats().LostMembers != 0 {
		t.Errorf("%d members wait, %d lost", w.members, w.stats().LostMembers)
	}
	w.put(fleet(3, 0, 300))
	if w.members != maxMembers || w.stats().LostMembers != 200 {
		t.Errorf("%d members wait, %d lost; want %d and 200", w.members, w.stats().LostMembers, maxMembers)
	}
	w.done(w.all())
	if w.members != 0 || w.stats().Waiting != 0 {
		t.Errorf("%d members wait after all were stored", w.members)
	}
	for i := range maxIncidents + 5 {
		w.put(&incident.Incident{ID: finding.ID{1: byte(i), 2: byte(i >> 8)}})
	}
	if s := w.stats(); s.Waiting != maxIncidents || s.LostIncidents != 5 {
		t.Errorf("%d wait, %d lost", s.Waiting, s.LostIncidents)
	}
}

// A number that JSON can't say must not keep all others from the store.
func TestUnwritable(t *testing.T) {
	d := New(openStore(t), incident.Config{})
	stop := run(t, d)
	bad := bot(1, "bad")
	bad.Confidence = math.NaN()
	bad.Measured[0].Value = math.Inf(1)
	d.Add(bad)
	d.Add(bot(2, "good"))
	if err := stop(); err != nil {
		t.Error(err)
	}
	if n := len(listed(t, d, state.Filter{})); n != 1 || d.Stats().Store.LostIncidents != 1 {
		t.Errorf("%d stored, %d lost", n, d.Stats().Store.LostIncidents)
	}
}

func TestMove(t *testing.T) {
	ctx := context.Background()
	store := openStore(t)
	d := New(store, incident.Config{})
	d.Add(bot(1, "one"))
	d.carry()
	in := listed(t, d, state.Filter{})[0]
	step := incident.Step{At: now(), By: "somebody", To: incident.Closed, Reason: incident.Benign, Note: "a test"}
	got, err := d.Move(ctx, in.ID, incident.New, step)
	if err != nil || got.State != incident.Closed {
		t.Fatalf("%+v, %v", got, err)
	}
	if stored, err := store.Incident(ctx, in.ID); err != nil || stored.State != incident.Closed {
		t.Errorf("stored: %v, %v", stored, err)
	}
	var late *incident.MoveError
	if _, err := d.Move(ctx, in.ID, incident.New, step); !errors.As(err, &late) {
		t.Errorf("the second one: %v", err)
	}
	if _, err := d.Move(ctx, finding.ID{9}, incident.New, step); !errors.Is(err, state.ErrNone) {
		t.Errorf("no such incident: %v", err)
	}
	// Long over and forgotten by the Correlator, it still has a life in the store.
	d.Advance(now().Add(7 * time.Hour))
	again := incident.Step{At: now(), By: "somebody", To: incident.Acknowledged}
	if got, err := d.Move(ctx, in.ID, incident.Closed, again); err != nil || got.State != incident.Acknowledged || !got.Ended {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestExceptions(t *testing.T) {
	ctx := context.Background()
	store := openStore(t)
	d := New(store, incident.Config{})
	id, err := d.Except(ctx, incident.Exception{Key: "lab", Owner: "me", Note: "our own scanner", Expires: now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	d.Add(bot(1, "lab"))
	d.Add(bot(1, "street"))
	d.carry()
	if list := listed(t, d, state.Filter{}); len(list) != 1 {
		t.Errorf("%d incidents, want 1", len(list))
	}
	if e := d.Exceptions(); len(e) != 1 || e[0].Hits != 1 || e[0].ID != id {
		t.Errorf("%+v", e)
	}
	again := New(store, incident.Config{})
	if err := again.Load(ctx); err != nil || len(again.Exceptions()) != 1 {
		t.Errorf("after a restart: %v, %v", again.Exceptions(), err)
	}
	if err := d.Forget(ctx, id, "sato"); err != nil {
		t.Error(err)
	}
	if err := d.Forget(ctx, id, "sato"); !errors.Is(err, state.ErrNone) {
		t.Errorf("forgotten twice: %v", err)
	}
	d.Add(bot(1, "lab"))
	d.carry()
	if list := listed(t, d, state.Filter{}); len(list) != 2 {
		t.Errorf("%d incidents, want 2", len(list))
	}
	if _, err := d.Except(ctx, incident.Exception{Key: "x"}); err == nil {
		t.Error("an exception without owner, note and end")
	}
}

func TestFollow(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	d := New(openStore(t), incident.Config{Burst: 100_000})
	f, err := d.Follow("")
	if err != nil {
		t.Fatal(err)
	}
	next := func(f *Follower) (Event, *incident.Incident) {
		t.Helper()
		e, err := f.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		in := new(incident.Incident)
		if e.JSON != nil {
			if err := json.Unmarshal(e.JSON, in); err != nil {
				t.Fatal(err)
			}
		}
		return e, in
	}
	stop := run(t, d)
	d.Add(bot(1, "one"))
	first, in := next(f)
	if in.Members != 1 {
		t.Errorf("%d members", in.Members)
	}
	_ = stop()
	if _, err := f.Next(ctx); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	d.stream.closed = false

	// A slow follower gets the latest state of each incident, once.
	slow, _ := d.Follow(first.ID)
	for i := range 50 {
		d.Add(bot(i, "one"))
		d.carry()
	}
	if _, in := next(slow); in.Members != 50 {
		t.Errorf("the latest state has %d members, want 50", in.Members)
	}
	back, _ := d.Follow(first.ID)
	if e, in := next(back); in.Members != 50 || e.ID == first.ID {
		t.Errorf("come back: %d members", in.Members)
	}

	// One that is too slow is told so, and gets what there is room for.
	for i := range maxQueue + 10 {
		d.Add(bot(i, fmt.Sprint("fleet ", i)))
		d.carry()
	}
	if e, _ := next(slow); e.JSON != nil {
		t.Error("the loss was not told")
	}
	for range maxQueue {
		if e, _ := next(slow); e.JSON == nil {
			t.Fatal("lost again")
		}
	}
	if _, withheld := d.stream.stats(); withheld == 0 {
		t.Error("the loss was not counted")
	}
	for _, id := range []string{first.ID, "another-5", "nonsense"} {
		f, err := d.Follow(id)
		if err != nil {
			t.Fatal(err)
		}
		if e, _ := next(f); e.JSON != nil {
			t.Errorf("come back with %q, which is too old: no word of it", id)
		}
		f.Close()
	}
	for err == nil {
		_, err = d.Follow("")
	}
	if !errors.Is(err, ErrCrowded) || len(d.stream.followers) != maxFollowers {
		t.Errorf("%d followers, %v", len(d.stream.followers), err)
	}
	for f := range d.stream.followers {
		f.Close()
	}
}
