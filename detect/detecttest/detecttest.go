// Package detecttest runs a detector over the cases in its testdata folder.
//
// A case is a text file: comments, optional own networks and knobs, events in
// the notation of [event.Batch.AppendLine], then what must be found; anything
// else that is found fails the case, so each case also says what must not be.
//
//	# one host, one port, many addresses
//	network home residential 10.0.0.0/8 total_pps=500000
//	set MinTargets 50
//	load
//	  flow +0s 10.0.0.5 > 192.0.2.[1-120]:23 tcp S
//	want
//	  iotbot.scan 10.0.0.5 family=mirai T1046 within=5s
//
// A line of want is the rule and the subject, then any of: family=, a technique
// ID, role=, network=, peer=ADDR (among the peers), peers=N (PeerCount), within=
// (Said at most so long after +0s), confidence>=0.9, ended. Findings with the
// same ID are updates of each other: the last is compared, but Said is the
// first's.
package detecttest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"noroshi/detect"
	"noroshi/event"
	"noroshi/finding"
	"noroshi/network"
)

// Start is what "+0s" means in a case: 2017-11-23 00:00:00 UTC.
const Start event.Time = 1511395200e9

// Run runs spec on every testdata/*.case as a subtest, each as a whole and
// split into single-event batches over 1, 2 and 8 shards.
func Run(t *testing.T, spec *detect.Spec) {
	files, err := filepath.Glob("testdata/*.case")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases in testdata (%v)", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".case"), func(t *testing.T) {
			c, err := read(spec, file)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			whole := c.play(t, spec, 1, false)
			c.compare(t, file, whole)
			want := ids(whole)
			for _, shards := range []int{1, 2, 8} {
				if got := ids(c.play(t, spec, shards, true)); got != want {
					t.Errorf("%s: %d shards, event by event, found\n%s\nwhole, in one shard:\n%s", file, shards, got, want)
				}
			}
		})
	}
}

type testCase struct {
	networks []network.Network
	config   any
	batch    event.Batch
	want     []string
}

func read(spec *detect.Spec, file string) (*testCase, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	c := &testCase{config: spec.Config()}
	mode := ""
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		w := strings.Fields(line)
		switch {
		case line == "":
		case line == "load" || line == "want":
			mode = line
		case mode == "" && w[0] == "network" && len(w) >= 4:
			n := network.Network{Name: w[1], Kind: network.Kind(w[2])}
			for _, p := range w[3:] {
				if ok, err := option(&n, p); err != nil {
					return nil, err
				} else if ok {
					continue
				}
				prefix, err := netip.ParsePrefix(p)
				if err != nil {
					return nil, err
				}
				n.Prefixes = append(n.Prefixes, prefix)
			}
			c.networks = append(c.networks, n)
		case mode == "" && w[0] == "set" && len(w) == 3:
			if err := set(c.config, w[1], w[2]); err != nil {
				return nil, err
			}
		case mode == "load":
			if err := c.batch.AppendLine(line, Start); err != nil {
				return nil, err
			}
		case mode == "want":
			c.want = append(c.want, line)
		default:
			return nil, fmt.Errorf("%q: want network, set, load or want", line)
		}
	}
	slices.SortStableFunc(c.batch.Flows, func(x, y event.Flow) int { return cmp.Compare(x.Seen, y.Seen) })
	return c, nil
}

// option sets what a word "key=value" says of a network; ok tells that it is one.
func option(n *network.Network, word string) (ok bool, err error) {
	key, value, ok := strings.Cut(word, "=")
	limits := map[string]*uint64{"host_pps": &n.HostPPS, "host_bps": &n.HostBPS, "total_pps": &n.TotalPPS, "total_bps": &n.TotalBPS}
	switch {
	case !ok:
	case key == "tenant":
		n.Tenant = value
	case limits[key] != nil:
		*limits[key], err = strconv.ParseUint(value, 10, 64)
	default:
		err = fmt.Errorf("%q: want tenant=, host_pps=, host_bps=, total_pps= or total_bps=", word)
	}
	return ok, err
}

// set changes one knob.
func set(config any, name, value string) error {
	v := reflect.ValueOf(config).Elem().FieldByName(name)
	if !v.IsValid() {
		return fmt.Errorf("no knob %q in %T", name, config)
	}
	if v.Type() == reflect.TypeFor[time.Duration]() {
		d, err := time.ParseDuration(value)
		v.SetInt(int64(d))
		return err
	}
	return json.Unmarshal([]byte(value), v.Addr().Interface())
}

type found struct {
	*finding.Finding
	firstSaid event.Time
}

// play feeds the case to the detector and returns its findings by ID, later
// ones replacing earlier.
func (c *testCase) play(t *testing.T, spec *detect.Spec, shards int, single bool) map[finding.ID]found {
	t.Helper()
	table, err := network.New(c.networks)
	if err != nil {
		t.Fatal(err)
	}
	if spec.Select != nil {
		shards = 1
	}
	ds := make([]detect.Detector, shards)
	for i := range ds {
		if ds[i], err = spec.New(detect.Env{Config: c.config, Network: table, Seed: uint64(shards)}); err != nil {
			t.Fatal(err)
		}
	}
	got := map[finding.ID]found{}
	report := func(f *finding.Finding) {
		said := f.Said
		if was, ok := got[f.ID]; ok {
			said = was.firstSaid
		}
		got[f.ID] = found{f, said}
		Explained(t, spec, f)
	}
	var all event.Batch
	all.Append(&c.batch)
	table.Annotate(&all)
	step := all.Len()
	if single {
		step = 1
	}
	var last, tick event.Time
	for i := 0; i < all.Len(); i += max(step, 1) {
		var b event.Batch
		for j := i; j < min(i+step, all.Len()); j++ {
			f := b.NewFlow()
			*f = all.Flows[j]
			f.Payload = b.AddText([]byte(all.Text(f.Payload)))
			last = max(last, f.Seen)
		}
		parts := []*event.Batch{&b}
		if shards > 1 {
			parts = make([]*event.Batch, shards)
			for j := range parts {
				parts[j] = new(event.Batch)
			}
		}
		if spec.Select != nil {
			parts[0] = choose(spec, &b)
		} else {
			b.Deal(parts)
		}
		for j, d := range ds {
			d.Detect(parts[j], report)
			if single && last >= tick {
				d.Advance(last, report)
			}
		}
		if last >= tick {
			tick = last.Add(time.Second)
		}
	}
	for _, d := range ds {
		d.Finish(report)
		d.Advance(last.Add(24*time.Hour), report)
	}
	return got
}

// Explained fails the test if f lacks what every finding owes its reader.
func Explained(t *testing.T, spec *detect.Spec, f *finding.Finding) {
	t.Helper()
	for what, ok := range map[string]bool{
		"an ID":                    f.ID != finding.ID{},
		"a rule of its own":        slices.ContainsFunc(spec.Rules, func(r detect.Rule) bool { return r.Name == f.Rule }),
		"a title":                  f.Title.En != "" && f.Title.Ja != "",
		"a reason":                 f.Why.En != "" && f.Why.Ja != "",
		"a next step":              f.Next.En != "" && f.Next.Ja != "",
		"a measure":                len(f.Measured) > 0 && f.Measured[0].What != "",
		"evidence":                 len(f.Evidence) > 0 && len(f.Evidence) <= finding.MaxEvidence,
		"its measures in Japanese": !slices.ContainsFunc(f.Measured, func(m finding.Measure) bool { return m.Ja == "" }),
		"few peers":                len(f.Peers) <= finding.MaxPeers,
		"its times":                f.First != 0 && f.First <= f.Last && f.Said != 0,
		"a confidence":             f.Confidence > 0 && f.Confidence <= 1,
		"a cause":                  f.Cause.Kind != "",
		"a requirement":            len(f.Requirements) > 0,
	} {
		if !ok {
			t.Errorf("%s %v: a finding without %s: %+v", f.Rule, f.Subject, what, f)
		}
	}
}

// choose does for a detector of the whole network what the pipeline does.
func choose(spec *detect.Spec, b *event.Batch) *event.Batch {
	part := new(event.Batch)
	for i := range b.Flows {
		if spec.Select(b, &b.Flows[i]) {
			part.AppendFlow(b, &b.Flows[i]).Marks |= event.ForSrc | event.ForDst
		}
	}
	return part
}

func ids(got map[finding.ID]found) string {
	var s []string
	for id, f := range got {
		s = append(s, fmt.Sprint("  ", id, " ", f.Rule, " ", f.Subject, " ", f.Family))
	}
	slices.Sort(s)
	return strings.Join(s, "\n")
}

func (c *testCase) compare(t *testing.T, file string, got map[finding.ID]found) {
	t.Helper()
	left := make([]found, 0, len(got))
	for _, f := range got {
		left = append(left, f)
	}
	for _, w := range c.want {
		i := slices.IndexFunc(left, func(f found) bool { return matches(t, w, f) })
		if i < 0 {
			t.Errorf("%s: not found: %s", file, w)
			continue
		}
		left = slices.Delete(left, i, i+1)
	}
	for _, f := range left {
		t.Errorf("%s: found too: %s %v family=%s: %s", file, f.Rule, f.Subject, f.Family, f.Why.En)
	}
	if t.Failed() {
		for _, f := range got {
			t.Logf("%s %v family=%s said +%v confidence %.3f: %s", f.Rule, f.Subject, f.Family, f.firstSaid.Sub(Start), f.Confidence, f.Why.En)
		}
	}
}

func matches(t *testing.T, want string, f found) bool {
	t.Helper()
	w := strings.Fields(want)
	if len(w) < 2 || w[0] != f.Rule || w[1] != f.Subject.String() {
		return false
	}
	for _, w := range w[2:] {
		key, value, _ := strings.Cut(w, "=")
		ok := false
		switch key {
		case "family":
			ok = value == f.Family
		case "role":
			ok = value == f.Subject.Role
		case "network":
			ok = value == f.Subject.Network
		case "peer":
			ok = slices.ContainsFunc(f.Peers, func(s finding.Subject) bool { return s.String() == value })
		case "peers":
			n, err := strconv.ParseUint(value, 10, 64)
			ok = err == nil && n == f.PeerCount
		case "within":
			d, err := time.ParseDuration(value)
			ok = err == nil && f.firstSaid.Sub(Start) <= d
		case "confidence>":
			c, err := strconv.ParseFloat(value, 64)
			ok = err == nil && f.Confidence >= c
		case "ended":
			ok = f.Ended
		default:
			if w[0] != 'T' {
				t.Errorf("want: unknown word %q", w)
			}
			ok = slices.Contains(f.Attack, w)
		}
		if !ok {
			return false
		}
	}
	return true
}
