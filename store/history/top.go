package history

import (
	"context"
	"fmt"
	"strings"
	"time"

	"noroshi/event"
)

// Top asks for the heaviest values of a key.
type Top struct {
	Range   Range
	Kind    Kind
	By      []string // columns; at least one
	Measure Measure  // what counts; "" is the first the kind has
	N       int      // how many, of each step; 0 = 10
	// Step, if not 0, asks for the heaviest of each step: whole minutes.
	Step   time.Duration
	Filter Filter
	// Raw asks the rows even where sums by the minute would do.
	Raw bool
}

// TopAnswer is the answer to Top.
type TopAnswer struct {
	Answer
	Rows []TopRow // by time, then the heaviest first
}

// TopRow is one value of the key with its sums.
type TopRow struct {
	At  event.Time // the step; 0 = the whole range
	Key []Value    // in the order of By
	Sums
}

// Top answers t.
func (q *Questions) Top(ctx context.Context, t Top) (*TopAnswer, error) {
	r, err := t.Range.stepped(t.Step)
	if err != nil {
		return nil, err
	}
	if len(t.By) == 0 {
		return nil, fmt.Errorf("history: top of what? name one column or several")
	}
	measure, err := t.Measure.column(t.Kind)
	if err != nil {
		return nil, err
	}
	keys, s, err := q.begin(t.Kind, r, &t.N, t.By, t.Filter, t.Raw)
	if err != nil {
		return nil, err
	}
	list, names := selects(keys)
	a := &TopAnswer{}
	if a.Answer, err = q.answer(ctx, t.Kind, r, s); err != nil {
		return nil, err
	}
	sql := fmt.Sprintf("SELECT %s AS at, %s%s FROM %s%s GROUP BY at%s ORDER BY at, sum_%s DESC%s LIMIT %d BY at",
		s.bucket(t.Step), list, t.Kind.sums(s.rollup), s.name, s.conditions(), names, measure, names, t.N)
	in, err := q.ask(ctx, &s.statement, sql)
	if err != nil {
		return nil, err
	}
	defer in.close()
	for in.next() {
		a.Rows = append(a.Rows, TopRow{zeroIfWhole(in.date(), t.Step), in.values(keys), in.sums(t.Kind)})
	}
	return a, in.err
}

// Series asks for sums by the step.
type Series struct {
	Range Range
	Kind  Kind
	By    []string      // columns with few values; none = the sums of all
	N     int           // the heaviest groups shown apart, the others summed; 0 = 10
	Step  time.Duration // 0 = StepFor(Range)
	// Measure is by which groups are heavy; "" is the first the kind has.
	Measure Measure
	Filter  Filter
	Raw     bool
}

// SeriesAnswer is the answer to Series.
type SeriesAnswer struct {
	Answer
	Step    time.Duration
	Buckets []Bucket // the steps
	Groups  []Group  // the heaviest first, and last, with a nil Key, the others
}

// Group is one line of a series.
type Group struct {
	Key   []Value
	Sums  []*Sums // by step; nil = not watched, which is not nothing
	Total Sums
}

// Series answers t.
func (q *Questions) Series(ctx context.Context, t Series) (*SeriesAnswer, error) {
	if t.Step == 0 {
		t.Step = StepFor(t.Range)
	}
	r, err := t.Range.stepped(t.Step)
	if err != nil {
		return nil, err
	}
	if _, err := t.Measure.column(t.Kind); err != nil {
		return nil, err
	}
	if t.Measure == "" && t.Kind != DNS && t.Kind != Logs {
		t.Measure = Octets
	}
	keys, s, err := q.begin(t.Kind, r, &t.N, t.By, t.Filter, t.Raw)
	if err != nil {
		return nil, err
	}
	a := &SeriesAnswer{Step: t.Step, Answer: Answer{Range: r, Table: s.table, Error: s.error}}
	if a.Covered, a.Buckets, err = q.Coverage(ctx, t.Kind, r, t.Step); err != nil {
		return nil, err
	}
	list, names := selects(keys)
	in, err := q.ask(ctx, &s.statement, fmt.Sprintf("SELECT %s AS at, %s%s FROM %s%s GROUP BY at%s ORDER BY at%s",
		s.bucket(t.Step), list, t.Kind.sums(s.rollup), s.name, s.conditions(), names, names))
	if err != nil {
		return nil, err
	}
	defer in.close()
	groups := map[string]*Group{}
	for in.next() {
		at, key, sums := in.date(), in.values(keys), in.sums(t.Kind)
		if in.err != nil || at < a.Buckets[0].At || at >= r.To {
			continue
		}
		name := fmt.Sprintf("%#v", key)
		g := groups[name]
		if g == nil {
			g = &Group{Key: key, Sums: make([]*Sums, len(a.Buckets))}
			groups[name] = g
		}
		g.Sums[at.Sub(a.Buckets[0].At)/t.Step] = &sums
		g.Total.add(sums)
	}
	if in.err != nil {
		return nil, in.err
	}
	a.Groups = heaviest(groups, t.N, t.Measure)
	if len(t.By) == 0 && len(a.Groups) == 0 {
		a.Groups = []Group{{Sums: make([]*Sums, len(a.Buckets))}}
	}
	// Where somebody watched, or something was seen, there was what was seen or
	// nothing.
	known := make([]bool, len(a.Buckets))
	for i := range known {
		known[i] = a.Buckets[i].Watched > 0
		for _, g := range a.Groups {
			known[i] = known[i] || g.Sums[i] != nil
		}
	}
	for _, g := range a.Groups {
		for i := range known {
			if known[i] && g.Sums[i] == nil {
				g.Sums[i] = &Sums{}
			}
		}
	}
	return a, nil
}

// Distinct asks how many different values a column has.
type Distinct struct {
	Range  Range
	Kind   Kind
	Column string
	By     []string      // for each value of these, the most first; none = for all
	N      int           // how many, of each step; 0 = 10
	Step   time.Duration // 0 = the whole range
	Filter Filter
}

// DistinctError is what nineteen of twenty counts of different values stay
// within: twice the standard error of HyperLogLog with 2^17 registers, 1.04 /
// sqrt(2^17) (Flajolet et al., 2007). Small counts are exact.
const DistinctError = 2 * 1.04 / 362.04

// DistinctAnswer is the answer to Distinct.
type DistinctAnswer struct {
	Answer
	Rows []DistinctRow
}

// DistinctRow is one count.
type DistinctRow struct {
	At    event.Time // the step; 0 = the whole range
	Key   []Value    // in the order of By
	Count uint64
}

// Distinct answers t.
func (q *Questions) Distinct(ctx context.Context, t Distinct) (*DistinctAnswer, error) {
	r, err := t.Range.stepped(t.Step)
	if err != nil {
		return nil, err
	}
	of, err := q.Layout.key(t.Kind, t.Column)
	if err != nil {
		return nil, err
	}
	keys, s, err := q.begin(t.Kind, r, &t.N, t.By, t.Filter, true)
	if err != nil {
		return nil, err
	}
	s.error = DistinctError
	a := &DistinctAnswer{}
	if a.Answer, err = q.answer(ctx, t.Kind, r, s); err != nil {
		return nil, err
	}
	list, names := selects(keys)
	in, err := q.ask(ctx, &s.statement, fmt.Sprintf("SELECT %s AS at, %suniqCombined64(17)(%s) AS n FROM %s%s GROUP BY at%s ORDER BY at, n DESC%s LIMIT %d BY at",
		s.bucket(t.Step), list, of.expr, s.name, s.conditions(), names, names, t.N))
	if err != nil {
		return nil, err
	}
	defer in.close()
	for in.next() {
		a.Rows = append(a.Rows, DistinctRow{zeroIfWhole(in.date(), t.Step), in.values(keys), in.u64()})
	}
	return a, in.err
}

// Prefixes asks for the heaviest prefixes of an address column.
type Prefixes struct {
	Range   Range
	Kind    Kind
	Column  string
	V4, V6  int // lengths of the prefixes; 0 = 24 and 48
	Measure Measure
	N       int // 0 = 10
	Filter  Filter
}

// PrefixesAnswer is the answer to Prefixes.
type PrefixesAnswer struct {
	Answer
	Rows []PrefixRow
}

// PrefixRow is one prefix. Addresses is how many of it there were, within
// DistinctError.
type PrefixRow struct {
	Prefix    Value // netip.Prefix; netip.Addr if unknown
	Addresses uint64
	Sums
}

// Prefixes answers t.
func (q *Questions) Prefixes(ctx context.Context, t Prefixes) (*PrefixesAnswer, error) {
	r, err := t.Range.stepped(0)
	if err != nil {
		return nil, err
	}
	if t.V4 == 0 {
		t.V4 = 24
	}
	if t.V6 == 0 {
		t.V6 = 48
	}
	k, err := q.Layout.key(t.Kind, t.Column)
	switch {
	case err != nil:
		return nil, err
	case k.op != opAddr:
		return nil, fmt.Errorf("history: %s holds no addresses", t.Column)
	case t.V4 < 1 || t.V4 > 32 || t.V6 < 1 || t.V6 > 128:
		return nil, fmt.Errorf("history: prefixes of /%d and /%d; want /1 to /32 and /1 to /128", t.V4, t.V6)
	}
	measure, err := t.Measure.column(t.Kind)
	if err != nil {
		return nil, err
	}
	_, s, err := q.begin(t.Kind, r, &t.N, nil, t.Filter, true)
	if err != nil {
		return nil, err
	}
	a := &PrefixesAnswer{}
	if a.Answer, err = q.answer(ctx, t.Kind, r, s); err != nil {
		return nil, err
	}
	in, err := q.ask(ctx, &s.statement, fmt.Sprintf("SELECT %s AS k0, uniqCombined64(17)(%s), %s FROM %s%s GROUP BY k0 ORDER BY sum_%s DESC, k0 LIMIT %d",
		prefixOf(k.expr, t.V4, t.V6), k.expr, t.Kind.sums(false), s.name, s.conditions(), measure, t.N))
	if err != nil {
		return nil, err
	}
	defer in.close()
	for in.next() {
		addr := in.addr()
		row := PrefixRow{Prefix: addr.Std(), Addresses: in.u64(), Sums: in.sums(t.Kind)}
		if std := addr.Std(); std.IsValid() {
			bits := t.V6
			if std.Is4() {
				bits = t.V4
			}
			row.Prefix, _ = std.Prefix(bits)
		}
		a.Rows = append(a.Rows, row)
	}
	return a, in.err
}

// Quantiles asks how a number is distributed over the records.
type Quantiles struct {
	Range  Range
	Kind   Kind
	Of     string    // a number's column, or "duration" (flows, sessions): milliseconds from first to last
	Levels []float64 // 0 to 1; none = 0.5, 0.9, 0.99
	By     []string  // for each value of these, the most records first; none = for all
	N      int       // 0 = 10
	Filter Filter
}

// QuantilesError is within what share of the ranks a quantile lies in nineteen
// of twenty answers: ClickHouse's t-digest with its default compression.
const QuantilesError = 0.01

// MaxLevels bounds Quantiles.Levels.
const MaxLevels = 32

// QuantilesAnswer is the answer to Quantiles.
type QuantilesAnswer struct {
	Answer
	Levels []float64
	Rows   []QuantilesRow
}

// QuantilesRow is one distribution.
type QuantilesRow struct {
	Key     []Value
	Records uint64
	Values  []float64 // in the order of Levels
}

// Quantiles answers t. A latency of 0 is not known and does not count.
func (q *Questions) Quantiles(ctx context.Context, t Quantiles) (*QuantilesAnswer, error) {
	r, err := t.Range.stepped(0)
	if err != nil {
		return nil, err
	}
	var expr string
	if t.Of == "duration" && (t.Kind == Flows || t.Kind == Sessions) {
		expr = "(toUnixTimestamp64Micro(last) - toUnixTimestamp64Micro(first)) / 1000"
	} else {
		k, err := q.Layout.key(t.Kind, t.Of)
		switch {
		case err != nil:
			return nil, err
		case k.op > op64:
			return nil, fmt.Errorf("history: %s is no number", t.Of)
		}
		expr = k.expr
	}
	if t.Levels == nil {
		t.Levels = []float64{.5, .9, .99}
	}
	if len(t.Levels) == 0 || len(t.Levels) > MaxLevels {
		return nil, fmt.Errorf("history: %d levels; want 1 to %d", len(t.Levels), MaxLevels)
	}
	var levels []string
	for _, l := range t.Levels {
		if !(l >= 0 && l <= 1) {
			return nil, fmt.Errorf("history: a level of %g; want 0 to 1", l)
		}
		levels = append(levels, fmt.Sprintf("%f", l))
	}
	keys, s, err := q.begin(t.Kind, r, &t.N, t.By, t.Filter, true)
	if err != nil {
		return nil, err
	}
	if t.Of == "latency" {
		s.where = append(s.where, "latency > 0")
	}
	s.error = QuantilesError
	a := &QuantilesAnswer{Levels: t.Levels}
	if a.Answer, err = q.answer(ctx, t.Kind, r, s); err != nil {
		return nil, err
	}
	list, names := selects(keys)
	group, order := "", ""
	if len(keys) > 0 {
		group, order = " GROUP BY "+names[2:], names
	}
	in, err := q.ask(ctx, &s.statement, fmt.Sprintf("SELECT %scount() AS n, arrayMap(x -> toFloat64(x), quantilesTDigest(%s)(toFloat64(%s))) FROM %s%s%s HAVING n > 0 ORDER BY n DESC%s LIMIT %d",
		list, strings.Join(levels, ", "), expr, s.name, s.conditions(), group, order, t.N))
	if err != nil {
		return nil, err
	}
	defer in.close()
	for in.next() {
		a.Rows = append(a.Rows, QuantilesRow{in.values(keys), in.u64(), in.floats()})
	}
	return a, in.err
}
