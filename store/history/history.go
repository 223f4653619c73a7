// Package history remembers events: flows, DNS messages, sessions and log
// records, in ClickHouse SQL, spoken over HTTP. The other side is the embedded
// engine (package engine) or any ClickHouse server or cluster; this package
// can't tell them apart.
//
//	batch ─► Builder ─► Block ─► spool (a file, fsynced) ─► INSERT with the block's ID ─► file removed
//	                                                             │
//	questions: Top, Series, Distinct, Prefixes, Quantiles, Timeline ◄── tables, rollups, coverage
//
// Columns are made from the structs of package event: a field added there is a
// column here, in the tables that exist too (schema.go). No SQL stands outside
// this package, no text of a user or of the network becomes SQL: values travel
// as parameters, names are ours.
package history

import (
	"fmt"

	"noroshi/store/history/spool"
)

// Kind is a kind of event; each has a table of its own.
type Kind uint8

// The kinds.
const (
	Flows Kind = iota
	DNS
	Sessions
	Logs
)

// Kinds lists all kinds.
var Kinds = []Kind{Flows, DNS, Sessions, Logs}

// String returns the kind's name, which is its table's.
func (k Kind) String() string {
	if int(k) < len(tables) {
		return tables[k].name
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// ParseKind returns the kind of this name.
func ParseKind(name string) (Kind, error) {
	for _, k := range Kinds {
		if k.String() == name {
			return k, nil
		}
	}
	return 0, fmt.Errorf("history: there is no kind %q; want flows, dns, sessions or logs", name)
}

// Block is a number of rows of one table, encoded for one INSERT: what is
// written, repeated and deduplicated as a whole. Its Data is one block in
// ClickHouse's Native format, uncompressed. It names its columns; those of the
// table that it lacks take their defaults.
type Block = spool.Record
