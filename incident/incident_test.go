package incident

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"noroshi/event"
	"noroshi/finding"
)

var t0 = event.TimeOf(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))

func at(s float64) event.Time { return t0.Add(time.Duration(s * float64(time.Second))) }

func addr(s string) event.Addr { return event.AddrOf(netip.MustParseAddr(s)) }

// bot returns a finding about one infected host.
func bot(a event.Addr, key string, said float64) *finding.Finding {
	family, _, _ := strings.Cut(key, "/")
	return &finding.Finding{
		ID: finding.NewID("iotbot.scan", a, key, at(said)), Rule: "iotbot.scan", Family: family,
		Severity: finding.High, Confidence: .9, Samples: 10,
		Subject: finding.Host(a, "bot", "homes"),
		First:   at(said - 3), Last: at(said), Said: at(said),
		Cause:    finding.Cause{Kind: "iotbot", Key: key},
		Title:    finding.Text{En: a.String() + " is infected", Ja: a.String() + " は感染"},
		Why:      finding.Text{En: "It scans.", Ja: "スキャンしている。"},
		Next:     finding.Text{En: "Tell the subscriber.", Ja: "契約者へ連絡する。"},
		Measured: []finding.Measure{{What: "targets", Value: 10, Unit: "addresses", Limit: 4}},
		Attack:   []string{"T1046"}, Requirements: []string{"R36"},
	}
}

// flood returns a finding about a victim, a host or a prefix.
func flood(rule, target, vector string, said float64) *finding.Finding {
	p, err := netip.ParsePrefix(target)
	if err != nil {
		a := netip.MustParseAddr(target)
		p = netip.PrefixFrom(a, a.BitLen())
	}
	a := event.AddrOf(p.Addr())
	return &finding.Finding{
		ID: finding.NewID(rule, a, target+vector, at(said)), Rule: rule, Family: vector,
		Severity: finding.High, Confidence: .95, Samples: 100,
		Subject: finding.Subject{Addr: a, Bits: uint8(p.Bits()), Role: "victim"},
		First:   at(said - 1), Last: at(said), Said: at(said),
		Cause:    finding.Cause{Kind: "flood", Target: a, Bits: uint8(p.Bits())},
		Title:    finding.Text{En: vector + " flood on " + target, Ja: target + " への " + vector + " フラッド"},
		Measured: []finding.Measure{{What: "packets", Value: 1e5, Unit: "packets/s", Limit: 2e4}},
		Attack:   []string{"T1498.001"}, Requirements: []string{"R25"},
	}
}

func nth(i int) event.Addr {
	return event.AddrOf4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// incidents adds all findings and returns the latest copy of each incident, by
// the order in which they were opened.
func incidents(c *Correlator, list ...*finding.Finding) []*Incident {
	for _, f := range list {
		c.Add(f)
	}
	return latest(c)
}

func latest(c *Correlator) []*Incident {
	all := c.Changes()
	slices.SortFunc(all, func(a, b *Incident) int { return int(a.Said - b.Said) })
	return all
}

// A fleet of 20,000 with one behaviour is one incident; each further behaviour,
// family or tenant is another.
func TestFleet(t *testing.T) {
	c := NewCorrelator(Config{})
	const n = 20000
	for i := range n {
		c.Add(bot(nth(i), "mirai/23,2323/cars", 10+float64(i)/1000))
	}
	for i := range 3 {
		c.Add(bot(nth(n+i), "mirai/7547/cars", 40))
	}
	c.Advance(at(80))
	got := latest(c)
	if len(got) != 2 {
		t.Fatalf("%d incidents, want 2", len(got))
	}
	in := got[0]
	if in.Members != n || in.SubjectCount != n || in.Active != n || in.Findings != n || len(in.Subjects) != MaxSubjects || len(in.NewMembers) != n {
		t.Errorf("members %d, subjects %d, active %d, findings %d, listed %d, new %d",
			in.Members, in.SubjectCount, in.Active, in.Findings, len(in.Subjects), len(in.NewMembers))
	}
	if want := "mirai: 20,000 infected hosts in homes"; in.Title.En != want {
		t.Errorf("title %q, want %q", in.Title.En, want)
	}
	if want := "mirai: homesの感染端末 20,000台"; in.Title.Ja != want {
		t.Errorf("title %q, want %q", in.Title.Ja, want)
	}
	if len(c.Changes()) != 0 {
		t.Error("unchanged incidents are reported as changed")
	}
	c.Add(bot(nth(0), "mirai/23,2323/cars", 10)) // nothing new
	if again := c.Changes(); len(again) != 1 || again[0].Members != n || len(again[0].NewMembers) != 0 {
		t.Errorf("after a repetition: %d changes", len(again))
	}
}

// A member that moves has several addresses and is active under one at a time.
func TestActive(t *testing.T) {
	c := NewCorrelator(Config{})
	for i := range 100 {
		f := bot(nth(i), "mirai/23/cars", 10)
		f.Ended, f.Last = true, at(60)
		c.Add(f)
	}
	for i := range 100 {
		f := bot(nth(1000+i), "mirai/23/cars", 100)
		f.First = at(61)
		c.Add(f)
	}
	in := latest(c)[0]
	if in.Members != 200 || in.Active != 100 {
		t.Errorf("members %d, active %d; want 200, 100", in.Members, in.Active)
	}
}

func TestFloodsOfOneTarget(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   []*finding.Finding
		want []string // title and state of each incident, oldest first
	}{
		{"vectors join", []*finding.Finding{
			flood("flood.inbound", "10.0.0.1", "dns-amplification", 1), flood("flood.inbound", "10.0.0.1", "syn", 2),
		}, []string{"dns-amplification flood on 10.0.0.1 (also syn) new"}},
		{"targets stay apart", []*finding.Finding{
			flood("flood.inbound", "10.0.0.1", "udp", 1), flood("flood.inbound", "10.0.0.2", "udp", 2),
		}, []string{"udp flood on 10.0.0.1 new", "udp flood on 10.0.0.2 new"}},
		{"a host joins its prefix", []*finding.Finding{
			flood("flood.inbound", "10.0.0.0/22", "udp", 1), flood("flood.inbound", "10.0.3.9", "udp", 2),
		}, []string{"udp flood on 10.0.0.0/22 new"}},
		{"a prefix takes in its hosts", []*finding.Finding{
			flood("flood.inbound", "10.0.0.1", "udp", 1), flood("flood.inbound", "10.0.1.1", "udp", 2),
			flood("flood.inbound", "10.0.4.1", "udp", 3), flood("flood.inbound", "10.0.0.0/22", "udp", 4),
		}, []string{"udp flood on 10.0.0.1 new", "udp flood on 10.0.1.1 closed", "udp flood on 10.0.4.1 new"}},
		{"IPv6 apart from IPv4", []*finding.Finding{
			flood("flood.inbound", "2001:db8::/32", "udp", 1), flood("flood.inbound", "10.0.0.1", "udp", 2),
		}, []string{"udp flood on 2001:db8::/32 new", "udp flood on 10.0.0.1 new"}},
		{"days later it is another", []*finding.Finding{
			flood("flood.inbound", "10.0.0.1", "udp", 1), flood("flood.inbound", "10.0.0.1", "syn", 1+7*3600),
		}, []string{"udp flood on 10.0.0.1 new", "syn flood on 10.0.0.1 new"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, in := range incidents(NewCorrelator(Config{}), tc.in...) {
				got = append(got, in.Title.En+" "+string(in.State))
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}

// What was taken in names the incident that goes on, and the subject that is a
// prefix stands first.
func TestMerge(t *testing.T) {
	got := incidents(NewCorrelator(Config{}),
		flood("flood.inbound", "10.0.0.1", "udp", 1), flood("flood.inbound", "10.0.1.1", "udp", 2), flood("flood.inbound", "10.0.0.0/22", "udp", 4))
	a, b := got[0], got[1]
	if b.Merged == nil || *b.Merged != a.ID || b.Reason != Duplicate || len(b.History) != 1 {
		t.Errorf("taken in: merged %v, reason %q, history %v", b.Merged, b.Reason, b.History)
	}
	if a.Findings != 3 || a.Subjects[0].String() != "10.0.0.0/22" {
		t.Errorf("goes on: %d findings, subjects %v", a.Findings, a.Subjects)
	}
}

// The same findings in another order, each perhaps twice, give the same
// incidents but for their ids.
func TestOrder(t *testing.T) {
	var list []*finding.Finding
	for i := range 60 {
		list = append(list, bot(nth(i), fmt.Sprintf("family%d/23/homes", i%5), float64(10+i)))
	}
	for i := range 6 {
		list = append(list, flood("flood.inbound", fmt.Sprintf("192.0.2.%d", i), "udp", float64(20+i)))
	}
	list = append(list, flood("flood.inbound", "192.0.2.0/30", "udp", 30))
	summary := func(r *rand.Rand) []string {
		c := NewCorrelator(Config{})
		for _, i := range r.Perm(len(list)) {
			f := *list[i]
			c.Add(&f)
			if r.IntN(3) == 0 {
				again := *list[r.IntN(len(list))]
				c.Add(&again)
			}
		}
		for _, f := range list {
			f := *f
			c.Add(&f)
		}
		var s []string
		for _, in := range c.Changes() {
			if in.Merged == nil {
				s = append(s, fmt.Sprint(in.Kind, in.Family, in.Severity, in.Confidence, in.Members, in.Active, in.Findings, in.First, in.Last, in.Subjects[0].Role))
			}
		}
		slices.Sort(s)
		return s
	}
	want := summary(rand.New(rand.NewPCG(0, 0)))
	if len(want) != 5+3 {
		t.Fatalf("%d incidents, want 8", len(want))
	}
	for seed := range uint64(50) {
		if got := summary(rand.New(rand.NewPCG(seed, 1))); !slices.Equal(got, want) {
			t.Fatalf("order %d:\n%s\nwant\n%s", seed, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// A server joins its bots; what was announced and who takes part are linked.
func TestLinks(t *testing.T) {
	c := NewCorrelator(Config{})
	server := bot(addr("203.0.113.7"), "mirai/c2", 20)
	server.Subject.Role, server.Rule = "c2", "iotbot.roles"
	server.Peers = []finding.Subject{finding.Host(nth(1), "bot", "")}
	victim := addr("198.51.100.1")
	ann := bot(victim, "announced", 21)
	ann.Rule, ann.Subject.Role, ann.Cause.Target, ann.Cause.Bits = "iotbot.announced", "victim", victim, 32
	ann.Peers = []finding.Subject{finding.Host(addr("203.0.113.7"), "c2", ""), finding.Host(nth(1), "bot", "")}
	out := flood("flood.outbound", "198.51.100.1", "udp", 25)
	out.Members = []event.Addr{nth(1), nth(2)}
	out.Peers = []finding.Subject{finding.Host(nth(1), "sender", "")}
	got := incidents(c, bot(nth(1), "mirai/23/homes", 10), bot(nth(2), "mirai/23/homes", 11), server, ann, out)
	if len(got) != 3 {
		t.Fatalf("%d incidents, want the botnet, the announcement and the flood", len(got))
	}
	net, announced, fl := got[0], got[1], got[2]
	if net.Kind != "iotbot.scan" || net.Findings != 3 || net.Subjects[0].Role != "c2" || net.Members != 3 {
		t.Errorf("botnet: %s, %d findings, %d members, first subject %v", net.Kind, net.Findings, net.Members, net.Subjects[0])
	}
	if fl.Members != 2 || fl.NewMembers[0].Role != "sender" || !slices.Equal(fl.Related, []finding.ID{announced.ID, net.ID}) ||
		!slices.Equal(net.Related, []finding.ID{announced.ID, fl.ID}) || !slices.Equal(announced.Related, []finding.ID{net.ID, fl.ID}) {
		t.Errorf("flood: %d members, related %v; botnet related %v", fl.Members, fl.Related, net.Related)
	}
}

func TestEnds(t *testing.T) {
	c := NewCorrelator(Config{Gap: time.Hour})
	a, b := flood("flood.inbound", "10.0.0.1", "udp", 1), flood("flood.inbound", "10.0.0.1", "syn", 1)
	step := func(f *finding.Finding, ended, want bool) {
		t.Helper()
		g := *f
		g.Ended = ended
		if in := incidents(c, &g)[0]; in.Ended != want {
			t.Errorf("%s ended=%v: incident ended=%v", f.Family, ended, in.Ended)
		}
	}
	step(a, false, false)
	step(b, false, false)
	step(a, true, false)
	step(a, true, false)
	step(b, true, true)
	step(b, false, false) // it goes on after all
	c.Advance(at(3602))
	if in := latest(c); len(in) != 1 || !in[0].Ended || c.Stats().Open != 0 {
		t.Errorf("silent for longer than the gap: %v, %d open", in, c.Stats().Open)
	}
}

func TestOverflow(t *testing.T) {
	c := NewCorrelator(Config{Burst: 20, PerHour: 60})
	for i := range 1000 {
		c.Add(flood("flood.inbound", nth(i<<8).String(), "udp", 1))
	}
	got := latest(c)
	if len(got) != 21 || c.Stats().Overflowed != 980 {
		t.Fatalf("%d incidents, %d findings over; want 21, 980", len(got), c.Stats().Overflowed)
	}
	i := slices.IndexFunc(got, func(in *Incident) bool { return in.Kind == "noroshi.overflow" })
	if i < 0 || got[i].Findings != 980 || !strings.HasPrefix(got[i].Title.En, "980 findings too many at once") || got[i].Next.Ja == "" {
		t.Errorf("overflow: %+v", got[i])
	}
	if !c.Add(flood("flood.inbound", nth(1001<<8).String(), "udp", 61)) {
		t.Error("a minute later one more may be opened")
	}
	if c.Add(flood("flood.inbound", nth(1002<<8).String(), "udp", 61)) {
		t.Error("and only one")
	}
}

func TestExceptions(t *testing.T) {
	e := Exception{Rule: "iotbot.scan", Subject: netip.MustParsePrefix("10.0.0.0/24"), Owner: "sato", Note: "research scanner", Expires: at(100)}
	for _, tc := range []struct {
		name string
		e    Exception
		f    *finding.Finding
		want bool // covered
	}{
		{"inside", e, bot(nth(5), "x/23/n", 10), true},
		{"another subject", e, bot(nth(256), "x/23/n", 10), false},
		{"another rule", e, flood("flood.inbound", "10.0.0.5", "udp", 10), false},
		{"expired", e, bot(nth(5), "x/23/n", 100), false},
		{"by key", Exception{Key: "x/23/n", Expires: at(100)}, bot(nth(999), "x/23/n", 10), true},
		{"by another key", Exception{Key: "x/24/n", Expires: at(100)}, bot(nth(999), "x/23/n", 10), false},
	} {
		c := NewCorrelator(Config{})
		c.Except([]Exception{tc.e})
		if got := !c.Add(tc.f); got != tc.want || c.Stats().Suppressed != map[bool]uint64{true: 1}[tc.want] {
			t.Errorf("%s: covered %v, want %v", tc.name, got, tc.want)
		}
		if tc.want && c.Exceptions()[0].Hits != 1 {
			t.Errorf("%s: hit isn't counted", tc.name)
		}
	}
	for _, bad := range []Exception{{}, {Rule: "r", Note: "n", Expires: 1}, {Rule: "r", Owner: "o", Expires: 1}, {Rule: "r", Owner: "o", Note: "n"}} {
		if bad.Check() == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
	if err := e.Check(); err != nil {
		t.Error(err)
	}
}

func TestLifeCycle(t *testing.T) {
	all := []State{New, Acknowledged, Assigned, Closed}
	allowed := map[[2]State]bool{
		{New, Acknowledged}: true, {New, Assigned}: true, {New, Closed}: true,
		{Acknowledged, Assigned}: true, {Acknowledged, Closed}: true,
		{Assigned, Acknowledged}: true, {Assigned, Assigned}: true, {Assigned, Closed}: true,
		{Closed, Acknowledged}: true,
	}
	full := func(to State) Step {
		return Step{At: t0, By: "sato", To: to, Owner: "suzuki", Reason: True, Note: "seen in the capture"}
	}
	for _, from := range all {
		for _, to := range all {
			in := &Incident{State: from}
			err := in.Move(from, full(to))
			if (err == nil) != allowed[[2]State{from, to}] {
				t.Errorf("%s to %s: %v", from, to, err)
			}
			if err == nil && (in.State != to || len(in.History) != 1) {
				t.Errorf("%s to %s: is %s, history %v", from, to, in.State, in.History)
			}
			var refused *MoveError
			if err != nil && (!errors.As(err, &refused) || in.State != from || in.History != nil) {
				t.Errorf("%s to %s: refused with %v and changed", from, to, err)
			}
		}
	}
	for name, s := range map[string]Step{
		"nobody":    {To: Acknowledged},
		"no owner":  {To: Assigned, By: "sato"},
		"no reason": {To: Closed, By: "sato", Note: "n"},
		"bad word":  {To: Closed, By: "sato", Note: "n", Reason: "meh"},
		"no note":   {To: Closed, By: "sato", Reason: True},
		"no state":  {To: "gone", By: "sato"},
	} {
		if err := (&Incident{State: New}).Move(New, s); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	in := &Incident{State: Acknowledged}
	if err := in.Move(New, full(Closed)); err == nil || !strings.Contains(err.Error(), "somebody was faster") {
		t.Errorf("two people at once: %v", err)
	}
	for range 2 * MaxHistory {
		_ = in.Move(in.State, full(Assigned))
	}
	if len(in.History) != MaxHistory {
		t.Errorf("history of %d steps", len(in.History))
	}
}

// A closed incident comes back when its cause does, and not because what was
// known goes on.
func TestReopen(t *testing.T) {
	c := NewCorrelator(Config{})
	in := incidents(c, bot(nth(1), "mirai/23/homes", 10))[0]
	if ok, err := c.Move(in.ID, New, Step{At: at(20), By: "sato", To: Closed, Reason: True, Note: "cleaned"}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	again := bot(nth(1), "mirai/23/homes", 10)
	again.Last = at(30)
	if got := incidents(c, again)[0]; got.State != Closed {
		t.Errorf("going on: %s", got.State)
	}
	if got := incidents(c, bot(nth(2), "mirai/23/homes", 40))[0]; got.State != Acknowledged || len(got.History) != 2 {
		t.Errorf("come back: %s, %v", got.State, got.History)
	}
	if ok, _ := c.Move(finding.ID{1}, New, Step{}); ok {
		t.Error("an incident nobody knows was moved")
	}
}

// After a restart an incident goes on where it was.
func TestLoad(t *testing.T) {
	c := NewCorrelator(Config{})
	in := incidents(c, bot(nth(1), "mirai/23/homes", 10), bot(nth(2), "mirai/23/homes", 11))[0]
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var back Incident
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	c = NewCorrelator(Config{})
	c.Load(&back, slices.Values(in.NewMembers))
	got := incidents(c, bot(nth(2), "mirai/23/homes", 100), bot(nth(3), "mirai/23/homes", 101))
	if len(got) != 1 || got[0].ID != in.ID || got[0].Members != 3 || got[0].First != in.First || got[0].Findings != 4 {
		t.Errorf("after a restart: %+v", got[0])
	}
	if n := len(got[0].Subjects); n != 3 {
		t.Errorf("after a restart it is about %d hosts, want 3", n)
	}
	if n := got[0].NewMembers; len(n) != 2 {
		t.Errorf("%d members to write, want the one that changed and the new one", len(n))
	}
}

func TestMembersBounded(t *testing.T) {
	c := NewCorrelator(Config{MaxMembers: 100})
	for i := range 200 {
		c.Add(bot(nth(i), "mirai/23/homes", 10))
	}
	if in := latest(c)[0]; in.Members != 100 || c.Stats().Uncounted != 100 {
		t.Errorf("%d members, %d not counted", in.Members, c.Stats().Uncounted)
	}
}

// The JSON form is a promise: fields may be added, none may go.
func TestJSON(t *testing.T) {
	in := incidents(NewCorrelator(Config{}), flood("flood.inbound", "10.0.0.1", "syn", 1))[0]
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	for _, k := range strings.Fields("id kind family severity confidence state subjects subject_count peers members active first last said ended title why next measured evidence attack requirements findings cause") {
		if v, ok := m[k]; !ok || v == nil {
			t.Errorf("field %s is missing or null", k)
		}
	}
	if m["first"] != "2026-01-01T00:00:00Z" {
		t.Errorf("first = %v", m["first"])
	}
}

func BenchmarkAdd(b *testing.B) {
	const n = 100000
	list := make([]*finding.Finding, n)
	for i := range list {
		list[i] = bot(nth(i), "mirai/23/homes", 10)
	}
	b.ReportAllocs()
	c := NewCorrelator(Config{})
	for i := 0; b.Loop(); i++ {
		if i%n == 0 {
			c = NewCorrelator(Config{})
		}
		c.Add(list[i%n])
	}
}

// A finding that turns out to be of another cause leaves its incident, with its
// member; an incident that has lost all is closed as a duplicate.
func TestLeave(t *testing.T) {
	c := NewCorrelator(Config{})
	early := bot(nth(1), "mirai/telnet/", 10)
	c.Add(early)
	c.Add(bot(nth(2), "mirai/telnet-5358/", 10))
	c.Add(bot(nth(3), "mirai/telnet-5358/", 11))
	c.Changes()
	later := bot(nth(3), "mirai/telnet-5358/", 11)
	later.Cause.Key, later.Last = "mirai/telnet/", at(30)
	c.Add(later)
	got := map[string]*Incident{}
	for _, in := range c.Changes() {
		got[in.Cause.Key] = in
	}
	if a, b := got["mirai/telnet/"], got["mirai/telnet-5358/"]; a.Members != 2 || a.Findings != 2 || b.Members != 1 || b.Findings != 1 || b.SubjectCount != 1 ||
		len(b.NewMembers) != 1 || !b.NewMembers[0].Gone || b.NewMembers[0].Addr != nth(3) {
		t.Errorf("after one left: %+v\n%+v", a, b)
	}
	server := bot(addr("203.0.113.7"), "mirai/c2", 31)
	server.Subject.Role, server.Rule = "c2", "iotbot.c2"
	server.Peers = []finding.Subject{finding.Host(nth(2), "bot", "")}
	c.Add(server)                                 // joins the bot that is left
	best := bot(nth(5), "mirai/telnet-5358/", 32) // the one that leads
	best.Samples = 1000
	c.Add(best)
	moved := *best
	moved.Cause.Key = "mirai/telnet/"
	c.Add(&moved)
	for _, in := range c.Changes() {
		if in.Cause.Key == "mirai/telnet-5358/" && (in.Findings != 2 || in.Title.En == "") {
			t.Errorf("after its leading finding left: %+v", in)
		}
	}
	gone := *server
	gone.Cause.Key = "mirai/telnet/"
	c.Add(&gone)
	again := bot(nth(2), "mirai/telnet-5358/", 10)
	again.Cause.Key = "mirai/telnet/"
	c.Add(again)
	for _, in := range c.Changes() {
		switch in.Cause.Key {
		case "mirai/telnet/":
			if in.Members != 5 || in.State != New {
				t.Errorf("%+v", in)
			}
		default:
			if in.State != Closed || in.Reason != Duplicate || in.Merged == nil || *in.Merged != early.ID || in.Members != 0 {
				t.Errorf("an empty incident: %+v", in)
			}
		}
	}
	if opened := c.Add(bot(nth(4), "mirai/telnet-5358/", 40)); !opened {
		t.Error("the cause of a dissolved incident opens none")
	}
}
