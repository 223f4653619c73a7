package history

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"noroshi/event"
)

// Questions answers questions about what is remembered. It is safe for
// concurrent use. A question ends with its context, in the store too.
type Questions struct {
	Client *Client
	Layout Layout
	Limits Limits
}

// Answer is what every answer says of itself.
type Answer struct {
	// Range is what was looked at: what was asked for, widened to whole minutes.
	Range Range `json:"range"`
	// Table is what answered: a kind's table, or sums by the minute.
	Table string `json:"table"`
	// Error is by how much a sum may be too low, as a share of all there was of
	// its measure in its step; 0 is exact. For Distinct and Quantiles it is what
	// nineteen of twenty answers stay within, as a share of the value (of the
	// rank, for Quantiles).
	Error float64 `json:"error"`
	// Covered says which part of the range was watched and kept.
	Covered Covered `json:"coverage"`
}

// Sums is how much there was.
type Sums struct {
	Octets  uint64 `json:"octets"` // flows: layer 3, sampling undone; sessions: both directions; others 0
	Packets uint64 `json:"packets"`
	Records uint64 `json:"records"`
}

func (s *Sums) add(o Sums) {
	s.Octets += o.Octets
	s.Packets += o.Packets
	s.Records += o.Records
}

// Measure is what is summed.
type Measure string

// The measures.
const (
	Octets  Measure = "octets"
	Packets Measure = "packets"
	Records Measure = "records"
)

// Of returns the measure's sum.
func (m Measure) Of(s Sums) uint64 {
	switch m {
	case Octets:
		return s.Octets
	case Packets:
		return s.Packets
	}
	return s.Records
}

// column returns the measure's name in the tables; "" is the first of the kind.
func (m Measure) column(k Kind) (string, error) {
	have := k.measures()
	name := string(m)
	if m == "" {
		return have[0][0], nil
	}
	if m == Packets {
		name = "pkts"
	}
	var list []string
	for _, h := range have {
		if h[0] == name {
			return name, nil
		}
		list = append(list, strings.Replace(h[0], "pkts", "packets", 1))
	}
	return "", fmt.Errorf("history: %s have no measure %q; want %s", k, m, strings.Join(list, ", "))
}

func (r *rows) sums(k Kind) (s Sums) {
	for _, m := range k.measures() {
		switch m[0] {
		case "octets":
			s.Octets = r.u64()
		case "pkts":
			s.Packets = r.u64()
		case "records":
			s.Records = r.u64()
		}
	}
	return s
}

// sums returns the expressions of the measures of k, over rows or a rollup.
func (k Kind) sums(rollup bool) string {
	var list []string
	for _, m := range k.measures() {
		if rollup {
			m[1] = "sum(" + m[0] + ")"
		}
		list = append(list, fmt.Sprintf("toUInt64(%s) AS sum_%s", m[1], m[0]))
	}
	return strings.Join(list, ", ")
}

// key is a column, or what is looked up for one, by which answers are grouped or
// filtered.
type key struct {
	name   string
	expr   string
	op     op
	column string // whose words its values have
}

// key finds a column of k by its name. An address column a has also a.as,
// a.as_name and a.country, from the names that were loaded (Names).
func (l Layout) key(k Kind, name string) (key, error) {
	if int(k) >= len(tables) {
		return key{}, fmt.Errorf("history: there is no %v", k)
	}
	t := &tables[k]
	base, part, dotted := strings.Cut(name, ".")
	for _, c := range t.columns {
		switch {
		case c.name != base:
		case !dotted:
			return key{name, c.name, c.op, c.name}, nil
		case c.op == opAddr:
			if x, ok := l.lookup(base, part); ok {
				x.name = name
				return x, nil
			}
		}
	}
	var list []string
	for _, c := range t.columns {
		list = append(list, c.name)
	}
	return key{}, fmt.Errorf("history: %s have no column %q; they have %s", k, name, strings.Join(list, ", "))
}

// maxKeys is how many columns an answer is grouped by at most.
const maxKeys = 6

func (l Layout) keys(k Kind, names []string) ([]key, error) {
	if len(names) > maxKeys {
		return nil, fmt.Errorf("history: %d keys; at most %d", len(names), maxKeys)
	}
	var list []key
	for i, n := range names {
		if slices.Contains(names[:i], n) {
			return nil, fmt.Errorf("history: the key %q stands twice", n)
		}
		x, err := l.key(k, n)
		if err != nil {
			return nil, err
		}
		list = append(list, x)
	}
	return list, nil
}

func (r *rows) values(keys []key) []Value {
	var list []Value
	for _, k := range keys {
		list = append(list, r.value(k.op))
	}
	return list
}

// from is the table a summing question is answered from, with the statement's
// conditions made for it.
type from struct {
	statement
	table  string // as said in the answer
	name   string // as written in the statement
	at     string // the column of time
	rollup bool
	error  float64
}

// source chooses the table for sums of k in r by keys under f: a rollup when its
// error is stated for exactly these keys, else the rows.
func (q *Questions) source(k Kind, r Range, keys []string, f Filter, raw bool) (*from, error) {
	s := &from{at: "seen"}
	if !raw {
		if t := rollupFor(k, keys, f); t != nil {
			s.table, s.name, s.at, s.rollup = t.name, q.Layout.all(t.name), "minute", true
			if !t.exact {
				s.error = 3.0 / Heaviest
			}
			s.where = append(s.where, "minute >= "+s.minute(r.From), "minute < "+s.minute(r.To))
			return s, f.where(&s.statement, q.Layout, k)
		}
	}
	s.table, s.name = k.String(), q.Layout.all(k.String())
	s.seen(r)
	s.where = append(s.where, k.summed())
	return s, f.where(&s.statement, q.Layout, k)
}

// rollupFor returns the rollup that has keys and the columns of f. Of a rollup
// that isn't exact the error is stated for a whole key, so a part of the key
// does only if f fixes the rest.
func rollupFor(k Kind, keys []string, f Filter) *rollup {
	for i := range rollups {
		t := &rollups[i]
		has := func(name string) bool { return slices.Contains(t.keys, name) }
		ok := t.kind == k && !slices.ContainsFunc(keys, func(n string) bool { return !has(n) }) &&
			!slices.ContainsFunc(f, func(c Condition) bool { return !has(c.Column) })
		if ok && !t.exact {
			ok = !slices.ContainsFunc(t.keys, func(n string) bool { return !slices.Contains(keys, n) && !f.one(n) })
		}
		if ok {
			return t
		}
	}
	return nil
}

// bucket returns the expression of the step that an event is in.
func (s *from) bucket(step time.Duration) string {
	if step == 0 {
		return "toDateTime(0, 'UTC')"
	}
	return fmt.Sprintf("toDateTime(intDiv(toUnixTimestamp(%s), %d) * %[2]d, 'UTC')", s.at, int64(step/time.Second))
}

// selects joins keys to a SELECT's list, "a AS k0, b AS k1, ", and names them for
// what comes after a GROUP BY: ", k0, k1".
func selects(keys []key) (list, names string) {
	for i, k := range keys {
		list += fmt.Sprintf("%s AS k%d, ", k.expr, i)
		names += fmt.Sprintf(", k%d", i)
	}
	return list, names
}

// begin checks what the questions have in common: the number of results (0 = 10),
// the columns by which they are grouped, and the filter; and chooses the table.
func (q *Questions) begin(k Kind, r Range, n *int, by []string, f Filter, raw bool) ([]key, *from, error) {
	switch most := q.Limits.or().Rows; {
	case *n == 0:
		*n = 10
	case *n < 0 || *n > most:
		return nil, nil, fmt.Errorf("history: %d results; want 1 to %d", *n, most)
	}
	keys, err := q.Layout.keys(k, by)
	if err != nil {
		return nil, nil, err
	}
	s, err := q.source(k, r, by, f, raw)
	return keys, s, err
}

func zeroIfWhole(t event.Time, step time.Duration) event.Time {
	if step == 0 {
		return 0
	}
	return t
}
