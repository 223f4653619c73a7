package history

import (
	"encoding/json"
	"fmt"
	"time"

	"noroshi/event"
)

// Range is a stretch of time by Seen: From belongs to it, To does not.
type Range struct {
	From, To event.Time
}

func (r Range) String() string { return r.From.String() + " to " + r.To.String() }

// Length returns how long r is.
func (r Range) Length() time.Duration { return r.To.Sub(r.From) }

// MaxRange is the longest range that is answered.
const MaxRange = 5 * 366 * 24 * time.Hour

func (r Range) check() error {
	switch {
	case r.From <= 0 || r.To <= r.From:
		return fmt.Errorf("history: the range %v is empty: its end must be after its beginning", r)
	case r.Length() > MaxRange:
		return fmt.Errorf("history: the range %v is longer than five years; ask for less", r)
	}
	return nil
}

// whole returns r widened to whole steps, counted from 1970.
func (r Range) whole(step time.Duration) Range {
	s := event.Time(step)
	r.From -= r.From % s
	if over := r.To % s; over != 0 {
		r.To += s - over
	}
	return r
}

// first returns the beginning of the step that r begins in: steps are counted
// from 1970, so the first and the last of a range may be cut short.
func (r Range) first(step time.Duration) event.Time { return r.From - r.From%event.Time(step) }

// steps returns the number of steps that r touches.
func (r Range) steps(step time.Duration) int {
	return int((r.To.Sub(r.first(step)) + step - 1) / step)
}

// MarshalJSON writes {"from": …, "to": …}.
func (r Range) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]event.Time{"from": r.From, "to": r.To})
}

// MaxSteps is how many steps an answer may have.
const MaxSteps = 20_000

// steps that a person can read off.
var niceSteps = []time.Duration{
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour,
}

// StepFor returns the step that divides r into about a hundred.
func StepFor(r Range) time.Duration {
	for _, s := range niceSteps {
		if r.Length() <= 120*s {
			return s
		}
	}
	return 24 * time.Hour
}

// stepped checks r and step (0 = the whole range in one) and returns r widened
// to whole minutes.
func (r Range) stepped(step time.Duration) (Range, error) {
	if err := r.check(); err != nil {
		return r, err
	}
	switch {
	case step == 0:
		return r.whole(time.Minute), nil
	case step < time.Minute || step > 24*time.Hour || (24*time.Hour)%step != 0 || step%time.Minute != 0:
		return r, fmt.Errorf("history: a step of %v; want whole minutes that divide a day, 1m to 24h", step)
	}
	if r = r.whole(time.Minute); r.steps(step) > MaxSteps {
		return r, fmt.Errorf("history: %v has %d steps of %v; at most %d: take a longer step", r, r.steps(step), step, MaxSteps)
	}
	return r, nil
}
