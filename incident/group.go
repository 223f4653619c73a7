package incident

import (
	"cmp"
	"iter"
	"slices"
	"time"

	"noroshi/event"
	"noroshi/finding"
)

type iterMembers = iter.Seq[Member]

// group is an incident at work.
type group struct {
	in     Incident
	causes []finding.Cause
	dirty  bool

	findings map[finding.ID]known
	joinedAs map[finding.ID]finding.Cause // of those whose cause is not the incident's
	live     int                          // findings that have not
	leads    []*finding.Finding           // the best finding of each rule and family
	counts   []ruleCount

	members map[memberKey]*Member
	joined  []*Member // new or changed since the last copy

	subjects []finding.Subject // the first ones, in the order they came
	subject  map[subjectKey]int

	activeAt  event.Time // when Active was worked out
	activeFor int        // and for how many members
}

// known is what is remembered of a finding.
type known struct {
	rule  string
	ended bool
}

type memberKey struct {
	addr event.Addr
	port uint16
}

type subjectKey struct {
	addr event.Addr
	bits uint8
	port uint16
	name string
}

type ruleCount struct {
	rule string
	n    int
}

// add takes f into the incident and reports whether it was not known before.
func (g *group) add(f *finding.Finding, c *Correlator) (isNew bool) {
	was, again := g.findings[f.ID]
	g.findings[f.ID] = known{f.Rule, f.Ended}
	switch {
	case !f.Ended && (!again || was.ended):
		g.live++
	case f.Ended && again && !was.ended:
		g.live--
	}
	in := &g.in
	if again {
		g.count(was.rule, -1)
	} else {
		in.Findings++
	}
	g.count(f.Rule, 1)
	if in.First == 0 || f.First < in.First {
		in.First = f.First
	}
	in.Last = max(in.Last, f.Last)
	in.Severity = max(in.Severity, f.Severity)
	in.Confidence = max(in.Confidence, f.Confidence)
	in.Ended = g.live == 0
	in.Attack = union(in.Attack, f.Attack)
	in.Requirements = union(in.Requirements, f.Requirements)
	g.lead(f)
	g.addSubject(f.Subject)
	g.addMembers(f, !again, c)
	return !again
}

// drop takes out f, of which more evidence showed that it belongs elsewhere.
func (g *group) drop(f *finding.Finding) {
	was := g.findings[f.ID]
	if !was.ended {
		g.live--
	}
	delete(g.findings, f.ID)
	delete(g.joinedAs, f.ID)
	g.in.Findings--
	g.count(was.rule, -1)
	g.leads = slices.DeleteFunc(g.leads, func(l *finding.Finding) bool { return l.ID == f.ID })
	g.in.Ended = g.live == 0
	m := g.members[memberKey{f.Subject.Addr, f.Subject.Port}]
	if m != nil {
		if m.held--; m.held > 0 {
			return // another finding is about it
		}
		delete(g.members, memberKey{f.Subject.Addr, f.Subject.Port})
		m.Gone = true
		if !m.new {
			m.new = true
			g.joined = append(g.joined, m)
		}
	}
	key := subjectKey{f.Subject.Addr, f.Subject.Bits, f.Subject.Port, ""}
	if i, known := g.subject[key]; known {
		g.subjects = slices.Delete(g.subjects, i, i+1)
		delete(g.subject, key)
		for k, j := range g.subject {
			if j > i {
				g.subject[k] = j - 1
			}
		}
	}
}

// count adds n findings of a rule.
func (g *group) count(rule string, n int) {
	for i := range g.counts {
		if g.counts[i].rule == rule {
			g.counts[i].n += n
			return
		}
	}
	g.counts = append(g.counts, ruleCount{rule, n})
}

// lead keeps f if it is the best of its rule and family so far, or the one that
// was, updated.
func (g *group) lead(f *finding.Finding) {
	for i, l := range g.leads {
		if l.Rule == f.Rule && l.Family == f.Family {
			if l.ID == f.ID || weightier(f, l) < 0 {
				g.leads[i] = f
			}
			return
		}
	}
	if len(g.leads) < MaxVectors {
		g.leads = append(g.leads, f)
	}
}

// weightier orders findings by what they say, most first.
func weightier(a, b *finding.Finding) int {
	return cmp.Or(
		-cmp.Compare(a.Severity, b.Severity),
		-cmp.Compare(a.Confidence, b.Confidence),
		-cmp.Compare(a.Samples, b.Samples),
		InOrder(a, b),
	)
}

func (g *group) addSubject(s finding.Subject) {
	key := subjectKey{s.Addr, s.Bits, s.Port, ""}
	if s.Addr == (event.Addr{}) {
		key.name = s.Network
	}
	if i, known := g.subject[key]; known {
		g.subjects[i] = s
		return
	}
	if g.subject == nil {
		g.subject = map[subjectKey]int{}
	}
	if len(g.subjects) < MaxSubjects {
		g.subject[key] = len(g.subjects)
		g.subjects = append(g.subjects, s)
	}
}

// addMembers notes who takes part: those the finding lists, else its subject.
func (g *group) addMembers(f *finding.Finding, fresh bool, c *Correlator) {
	m := Member{First: f.First, Last: f.Last, Ended: f.Ended, Role: f.Subject.Role}
	if len(f.Members) == 0 {
		if f.Subject.IsHost() {
			m.Addr, m.Port, m.Network = f.Subject.Addr, f.Subject.Port, f.Subject.Network
			if fresh {
				m.held = 1
			}
			g.member(m, c)
		}
		return
	}
	m.Role = "sender"
	if len(f.Peers) > 0 {
		m.Role = f.Peers[0].Role
	}
	for _, a := range f.Members {
		m.Addr = a
		g.member(m, c)
	}
}

// member takes m in, or extends what is known of it.
func (g *group) member(m Member, c *Correlator) {
	key := memberKey{m.Addr, m.Port}
	old := g.members[key]
	if old == nil {
		if len(g.members) >= c.cfg.MaxMembers {
			c.stats.Uncounted++
			return
		}
		old = &m
		g.members[key] = old
	} else {
		old.held += m.held
		if m.First >= old.First && m.Last <= old.Last && m.Ended == old.Ended {
			return
		}
		old.First, old.Last, old.Ended = min(old.First, m.First), max(old.Last, m.Last), m.Ended
	}
	if !old.new {
		old.new = true
		g.joined = append(g.joined, old)
	}
}

// reopen takes a closed incident up again because its cause came back.
func (g *group) reopen(f *finding.Finding) {
	if g.in.State == Closed {
		_ = g.in.Move(Closed, Step{At: f.Said, By: byProgram, To: Acknowledged, Note: "it came back: " + f.Title.En})
	}
}

func (g *group) relate(id finding.ID) {
	if len(g.in.Related) < MaxRelated && !slices.Contains(g.in.Related, id) {
		g.in.Related = append(g.in.Related, id)
	}
}

// copy returns the incident as it stands.
func (g *group) copy(now event.Time) *Incident {
	in := &g.in
	in.Members = uint64(len(g.members))
	if in.SubjectCount = uint64(len(g.subjects)); len(g.subjects) == MaxSubjects {
		in.SubjectCount = max(in.SubjectCount, in.Members)
	}
	if n := len(g.members); n != g.activeFor && (n <= 1<<15 || now.Sub(g.activeAt) > 10*time.Second) {
		g.activeAt, g.activeFor = now, n
		in.Active = max(in.Active, peak(g.members, now))
	}
	g.explain()
	out := *in
	out.Subjects, out.Peers = slices.Clone(in.Subjects), slices.Clone(in.Peers)
	out.Related, out.History = slices.Clone(in.Related), slices.Clone(in.History)
	out.NewMembers = make([]Member, len(g.joined))
	for i, m := range g.joined {
		m.new = false
		out.NewMembers[i] = *m
	}
	g.joined = g.joined[:0]
	return &out
}

// settle is how long it takes until it is known that a member has stopped: a
// router's report of its last flow, and then silence.
const settle = 30 * time.Second

// peak returns the most members that were active at one moment. One that has not
// ended is taken to be active until a little before now, because a device that
// has just moved to another address must not be counted at both.
func peak(members map[memberKey]*Member, now event.Time) uint64 {
	type edge struct {
		at event.Time
		up int
	}
	edges := make([]edge, 0, 2*len(members))
	for _, m := range members {
		end := m.Last
		if !m.Ended {
			end = max(end, now.Add(-settle))
		}
		edges = append(edges, edge{m.First, +1}, edge{end + 1, -1})
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.up, b.up)) })
	n, most := 0, 0
	for _, e := range edges {
		n += e.up
		most = max(most, n)
	}
	return uint64(most)
}

// union returns the sorted union of a sorted list and another.
func union(a, b []string) []string {
	for _, s := range b {
		if i, found := slices.BinarySearch(a, s); !found {
			a = slices.Insert(slices.Clone(a), i, s)
		}
	}
	return a
}
