package incident

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"noroshi/event"
	"noroshi/finding"
)

// Config are the knobs of a Correlator. The zero Config has the defaults.
type Config struct {
	// Gap is how long a cause may be silent and still be the same incident.
	// 0 means 6 h.
	Gap time.Duration
	// Burst is how many incidents may be opened at once, PerHour how many more
	// each hour of event time allows. What exceeds them is counted in one
	// incident. 0 means 60 each.
	Burst, PerHour int
	// MaxMembers is how many members of one incident are told apart; more are
	// not counted. 0 means 1,048,576, about 150 MB.
	MaxMembers int
}

func (c Config) withDefaults() Config {
	c.Gap = cmp.Or(c.Gap, 6*time.Hour)
	c.Burst = cmp.Or(c.Burst, 60)
	c.PerHour = cmp.Or(c.PerHour, 60)
	c.MaxMembers = cmp.Or(c.MaxMembers, 1<<20)
	return c
}

// Correlator holds the open incidents. It is for one goroutine at a time.
type Correlator struct {
	cfg Config
	now event.Time

	groups    map[finding.ID]*group    // by incident
	causes    map[finding.Cause]*group // an incident may have several after a merge
	findings  map[finding.ID]*group
	bots      map[event.Addr]*group // members of botnets' incidents
	announced map[event.Addr]*group // victims named by an attack command
	changed   []*group              // in the order they changed; see group.dirty

	exceptions []Exception

	allowance float64 // incidents that may be opened now
	refilled  event.Time

	sweepAt int // findings at which those that ended are forgotten

	stats Stats
}

// Stats are counters since the start.
type Stats struct {
	Findings   uint64 // reported to Add
	Opened     uint64 // incidents
	Suppressed uint64 // findings an exception covers
	Overflowed uint64 // findings that could not open an incident
	Uncounted  uint64 // members beyond Config.MaxMembers
	Open       int    // incidents held
}

// NewCorrelator returns a Correlator without incidents.
func NewCorrelator(cfg Config) *Correlator {
	cfg = cfg.withDefaults()
	return &Correlator{
		cfg:       cfg,
		groups:    map[finding.ID]*group{},
		causes:    map[finding.Cause]*group{},
		findings:  map[finding.ID]*group{},
		bots:      map[event.Addr]*group{},
		announced: map[event.Addr]*group{},
		allowance: float64(cfg.Burst),
		sweepAt:   minSweep,
	}
}

// Stats returns the counters.
func (c *Correlator) Stats() Stats {
	s := c.stats
	s.Open = len(c.groups)
	return s
}

// Add takes f into the incident it belongs to and reports whether that is a
// new one. The Correlator owns f from then on.
//
// Findings may come in any order. IDs of incidents are those of the findings
// that opened them, so whoever wants the same IDs in every run adds findings in
// the order of [InOrder].
func (c *Correlator) Add(f *finding.Finding) (opened bool) {
	c.stats.Findings++
	c.now = max(c.now, f.Said)
	if c.excepted(f) {
		c.stats.Suppressed++
		return false
	}
	if f.Ended && c.findings[f.ID] == nil && c.now.Sub(f.Last) > c.cfg.Gap {
		return false // the last word on what was silent for so long that its incident is over
	}
	left := c.leave(f)
	g := c.home(f)
	if g == nil && left != nil && left.in.Findings == 0 {
		g = left // nobody else is in it: it goes on under the other cause
		c.rename(g, f.Cause)
	}
	if g == nil {
		if g, opened = c.open(f); !opened {
			c.stats.Overflowed++
			g.overflow(f)
			c.touch(g)
			return false
		}
	}
	if left != nil && left != g && left.in.Findings == 0 { // those of before a restart count too
		c.dissolve(left, g)
	}
	c.findings[f.ID] = g
	if !slices.Contains(g.causes, f.Cause) { // by rule 4
		g.joinedAs[f.ID] = f.Cause
	}
	if g.add(f, c) && g != left {
		g.reopen(f)
	}
	c.link(g, f)
	c.touch(g)
	f.Members = nil // they are the incident's now; f may stay as its lead
	if len(c.findings) > c.sweepAt {
		c.sweep()
	}
	return opened
}

// sweep forgets findings that have ended. A detector that goes on begins another.
func (c *Correlator) sweep() {
	for id, g := range c.findings {
		if g.findings[id].ended {
			delete(c.findings, id)
			delete(g.findings, id)
			delete(g.joinedAs, id)
		}
	}
	c.sweepAt = max(minSweep, 2*len(c.findings))
}

// minSweep is how many findings are held before those that ended are forgotten.
const minSweep = 1 << 17

// InOrder is the order in which findings were said.
func InOrder(a, b *finding.Finding) int {
	return cmp.Or(cmp.Compare(a.Said, b.Said), bytes.Compare(a.ID[:], b.ID[:]))
}

// home returns the incident f belongs to by the rules of the package comment,
// or nil.
func (c *Correlator) home(f *finding.Finding) *group {
	if g := c.findings[f.ID]; g != nil {
		return g
	}
	if g := c.causes[f.Cause]; g != nil {
		if f.First.Sub(g.in.Last) <= c.cfg.Gap {
			return g
		}
		c.forget(g)
	}
	if f.Cause.Target != (event.Addr{}) {
		if g := c.sameTarget(f); g != nil {
			c.causes[f.Cause] = g
			g.causes = append(g.causes, f.Cause)
			return g
		}
	}
	if server(f.Subject.Role) {
		for _, p := range f.Peers {
			if g := c.bots[p.Addr]; g != nil && g.in.Cause.Kind == f.Cause.Kind {
				return g
			}
		}
	}
	return nil
}

// leave takes f out of the incident it was in when it has turned out to be of
// another cause, and returns that incident.
func (c *Correlator) leave(f *finding.Finding) *group {
	g := c.findings[f.ID]
	if g == nil || slices.Contains(g.causes, f.Cause) || g.joinedAs[f.ID] == f.Cause {
		return nil
	}
	delete(c.findings, f.ID)
	if g.in.Title == (finding.Text{}) { // nobody has seen it yet; it must not stay without words
		g.explain()
	}
	g.drop(f)
	if c.bots[f.Subject.Addr] == g {
		delete(c.bots, f.Subject.Addr)
	}
	c.touch(g)
	return g
}

// rename gives an incident another cause.
func (c *Correlator) rename(g *group, cause finding.Cause) {
	for _, old := range g.causes {
		if c.causes[old] == g {
			delete(c.causes, old)
		}
	}
	g.in.Cause, g.causes, c.causes[cause] = cause, []finding.Cause{cause}, g
}

// dissolve closes an incident that has lost its last finding to another.
func (c *Correlator) dissolve(g, to *group) {
	c.allowance = min(c.allowance+1, float64(c.cfg.Burst)) // it took the place of one that stays
	g.in.Ended = true
	g.in.Merged = &to.in.ID
	if g.in.State != Closed {
		_ = g.in.Move(g.in.State, Step{At: c.now, By: byProgram, To: Closed, Reason: Duplicate, Note: "more evidence showed that it is one cause with " + to.in.ID.String()})
	}
	c.touch(g)
	c.unlist(g)
}

// unlist takes g out of every table.
func (c *Correlator) unlist(g *group) {
	delete(c.groups, g.in.ID)
	for _, cause := range g.causes {
		if c.causes[cause] == g {
			delete(c.causes, cause)
		}
	}
	for id := range g.findings {
		if c.findings[id] == g {
			delete(c.findings, id)
		}
	}
	for k := range g.members {
		if c.bots[k.addr] == g {
			delete(c.bots, k.addr)
		}
	}
	for a, o := range c.announced {
		if o == g {
			delete(c.announced, a)
		}
	}
}

// server reports whether role is one that many bots of a net have to do with.
func server(role string) bool { return role == "c2" || role == "loader" || role == "receiver" }

// sameTarget returns the open incident about a target that contains f's or is
// contained in it, after joining all such into the oldest.
func (c *Correlator) sameTarget(f *finding.Finding) *group {
	var hit []*group
	for _, g := range c.groups {
		if g.in.Cause.Kind != f.Cause.Kind || g.in.Cause.Target == (event.Addr{}) || f.First.Sub(g.in.Last) > c.cfg.Gap {
			continue
		}
		for _, cause := range g.causes {
			if overlap(cause, f.Cause) {
				hit = append(hit, g)
				break
			}
		}
	}
	if len(hit) == 0 {
		return nil
	}
	slices.SortFunc(hit, func(a, b *group) int {
		return cmp.Or(cmp.Compare(a.in.Said, b.in.Said), bytes.Compare(a.in.ID[:], b.in.ID[:]))
	})
	for _, g := range hit[1:] {
		c.merge(hit[0], g)
	}
	return hit[0]
}

// overlap reports whether one target contains the other.
func overlap(a, b finding.Cause) bool {
	if a.Target.Is4() != b.Target.Is4() {
		return false
	}
	n := int(min(a.Bits, b.Bits))
	return a.Target.Masked(n) == b.Target.Masked(n)
}

// open begins an incident, if the allowance permits; else it returns the one
// that counts what was not opened.
func (c *Correlator) open(f *finding.Finding) (*group, bool) {
	if f.Said > c.refilled {
		c.allowance += f.Said.Sub(c.refilled).Hours() * float64(c.cfg.PerHour)
		c.allowance = min(c.allowance, float64(c.cfg.Burst))
		c.refilled = f.Said
	}
	if c.allowance < 1 {
		if g := c.causes[overflowing]; g != nil {
			return g, false
		}
		return c.begin(finding.NewID("noroshi.overflow", event.Addr{}, "", f.Said), overflowing, f.Said), false
	}
	c.allowance--
	id := f.ID
	if c.groups[id] != nil { // it opened one, and left it to others
		id = finding.NewID("incident", f.Subject.Addr, fmt.Sprint(f.Cause), f.Said)
	}
	return c.begin(id, f.Cause, f.Said), true
}

func (c *Correlator) begin(id finding.ID, cause finding.Cause, said event.Time) *group {
	c.stats.Opened++
	g := &group{
		in:       Incident{ID: id, Cause: cause, State: New, Said: said},
		causes:   []finding.Cause{cause},
		findings: map[finding.ID]known{},
		joinedAs: map[finding.ID]finding.Cause{},
		members:  map[memberKey]*Member{},
	}
	c.groups[id], c.causes[cause] = g, g
	return g
}

// merge moves everything of b into a and closes b as its duplicate.
func (c *Correlator) merge(a, b *group) {
	for id, k := range b.findings {
		a.findings[id] = k
		if c.findings[id] == b {
			c.findings[id] = a
		}
	}
	maps.Copy(a.joinedAs, b.joinedAs)
	for _, m := range b.members {
		moved := *m
		moved.new = false
		a.member(moved, c)
	}
	for _, cause := range b.causes {
		c.causes[cause] = a
	}
	a.causes = append(a.causes, b.causes...)
	for _, l := range b.leads {
		a.lead(l)
	}
	for _, n := range b.counts {
		a.count(n.rule, n.n)
	}
	for _, s := range b.subjects {
		a.addSubject(s)
	}
	for t, g := range c.announced {
		if g == b {
			c.announced[t] = a
		}
	}
	a.live += b.live
	a.in.Findings += b.in.Findings
	a.in.First, a.in.Last = min(a.in.First, b.in.First), max(a.in.Last, b.in.Last)
	a.in.Severity, a.in.Confidence = max(a.in.Severity, b.in.Severity), max(a.in.Confidence, b.in.Confidence)
	a.in.Attack, a.in.Requirements = union(a.in.Attack, b.in.Attack), union(a.in.Requirements, b.in.Requirements)
	for _, id := range b.in.Related {
		a.relate(id)
	}
	b.in.Merged = &a.in.ID
	if b.in.State != Closed {
		_ = b.in.Move(b.in.State, Step{At: c.now, By: byProgram, To: Closed, Reason: Duplicate, Note: "one cause with " + a.in.ID.String()})
	}
	c.touch(a)
	c.touch(b)
	delete(c.groups, b.in.ID)
}

// byProgram is who takes the steps that no person took.
const byProgram = "noroshi"

// link notes which incidents have to do with each other.
func (c *Correlator) link(g *group, f *finding.Finding) {
	relate := func(o *group) {
		if o != nil && o != g && o.in.Merged == nil {
			g.relate(o.in.ID)
			o.relate(g.in.ID)
			c.touch(o)
		}
	}
	switch {
	case f.Rule == "iotbot.announced":
		c.announced[f.Cause.Target] = g
		for _, p := range f.Peers {
			relate(c.bots[p.Addr])
		}
	case strings.HasPrefix(f.Rule, "iotbot."):
		if f.Subject.Role == "bot" && g.members[memberKey{f.Subject.Addr, f.Subject.Port}] != nil {
			c.bots[f.Subject.Addr] = g
		}
	case strings.HasPrefix(f.Rule, "flood."):
		relate(c.announced[f.Cause.Target])
		for _, a := range f.Members[:min(len(f.Members), 1024)] {
			relate(c.bots[a])
		}
	}
}

// Advance tells the Correlator the time. Incidents that were silent for longer
// than the gap end, and are forgotten.
func (c *Correlator) Advance(now event.Time) {
	c.now = max(c.now, now)
	for _, g := range c.groups {
		if c.now.Sub(g.in.Last) > c.cfg.Gap {
			c.forget(g)
		}
	}
}

// forget drops g after its last change.
func (c *Correlator) forget(g *group) {
	if !g.in.Ended {
		g.in.Ended = true
		c.touch(g)
	}
	c.unlist(g)
}

// Move takes the step s in the incident id. ok is false when the Correlator
// does not hold it any more.
func (c *Correlator) Move(id finding.ID, from State, s Step) (ok bool, err error) {
	g := c.groups[id]
	if g == nil {
		return false, nil
	}
	if err := g.in.Move(from, s); err != nil {
		return true, err
	}
	c.touch(g)
	return true, nil
}

// Load takes up an incident that was open when the program last ran.
func (c *Correlator) Load(in *Incident, members iterMembers) {
	g := c.begin(in.ID, in.Cause, in.Said)
	c.stats.Opened--
	g.in = *in
	g.in.NewMembers = nil
	for _, s := range in.Subjects {
		g.addSubject(s)
	}
	for m := range members {
		// Who is still at work will be reported again, perhaps at another address.
		m.Ended, m.held = true, 1
		if g.member(m, c); m.Role == "bot" && g.members[memberKey{m.Addr, m.Port}] != nil {
			c.bots[m.Addr] = g
		}
	}
	for _, m := range g.joined {
		m.new = false
	}
	g.joined = nil
	if in.Kind == "iotbot.announced" {
		c.announced[in.Cause.Target] = g
	}
	if in.Cause.Target != (event.Addr{}) { // what was merged into it
		for _, s := range in.Subjects {
			cause := finding.Cause{Kind: in.Cause.Kind, Key: in.Cause.Key, Target: s.Addr, Bits: s.Bits}
			if s.Role == "victim" && s.Addr != (event.Addr{}) && c.causes[cause] == nil {
				c.causes[cause] = g
				g.causes = append(g.causes, cause)
			}
		}
	}
	c.now = max(c.now, in.Last)
}

// Changes returns a copy of each incident that changed since the last call, in
// the order they changed first.
func (c *Correlator) Changes() []*Incident {
	if len(c.changed) == 0 {
		return nil
	}
	list := make([]*Incident, len(c.changed))
	for i, g := range c.changed {
		list[i] = g.copy(c.now)
		g.dirty = false
	}
	c.changed = c.changed[:0]
	return list
}

func (c *Correlator) touch(g *group) {
	if !g.dirty {
		g.dirty = true
		c.changed = append(c.changed, g)
	}
}

// overflowing is the cause of the incident that counts what could not be opened.
var overflowing = finding.Cause{Kind: "noroshi", Key: "overflow"}
