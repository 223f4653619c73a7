package incident

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"noroshi/finding"
)

// Random findings that change their cause, their rule and their mind, with
// merges, moves, restarts and silences: the books stay in order after every one.
func TestRandom(t *testing.T) {
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		cfg := Config{Burst: 10, PerHour: 100}
		if seed%4 == 0 {
			cfg.MaxMembers = 7
		}
		c := NewCorrelator(cfg)
		var list []*finding.Finding // the latest of each
		stored := map[finding.ID]map[memberKey]Member{}
		bodies := map[finding.ID][]byte{}
		now := 10.0
		save := func() {
			for _, in := range c.Changes() {
				b, err := json.Marshal(in)
				if err != nil || !json.Valid(b) {
					t.Fatalf("seed %d: %v: %s", seed, err, b)
				}
				bodies[in.ID] = b
				if stored[in.ID] == nil {
					stored[in.ID] = map[memberKey]Member{}
				}
				for _, gone := range []bool{true, false} {
					for _, m := range in.NewMembers {
						if k := (memberKey{m.Addr, m.Port}); m.Gone && gone {
							delete(stored[in.ID], k)
						} else if !m.Gone && !gone {
							stored[in.ID][k] = m
						}
					}
				}
				if in.Merged == nil && int(in.Members) != len(stored[in.ID]) {
					t.Fatalf("seed %d: %s has %d members, the store %d", seed, in.Title.En, in.Members, len(stored[in.ID]))
				}
				if in.Active > in.Members && in.Findings == uint64(len(list)) {
					t.Fatalf("seed %d: %d active of %d", seed, in.Active, in.Members)
				}
				if in.Title.En == "" || in.Title.Ja == "" {
					t.Fatalf("seed %d: no title: %+v", seed, in)
				}
			}
		}
		for step := range 300 {
			now += rnd.Float64() * 20
			switch n := rnd.IntN(100); {
			case n < 25 && len(list) > 0: // one goes on, ends, or turns out to be another
				f := *list[rnd.IntN(len(list))]
				if at(now).Sub(f.Last) > 6*3600e9 {
					continue // a detector has ended it long ago
				}
				f.Said, f.Last, f.Ended = at(now), at(now), rnd.IntN(3) == 0
				if rnd.IntN(3) == 0 && f.Rule != "flood.inbound" {
					key := fmt.Sprintf("family%d/23/homes", rnd.IntN(4))
					f.Cause.Key, f.Family = key, key[:7]
				}
				i := slices.IndexFunc(list, func(l *finding.Finding) bool { return l.ID == f.ID })
				list[i] = &f
				copied := f
				c.Add(&copied)
			case n < 60:
				f := bot(nth(rnd.IntN(30)), fmt.Sprintf("family%d/23/homes", rnd.IntN(4)), now)
				f.Subject.Port = uint16(rnd.IntN(2)) * 4000
				if rnd.IntN(8) == 0 {
					f.Rule, f.Subject.Role, f.Cause.Key = "iotbot.c2", "c2", "c2/"+f.Subject.String()
					f.Peers = []finding.Subject{finding.Host(nth(rnd.IntN(30)), "bot", "")}
				}
				if !slices.ContainsFunc(list, func(l *finding.Finding) bool { return l.ID == f.ID }) {
					list = append(list, f)
				}
				copied := *f
				c.Add(&copied)
			case n < 80:
				target := fmt.Sprintf("10.0.%d.%d", rnd.IntN(4), rnd.IntN(3))
				if rnd.IntN(4) == 0 {
					target = netip.PrefixFrom(netip.MustParseAddr(target), 22+rnd.IntN(3)).Masked().String()
				}
				f := flood("flood.inbound", target, []string{"udp", "syn"}[rnd.IntN(2)], now)
				for i := range rnd.IntN(5) {
					f.Members = append(f.Members, nth(i))
				}
				list = append(list, f)
				copied := *f
				c.Add(&copied)
			case n < 83:
				now += 7 * 3600 * rnd.Float64() * 1.5
				c.Advance(at(now))
			case n < 86: // a restart
				save()
				next := NewCorrelator(cfg)
				for id := range c.groups {
					in := new(Incident)
					if err := json.Unmarshal(bodies[id], in); err != nil {
						t.Fatal(err)
					}
					var members []Member
					for _, m := range stored[id] {
						m.new, m.held = false, 0
						members = append(members, m)
					}
					next.Load(in, slices.Values(members))
				}
				c, list = next, nil // detectors begin anew
			case n < 90:
				for id, g := range c.groups {
					_, _ = c.Move(id, g.in.State, Step{At: at(now), By: "sato", To: Closed, Reason: True, Note: "n"})
					break
				}
			case n < 95:
				c.sweep()
			default:
				save()
			}
			inOrder(t, c, list, fmt.Sprintf("seed %d, step %d", seed, step))
		}
		save()
	}
}

// inOrder checks that the Correlator's tables agree with each other.
func inOrder(t *testing.T, c *Correlator, list []*finding.Finding, when string) {
	t.Helper()
	for id, g := range c.findings {
		if c.groups[g.in.ID] != g {
			t.Fatalf("%s: a finding is in an incident that is gone", when)
		}
		if _, known := g.findings[id]; !known {
			t.Fatalf("%s: the incident doesn't know its finding", when)
		}
		i := slices.IndexFunc(list, func(f *finding.Finding) bool { return f.ID == id })
		if s := list[i].Subject; s.IsHost() && list[i].Rule != "flood.inbound" && len(g.members) < c.cfg.MaxMembers && c.stats.Uncounted == 0 && g.members[memberKey{s.Addr, s.Port}] == nil {
			t.Fatalf("%s: %v is no member of its incident", when, s)
		}
	}
	for a, g := range c.bots {
		if c.groups[g.in.ID] != g {
			t.Fatalf("%s: bot %v is in an incident that is gone", when, a)
		}
	}
	for cause, g := range c.causes {
		if c.groups[g.in.ID] != g {
			t.Fatalf("%s: cause %v is of an incident that is gone", when, cause)
		}
	}
	for _, g := range c.groups {
		live, rules := 0, map[string]int{}
		for _, k := range g.findings {
			rules[k.rule]++
			if !k.ended {
				live++
			}
		}
		if g.live != live {
			t.Fatalf("%s: %d findings go on, %d are counted", when, live, g.live)
		}
		for _, l := range g.leads {
			if _, known := g.findings[l.ID]; !known && !l.Ended && g.in.Cause != overflowing {
				t.Fatalf("%s: the incident is led by a finding it hasn't", when)
			}
		}
		if len(g.members) > c.cfg.MaxMembers || len(g.subjects) > MaxSubjects || len(g.subject) != len(g.subjects) {
			t.Fatalf("%s: %d members, %d subjects", when, len(g.members), len(g.subjects))
		}
	}
}

// An exception for some addresses doesn't cover a network of which they are part.
func TestExceptionNarrow(t *testing.T) {
	c := NewCorrelator(Config{})
	c.Except([]Exception{{Subject: netip.MustParsePrefix("10.0.0.0/24"), Owner: "o", Note: "n", Expires: at(100)}})
	if !c.Add(flood("flood.inbound", "10.0.0.0/22", "udp", 1)) {
		t.Error("a /24 covers a /22")
	}
	if c.Add(flood("flood.inbound", "10.0.0.64/26", "udp", 1)) {
		t.Error("a /24 doesn't cover a /26 in it")
	}
}

// After a restart a flood's incident still holds the whole prefix.
func TestLoadPrefix(t *testing.T) {
	c := NewCorrelator(Config{})
	in := incidents(c, flood("flood.inbound", "10.0.0.1", "udp", 1), flood("flood.inbound", "10.0.0.0/22", "udp", 4))[0]
	c = NewCorrelator(Config{})
	c.Load(in, slices.Values(in.NewMembers))
	if opened := c.Add(flood("flood.inbound", "10.0.3.9", "udp", 60)); opened {
		t.Error("a host of the prefix opens an incident")
	}
}

// What a detector says last of a host that was silent for hours opens nothing.
func TestLastWord(t *testing.T) {
	c := NewCorrelator(Config{Gap: time.Hour})
	f := bot(nth(1), "mirai/23/homes", 10)
	first := *f
	c.Add(&first)
	c.Advance(at(10 + 3601))
	f.Ended = true
	if opened := c.Add(f); opened || c.Stats().Open != 0 {
		t.Error("a host that stopped an hour ago opens an incident")
	}
}

// A host that turns out to be of another cause takes its incident with it while it
// is alone in it, and otherwise gets one with an ID of its own.
func TestLeadLeaves(t *testing.T) {
	c := NewCorrelator(Config{})
	f := bot(nth(1), "mirai//homes", 10)
	add := func(key string) {
		g := *f
		g.Cause.Key = key
		c.Add(&g)
	}
	add("mirai//homes")
	add("mirai/telnet/homes")
	if got := c.Changes(); len(got) != 1 || got[0].Cause.Key != "mirai/telnet/homes" || got[0].State != New || got[0].Members != 1 || c.Stats().Open != 1 {
		t.Fatalf("alone: %+v", got)
	}
	c.Add(bot(nth(2), "mirai/telnet/homes", 11))
	add("mirai/tr069/homes")
	got := c.Changes()
	if len(got) != 2 || got[0].ID == got[1].ID || got[0].Members != 1 || got[1].Members != 1 || c.Stats().Open != 2 {
		t.Fatalf("from a fleet: %+v", got)
	}
}

// After a restart one host that turns out to be of another cause doesn't take the
// fleet with it, and a lower bound on members is no crash.
func TestLoadThenLeave(t *testing.T) {
	c := NewCorrelator(Config{})
	for i := range 100 {
		c.Add(bot(nth(i), "mirai/23/homes", 10))
	}
	in := c.Changes()[0]
	c = NewCorrelator(Config{MaxMembers: 50})
	c.Load(in, slices.Values(in.NewMembers))
	f := bot(nth(7), "mirai/23/homes", 20)
	first := *f
	c.Add(&first)
	f.Cause.Key = "mirai/2323/homes"
	c.Add(f)
	for _, got := range c.Changes() {
		switch got.ID {
		case in.ID:
			if got.Merged != nil || got.State == Closed || got.Findings != 100 || got.Members != 50 {
				t.Errorf("%+v", got)
			}
		default:
			if got.Members != 1 {
				t.Errorf("%+v", got)
			}
		}
	}
}

// A host that begins again for months is one member, and its findings are not
// kept for ever.
func TestEndlessFindings(t *testing.T) {
	c := NewCorrelator(Config{})
	for i := range 3 * minSweep {
		f := bot(nth(i%10), "mirai/23/homes", float64(10+i))
		f.Ended = true
		c.Add(f)
	}
	if n := len(c.findings); n > minSweep {
		t.Errorf("%d findings are held", n)
	}
	if in := c.Changes()[0]; in.Members != 10 || in.Findings != 3*minSweep {
		t.Errorf("%d members, %d findings", in.Members, in.Findings)
	}
}
