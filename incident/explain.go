package incident

import (
	"fmt"
	"slices"
	"strings"

	"noroshi/finding"
)

// explain writes the words of the incident from its leading finding, and from
// what its findings have in common.
func (g *group) explain() {
	in := &g.in
	in.Subjects = slices.Clone(g.subjects)
	slices.SortStableFunc(in.Subjects, func(a, b finding.Subject) int { return rank(a) - rank(b) })
	if len(g.leads) == 0 {
		return
	}
	lead := g.leads[0]
	families := []string{}
	for _, l := range g.leads {
		if l.Family != "" {
			families = union(families, []string{l.Family})
		}
		in.PeerCount = max(in.PeerCount, l.PeerCount, uint64(len(l.Peers)))
		if n := g.countOf(l.Rule) - g.countOf(lead.Rule); n > 0 || n == 0 && l.Rule == lead.Rule && weightier(l, lead) < 0 {
			lead = l
		}
	}
	in.Kind, in.Family = lead.Rule, lead.Family
	if in.Vectors = families; len(families) < 2 {
		in.Vectors = nil
	}
	in.Peers, in.Measured, in.Evidence = lead.Peers, lead.Measured, lead.Evidence
	in.Title, in.Why, in.Next = lead.Title, lead.Why, lead.Next
	if hosts := hostWord(lead.Subject.Role); in.SubjectCount > 1 && hosts.En != "" {
		in.Title, in.Why = g.together(lead, hosts)
	} else if len(families) > 1 {
		others := strings.Join(slices.DeleteFunc(slices.Clone(families), func(f string) bool { return f == in.Family }), ", ")
		in.Title.En += " (also " + others + ")"
		in.Title.Ja += "(ほかに" + others + ")"
	}
}

// countOf returns how many findings of a rule the incident has.
func (g *group) countOf(rule string) int {
	for _, c := range g.counts {
		if c.rule == rule {
			return c.n
		}
	}
	return 0
}

// mostRule returns the rule with the most findings; of equals, the first seen.
func (g *group) mostRule() string {
	best := g.counts[0]
	for _, c := range g.counts[1:] {
		if c.n > best.n {
			best = c
		}
	}
	return best.rule
}

// rank puts prefixes before hosts, and the servers of a botnet before its bots.
func rank(s finding.Subject) int {
	switch {
	case !s.IsHost():
		return 0
	case server(s.Role):
		return 1
	}
	return 2
}

// hostWord names many hosts of a role; a role whose hosts are never grouped by
// behaviour has none.
func hostWord(role string) finding.Text {
	switch role {
	case "bot":
		return finding.Text{En: "infected hosts", Ja: "感染端末"}
	case "scanner":
		return finding.Text{En: "scanning hosts", Ja: "スキャン元"}
	}
	return finding.Text{}
}

// together words an incident of many hosts.
func (g *group) together(lead *finding.Finding, hosts finding.Text) (title, why finding.Text) {
	in := &g.in
	where := finding.Text{}
	if nets := g.networks(); len(nets) > 0 {
		list := strings.Join(nets, ", ")
		where = finding.Text{En: " in " + list, Ja: list + "の"}
	}
	family := lead.Family
	if family != "" {
		family += ": "
	}
	n := finding.Grouped(in.SubjectCount)
	title = finding.Text{
		En: fmt.Sprintf("%s%s %s%s", family, n, hosts.En, where.En),
		Ja: fmt.Sprintf("%s%s%s %s台", family, where.Ja, hosts.Ja, n),
	}
	why = finding.Text{
		En: fmt.Sprintf("%s hosts show one behaviour, at most %s of them at one time. The clearest: %s", n, finding.Grouped(in.Active), lead.Why.En),
		Ja: fmt.Sprintf("%s台が同じ挙動を示し、同時には最大%s台。最も明確な例: %s", n, finding.Grouped(in.Active), lead.Why.Ja),
	}
	return title, why
}

// networks returns the names of the first few networks of the subjects, sorted.
func (g *group) networks() []string {
	var names []string
	for _, s := range g.subjects {
		if s.Network != "" {
			names = union(names, []string{s.Network})
		}
	}
	if len(names) > 3 {
		names = append(slices.Clone(names[:3]), "…")
	}
	return names
}

// overflow counts f in the incident that says how much could not be opened.
func (g *group) overflow(f *finding.Finding) {
	in := &g.in
	if _, again := g.findings[f.ID]; !again && len(g.findings) < 1<<16 {
		g.findings[f.ID] = known{rule: f.Rule, ended: true}
		in.Findings++
		g.count(f.Rule, 1)
	}
	if in.First == 0 {
		in.First = f.First
	}
	in.First, in.Last = min(in.First, f.First), max(in.Last, f.Last)
	in.Kind, in.Severity, in.Confidence = "noroshi.overflow", finding.High, 1
	g.addSubject(f.Subject)
	rule := g.mostRule()
	in.Title = finding.Text{
		En: finding.Count(in.Findings, "finding", "findings") + " too many at once to open an incident for each",
		Ja: fmt.Sprintf("同時検知が多すぎるため、%s件を個別のインシデントにしていません", finding.Grouped(in.Findings)),
	}
	in.Why = finding.Text{
		En: fmt.Sprintf("Most are %s. So many causes at one time are more often one mistake, such as a wrong sampling rate or a missing list of own networks, than so many attacks.", rule),
		Ja: fmt.Sprintf("最も多いのは%sです。これほど多くの原因が同時に現れる場合、攻撃よりも、サンプリングレートや自網プレフィックスの設定誤りであることがほとんどです。", rule),
	}
	in.Next = finding.Text{
		En: "Compare the sampling rate of each exporter with its router's configuration, and the list of networks with what is announced; then look at the subjects listed here.",
		Ja: "各エクスポータのサンプリングレートをルータの設定と照合し、networks の一覧を広報中の経路と照合してください。その後、ここに挙げた対象を確認してください。",
	}
	in.Measured = []finding.Measure{{What: "findings that could not open an incident", Ja: "個別のインシデントにできなかった検知の数", Value: float64(in.Findings), Unit: "findings"}}
}
