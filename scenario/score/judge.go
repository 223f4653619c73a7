package score

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
	"noroshi/scenario"
)

// Check is one thing a scenario holds noroshi to.
type Check struct {
	Scenario     string   `json:"scenario"`
	Requirements []string `json:"requirements"`
	What         string   `json:"what"`
	Value        float64  `json:"value"`
	Limit        float64  `json:"limit"`
	AtLeast      bool     `json:"at_least"` // Value must be Limit or more; else Limit or less
	Unit         string   `json:"unit"`     // "share", "incidents", "s"
	Of           int      `json:"of"`       // how many cases the value rests on
	Met          bool     `json:"met"`
	// Skipped says why the check could not be made; it is then neither met nor
	// missed.
	Skipped string `json:"skipped,omitempty"`
	// Wrong names a few of the cases that went wrong.
	Wrong []string `json:"wrong,omitempty"`
}

// Targets: see the goals of the project.
const (
	minRecall    = .95 // of bots that sent MinProbes
	minPrecision = .99
	minVectors   = .98
	minSenders   = .95
	minClusters  = .95 // adjusted Rand index
	fleetError   = .01
	fleetTime    = 60 * time.Second

	// minProbes is how many of a bot's SYNs exporters looked at before it must
	// be found: 100 of those sent, where nothing is sampled.
	minProbes = 100
	// minNaming is how many before its family must be named: the mix of ports
	// needs 132 probes at least (facts on Mirai, 1.1).
	minNaming = 250
	// maxSuspect is how many incidents a wrong sampling rate may raise.
	maxSuspect = 61
)

// judge collects the checks of one result.
type judge struct {
	*Result
	checks []Check
}

// Judge holds what was found against what happened.
func Judge(r *Result) []Check {
	j := &judge{Result: r}
	j.bots()
	j.clusters()
	j.fleets()
	j.roles()
	j.announced()
	j.floods()
	j.falseIncidents()
	j.add("", Check{What: "records lost between exporter and detector", Value: abs(float64(r.Truth.Records)-float64(r.Records)) + float64(r.Lost), Unit: "records", Of: int(r.Truth.Records)})
	return j.checks
}

// add enters a check; needs names the detector without which it can't be made.
func (j *judge) add(needs string, c Check) {
	c.Scenario = j.Scenario.Name
	if c.Requirements == nil {
		c.Requirements = j.Scenario.Requirements
	}
	c.Met = c.Value <= c.Limit
	if c.AtLeast {
		c.Met = c.Value >= c.Limit
	}
	if needs != "" && !j.names[needs] {
		c.Skipped, c.Met = "no detector "+needs, false
	}
	if len(c.Wrong) > 5 {
		c.Wrong = append(c.Wrong[:5], fmt.Sprintf("and %d more", len(c.Wrong)-5))
	}
	j.checks = append(j.checks, c)
}

func share(n, of int) float64 {
	if of == 0 {
		return 1
	}
	return float64(n) / float64(of)
}

// named returns the hosts that were called bots, with the last finding of each.
func (r *Result) named() map[event.Addr]*Finding {
	m := map[event.Addr]*Finding{}
	for i := range r.Findings {
		f := &r.Findings[i]
		if strings.HasPrefix(f.Rule, "iotbot.") && f.Subject.Role == "bot" && f.Severity > finding.Informational {
			m[f.Subject.Addr] = f
		}
	}
	return m
}

func (j *judge) bots() {
	named := j.named()
	right := 0
	var wrong []string
	for _, a := range slices.SortedFunc(maps.Keys(named), compare) {
		if j.Truth.Bots[a] != nil {
			right++
		} else {
			wrong = append(wrong, a.String())
		}
	}
	if len(j.Truth.Bots) == 0 {
		if len(named) > 0 {
			j.add("iotbot", Check{What: "hosts called bots that are none", Value: float64(len(wrong)), Unit: "hosts", Of: len(named), Wrong: wrong})
		}
		return
	}
	j.add("iotbot", Check{What: "precision of bots", Value: share(right, len(named)), Limit: minPrecision, AtLeast: true, Unit: "share", Of: len(named), Wrong: wrong})
	found, of, family, ofFamily, ofNever := 0, 0, 0, 0, 0
	var missed, misnamed, mistaken []string
	var delays []float64
	for _, b := range j.Truth.BotsInOrder() {
		f := named[b.Addr]
		if b.Seen >= minProbes {
			of++
			if f != nil {
				found++
			} else {
				missed = append(missed, fmt.Sprintf("%v (%d probes)", b.Addr, b.Seen))
			}
		}
		if f != nil {
			delays = append(delays, j.firstSaid(b.Addr).Sub(b.FirstSeen).Seconds())
		}
		if f != nil && b.Never != "" {
			ofNever++
			if f.Family == b.Never {
				mistaken = append(mistaken, b.Addr.String())
			}
		}
		if f != nil && b.Family != "" && b.Seen >= minNaming {
			ofFamily++
			if f.Family == b.Family {
				family++
			} else {
				misnamed = append(misnamed, fmt.Sprintf("%v is %s, not %s", b.Addr, b.Family, f.Family))
			}
		}
	}
	if ofNever > 0 {
		j.add("iotbot", Check{What: "bots taken for a family they only resemble", Value: float64(len(mistaken)), Unit: "hosts", Of: ofNever, Wrong: mistaken})
	}
	j.add("iotbot", Check{What: "recall of bots that sent 100 SYNs", Value: share(found, of), Limit: minRecall, AtLeast: true, Unit: "share", Of: of, Wrong: missed})
	if ofFamily > 0 {
		j.add("iotbot", Check{What: "families named right", Value: share(family, ofFamily), Limit: minRecall, AtLeast: true, Unit: "share", Of: ofFamily, Wrong: misnamed})
	}
	if len(delays) > 0 {
		slices.Sort(delays)
		j.add("iotbot", Check{What: "time to the first bot, from its first datagram", Value: delays[0], Limit: j.Truth.BotWithin.Seconds(), Unit: "s", Of: len(delays)})
	}
}

// firstSaid is when a host was first called a bot.
func (r *Result) firstSaid(a event.Addr) event.Time {
	for i := range r.Findings {
		if f := &r.Findings[i]; f.Subject.Addr == a && f.Subject.Role == "bot" {
			return f.FirstSaid
		}
	}
	return 0
}

func compare(a, b event.Addr) int { return slices.Compare(a[:], b[:]) }

// clusters holds the division of bots into incidents against the true one.
func (j *judge) clusters() {
	truth := map[string]bool{}
	for _, b := range j.Truth.Bots {
		truth[b.Cluster] = true
	}
	if len(truth) < 2 || !slices.Contains(j.Scenario.Requirements, "R120") {
		return
	}
	home := j.homes()
	var a, b []string
	for _, bot := range j.Truth.BotsInOrder() {
		if id, found := home[bot.Addr]; found && bot.Seen >= minProbes {
			a, b = append(a, bot.Cluster), append(b, id.String())
		}
	}
	j.add("iotbot", Check{What: "agreement of incidents with variants (adjusted Rand index)", Value: AdjustedRand(a, b), Limit: minClusters, AtLeast: true, Unit: "index", Of: len(a)})
}

// homes returns the incident each bot is a member of.
func (j *judge) homes() map[event.Addr]finding.ID {
	m := map[event.Addr]finding.ID{}
	for _, in := range j.Incidents {
		if !strings.HasPrefix(in.Kind, "iotbot.") {
			continue
		}
		for a := range j.Members[in.ID] {
			if j.Truth.Bots[a] != nil {
				m[a] = in.ID
			}
		}
	}
	return m
}

// AdjustedRand returns how far two divisions of the same things agree (Hubert
// and Arabie 1985): 1 if they are equal, about 0 if they agree by chance.
func AdjustedRand(a, b []string) float64 {
	pairs := func(n int) float64 { return float64(n) * float64(n-1) / 2 }
	both, inA, inB := map[[2]string]int{}, map[string]int{}, map[string]int{}
	for i := range a {
		both[[2]string{a[i], b[i]}]++
		inA[a[i]]++
		inB[b[i]]++
	}
	var s, sa, sb float64
	for _, n := range both {
		s += pairs(n)
	}
	for _, n := range inA {
		sa += pairs(n)
	}
	for _, n := range inB {
		sb += pairs(n)
	}
	all := pairs(len(a))
	if all == 0 {
		return 0
	}
	expected, most := sa*sb/all, (sa+sb)/2
	if most == expected {
		return 1
	}
	return (s - expected) / (most - expected)
}

// fleets are to be one incident each, and counted.
func (j *judge) fleets() {
	for _, f := range j.Truth.Fleets {
		in := map[finding.ID]int{}
		for a, id := range j.homes() {
			if b := j.Truth.Bots[a]; b.Cluster == f.Name {
				in[id]++
			}
		}
		var ids []finding.ID
		for id, n := range in {
			if n > f.Size/100 {
				ids = append(ids, id)
			}
		}
		j.add("iotbot", Check{What: "incidents of the fleet, beyond one", Value: float64(max(len(ids)-1, 0)) + float64(1-min(len(ids), 1)), Unit: "incidents", Of: f.Size})
		counted := uint64(0)
		for _, s := range j.sizes {
			if slices.Contains(ids, s.id) && s.at.Sub(f.FirstSeen) <= fleetTime {
				counted = s.active
			}
		}
		j.add("iotbot", Check{What: "error of the fleet's size within 60 s of its first datagram", Value: abs(float64(counted)-float64(f.Size)) / float64(f.Size), Limit: fleetError, Unit: "share", Of: f.Size})
	}
}

func abs(v float64) float64 { return max(v, -v) }

func (j *judge) roles() {
	found, of := 0, 0
	var wrong []string
	said := map[event.Addr]string{}
	for i := range j.Findings {
		switch f := &j.Findings[i]; f.Rule {
		case "iotbot.receiver", "iotbot.loader", "iotbot.c2":
			role := strings.TrimPrefix(f.Rule, "iotbot.")
			said[f.Subject.Addr] = role
			if r := j.Truth.Roles[f.Subject.Addr]; r == nil || r.Role != role {
				wrong = append(wrong, fmt.Sprintf("%v is no %s", f.Subject.Addr, role))
			}
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(j.Truth.Roles), compare) {
		if r := j.Truth.Roles[a]; r.Sent > 0 {
			of++
			if said[a] == r.Role {
				found++
			} else {
				wrong = append(wrong, fmt.Sprintf("%v is a %s", a, r.Role))
			}
		}
	}
	if of > 0 {
		j.add("iotbot", Check{Requirements: []string{"R38"}, What: "servers of the botnet recovered with their roles", Value: share(found, of), Limit: 1, AtLeast: true, Unit: "share", Of: of, Wrong: wrong})
	}
	if of > 0 || len(wrong) > 0 {
		j.add("iotbot", Check{Requirements: []string{"R38"}, What: "hosts given a role they don't have", Value: float64(len(wrong) - (of - found)), Unit: "hosts", Of: len(said), Wrong: wrong})
	}
}

// announced attacks are to be told before they begin.
func (j *judge) announced() {
	for _, a := range j.Truth.Announced {
		ahead := 0.0
		for i := range j.Findings {
			f := &j.Findings[i]
			if f.Rule != "iotbot.announced" {
				continue
			}
			for _, flood := range j.Truth.Floods {
				if f.Cause.Target == a.Victim && flood.Target == a.Victim {
					ahead = max(ahead, flood.First.Sub(f.FirstSaid).Seconds())
				}
			}
		}
		j.add("iotbot", Check{What: "seconds by which the attack was announced before its first packet", Value: ahead, Limit: .001, AtLeast: true, Unit: "s", Of: 1})
	}
}

func (j *judge) floods() {
	for _, f := range j.Truth.Floods {
		families := map[string]bool{}
		members := map[event.Addr]bool{}
		for _, x := range j.about(f) {
			families[x.Family] = true
			for _, a := range x.Members {
				members[a] = true
			}
		}
		found := 0
		if len(families) > 0 {
			found = 1
		}
		j.add("flood", Check{What: "attacks found", Value: float64(found), Limit: 1, AtLeast: true, Unit: "share", Of: 1})
		got := slices.Sorted(maps.Keys(families))
		named := 0
		for _, v := range f.Vectors {
			if families[v] {
				named++
			}
		}
		// Vectors named, of those there are and those there are not.
		j.add("flood", Check{What: "vectors named right", Value: share(named, len(f.Vectors)+len(families)-named), Limit: minVectors, AtLeast: true, Unit: "share", Of: len(f.Vectors), Wrong: differ(f.Vectors, got)})
		after, known := j.FloodFound(f)
		if !known {
			continue
		}
		j.add("flood", Check{What: "time to alert from the first datagram", Value: after.Seconds(), Limit: f.Within.Seconds(), Unit: "s", Of: 1})
		incidents := 0
		for _, in := range j.Incidents {
			if strings.HasPrefix(in.Kind, "flood.") && covers(f, in) {
				incidents++
			}
		}
		j.add("flood", Check{What: "incidents of the attack, beyond one", Value: float64(incidents - 1), Unit: "incidents", Of: 1})
		if f.Senders != nil {
			j.senders(f, members)
		}
	}
}

func differ(want, got []string) []string {
	if slices.Equal(want, got) {
		return nil
	}
	return []string{fmt.Sprintf("%s, not %s", strings.Join(want, " "), strings.Join(got, " "))}
}

func (j *judge) senders(f *scenario.Flood, named map[event.Addr]bool) {
	found, of, right := 0, 0, 0
	for a, t := range f.Senders {
		if t.Seen > 0 {
			of++
			if named[a] {
				found++
			}
		}
		if named[a] {
			right++
		}
	}
	j.add("flood", Check{What: "senders named", Value: share(found, of), Limit: minSenders, AtLeast: true, Unit: "share", Of: of})
	j.add("flood", Check{What: "precision of senders", Value: share(right, len(named)), Limit: minPrecision, AtLeast: true, Unit: "share", Of: len(named)})
}

func covers(f *scenario.Flood, in *incident.Incident) bool {
	return f.Covers(finding.Subject{Addr: in.Cause.Target, Bits: in.Cause.Bits})
}

// falseIncidents counts what should not have been said.
func (j *judge) falseIncidents() {
	var wrong []string
	suspected := false
	for _, in := range j.FalseIncidents() {
		suspected = suspected || in.Kind == "flood.sampling-suspect" || in.Kind == "sampling.suspect"
		wrong = append(wrong, fmt.Sprintf("%s %s: %s", in.Kind, in.Family, in.Title.En))
	}
	if !j.Truth.WrongSampling {
		j.add("", Check{What: "false incidents", Value: float64(len(wrong)), Unit: "incidents", Of: len(j.Incidents), Wrong: wrong})
		return
	}
	said := 0.0
	if suspected {
		said = 1
	}
	j.add("flood", Check{What: "the wrong sampling rate suspected", Value: said, Limit: 1, AtLeast: true, Unit: "share", Of: 1})
	j.add("", Check{What: "incidents raised by the wrong sampling rate", Value: float64(len(wrong)), Limit: maxSuspect, Unit: "incidents", Of: len(j.Incidents), Wrong: wrong})
}

// FalseIncidents returns the incidents above informational that are about
// nothing that happened.
func (r *Result) FalseIncidents() (list []*incident.Incident) {
	for _, in := range r.Incidents {
		if in.Severity > finding.Informational && !r.isTrue(in) {
			list = append(list, in)
		}
	}
	return list
}

// BotsFound returns how many bots there were of which exporters saw 100 probes, how many
// of those were found, and how soon the first was after its first datagram.
func (r *Result) BotsFound() (all, found int, first time.Duration) {
	named := r.named()
	for _, b := range r.Truth.Bots {
		f := named[b.Addr]
		if b.Seen >= minProbes {
			all++
			if f != nil {
				found++
			}
		}
		if f != nil {
			if d := r.firstSaid(b.Addr).Sub(b.FirstSeen); first == 0 || d < first {
				first = d
			}
		}
	}
	return all, found, first
}

// FloodFound returns how soon a flood was found after its first datagram.
func (r *Result) FloodFound(f *scenario.Flood) (after time.Duration, found bool) {
	said := event.Time(0)
	for _, x := range r.about(f) {
		if said == 0 || x.FirstSaid < said {
			said = x.FirstSaid
		}
	}
	return said.Sub(f.FirstSeen), said != 0
}

// about returns the findings of the flood's rule on its target.
func (r *Result) about(f *scenario.Flood) (list []*Finding) {
	for i := range r.Findings {
		if x := &r.Findings[i]; x.Rule == f.Rule && f.Covers(x.Subject) && x.Severity > finding.Informational {
			list = append(list, x)
		}
	}
	return list
}

// isTrue reports whether the incident is about something that happened: a flood
// on its target, or hosts most of which are bots or their servers.
func (r *Result) isTrue(in *incident.Incident) bool {
	if strings.HasPrefix(in.Kind, "flood.") {
		return slices.ContainsFunc(r.Truth.Floods, func(f *scenario.Flood) bool { return f.Rule == in.Kind && covers(f, in) })
	}
	if in.Kind == "iotbot.announced" {
		return slices.ContainsFunc(r.Truth.Announced, func(a *scenario.Announcement) bool { return a.Victim == in.Cause.Target })
	}
	if !strings.HasPrefix(in.Kind, "iotbot.") && !strings.HasPrefix(in.Kind, "scan.") {
		return false
	}
	right, of := 0, 0
	count := func(a event.Addr) {
		of++
		if r.Truth.Bots[a] != nil || r.Truth.Roles[a] != nil {
			right++
		}
	}
	for a := range r.Members[in.ID] {
		count(a)
	}
	if of == 0 {
		for _, s := range in.Subjects {
			count(s.Addr)
		}
	}
	return right > 0 && 2*right >= of
}
