// Package statetest is the test that every implementation of state.Store must
// pass: the contract, written down so that it can be run.
package statetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
	"noroshi/store/state"
)

var t0 = event.TimeOf(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))

// Incident returns the n-th of a series of different incidents.
func Incident(n int) *incident.Incident {
	said := t0.Add(time.Duration(n) * time.Minute)
	return &incident.Incident{
		ID: finding.NewID("iotbot.scan", event.Addr{}, fmt.Sprint(n), said), Kind: "iotbot.scan", Family: "mirai",
		Severity: finding.High, Confidence: .99, State: incident.New,
		Subjects:     []finding.Subject{finding.Host(event.AddrOf4([4]byte{192, 0, 2, byte(n)}), "bot", "homes")},
		SubjectCount: 1, Members: 1, Active: 1,
		First: said.Add(-time.Minute), Last: said, Said: said,
		Title: finding.Text{En: "infected <script>alert(1)</script>", Ja: "感染 \x1b[2J"},
		Cause: finding.Cause{Kind: "iotbot", Key: fmt.Sprint("mirai/", n), Target: event.AddrOf4([4]byte{198, 51, 100, 0}), Bits: 24},
	}
}

// Members returns members i to i+n of an endless list.
func Members(i, n int) (list []incident.Member) {
	for k := i; k < i+n; k++ {
		list = append(list, incident.Member{
			Addr: event.AddrOf4([4]byte{10, byte(k >> 16), byte(k >> 8), byte(k)}), Port: uint16(k % 2), Role: "bot", Network: "homes", First: t0, Last: t0.Add(time.Minute),
		})
	}
	return list
}

// Run tests a store. open returns the same store each time, empty at first, so
// that what survives closing can be seen.
func Run(t *testing.T, open func(t *testing.T) state.Store) {
	ctx := context.Background()
	s := open(t)
	t.Cleanup(func() { _ = s.Close() })
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	t.Run("nothing is there at first", func(t *testing.T) {
		list, err := s.Incidents(ctx, state.Filter{})
		if err != nil || len(list) != 0 {
			t.Errorf("%v, %v", list, err)
		}
		if _, err := s.Incident(ctx, finding.ID{1}); !errors.Is(err, state.ErrNone) {
			t.Errorf("an incident nobody saved: %v", err)
		}
		if _, err := s.Move(ctx, finding.ID{1}, incident.New, incident.Step{}); !errors.Is(err, state.ErrNone) {
			t.Errorf("moving an incident nobody saved: %v", err)
		}
		must(t, s.Save(ctx, nil))
	})

	t.Run("what is saved comes back, once", func(t *testing.T) {
		in := Incident(1)
		in.NewMembers = Members(0, 1000)
		for range 2 {
			must(t, s.Save(ctx, []*incident.Incident{in, Incident(2)}))
		}
		must(t, s.Close())
		s = open(t)
		got, err := s.Incident(ctx, in.ID)
		must(t, err)
		want := *in
		want.NewMembers = nil
		if a, b := asJSON(t, got), asJSON(t, &want); a != b {
			t.Errorf("got  %s\nwant %s", a, b)
		}
		list, err := s.Incidents(ctx, state.Filter{})
		if err != nil || len(list) != 2 || list[0].ID != Incident(2).ID {
			t.Errorf("%d incidents, %v; want 2, the latest first", len(list), err)
		}
	})

	t.Run("members come in pages", func(t *testing.T) {
		var all []incident.Member
		for after := (incident.Member{}); ; after = all[len(all)-1] {
			page, err := s.Members(ctx, Incident(1).ID, after, 300)
			must(t, err)
			if len(page) == 0 {
				break
			}
			all = append(all, page...)
		}
		if want := Members(0, 1000); !reflect.DeepEqual(all, want) {
			t.Errorf("%d members, want %d in order", len(all), len(want))
		}
		in := Incident(1)
		later := Members(5, 1)
		later[0].Last, later[0].Ended = t0.Add(time.Hour), true
		in.NewMembers = later
		must(t, s.Save(ctx, []*incident.Incident{in}))
		page, err := s.Members(ctx, in.ID, Members(4, 1)[0], 1)
		if err != nil || len(page) != 1 || page[0] != later[0] {
			t.Errorf("a member that changed: %v, %v", page, err)
		}
		left := Members(6, 1)
		left[0].Gone = true
		in.NewMembers = left
		must(t, s.Save(ctx, []*incident.Incident{in}))
		page, err = s.Members(ctx, in.ID, Members(5, 1)[0], 1)
		if err != nil || len(page) != 1 || page[0] != Members(7, 1)[0] {
			t.Errorf("after a member left: %v, %v", page, err)
		}
	})

	t.Run("filters", func(t *testing.T) {
		flood, gone := Incident(3), Incident(4)
		flood.Kind, flood.State = "flood.inbound", incident.Acknowledged
		gone.Ended = true
		must(t, s.Save(ctx, []*incident.Incident{flood, gone}))
		for name, c := range map[string]struct {
			f    state.Filter
			want []int
		}{
			"all":         {state.Filter{}, []int{4, 3, 2, 1}},
			"a state":     {state.Filter{State: incident.Acknowledged}, []int{3}},
			"a kind":      {state.Filter{Kind: "flood.inbound"}, []int{3}},
			"a detector":  {state.Filter{Kind: "iotbot."}, []int{4, 2, 1}},
			"not a kind":  {state.Filter{Kind: "iotbot"}, nil},
			"active":      {state.Filter{Active: true}, []int{3, 2, 1}},
			"since":       {state.Filter{Since: Incident(3).Last}, []int{4, 3}},
			"limited":     {state.Filter{Limit: 2}, []int{4, 3}},
			"continued":   {state.Filter{Limit: 2, Before: Incident(3).Said, BeforeID: Incident(3).ID}, []int{2, 1}},
			"two at once": {state.Filter{State: incident.New, Limit: 1}, []int{4}},
			"hostile":     {state.Filter{Kind: "' OR 1=1 --"}, nil},
		} {
			list, err := s.Incidents(ctx, c.f)
			must(t, err)
			var got, want []finding.ID
			for _, in := range list {
				got = append(got, in.ID)
			}
			for _, n := range c.want {
				want = append(want, Incident(n).ID)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", name, got, want)
			}
			everything, err := s.Incidents(ctx, state.Filter{})
			must(t, err)
			var matching []finding.ID
			for _, in := range everything {
				if c.f.Matches(in) && (c.f.Limit == 0 || len(matching) < c.f.Limit) {
					matching = append(matching, in.ID)
				}
			}
			if !slices.Equal(matching, want) {
				t.Errorf("%s: Filter.Matches selects %v, want %v", name, matching, want)
			}
		}
	})

	t.Run("of people at once one moves it", func(t *testing.T) {
		id := Incident(2).ID
		var moved sync.Map
		var people sync.WaitGroup
		for i := range 8 {
			people.Go(func() {
				step := incident.Step{At: t0, By: fmt.Sprint("person ", i), To: incident.Acknowledged}
				if _, err := s.Move(ctx, id, incident.New, step); err == nil {
					moved.Store(i, true)
				} else if late := new(incident.MoveError); !errors.As(err, &late) {
					t.Errorf("person %d: %v", i, err)
				}
			})
		}
		people.Wait()
		n := 0
		moved.Range(func(any, any) bool { n++; return true })
		in, err := s.Incident(ctx, id)
		must(t, err)
		if n != 1 || in.State != incident.Acknowledged || len(in.History) != 1 {
			t.Errorf("%d moved it; it is %s with history %v", n, in.State, in.History)
		}
	})

	t.Run("exceptions", func(t *testing.T) {
		e := incident.Exception{Rule: "iotbot.scan", Subject: netip.MustParsePrefix("2001:db8::/32"), Key: "k", Owner: "sato", Note: "テスト", Expires: t0}
		id, err := s.AddException(ctx, e)
		must(t, err)
		e.ID = id
		if list, err := s.Exceptions(ctx); err != nil || !slices.Equal(list, []incident.Exception{e}) {
			t.Errorf("%v, %v", list, err)
		}
		if _, err := s.AddException(ctx, incident.Exception{}); err == nil {
			t.Error("one that covers everything is kept")
		}
		must(t, s.RemoveException(ctx, id, "sato"))
		if err := s.RemoveException(ctx, id, "sato"); !errors.Is(err, state.ErrNone) {
			t.Errorf("removing twice: %v", err)
		}
		if list, err := s.Exceptions(ctx); err != nil || len(list) != 0 {
			t.Errorf("%v, %v", list, err)
		}
	})

	t.Run("no infected hosts and nobody looking are two things", func(t *testing.T) {
		must(t, s.Observed(ctx, t0.Add(24*time.Hour)))
		must(t, s.Observed(ctx, t0.Add(24*time.Hour)))
		days, err := s.Infected(ctx, t0.Add(-24*time.Hour), t0.Add(24*time.Hour))
		must(t, err)
		// Of a thousand one turned out to be of another cause.
		want := []state.Day{
			{Day: time.Date(2026, 2, 28, 0, 0, 0, 0, time.UTC), Hosts: []state.Hosts{}},
			{Day: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), Observed: true, Hosts: []state.Hosts{{Family: "mirai", Network: "homes", Count: 999}}},
			{Day: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC), Observed: true, Hosts: []state.Hosts{}},
		}
		if !reflect.DeepEqual(days, want) {
			t.Errorf("got  %v\nwant %v", days, want)
		}
		if _, err := s.Infected(ctx, 0, t0); err == nil {
			t.Error("a list of half a century is given")
		}
	})

	t.Run("who moves to another family is counted once", func(t *testing.T) {
		was, is := Incident(20), Incident(21)
		was.Family, is.Family = "unmarked", "hajime"
		host := Members(90000, 2)
		for i := range host {
			host[i].First, host[i].Last = t0.Add(72*time.Hour), t0.Add(72*time.Hour)
		}
		was.NewMembers = slices.Clone(host)
		must(t, s.Save(ctx, []*incident.Incident{was}))
		left := host[0]
		left.Gone = true
		// The one it comes to may be written first; another comes back at once.
		is.NewMembers, was.NewMembers = host[:1], []incident.Member{left, host[1]}
		must(t, s.Save(ctx, []*incident.Incident{is, was}))
		days, err := s.Infected(ctx, t0.Add(72*time.Hour), t0.Add(72*time.Hour))
		must(t, err)
		want := []state.Hosts{{Family: "hajime", Network: "homes", Count: 1}, {Family: "unmarked", Network: "homes", Count: 1}}
		if !reflect.DeepEqual(days[0].Hosts, want) {
			t.Errorf("got %v, want %v", days[0].Hosts, want)
		}
		if list, err := s.Members(ctx, was.ID, incident.Member{}, 10); err != nil || len(list) != 1 || list[0].Addr != host[1].Addr {
			t.Errorf("%v, %v", list, err)
		}
		// A wrong clock says that it was infected since 1970.
		wrong := Incident(22)
		wrong.NewMembers = Members(90010, 1)
		wrong.NewMembers[0].First, wrong.NewMembers[0].Last = 0, t0.Add(96*time.Hour)
		must(t, s.Save(ctx, []*incident.Incident{wrong}))
		if days, err := s.Infected(ctx, t0.Add(-1000*time.Hour), t0.Add(-900*time.Hour)); err != nil || days[0].Observed {
			t.Errorf("%v, %v", days[0], err)
		}
	})

	t.Run("all or nothing", func(t *testing.T) {
		canceled, cancel := context.WithCancel(ctx)
		cancel()
		if err := s.Save(canceled, []*incident.Incident{Incident(9)}); err == nil {
			t.Error("saved although the caller gave up")
		}
		if _, err := s.Incident(ctx, Incident(9).ID); !errors.Is(err, state.ErrNone) {
			t.Errorf("part of it is there: %v", err)
		}
	})
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
