package history

import (
	"fmt"
	"hash/fnv"
	"strings"

	"noroshi/event"
)

// rollup is a table of sums by the minute, filled by a materialized view while
// rows are inserted.
//
// An open key (an address, a port) has as many values as a sender of forged
// packets likes. Of one block and minute the view keeps the Heaviest of them by
// their share of octets, packets and records together, so that a rollup grows
// with the number of blocks and not with the number of values. What it leaves
// out of one value is, in each block, less than 3/Heaviest of all there was in
// that minute, in each of the three measures.
type rollup struct {
	name string
	kind Kind
	keys []string // columns
	// exact: the keys have few values, and all are kept.
	exact bool
}

// Heaviest is how many values of an open key a block keeps of each minute.
const Heaviest = 1000

var rollups = []rollup{
	{name: "flows_by_exporter", kind: Flows, keys: []string{"exporter", "in_if", "out_if", "proto"}, exact: true},
	{name: "flows_by_target", kind: Flows, keys: []string{"dst"}},
	{name: "flows_by_source", kind: Flows, keys: []string{"src"}},
	{name: "flows_by_port", kind: Flows, keys: []string{"proto", "dst_port"}},
	{name: "flows_by_as", kind: Flows, keys: []string{"src_as", "dst_as"}},
	{name: "dns_by_zone", kind: DNS, keys: []string{"zone", "role", "rcode"}},
	{name: "sessions_by_service", kind: Sessions, keys: []string{"service", "reporter", "status"}},
	{name: "logs_by_host", kind: Logs, keys: []string{"host", "channel"}},
}

// measures are the sums of a kind: name and expression over its rows.
func (k Kind) measures() [][2]string {
	switch k {
	case Flows:
		return [][2]string{{"octets", "sum(bytes)"}, {"pkts", "sum(packets)"}, {"records", "count()"}}
	case Sessions:
		return [][2]string{{"octets", "sum(bytes_in + bytes_out)"}, {"records", "count()"}}
	}
	return [][2]string{{"records", "count()"}}
}

// summed is the condition for what may be summed: not the inner records of
// tunnels, whose volume is in the outer ones.
func (k Kind) summed() string {
	if k == Flows {
		return fmt.Sprintf("bitAnd(marks, %d) = 0", event.Tunnelled)
	}
	return "1"
}

func (l Layout) rollup(r *rollup) []string {
	t := &tables[r.kind]
	lines, order := []string{"minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1))"}, "minute"
	for _, key := range r.keys {
		lines = append(lines, t.column(key).definition())
		order += ", " + key
	}
	var sums, names []string
	share := ""
	for _, m := range r.kind.measures() {
		lines = append(lines, m[0]+" UInt64 CODEC(T64, ZSTD(1))")
		sums = append(sums, m[1]+" AS "+m[0])
		names = append(names, m[0])
		share += fmt.Sprintf(" + %s / greatest(sum(%s) OVER (PARTITION BY minute), 1)", m[0], m[0])
	}
	list := l.table(r.name, "SummingMergeTree", lines, "toYYYYMM(minute)", order, "minute", l.Keep.Rollups)
	keys := strings.Join(r.keys, ", ")
	query := fmt.Sprintf("SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, %s, %s FROM %s WHERE %s GROUP BY minute, %s",
		keys, strings.Join(sums, ", "), l.local(t.name), r.kind.summed(), keys)
	if !r.exact {
		query = fmt.Sprintf("SELECT minute, %s, %s FROM (%s) ORDER BY %s DESC LIMIT %d BY minute",
			keys, strings.Join(names, ", "), query, strings.TrimPrefix(share, " + "), Heaviest)
	}
	return append(list, l.view(r.name+"_view", r.name, query))
}

const createView = "CREATE MATERIALIZED VIEW"

// view returns the statement for a view that fills a table.
func (l Layout) view(name, table, query string) string {
	return fmt.Sprintf(createView+" IF NOT EXISTS %s%s TO %s AS %s\nCOMMENT '%s'",
		l.all(name), l.on(), l.local(table), query, mark(query))
}

// views returns the names of all views, each with the statement that makes it.
func (l Layout) views() map[string]string {
	views := map[string]string{}
	last := func(s []string) string { return s[len(s)-1] }
	for i := range rollups {
		views[rollups[i].name+"_view"] = last(l.rollup(&rollups[i]))
	}
	coverage := l.coverage()
	for i, k := range Kinds {
		views[k.keptView()] = coverage[len(coverage)-len(Kinds)+i]
	}
	return views
}

// mark tells one version of a view's query from another. The server keeps it as
// the view's comment, for it shows the query only in its own words.
func mark(query string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(query))
	return fmt.Sprintf("noroshi %016x", h.Sum64())
}

func (t *table) column(name string) *column {
	for i := range t.columns {
		if t.columns[i].name == name {
			return &t.columns[i]
		}
	}
	panic(fmt.Sprintf("history: %s has no column %s", t.name, name))
}
