package history

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"noroshi/event"
	"noroshi/store/history/spool"
)

// The book of what is missing: for each minute of Seen and each kind, how many
// events are kept, how many were lost for which reason, and whether anybody
// watched. A minute without a row is one nobody watched: a gap, and no zero.
//
//   - kept is counted by a view over the kind's own table, so it is what can be
//     asked for, neither more nor less, whatever was sent twice;
//   - watched and lost are written by the Writer, by way of the spool like
//     events.
const coverageTable = "coverage"

var coverageColumns = []string{
	"minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1))",
	"kind LowCardinality(String)",
	"reason LowCardinality(String)", // of a loss; '' otherwise
	"kept UInt64", "lost UInt64",
	"watched UInt64", // marks that somebody watched: at least one a minute
}

func (l Layout) coverage() []string {
	list := l.table(coverageTable, "SummingMergeTree", coverageColumns, "toYYYYMM(minute)", "kind, minute, reason", "minute", l.Keep.Rollups)
	for _, k := range Kinds {
		list = append(list, l.view(k.keptView(), coverageTable, fmt.Sprintf(
			"SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, '%s' AS kind, '' AS reason, count() AS kept, toUInt64(0) AS lost, toUInt64(0) AS watched FROM %s GROUP BY minute",
			k, l.local(k.String()))))
	}
	return list
}

// keptView is the view that counts what is kept of a kind.
func (k Kind) keptView() string { return k.String() + "_kept_view" }

// Reasons for which events are not kept.
const (
	LostBusy      = "busy"       // they came faster than they could be encoded and written
	LostSpoolFull = "spool full" // the store was away for too long: history.spool
	LostDiskFull  = "disk full"
	LostDisk      = "disk error"
	LostDamaged   = "damaged" // a file of the spool was torn or altered
	LostRefused   = "refused" // the store would not have the block
)

// maxLosses bounds how many minutes with losses wait to be written; beyond it
// they are counted in the minute at hand.
const maxLosses = 100_000

// losses are counted here until they are written.
type losses struct {
	mu      sync.Mutex
	waiting map[loss]uint64
	total   map[loss]uint64 // without the minute, since the start
}

type loss struct {
	kind   string
	reason string
	minute uint32
}

func (ls *losses) add(kind, reason string, minute uint32, n uint64) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.waiting == nil {
		ls.waiting, ls.total = map[loss]uint64{}, map[loss]uint64{}
	}
	key := loss{kind, reason, minute}
	ls.total[loss{kind, reason, 0}] += n
	if _, known := ls.waiting[key]; !known && len(ls.waiting) >= maxLosses {
		key.minute = minuteOf(event.TimeOf(time.Now()))
	}
	ls.waiting[key] += n
}

// count adds the rows of a block to the totals alone: they were written.
func (ls *losses) count(b *Block, reason string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.waiting == nil {
		ls.waiting, ls.total = map[loss]uint64{}, map[loss]uint64{}
	}
	for _, m := range b.Minutes {
		ls.total[loss{b.Table, reason, 0}] += m.Rows
	}
}

// block adds the rows of a block.
func (ls *losses) block(b *Block, reason string) {
	for _, m := range b.Minutes {
		ls.add(b.Table, reason, m.Start, m.Rows)
	}
}

// take returns what waits, for the caller alone, and forgets it; back undoes
// that.
func (ls *losses) take() map[loss]uint64 {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if len(ls.waiting) == 0 {
		return nil // and not the map that others write to
	}
	taken := ls.waiting
	ls.waiting = map[loss]uint64{}
	return taken
}

func (ls *losses) back(taken map[loss]uint64) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for key, n := range taken {
		ls.waiting[key] += n
	}
}

func (ls *losses) totals() map[string]map[string]uint64 {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	out := map[string]map[string]uint64{}
	for key, n := range ls.total {
		if out[key.kind] == nil {
			out[key.kind] = map[string]uint64{}
		}
		out[key.kind][key.reason] += n
	}
	return out
}

// coverageBlock encodes losses, and the marks that kinds were watched from one
// minute to another, both included (0 = no marks), for the table coverage.
func coverageBlock(lost map[loss]uint64, watched []Kind, from, to uint32) Block {
	type row struct {
		loss
		lost, watched uint64
	}
	var rows []row
	for minute := from; from != 0 && minute <= to; minute += 60 {
		for _, k := range watched {
			rows = append(rows, row{loss{k.String(), "", minute}, 0, 1})
		}
	}
	keys := slices.SortedFunc(maps.Keys(lost), func(a, b loss) int {
		return strings.Compare(fmt.Sprintf("%010d %s %s", a.minute, a.kind, a.reason), fmt.Sprintf("%010d %s %s", b.minute, b.kind, b.reason))
	})
	for _, key := range keys {
		rows = append(rows, row{key, lost[key], 0})
	}
	var minutes, kinds, reasons, losts, marks []byte
	for _, r := range rows {
		minutes = binary.LittleEndian.AppendUint32(minutes, r.minute)
		kinds, reasons = appendString(kinds, r.kind), appendString(reasons, r.reason)
		losts = binary.LittleEndian.AppendUint64(losts, r.lost)
		marks = binary.LittleEndian.AppendUint64(marks, r.watched)
	}
	b := appendBlock(nil, 5, len(rows))
	b = appendColumn(b, "minute", "DateTime('UTC')", minutes)
	b = appendColumn(b, "kind", "String", kinds)
	b = appendColumn(b, "reason", "String", reasons)
	b = appendColumn(b, "lost", "UInt64", losts)
	b = appendColumn(b, "watched", "UInt64", marks)
	return spool.Record{Table: coverageTable, Rows: len(rows), Data: b}
}
