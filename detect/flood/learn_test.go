package flood

import (
	"bytes"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"noroshi/detect"
	"noroshi/event"
	"noroshi/finding"
	"noroshi/network"
)

// The minutes of an hour, of which ten may be anything; then weeks.
func TestProfile(t *testing.T) {
	var p profile
	hour := func(h int64, pps float64, peak float64) {
		for m := range int64(60) {
			v := pps
			if m >= 20 && m < 30 {
				v = peak
			}
			p.note(h*60+m, v, 1000*v)
		}
	}
	want := func(h int64, pps float64, ok bool) {
		t.Helper()
		u, known := p.usual(h * 60)
		if known != ok || math.Abs(float64(u.pps)-pps) > 0.01*pps || math.Abs(float64(u.bps)-1000*pps) > 10*pps {
			t.Errorf("hour %d: %+v, %v; want %v, %v", h, u, known, pps, ok)
		}
	}
	const monday = 2800 * week
	want(monday, 0, false)
	hour(monday, 100, 1e6)
	want(monday+1, 100, true) // its neighbour
	want(monday+24, 100, true)
	hour(monday+24, 50, 50)
	want(monday+2*24, 100, true) // the most of other days, until the hour came round
	want(monday+week, 100, true)
	hour(monday+week, 200, 1e6)
	want(monday+2*week, 125, true)
	hour(monday+2*week, 1e6, 1e6)
	want(monday+3*week, 125+0.25*125, true) // at most twice what was usual counts
	want(monday+6*week, (125+0.25*125)*0.75*0.75*0.75, true)
	want(monday+60*week, 0, true) // forgotten

	p = profile{}
	hour(monday, 100, 1e6)
	p.spoil(monday*60 + 30)
	want(monday+week, 0, false)

	p = profile{}
	for m := int64(6); m < 60; m++ { // not all of the hour was watched
		p.note(monday*60+m, 100, 1)
	}
	want(monday+week, 0, false)
}

// play gives d a steady stream, in a record every ten seconds from each of 20
// sources, for as long as told.
func play(d *Detector, from event.Time, length time.Duration, pps float64, dst event.Addr, report func(*finding.Finding)) event.Time {
	var b event.Batch
	for at := from; at < from.Add(length); at = at.Add(10 * time.Second) {
		b.Reset()
		for i := range uint32(20) {
			f := b.NewFlow()
			f.First, f.Last, f.Seen, f.Sampling = at-10e9, at-1, at, 1
			f.Proto, f.SrcPort, f.DstPort, f.Packets = event.UDP, 9000, 4000, uint64(pps/2)
			f.Bytes = 100 * f.Packets
			f.Src, f.Dst, f.DstNet = four(outside+i), dst, 1
			f.Marks = event.ForSrc | event.ForDst | event.ForNet
		}
		d.Detect(&b, report)
		d.Advance(at, report)
	}
	return from.Add(length)
}

// sunday is the beginning of an hour, in what counts as one week with the days
// after it.
const sunday = start - start%(week*3600e9) + 20*3600e9

// A host that is usually above the limit has three times that as its limit, at
// that hour; an attack is found, isn't learned, and says what is usual.
func TestLearnedHost(t *testing.T) {
	d := fresh(t, func(c *Config) { c.MinSources = 30 }) // the stream is no flood by itself
	host := four(own + 5)
	var found *finding.Finding
	report := func(f *finding.Finding) { found = f }
	limitAt := func() limit {
		for _, s := range d.suspects {
			if s != nil && s.side == inbound {
				return s.limit
			}
		}
		t.Fatal("no suspect")
		return limit{}
	}
	play(d, sunday, time.Hour, 30_000, host, report)
	if l := limitAt(); l.pps != 20_000 {
		t.Errorf("the first hour has a limit of %v packets/s", l.pps)
	}
	at := play(d, sunday+24*3600e9, 10*time.Minute, 30_000, host, report) // the same hour of the next day
	if l := limitAt(); math.Abs(l.pps-90_000) > 1000 {
		t.Errorf("the same hour on the next day has a limit of %v packets/s, want 90,000", l.pps)
	}
	if found != nil {
		t.Fatalf("found %s: %s", found.Title.En, found.Why.En)
	}
	d.cfg.MinSources = 10
	at = play(d, at, 2*time.Minute, 85_000, host, report)
	if found != nil {
		t.Fatalf("below the learned limit: %s", found.Why.En)
	}
	at = play(d, at, 40*time.Minute, 150_000, host, report)
	if found == nil {
		t.Fatal("an attack above the learned limit was not found")
	}
	m := found.Measured[0]
	if m.Usual == nil || math.Abs(*m.Usual-30_000) > 500 || math.Abs(m.Limit-90_000) > 1000 {
		t.Errorf("measured %+v", m)
	}
	if !strings.Contains(found.Why.En, "learned from the usual 30 k packets/s") || !strings.Contains(found.Why.Ja, "平常値") {
		t.Errorf("why: %s %s", found.Why.En, found.Why.Ja)
	}
	found = nil
	play(d, at.Add(23*time.Hour), time.Minute, 30_000, host, report)
	if l := limitAt(); math.Abs(l.pps-90_000) > 1000 {
		t.Errorf("after the attack the limit is %v packets/s", l.pps)
	}
}

// An own network without a limit of its own gets one from what is usual; a host
// whose network has a limit keeps that.
func TestLearnedNetwork(t *testing.T) {
	table, err := network.New([]network.Network{
		{Name: "acme", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, HostPPS: 10_000},
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := defaults().(*Config)
	made, _ := newDetector(detect.Env{Config: cfg, Network: table})
	d := made.(*Detector)
	var found []*finding.Finding
	report := func(f *finding.Finding) { found = append(found, f) }
	// 20,000 packets/s over four /16s, 200 hosts in all.
	spread := func(from event.Time, length time.Duration, pps float64) event.Time {
		var b event.Batch
		for at := from; at < from.Add(length); at = at.Add(time.Second) {
			b.Reset()
			for i := range uint32(200) {
				f := b.NewFlow()
				f.First, f.Last, f.Seen, f.Sampling = at-1e9, at-1, at, 1
				f.Proto, f.SrcPort, f.DstPort, f.Packets = event.UDP, 9000, 4000, uint64(pps/200)
				f.Bytes = 100 * f.Packets
				f.Src, f.Dst, f.DstNet = four(outside+i), four(own+i%4<<16+i<<8), 1
				f.Marks = event.ForSrc | event.ForDst | event.ForNet
			}
			d.Detect(&b, report)
		}
		return from.Add(length)
	}
	spread(sunday, time.Hour, 20_000)
	at := spread(sunday+24*3600e9, 10*time.Minute, 20_000)
	if len(found) > 0 {
		t.Fatalf("found %s: %s", found[0].Title.En, found[0].Why.En)
	}
	spread(at, 30*time.Second, 90_000)
	if len(found) == 0 {
		t.Fatal("more than four times the usual was not found")
	}
	f := found[0]
	if f.Subject.String() != "acme" || f.Subject.Addr != (event.Addr{}) || f.Measured[0].Limit != 60_000 || f.Measured[0].Usual == nil || *f.Measured[0].Usual != 20_000 {
		t.Errorf("%+v: %+v", f.Subject, f.Measured[0])
	}
	if !strings.Contains(f.Why.En, "limit for this network is 60 k packets/s, learned from the usual 20 k packets/s") {
		t.Error(f.Why.En)
	}
}

// What was learned outlives a restart, also one with other networks.
func TestSaveLoad(t *testing.T) {
	d := fresh(t, func(c *Config) { c.MinSources = 30 })
	host := four(own + 5)
	none := func(*finding.Finding) {}
	play(d, sunday, time.Hour+time.Minute, 30_000, host, none)
	var one, two bytes.Buffer
	if err := d.Save(&one); err != nil {
		t.Fatal(err)
	}
	e := fresh(t, func(c *Config) { c.MinSources = 30 })
	if err := e.Load(bytes.NewReader(one.Bytes())); err != nil {
		t.Fatal(err)
	}
	if err := e.Save(&two); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("what was loaded isn't what was saved")
	}
	if len(e.profiles) == 0 || e.groups[1].profile.slots == [week]slot{} {
		t.Errorf("%d profiles", len(e.profiles))
	}
	play(e, sunday+week*3600e9, time.Minute, 30_000, host, none)
	learned := false
	for _, s := range e.suspects {
		learned = learned || s != nil && s.side == inbound && s.limit.pps == 90_000
	}
	if !learned {
		t.Error("the limit was not taken from what was loaded")
	}
	if err := e.Load(strings.NewReader("nonsense")); err == nil {
		t.Error("nonsense was loaded")
	}
}

// However many objects are busy, those learned are bounded.
func TestLearnedBound(t *testing.T) {
	d := fresh(t, func(c *Config) { c.MaxLearned = 10 })
	for i := range 100 {
		d.profile(object{Addr: four(uint32(i))}, 1000)
	}
	if len(d.profiles) != 10 || d.refused != 90 {
		t.Errorf("%d profiles, %d refused", len(d.profiles), d.refused)
	}
	if p := d.profile(object{Addr: four(1000)}, 1000+week+1); p == nil || len(d.profiles) != 10 {
		t.Error("one that heard nothing for a week does not give way")
	}
}
