package score

import (
	"context"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"noroshi/detect"
	"noroshi/detect/flood"
	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
	"noroshi/network"
	"noroshi/pipeline"
	"noroshi/scenario"
)

func addr(n byte) event.Addr { return event.AddrOf4([4]byte{10, 16, 0, n}) }

// perfect is a result in which ten bots and a flood were found as they were. It
// is made through the correlator, as a real one is.
func perfect(change func(truth *scenario.Truth, found *[]finding.Finding)) *Result {
	truth := &scenario.Truth{Bots: map[event.Addr]*scenario.Bot{}, Roles: map[event.Addr]*scenario.Role{}, BotWithin: time.Minute}
	var found []finding.Finding
	seen := func(t event.Time) scenario.Trace { return scenario.Trace{Sent: 500, Seen: 500, First: t, FirstSeen: t} }
	for i := range byte(10) {
		a := addr(i + 1)
		truth.Bots[a] = &scenario.Bot{Addr: a, Family: "mirai", Cluster: "mirai", Trace: seen(1e9)}
		found = append(found, finding.Finding{
			ID: finding.NewID("iotbot.scan", a, "", 1), Rule: "iotbot.scan", Severity: finding.High, Family: "mirai", Subject: finding.Host(a, "bot", "homes"),
			First: 1e9, Last: 3e9, Said: 3e9, Cause: finding.Cause{Kind: "iotbot", Key: "mirai"},
		})
	}
	c2 := addr(200)
	truth.Roles[c2] = &scenario.Role{Addr: c2, Role: "c2", Family: "mirai", Trace: seen(1e9)}
	found = append(found, finding.Finding{
		ID: finding.NewID("iotbot.c2", c2, "", 1), Rule: "iotbot.c2", Severity: finding.High, Family: "mirai", Subject: finding.Host(c2, "c2", ""),
		First: 1e9, Last: 3e9, Said: 3e9, Cause: finding.Cause{Kind: "iotbot", Key: "mirai"},
	})
	truth.Fleets = []*scenario.Fleet{{Name: "mirai", Size: 10, Trace: seen(1e9)}}
	victim := addr(100)
	truth.Floods = []*scenario.Flood{{
		Rule: "flood.outbound", Target: victim, Bits: 32, Vectors: []string{"udp"}, Within: time.Second, Trace: seen(2e9),
		Senders: map[event.Addr]*scenario.Trace{addr(1): {Seen: 5}, addr(2): {Seen: 5}},
	}}
	truth.Announced = []*scenario.Announcement{{C2: c2, Victim: victim}}
	truth.Floods[0].First = 5e9
	found = append(found, finding.Finding{
		ID: finding.NewID("flood.outbound", victim, "udp", 1), Rule: "flood.outbound", Severity: finding.High, Family: "udp", Subject: finding.Host(victim, "victim", ""),
		First: 2e9, Last: 3e9, Said: 25e8, Cause: finding.Cause{Kind: "flood", Target: victim, Bits: 32}, Members: []event.Addr{addr(1), addr(2)},
	}, finding.Finding{
		ID: finding.NewID("iotbot.announced", victim, "", 1), Rule: "iotbot.announced", Severity: finding.Critical, Family: "mirai", Subject: finding.Host(victim, "victim", ""),
		Peers: []finding.Subject{finding.Host(c2, "c2", "")}, First: 2e9, Last: 2e9, Said: 4e9, Cause: finding.Cause{Kind: "iotbot", Key: "announced/udp", Target: victim, Bits: 32},
	})
	change(truth, &found)

	r := &Result{
		Scenario: &scenario.Scenario{Name: "planted", Requirements: []string{"R24"}}, Truth: truth, Members: map[finding.ID]map[event.Addr]bool{},
		names: map[string]bool{"iotbot": true, "flood": true},
	}
	c := incident.NewCorrelator(incident.Config{})
	for i := range found {
		f := found[i]
		r.Findings = append(r.Findings, Finding{f, f.Said})
		c.Add(&f)
	}
	for _, in := range c.Changes() {
		r.Members[in.ID] = map[event.Addr]bool{}
		bots := uint64(0)
		for _, m := range in.NewMembers {
			r.Members[in.ID][m.Addr] = true
			if m.Role == "bot" {
				bots++
			}
		}
		r.Incidents = append(r.Incidents, in)
		if strings.HasPrefix(in.Kind, "iotbot") {
			r.sizes = append(r.sizes, size{4e9, in.ID, bots})
		}
	}
	return r
}

func missed(r *Result) (list []string) {
	for _, c := range Judge(r) {
		if !c.Met {
			list = append(list, c.What)
		}
	}
	return list
}

// Each planted mistake is seen, and nothing else.
func TestPlantedMistakes(t *testing.T) {
	bot := func(n byte) finding.Finding {
		a := addr(n)
		return finding.Finding{ID: finding.NewID("iotbot.scan", a, "", 1), Rule: "iotbot.scan", Severity: finding.High, Family: "mirai", Subject: finding.Host(a, "bot", "homes"),
			First: 1e9, Last: 3e9, Said: 3e9, Cause: finding.Cause{Kind: "iotbot", Key: "mirai"}}
	}
	type (
		truth = *scenario.Truth
		found = *[]finding.Finding
	)
	for name, c := range map[string]struct {
		change func(truth, found)
		want   string // the beginnings of what is missed, with | between them
	}{
		"nothing": {func(truth, found) {}, ""},
		"a missed bot": {func(_ truth, f found) { *f = (*f)[1:] },
			"recall of bots|error of the fleet"},
		"a missed bot that sent little": {func(tr truth, f found) {
			tr.Bots[addr(50)] = &scenario.Bot{Addr: addr(50), Family: "mirai", Cluster: "mirai", Trace: scenario.Trace{Seen: 99}}
		}, ""},
		"a false bot": {func(_ truth, f found) { *f = append(*f, bot(60)) },
			"precision of bots|error of the fleet"},
		"an informational finding": {func(_ truth, f found) {
			x := bot(60)
			x.Rule, x.Severity, x.Subject.Role, x.Cause.Kind = "scan.survey", finding.Informational, "scanner", "scan"
			x.ID[0]++
			*f = append(*f, x)
		}, ""},
		"a wrong family":                  {func(_ truth, f found) { (*f)[3].Family = "hajime" }, "families named"},
		"a family that it only resembles": {func(tr truth, _ found) { b := tr.Bots[addr(4)]; b.Family, b.Never = "", "mirai" }, "bots taken for"},
		"late": {func(_ truth, f found) {
			for i := range 10 {
				(*f)[i].Said = 120e9
			}
		}, "time to the first bot"},
		"a role unseen":      {func(_ truth, f found) { *f = slices.Delete(*f, 10, 11) }, "servers of the botnet"},
		"a role that is not": {func(_ truth, f found) { (*f)[10].Rule, (*f)[10].Subject.Role = "iotbot.loader", "loader" }, "servers of the botnet|hosts given a role"},
		"a fleet in two": {func(_ truth, f found) {
			for i := range 5 {
				(*f)[i].Cause.Key = "other"
			}
		}, "incidents of the fleet|error of the fleet"},
		"no flood":      {func(_ truth, f found) { *f = slices.Delete(*f, 11, 12) }, "attacks found|vectors named"},
		"wrong vector":  {func(_ truth, f found) { (*f)[11].Family = "icmp" }, "vectors named"},
		"wrong rule":    {func(_ truth, f found) { (*f)[11].Rule = "flood.inbound" }, "attacks found|vectors named|false incidents"},
		"vector beside": {func(_ truth, f found) { x := (*f)[11]; x.ID[0]++; x.Family = "gre"; *f = append(*f, x) }, "vectors named"},
		"slow alert":    {func(_ truth, f found) { (*f)[11].Said = 32e8 }, "time to alert"},
		"sender missed": {func(_ truth, f found) { (*f)[11].Members = (*f)[11].Members[:1] }, "senders named"},
		"false sender":  {func(_ truth, f found) { (*f)[11].Members = append((*f)[11].Members, addr(9)) }, "precision of senders"},
		"a false flood": {func(_ truth, f found) {
			x := (*f)[11]
			x.ID[0]++
			x.Subject, x.Cause.Target = finding.Host(addr(101), "victim", ""), addr(101)
			*f = append(*f, x)
		}, "false incidents"},
		"announced too late": {func(_ truth, f found) { (*f)[12].Said = 6e9 }, "seconds by which"},
	} {
		r := perfect(c.change)
		got := missed(r)
		want := []string{}
		if c.want != "" {
			want = strings.Split(c.want, "|")
		}
		ok := len(got) == len(want)
		for _, w := range want {
			ok = ok && slices.ContainsFunc(got, func(g string) bool { return strings.HasPrefix(g, w) })
		}
		if !ok {
			t.Errorf("%s: missed %q, want %q", name, got, want)
		}
	}
}

// What needs a detector that did not run is skipped, and never met.
func TestSkipped(t *testing.T) {
	r := perfect(func(*scenario.Truth, *[]finding.Finding) {})
	r.names = map[string]bool{"flood": true}
	n := 0
	for _, c := range Judge(r) {
		if c.Skipped != "" {
			n++
		}
		if c.Met == (c.Skipped != "") {
			t.Errorf("%+v", c)
		}
	}
	if n != 9 {
		t.Errorf("%d checks skipped", n)
	}
}

func TestAdjustedRand(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want float64
	}{
		{"aabbcc", "xxyyzz", 1}, {"aabbcc", "zzxxyy", 1}, {"aaabbb", "xxyxyy", -1. / 9}, {"aaabbb", "xxxxxx", 0}, {"aabb", "xyzw", 0}, {"aaaa", "xxxx", 1},
	} {
		if got := AdjustedRand(strings.Split(c.a, ""), strings.Split(c.b, "")); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s %s: %v, want %v", c.a, c.b, got, c.want)
		}
	}
}

// Small scenarios are played and every target of floods is met. A detector with
// its limits moved misses them, so the scenarios measure something.
func TestFloods(t *testing.T) {
	names := []string{"dns-amplification", "snmp-amplification", "flood-syn", "flood-gre", "flood-fragments", "carpet-bombing", "slow-outbound", "own-reflectors", "terabit"}
	for _, name := range names {
		r, err := Run(context.Background(), scenario.Find(name), Config{Seed: 4})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range Judge(r) {
			if !c.Met && c.Skipped == "" {
				t.Errorf("%s: %s: %v, limit %v, %v", name, c.What, c.Value, c.Limit, c.Wrong)
			}
		}
	}
	dull := flood.Spec.Config().(*flood.Config)
	dull.HostPPS, dull.HostBPS, dull.Reflectors = 1e9, 1e14, 1e6
	r, err := Run(context.Background(), scenario.Find("flood-syn"), Config{Seed: 4, Detectors: []pipeline.Detector{{Spec: &flood.Spec, Config: dull}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := missed(r); !slices.Contains(got, "attacks found") {
		t.Errorf("a dull detector missed only %q", got)
	}
	nervous := flood.Spec.Config().(*flood.Config)
	nervous.HostPPS, nervous.MinSamples, nervous.MinSources = 20, 1, 1
	r, err = Run(context.Background(), scenario.Find("flood-syn"), Config{Seed: 4, Detectors: []pipeline.Detector{{Spec: &flood.Spec, Config: nervous}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := missed(r); !slices.Contains(got, "false incidents") {
		t.Errorf("a nervous detector missed only %q", got)
	}
}

// The number of shards changes nothing that is scored.
func TestShards(t *testing.T) {
	s := scenario.Find("slow-outbound")
	score := func(shards int) map[string]float64 {
		r, err := Run(context.Background(), s, Config{Seed: 2, Shards: shards})
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]float64{}
		for _, c := range Judge(r) {
			m[c.What] = c.Value
		}
		return m
	}
	if one, four := score(1), score(4); !maps.Equal(one, four) {
		t.Errorf("with one shard %v, with four %v", one, four)
	}
}

// byMark is a detector that calls bots all who send ten marked SYNs.
type byMark map[event.Addr]int

func (d byMark) Detect(b *event.Batch, report func(*finding.Finding)) {
	for i := range b.Flows {
		f := &b.Flows[i]
		if !f.Has(event.SeqIsDst | event.ForSrc) {
			continue
		}
		if d[f.Src]++; d[f.Src] == 10 {
			report(&finding.Finding{
				ID: finding.NewID("iotbot.scan", f.Src, "", 1), Rule: "iotbot.scan", Severity: finding.High, Family: "adb", Subject: finding.Host(f.Src, "bot", ""),
				First: f.First, Last: f.Last, Said: f.Seen, Cause: finding.Cause{Kind: "iotbot", Key: "adb"},
			})
		}
	}
}

func (byMark) Advance(event.Time, func(*finding.Finding)) {}
func (byMark) Finish(func(*finding.Finding))              {}
func (byMark) Usage() detect.Usage                        { return detect.Usage{} }

// deaf is a detector that says nothing.
type deaf struct{ byMark }

func (deaf) Detect(*event.Batch, func(*finding.Finding)) {}

// Bots are found by their marks through the encoders and decoders, and the
// judgement of them is right from end to end.
func TestBots(t *testing.T) {
	run := func(name string, made detect.Detector) []Check {
		spec := detect.Spec{Name: "iotbot", Config: func() any { return nil }, New: func(detect.Env) (detect.Detector, error) { return made, nil }}
		r, err := Run(context.Background(), scenario.Find(name), Config{Seed: 3, Detectors: []pipeline.Detector{{Spec: &spec}}})
		if err != nil {
			t.Fatal(err)
		}
		return Judge(r)
	}
	for _, name := range []string{"adb-worm", "satori"} {
		for _, c := range run(name, byMark{}) {
			wrong := name == "satori" && strings.HasPrefix(c.What, "families") // byMark knows one name
			if c.Met == wrong {
				t.Errorf("%s: %+v", name, c)
			}
		}
	}
	for _, c := range run("adb-worm", deaf{}) {
		if missed := strings.HasPrefix(c.What, "recall"); c.Met == missed {
			t.Errorf("deaf: %+v", c)
		}
	}
}

// Without detectors that say something, everything is missed and nothing false.
func TestSilence(t *testing.T) {
	spec := detect.Spec{Name: "flood", Config: func() any { return nil }, New: func(detect.Env) (detect.Detector, error) { return deaf{}, nil }}
	r, err := Run(context.Background(), scenario.Find("flood-icmp"), Config{Detectors: []pipeline.Detector{{Spec: &spec}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := missed(r); !slices.Equal(got, []string{"attacks found", "vectors named right"}) {
		t.Errorf("missed %q", got)
	}
	if _, err := network.New(r.Scenario.Provider.Networks); err != nil || r.Records == 0 || r.Lost != 0 {
		t.Errorf("%+v %v", r, err)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ctx, scenario.Find("ordinary-day"), Config{}); err != context.Canceled {
		t.Error(err)
	}
}
