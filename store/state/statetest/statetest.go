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
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

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

	t.Run("a member that is said twice is one", func(t *testing.T) {
		in := Incident(1)
		m := Members(95000, 1)[0]
		earlier, later := m, m
		earlier.First, later.Last, later.Ended = m.First-1, m.Last+1, true
		in.NewMembers = []incident.Member{m, later, earlier, later}
		must(t, s.Save(ctx, []*incident.Incident{in}))
		want := later
		want.First = earlier.First
		page, err := s.Members(ctx, in.ID, Members(94999, 1)[0], 10)
		if err != nil || len(page) != 1 || page[0] != want {
			t.Errorf("%v, %v; want %v", page, err, want)
		}
		want.Gone = true
		in.NewMembers = []incident.Member{want}
		must(t, s.Save(ctx, []*incident.Incident{in}))
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

	t.Run("notes", func(t *testing.T) {
		in := Incident(1).ID
		first := state.Note{Incident: in, At: t0, By: "佐藤", Text: "it's \x00 \u202e '); DROP TABLE records;-- <script>"}
		second := state.Note{Incident: in, At: t0 + 1, By: "sato", Text: "つぎ"}
		var err error
		first.ID, err = s.AddNote(ctx, first)
		must(t, err)
		second.ID, err = s.AddNote(ctx, second)
		must(t, err)
		if list, err := s.Notes(ctx, in); err != nil || !slices.Equal(list, []state.Note{first, second}) {
			t.Errorf("%+v, %v", list, err)
		}
		if list, err := s.Notes(ctx, Incident(2).ID); err != nil || len(list) != 0 {
			t.Errorf("another incident's: %v, %v", list, err)
		}
		if _, err := s.AddNote(ctx, state.Note{Incident: finding.ID{9}, At: t0, By: "sato", Text: "x"}); !errors.Is(err, state.ErrNone) {
			t.Errorf("a note to no incident: %v", err)
		}
		for _, n := range []state.Note{{Incident: in, Text: "x"}, {Incident: in, By: "a"}, {Incident: in, By: "a", Text: strings.Repeat("x", state.MaxText+1)}, {Incident: in, By: "a\x00", Text: "x"}} {
			refused(t, func() error { _, err := s.AddNote(ctx, n); return err })
		}
	})

	t.Run("two persons approve", func(t *testing.T) {
		p := state.Proposal{Kind: "flowspec.announce", Object: object(1), Basis: "defence", Preview: json.RawMessage(`{"lines":3}`), By: "sato", At: t0, Expires: t0.Add(time.Hour)}
		for name, change := range map[string]func(*state.Proposal){
			"no kind": func(p *state.Proposal) { p.Kind = "" }, "no object": func(p *state.Proposal) { p.Object = " " }, "no basis": func(p *state.Proposal) { p.Basis = "" },
			"nobody": func(p *state.Proposal) { p.By = "" }, "no preview": func(p *state.Proposal) { p.Preview = nil }, "for ever": func(p *state.Proposal) { p.Expires = 0 },
		} {
			q := p
			change(&q)
			t.Run(name, func(t *testing.T) { refused(t, func() error { _, err := s.Propose(ctx, q); return err }) })
		}
		propose := func() int64 {
			id, err := s.Propose(ctx, p)
			must(t, err)
			return id
		}
		say := func(v state.Verdict, by string, after time.Duration) state.Decision {
			return state.Decision{Verdict: v, By: by, At: t0.Add(after), Note: "because"}
		}
		id := propose()
		for name, x := range map[string]state.Decision{
			"oneself": say(state.Approved, "sato", 1), "oneself in disguise": say(state.Approved, " SATO ", 1), "the program": say(state.Approved, state.Program, 1),
			"nobody": say(state.Approved, "", 1), "too late": say(state.Approved, "suzuki", time.Hour), "too early": say(state.Approved, "suzuki", -1),
			"no verdict": say("maybe", "suzuki", 1), "no reason": {Verdict: state.Approved, By: "suzuki", At: t0 + 1},
		} {
			t.Run(name, func(t *testing.T) { refused(t, func() error { _, err := s.Decide(ctx, id, x); return err }) })
		}
		if a, err := s.Approval(ctx, id); err != nil || a.State(t0) != state.Proposed || !reflect.DeepEqual(a.Proposal, p) || len(a.Decisions) != 0 {
			t.Errorf("%+v, %v", a, err)
		}
		// Of many at once one decides.
		var people sync.WaitGroup
		var decided atomic.Int64
		for i := range 8 {
			people.Go(func() {
				v := []state.Verdict{state.Approved, state.Refused}[i%2]
				if _, err := s.Decide(ctx, id, say(v, fmt.Sprint("person ", i), 1)); err == nil {
					decided.Add(1)
				} else if no := new(state.RefusedError); !errors.As(err, &no) {
					t.Error(err)
				}
			})
		}
		people.Wait()
		if a, err := s.Approval(ctx, id); err != nil || decided.Load() != 1 || len(a.Decisions) != 1 {
			t.Errorf("%d decided; %+v, %v", decided.Load(), a, err)
		}
		// What was approved can be withdrawn, by anybody, and then is over.
		id = propose()
		_, err := s.Decide(ctx, id, say(state.Approved, "suzuki", 1))
		must(t, err)
		a, err := s.Approval(ctx, id)
		if err != nil || a.State(t0+2) != state.Approved || a.State(p.Expires) != state.Expired {
			t.Errorf("%+v, %v", a, err)
		}
		_, err = s.Decide(ctx, id, say(state.Withdrawn, "sato", 2))
		must(t, err)
		refused(t, func() error { _, err := s.Decide(ctx, id, say(state.Approved, "suzuki", 3)); return err })
		if a, err := s.Approval(ctx, id); err != nil || a.State(p.Expires) != state.Withdrawn || len(a.Decisions) != 2 {
			t.Errorf("%+v, %v", a, err)
		}
		list, err := s.Approvals(ctx, 0, 1)
		if err != nil || len(list) != 1 || list[0].ID != id {
			t.Errorf("%+v, %v", list, err)
		}
		if list, err = s.Approvals(ctx, id, 10); err != nil || len(list) != 1 || list[0].ID >= id {
			t.Errorf("the next page: %+v, %v", list, err)
		}
		for _, none := range []int64{0, 1 << 40} {
			if _, err := s.Approval(ctx, none); !errors.Is(err, state.ErrNone) {
				t.Errorf("no such approval: %v", err)
			}
			if _, err := s.Decide(ctx, none, say(state.Approved, "suzuki", 1)); !errors.Is(err, state.ErrNone) {
				t.Errorf("no such approval: %v", err)
			}
		}
	})

	t.Run("the last word on consent counts", func(t *testing.T) {
		given := state.Consent{Line: "FTTH-0001", Purpose: "dns.cc", Given: true, Basis: state.Terms, Version: "2026-04", Scope: "names of C&C servers", At: t0, Channel: "web", By: "sato"}
		if _, err := s.Consent(ctx, given.Line, given.Purpose); !errors.Is(err, state.ErrNone) {
			t.Errorf("nobody asked: %v", err)
		}
		for name, change := range map[string]func(*state.Consent){
			"no line": func(c *state.Consent) { c.Line = "" }, "no purpose": func(c *state.Consent) { c.Purpose = "" }, "no basis": func(c *state.Consent) { c.Basis = "business" },
			"no version": func(c *state.Consent) { c.Version = "" }, "no time": func(c *state.Consent) { c.At = 0 }, "no channel": func(c *state.Consent) { c.Channel = "" },
			"nobody": func(c *state.Consent) { c.By = "" }, "a hostile line": func(c *state.Consent) { c.Line = "x\x00" },
		} {
			c := given
			change(&c)
			t.Run(name, func(t *testing.T) { refused(t, func() error { _, err := s.Record(ctx, c); return err }) })
		}
		record := func(c state.Consent) {
			t.Helper()
			id, err := s.Record(ctx, c)
			must(t, err)
			c.ID = id
			if got, err := s.Consent(ctx, c.Line, c.Purpose); err != nil || got != c {
				t.Errorf("got %+v, %v; want %+v", got, err, c)
			}
		}
		record(given)
		other, stranger := given, given
		other.Purpose, stranger.Line = "dns.cc.analysis", "FTTH-0002"
		record(other)
		record(stranger)
		record(state.Consent{Line: given.Line, Purpose: given.Purpose, At: t0 + 1, Channel: "telephone", By: "suzuki"})
		record(state.Consent{Line: "FTTH-0003", Purpose: given.Purpose, At: t0 + 1, Channel: "web", By: "suzuki"}) // opts out of what it was never asked
		c, err := s.Consent(ctx, given.Line, given.Purpose)
		if err != nil || c.Allows("2026-04") {
			t.Errorf("withdrawn: %+v, %v", c, err)
		}
		for _, o := range []state.Consent{other, stranger} {
			c, err := s.Consent(ctx, o.Line, o.Purpose)
			if err != nil || !c.Allows("2026-04") || c.Allows("2026-05") || c.Allows("") {
				t.Errorf("%+v, %v", c, err)
			}
		}
		if list, err := s.Consents(ctx, given.Line); err != nil || len(list) != 3 || list[2].Given {
			t.Errorf("%+v, %v", list, err)
		}
	})

	t.Run("each change is in the chain", func(t *testing.T) {
		in := Incident(30)
		must(t, s.Save(ctx, []*incident.Incident{in}))
		in.Members++
		for range 3 {
			must(t, s.Save(ctx, []*incident.Incident{in})) // figures, and nobody's decision
		}
		must(t, in.Move(incident.New, incident.Step{At: t0, By: "sato", To: incident.Acknowledged}))
		must(t, in.Move(incident.Acknowledged, incident.Step{At: t0, By: "suzuki", To: incident.Closed, Reason: incident.True, Note: "\xff\x00"}))
		must(t, s.Save(ctx, []*incident.Incident{in}))
		must(t, s.Save(ctx, []*incident.Incident{in}))
		_, err := s.Move(ctx, in.ID, incident.Closed, incident.Step{At: t0, By: "tanaka\x00\xff", To: incident.Acknowledged})
		must(t, err)
		moved, err := s.Incident(ctx, in.ID)
		must(t, err)
		moved.Ended = true
		must(t, s.Save(ctx, []*incident.Incident{moved}))
		moved.Merged = &finding.ID{7}
		must(t, s.Save(ctx, []*incident.Incident{moved}))
		must(t, s.Append(ctx, "sato", "identity.read", "incident/"+in.ID.String(), map[string]string{"purpose": "notice"}))
		rows, err := s.Audit(ctx, "incident/"+in.ID.String(), 0, 100)
		must(t, err)
		var got []string
		for i := len(rows) - 1; i >= 0; i-- {
			got = append(got, rows[i].Actor+" "+rows[i].Action)
		}
		want := []string{"noroshi incident.opened", "sato incident.moved", "suzuki incident.moved", "tanaka\ufffd\ufffd incident.moved", "noroshi incident.ended", "noroshi incident.merged", "sato identity.read"}
		if !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		if page, err := s.Audit(ctx, "incident/"+in.ID.String(), rows[2].Seq, 2); err != nil || !reflect.DeepEqual(page, rows[3:5]) {
			t.Errorf("the next page: %v, %v", page, err)
		}
		if rows, err := s.Audit(ctx, "' OR 1=1 --\x00", 0, 10); err != nil || len(rows) != 0 {
			t.Errorf("%v, %v", rows, err)
		}
		refused(t, func() error { return s.Append(ctx, "", "identity.read", "x", nil) })
		// What fails is in it neither.
		before, err := s.Verify(ctx)
		must(t, err)
		if _, err := s.Move(ctx, in.ID, incident.New, incident.Step{}); err == nil {
			t.Error("an impossible step was taken")
		}
		refused(t, func() error { return s.RemoveException(ctx, 1, "") })
		after, err := s.Verify(ctx, before.Head)
		if err != nil || after.Broken != nil || after.Head != before.Head {
			t.Errorf("%+v, %v", after, err)
		}
	})

	t.Run("hostile text", func(t *testing.T) {
		for i, text := range []string{"\x00", "a\x00b", "\xff\xfe", "'; DROP TABLE incidents; --", "$1 ? :x @y %s %d", "\u202e\u0000\U0010ffff", strings.Repeat("長", 20000), `\u0000"\`} {
			in := Incident(100 + i)
			in.Kind, in.Family, in.Title.En, in.Cause.Key = fmt.Sprint(i, text), text, text, text
			in.NewMembers = Members(50000+i, 1)
			in.NewMembers[0].Role, in.NewMembers[0].Network = "bot", text
			must(t, in.Move(incident.New, incident.Step{At: t0, By: text, To: incident.Acknowledged, Note: text}))
			must(t, s.Save(ctx, []*incident.Incident{in}))
			got, err := s.Incident(ctx, in.ID)
			must(t, err)
			var want incident.Incident
			must(t, json.Unmarshal([]byte(asJSON(t, in)), &want)) // what JSON can hold of it
			if a, b := asJSON(t, got), asJSON(t, &want); a != b {
				t.Errorf("%.20q came back as %.200s", text, a)
			}
			if list, err := s.Incidents(ctx, state.Filter{Kind: in.Kind}); err != nil || len(list) != 1 || list[0].ID != in.ID {
				t.Errorf("%.20q: %d incidents, %v", text, len(list), err)
			}
			if m, err := s.Members(ctx, in.ID, incident.Member{}, 10); err != nil || len(m) != 1 {
				t.Errorf("%.20q: %v, %v", text, m, err)
			}
			e := incident.Exception{Key: text, Owner: "sato", Note: text, Expires: t0}
			if e.ID, err = s.AddException(ctx, e); err != nil {
				t.Errorf("%.20q: %v", text, err)
			}
			list, err := s.Exceptions(ctx)
			if err != nil || len(list) != 1 || list[0].Key != strings.ToValidUTF8(text, "\ufffd") && utf8.ValidString(text) {
				t.Errorf("%.20q: %+v, %v", text, list, err)
			}
			must(t, s.RemoveException(ctx, e.ID, "sato"))
		}
		verified(t, s)
	})

	t.Run("many at once", func(t *testing.T) {
		var people sync.WaitGroup
		for i := range 4 {
			people.Go(func() {
				for n := range 10 {
					in := Incident(200 + 10*i + n)
					in.NewMembers = Members(60000+i, 2) // the same hosts again and again
					if err := s.Save(ctx, []*incident.Incident{in}); err != nil {
						t.Error(err)
					}
					if _, err := s.AddNote(ctx, state.Note{Incident: in.ID, At: t0, By: "sato", Text: "x"}); err != nil {
						t.Error(err)
					}
					if _, err := s.Incidents(ctx, state.Filter{Limit: 5}); err != nil {
						t.Error(err)
					}
					if r, err := s.Verify(ctx); err != nil || r.Broken != nil {
						t.Errorf("while others write: %v, %v", r.Broken, err)
					}
				}
			})
		}
		people.Wait()
		verified(t, s)
	})

	t.Run("what is old is forgotten, what was decided is not", func(t *testing.T) {
		old := t0.Add(-1000 * time.Hour)
		make := func(n int, change func(in *incident.Incident)) finding.ID {
			in := Incident(n)
			in.Last, in.Ended, in.Evidence, in.NewMembers = old, true, []string{"a packet"}, Members(70000+n, 3)
			must(t, in.Move(incident.New, incident.Step{At: t0, By: "sato", To: incident.Closed, Reason: incident.True, Note: "cleaned"}))
			change(in)
			must(t, s.Save(ctx, []*incident.Incident{in}))
			return in.ID
		}
		var gone []finding.ID
		for n := range 45 { // more than one transaction takes
			gone = append(gone, make(300+n, func(*incident.Incident) {}))
		}
		stay := []finding.ID{
			make(400, func(in *incident.Incident) { in.Last = t0 }),
			make(401, func(in *incident.Incident) { in.Ended = false }),
			make(402, func(in *incident.Incident) {
				must(t, in.Move(incident.Closed, incident.Step{At: t0, By: "sato", To: incident.Acknowledged}))
			}),
		}
		n, err := s.Prune(ctx, t0.Add(-time.Hour))
		if err != nil || n != len(gone) {
			t.Errorf("%d, %v; want %d", n, err, len(gone))
		}
		if n, err := s.Prune(ctx, t0.Add(-time.Hour)); err != nil || n != 0 {
			t.Errorf("again: %d, %v", n, err)
		}
		look := func(id finding.ID) (members, evidence, history int) {
			in, err := s.Incident(ctx, id)
			must(t, err)
			m, err := s.Members(ctx, id, incident.Member{}, 10)
			must(t, err)
			return len(m), len(in.Evidence), len(in.History)
		}
		for _, id := range gone {
			if m, e, h := look(id); m != 0 || e != 0 || h != 1 {
				t.Errorf("%v: %d members, %d pieces of evidence, %d steps", id, m, e, h)
			}
		}
		for _, id := range stay {
			if m, e, h := look(id); m != 3 || e != 1 || h == 0 {
				t.Errorf("%v was to stay: %d members, %d pieces of evidence, %d steps", id, m, e, h)
			}
		}
		if rows, err := s.Audit(ctx, "state", 0, 3); err != nil || len(rows) != 3 || rows[0].Action != "state.pruned" {
			t.Errorf("%v, %v", rows, err)
		}
		verified(t, s)
	})

	t.Run("the chain survives closing", func(t *testing.T) {
		before := verified(t, s)
		must(t, s.Close())
		s = open(t)
		r, err := s.Verify(ctx, before.Head)
		if err != nil || r.Broken != nil || r != before {
			t.Errorf("%+v, %v; want %+v", r, err, before)
		}
		if before.Rows < 100 || before.Records < 50 || before.Incidents < 50 {
			t.Errorf("%+v: too little was verified", before)
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

// verified returns what Verify says, which must be that all is well.
func verified(t *testing.T, s state.Store) state.Report {
	t.Helper()
	r, err := s.Verify(context.Background())
	if err != nil || r.Broken != nil {
		t.Fatalf("%v, %v", r.Broken, err)
	}
	return r
}

// refused complains unless f is refused for what it was given.
func refused(t *testing.T, f func() error) {
	t.Helper()
	if no := new(state.RefusedError); !errors.As(f(), &no) {
		t.Errorf("not refused: %v", f())
	}
}

// object is the name of the n-th incident in the audit chain.
func object(n int) string { return "incident/" + Incident(n).ID.String() }

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
