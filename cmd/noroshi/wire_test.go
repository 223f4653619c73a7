package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
)

func said(at event.Time, id byte) *finding.Finding {
	return &finding.Finding{ID: finding.ID{id}, Said: at}
}

// Whatever order findings race in, they are passed on in the order they were
// said, none before the clock has passed it, and updates stay behind what they
// update.
func TestOrdered(t *testing.T) {
	var got []*finding.Finding
	o := &ordered{to: func(f *finding.Finding) { got = append(got, f) }}
	list := []*finding.Finding{said(10, 1), said(10, 2), said(20, 3), said(30, 4)}
	for _, i := range rand.Perm(len(list)) {
		o.add(list[i])
	}
	if o.until(20); !slices.Equal(got, list[:2]) {
		t.Errorf("before 20: %v", got)
	}
	again := said(10, 1)
	o.add(again)
	if o.until(21); len(got) != 4 || got[2] != again {
		t.Errorf("an update: %v", got)
	}
	if o.finish(); len(got) != 5 || got[4] != list[3] || len(o.held) != 0 {
		t.Errorf("at the end: %v", got)
	}
	for range maxHeld + 10 {
		o.add(said(40, 1))
	}
	if len(o.held) > maxHeld {
		t.Errorf("%d held", len(o.held))
	}
}

// A replay of months shows every incident once and keeps only so many.
func TestPile(t *testing.T) {
	shown := map[finding.ID]int{}
	r := &replayer{correlator: incident.NewCorrelator(incident.Config{PerHour: 1e6, Burst: 1e6}), pile: map[finding.ID]*incident.Incident{}, gap: 6 * time.Hour}
	r.show = func(v any) { shown[v.(*incident.Incident).ID]++ }
	const n = 3 * maxPile
	most := 0
	for i := range n {
		at := event.Time(i+1) * event.Time(time.Minute)
		a := event.AddrOf4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		r.correlator.Add(&finding.Finding{
			ID: finding.NewID("x", a, "", at), Rule: "x", Subject: finding.Host(a, "bot", ""), First: at, Last: at, Said: at,
			Cause: finding.Cause{Kind: "x", Key: a.String()}, Measured: []finding.Measure{{}},
		})
		r.correlator.Advance(at)
		r.look(at)
		most = max(most, len(r.pile))
	}
	r.showAll(func(*incident.Incident) bool { return true })
	if len(shown) != n || r.incidents != n || most > maxPile+1 {
		t.Errorf("%d of %d incidents shown, at most %d piled up", len(shown), n, most)
	}
}
