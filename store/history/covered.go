package history

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"noroshi/event"
)

// Covered says which part of a range was watched, and what was lost of it. A
// minute in which nothing was written down about a kind was not watched: nobody
// knows what there was. That is not the same as nothing.
type Covered struct {
	Minutes int `json:"minutes"` // of the range
	Watched int `json:"watched"` // of which a record of the watch is there
	// Kept and Lost are numbers of events.
	Kept   uint64 `json:"kept"`
	Lost   uint64 `json:"lost"`
	Losses []Loss `json:"losses,omitempty"`
	// Gaps are the stretches that were not watched, at most MaxGaps of them.
	Gaps []Range `json:"gaps,omitempty"`
}

// Loss is a number of events that were not kept, for one reason.
type Loss struct {
	Reason string `json:"reason"`
	Lost   uint64 `json:"lost"`
}

// MaxGaps bounds Covered.Gaps.
const MaxGaps = 1000

// Whole reports whether all of the range was watched and nothing lost.
func (c *Covered) Whole() bool { return c.Watched == c.Minutes && c.Lost == 0 }

// String says it in a line.
func (c *Covered) String() string {
	if c.Whole() {
		return "complete"
	}
	var s []string
	if n := c.Minutes - c.Watched; n > 0 {
		s = append(s, fmt.Sprintf("%d of %d minutes were not watched", n, c.Minutes))
	}
	if c.Lost > 0 {
		var why []string
		for _, l := range c.Losses {
			why = append(why, fmt.Sprintf("%s %d", l.Reason, l.Lost))
		}
		s = append(s, fmt.Sprintf("%.2g %% of events lost (%s)", 100*float64(c.Lost)/float64(c.Lost+c.Kept), strings.Join(why, ", ")))
	}
	return strings.Join(s, "; ")
}

// Bucket is a step of a range with what is known of it.
type Bucket struct {
	At      event.Time
	Minutes int // of the step that are in the range
	Watched int
	Kept    uint64
	Lost    uint64
}

// Partial reports whether something of the step is not known.
func (b *Bucket) Partial() bool { return b.Watched < b.Minutes || b.Lost > 0 }

// Coverage returns what is known of each step of a range for one kind. A step of
// 0 is the whole range in one.
func (q *Questions) Coverage(ctx context.Context, k Kind, r Range, step time.Duration) (Covered, []Bucket, error) {
	r, err := r.stepped(step)
	if err != nil {
		return Covered{}, nil, err
	}
	first := r.From // of the first step
	if step == 0 {
		step = r.Length()
	} else {
		first = r.first(step)
	}
	var s statement
	s.where = append(s.where, "minute >= "+s.minute(r.From), "minute < "+s.minute(r.To), "kind = "+s.param("String", k.String()))
	free := *q // all minutes of the longest range are no answer to somebody, and cheap
	free.Limits.Rows = 1 << 26
	in, err := free.ask(ctx, &s, "SELECT minute, reason, sum(kept), sum(lost) FROM "+q.Layout.all(coverageTable)+s.conditions()+" GROUP BY minute, reason ORDER BY minute, reason")
	if err != nil {
		return Covered{}, nil, err
	}
	defer in.close()

	c := Covered{Minutes: r.steps(time.Minute)}
	buckets := make([]Bucket, (r.To.Sub(first)+step-1)/step)
	for i := range buckets {
		at := first.Add(time.Duration(i) * step)
		buckets[i] = Bucket{At: at, Minutes: int(min(at.Add(step), r.To).Sub(max(at, r.From)) / time.Minute)}
	}
	losses := map[string]uint64{}
	upto := r.From // watched or said to be a gap
	gap := func(to event.Time) {
		if to > upto && len(c.Gaps) < MaxGaps {
			c.Gaps = append(c.Gaps, Range{upto, to})
		}
	}
	for in.next() {
		minute, reason, kept, lost := in.date(), string(in.bytes()), in.u64(), in.u64()
		if in.err != nil || minute < r.From || minute >= r.To {
			continue
		}
		b := &buckets[minute.Sub(first)/step]
		if minute >= upto {
			gap(minute)
			upto = minute.Add(time.Minute)
			c.Watched++
			b.Watched++
		}
		c.Kept, c.Lost, b.Kept, b.Lost = c.Kept+kept, c.Lost+lost, b.Kept+kept, b.Lost+lost
		if lost > 0 {
			losses[reason] += lost
		}
	}
	gap(r.To)
	for _, reason := range slices.Sorted(maps.Keys(losses)) {
		c.Losses = append(c.Losses, Loss{reason, losses[reason]})
	}
	return c, buckets, in.err
}

// answer completes what an answer says of itself.
func (q *Questions) answer(ctx context.Context, k Kind, r Range, s *from) (Answer, error) {
	c, _, err := q.Coverage(ctx, k, r, 0)
	return Answer{Range: r, Table: s.table, Error: s.error, Covered: c}, err
}

// Extent returns the range from the first minute of which anything is known to
// the last; an error if nothing is.
func (q *Questions) Extent(ctx context.Context) (Range, error) {
	in, err := q.ask(ctx, &statement{}, "SELECT min(minute), max(minute) FROM "+q.Layout.all(coverageTable)+" WHERE minute > 0")
	if err != nil {
		return Range{}, err
	}
	defer in.close()
	var r Range
	if in.next() {
		r.From, r.To = in.date(), in.date().Add(time.Minute)
	}
	if in.err == nil && r.From == 0 {
		return r, errors.New("history: nothing is there yet")
	}
	return r, in.err
}
