package flood

import (
	"bytes"
	"cmp"
	"encoding/gob"
	"fmt"
	"io"
	"slices"

	"noroshi/event"
)

// Learning. Of an object that is busy, what it usually gets is kept for each of
// the 168 hours of the week: the rate below which 50 of the hour's 60 minutes
// stay. Nine in ten floods are over within ten minutes, so those don't shift it,
// and an hour in which the object was under attack teaches nothing at all. Weeks
// are smoothed exponentially, and one week at most doubles what counts.
const (
	week     = 168
	keeps    = 50   // minutes of an hour that stay below what is usual
	newest   = 0.25 // weight of the latest week
	punctual = 5    // an hour watched from a later minute on is not learned
)

func minuteOf(t event.Time) int64 { return int64(t) / 60e9 }

// rate is packets and bits, each per second.
type rate struct{ pps, bps float32 }

// slot is an hour of the week. The zero slot was never learned.
type slot struct {
	Pps, Bps float32
	Week     uint16 // since 1970, of the latest that counts
}

// profile is what is known of one object.
type profile struct {
	slots [week]slot

	hour    int64 // since 1970, the one that minutes are of; 0 = none yet
	latest  int64 // hour of the latest news
	minutes [60]rate
	spoilt  bool // the hour will not be learned
}

// roll begins a new hour, and learns the one before, if minute is in a new one.
func (p *profile) roll(minute int64) {
	hour := minute / 60
	if hour <= p.hour {
		return
	}
	if p.hour != 0 && !p.spoilt {
		p.learn()
	}
	p.spoilt = p.hour == 0 && minute%60 > punctual
	p.hour, p.latest, p.minutes = hour, hour, [60]rate{}
}

// note enters the rates of a minute.
func (p *profile) note(minute int64, pps, bps float64) {
	p.roll(minute)
	p.minutes[minute%60] = rate{float32(pps), float32(bps)}
}

// spoil notes that the object was under attack.
func (p *profile) spoil(minute int64) {
	p.roll(minute)
	p.spoilt = true
}

func (p *profile) learn() {
	below := func(of func(rate) float32) float32 {
		var rates [60]float32
		for i, r := range p.minutes {
			rates[i] = of(r)
		}
		slices.Sort(rates[:])
		return rates[keeps-1]
	}
	pps := below(func(r rate) float32 { return r.pps })
	bps := below(func(r rate) float32 { return r.bps })
	s := &p.slots[p.hour%week]
	now := uint16(p.hour / week)
	if s.Week != 0 {
		old := s.at(now)
		smooth := func(old, x float32) float32 {
			if old > 0 {
				x = min(x, 2*old)
			}
			return old + newest*(x-old)
		}
		pps, bps = smooth(old.pps, pps), smooth(old.bps, bps)
	}
	*s = slot{pps, bps, now}
}

// at is what the slot says in a week: each week it missed counts as nothing.
func (s *slot) at(now uint16) rate {
	r := rate{s.Pps, s.Bps}
	for w := s.Week + 1; w < now && r != (rate{}); w++ {
		r.pps, r.bps = r.pps*(1-newest), r.bps*(1-newest)
		if r.pps < 1 && r.bps < 1 {
			return rate{}
		}
	}
	return r
}

// usual returns what is usual around minute: the most of that hour of the week
// and its neighbours; until the hour has come round once, of the same hour on
// other days. ok is false while neither is known.
func (p *profile) usual(minute int64) (r rate, ok bool) {
	p.roll(minute)
	for day := range int64(7) {
		for _, hour := range [3]int64{p.hour - 24*day, p.hour - 24*day - 1, p.hour - 24*day + 1} {
			if s := &p.slots[hour%week]; s.Week != 0 {
				u := s.at(uint16(p.hour / week))
				r.pps, r.bps, ok = max(r.pps, u.pps), max(r.bps, u.bps), true
			}
		}
		if day == 0 && p.slots[p.hour%week].Week != 0 {
			break
		}
	}
	return r, ok
}

// object names what has a profile.
type object struct {
	Addr event.Addr
	Bits int
	Side side
	Name string // of an own network
}

func compareObjects(a, b object) int {
	return cmp.Or(cmp.Compare(a.Side, b.Side), bytes.Compare(a.Addr[:], b.Addr[:]), cmp.Compare(a.Bits, b.Bits), cmp.Compare(a.Name, b.Name))
}

func (s *suspect) object() object { return object{Addr: s.key, Bits: s.bits, Side: s.side} }

// learned is one object in a saved state.
type learned struct {
	Object object
	Slots  [week]slot
}

// stateVersion begins a saved state; another version is not read.
const stateVersion = 1

// Save writes what the detector has learned, the same bytes for the same state.
// What goes on, floods and the current hour, is not saved.
func (d *Detector) Save(w io.Writer) error {
	var list []learned
	for o, p := range d.profiles {
		list = append(list, learned{o, p.slots})
	}
	for i := range d.groups {
		if g := &d.groups[i]; g.profile.slots != [week]slot{} {
			list = append(list, learned{object{Side: whole, Name: d.net.At(uint32(i)).Name}, g.profile.slots})
		}
	}
	slices.SortFunc(list, func(a, b learned) int { return compareObjects(a.Object, b.Object) })
	e := gob.NewEncoder(w)
	if err := e.Encode(stateVersion); err != nil {
		return fmt.Errorf("flood: save: %w", err)
	}
	if err := e.Encode(list); err != nil {
		return fmt.Errorf("flood: save: %w", err)
	}
	return nil
}

// Load adds what Save wrote, of this or another shard; networks are found by
// name. Of two that know the same object, the one that learned later counts.
func (d *Detector) Load(r io.Reader) error {
	var version int
	var list []learned
	e := gob.NewDecoder(r)
	if err := e.Decode(&version); err != nil {
		return fmt.Errorf("flood: load: %w", err)
	}
	if version != stateVersion {
		return fmt.Errorf("flood: load: state of version %d, want %d; remove it to learn anew", version, stateVersion)
	}
	if err := e.Decode(&list); err != nil {
		return fmt.Errorf("flood: load: %w", err)
	}
	names := map[string]int{}
	for i := range d.groups {
		names[d.net.At(uint32(i)).Name] = i
	}
	for i := range list {
		l := &list[i]
		var p *profile
		if l.Object.Side != whole {
			p = d.profile(l.Object, 0)
		} else if i, ok := names[l.Object.Name]; ok && i != 0 {
			p = &d.groups[i].profile
		}
		if p == nil {
			continue
		}
		for i, s := range l.Slots {
			if s.Week >= p.slots[i].Week {
				p.slots[i] = s
				p.latest = max(p.latest, int64(s.Week)*week)
			}
		}
	}
	return nil
}

// profile returns the profile of o, made if need be; where there is no room for
// it, in place of one that heard nothing for a week, or nil.
func (d *Detector) profile(o object, hour int64) *profile {
	p := d.profiles[o]
	if p != nil {
		return p
	}
	if len(d.profiles) >= d.cfg.MaxLearned {
		oldest, at := object{}, hour-week
		for o, p := range d.profiles {
			if p.latest < at || p.latest == at && compareObjects(o, oldest) < 0 {
				oldest, at = o, p.latest
			}
		}
		if at >= hour-week {
			d.refused++
			return nil
		}
		delete(d.profiles, oldest)
	}
	p = &profile{latest: hour}
	d.profiles[o] = p
	return p
}

// learn ends a minute of s: it is noted if the object was busy, more than half
// of the way to its limit; of others the limit need not be learned.
func (d *Detector) learn(s *suspect, minute int64) {
	if d.cfg.LearnFactor == 0 || s.side == whole {
		return
	}
	pps, bps := s.gotPackets/60, s.gotBits/60
	switch {
	case s.attacked || s.alarms > 0:
		if p := d.profiles[s.object()]; p != nil {
			p.spoil(minute)
		}
	case pps >= s.static.pps/2 || bps >= s.static.bps/2:
		if p := d.profile(s.object(), minute/60); p != nil {
			p.note(minute, pps, bps)
		}
	}
}

// relimit sets the limit of s for the hour of minute.
func (d *Detector) relimit(s *suspect, minute int64) {
	s.limit, s.usual, s.learned = s.static, rate{}, false
	if s.side == whole {
		g := &d.groups[s.net]
		s.limit, s.usual, s.learned = g.limit, g.usual, g.learned
		return
	}
	if p := d.profiles[s.object()]; p != nil && d.cfg.LearnFactor > 0 {
		if s.usual, s.learned = p.usual(minute); s.learned && !s.static.fixed {
			s.limit.pps = max(s.limit.pps, d.cfg.LearnFactor*float64(s.usual.pps))
			s.limit.bps = max(s.limit.bps, d.cfg.LearnFactor*float64(s.usual.bps))
		}
	}
}
