package history

import (
	"fmt"
	"strings"
	"time"
)

// Layout is where the tables live: in one engine, or in a cluster. The
// statements of both come from here.
type Layout struct {
	Database string // "noroshi"
	// Cluster is the name of a ClickHouse cluster (system.clusters). Empty is one
	// engine or server.
	Cluster string
	Keep    Keep
}

// Keep is how long events stay, by when they were seen. 0 keeps them for ever.
// Whole days of a table go at once.
type Keep struct {
	Flows    time.Duration
	DNS      time.Duration `yaml:"dns"`
	Sessions time.Duration
	Logs     time.Duration
	// Rollups is for counts by the minute, and for the book of what is missing.
	Rollups time.Duration
}

func (k Keep) of(kind Kind) time.Duration {
	return [...]time.Duration{Flows: k.Flows, DNS: k.DNS, Sessions: k.Sessions, Logs: k.Logs}[kind]
}

// Window is how many blocks a table remembers the IDs of: a block that is sent
// again is recognized if at most so many others came between.
const Window = 10_000

// engineOf returns the ENGINE clause of a table on one server or in a cluster.
func (l Layout) engineOf(family string) string {
	if l.Cluster == "" {
		return family + "()"
	}
	// {uuid} makes a table that is created anew another one in Keeper.
	return "Replicated" + family + "('/clickhouse/tables/{uuid}/{shard}', '{replica}')"
}

// settings returns the SETTINGS of a table. Parts are synced to disk before an
// insert is acknowledged, for the file in the spool goes then.
func (l Layout) settings(ttl bool) string {
	var s []string
	if l.Cluster == "" {
		s = append(s, fmt.Sprintf("non_replicated_deduplication_window = %d", Window))
	} else {
		s = append(s, fmt.Sprintf("replicated_deduplication_window = %d", Window), "replicated_deduplication_window_seconds = 604800")
	}
	s = append(s, "fsync_after_insert = 1", "fsync_part_directory = 1", "min_bytes_for_wide_part = 134217728")
	if ttl {
		s = append(s, "ttl_only_drop_parts = 1")
	}
	return strings.Join(s, ", ")
}

func ttl(column string, keep time.Duration) string {
	if keep == 0 {
		return ""
	}
	return fmt.Sprintf("\nTTL toDateTime(%s) + INTERVAL %d SECOND", column, int64(keep/time.Second))
}

func (l Layout) on() string {
	if l.Cluster == "" {
		return ""
	}
	return " ON CLUSTER " + quote(l.Cluster)
}

// local returns the name of the table that holds rows; in a cluster the plain
// name is the Distributed table over it.
func (l Layout) local(table string) string { return l.all(l.plain(table)) }

// plain is local without its database, and without quotes.
func (l Layout) plain(table string) string {
	if l.Cluster != "" {
		table += "_local"
	}
	return table
}

// all returns the name to read a table by.
func (l Layout) all(table string) string { return quote(l.Database) + "." + quote(table) }

// quote makes an identifier of our own making safe.
func quote(name string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(name) + "`"
}

// Statements returns the statements that create what isn't there, in order. All
// may be repeated.
func (l Layout) Statements() []string {
	list := []string{"CREATE DATABASE IF NOT EXISTS " + quote(l.Database) + l.on()}
	for _, k := range Kinds {
		t := &tables[k]
		var lines []string
		for _, c := range t.columns {
			lines = append(lines, c.definition())
		}
		lines = append(lines, t.indexes...)
		list = append(list, l.table(t.name, "MergeTree", lines, "toYYYYMMDD(seen)", t.order, "seen", l.Keep.of(k))...)
	}
	list = append(list, l.coverage()...)
	for i := range rollups {
		list = append(list, l.rollup(&rollups[i])...)
	}
	return list
}

// table returns the statements for a table of rows, in a cluster with the
// Distributed table over it.
func (l Layout) table(name, family string, lines []string, partition, order, time string, keep time.Duration) []string {
	list := []string{fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s%s (\n\t%s\n) ENGINE = %s\nPARTITION BY %s\nORDER BY (%s)%s\nSETTINGS %s",
		l.local(name), l.on(), strings.Join(lines, ",\n\t"), l.engineOf(family), partition, order, ttl(time, keep), l.settings(keep > 0))}
	if l.Cluster != "" {
		list = append(list, fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s%s AS %s ENGINE = Distributed(%s, %s, %s, rand())",
			l.all(name), l.on(), l.local(name), quote(l.Cluster), quote(l.Database), quote(l.plain(name))))
	}
	return list
}

func (c *column) definition() string {
	return fmt.Sprintf("%s %s CODEC(%s)", c.name, c.typ, c.codec)
}
