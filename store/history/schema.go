package history

import (
	"fmt"
	"reflect"
	"strings"
	"time"
	"unicode"

	"noroshi/event"
)

// table describes how a kind is stored. Columns are made from the event struct;
// what is said here of a column by its name goes beyond what its Go type says.
type table struct {
	name  string
	row   reflect.Type
	order string // ORDER BY; all tables are partitioned by the day of seen
	// ties are the columns that put events of one moment into an order which is
	// the same for each page of an answer: few, for each costs a read of the column
	// for all events among which the page is found.
	ties    string
	types   map[string]string // instead of the type that the Go type gives
	codecs  map[string]string // instead of the codec that the type gives
	indexes []string
	mask    map[string]string // column -> expression that hides whom it names, applied after MaskAfter
	columns []column
}

// column is one field of an event struct.
type column struct {
	name   string
	typ    string // ClickHouse type
	codec  string
	offset uintptr
	op     op
}

// op is how a field is written in the Native format.
type op uint8

const (
	op8 op = iota
	op16
	op32
	op64
	opTime // nanoseconds to microseconds
	opAddr // 16 octets
	opText // length and octets
)

// lowCardinality is for texts of which a table has some thousands at most.
const lowCardinality = "LowCardinality(String)"

// MaskAfter is how long the address of a resolver's client is kept whole.
const MaskAfter = 24 * time.Hour

var tables = [...]table{
	Flows: {
		name:  "flows",
		row:   reflect.TypeFor[event.Flow](),
		order: "toStartOfMinute(seen), dst, src, dst_port, seen",
		ties:  "src, dst, src_port, dst_port, bytes",
		indexes: []string{
			"INDEX by_src src TYPE bloom_filter(0.01) GRANULARITY 1",
			"INDEX by_dst dst TYPE bloom_filter(0.01) GRANULARITY 1",
		},
	},
	DNS: {
		name:  "dns",
		row:   reflect.TypeFor[event.DNS](),
		order: "toStartOfMinute(seen), zone, name, seen",
		ties:  "client, client_port, id, role, type, name",
		types: map[string]string{"zone": lowCardinality, "reporter": lowCardinality},
		indexes: []string{
			"INDEX by_client client TYPE bloom_filter(0.01) GRANULARITY 1",
			"INDEX by_name name TYPE bloom_filter(0.01) GRANULARITY 1",
			"INDEX by_answer answer TYPE bloom_filter(0.01) GRANULARITY 1",
		},
		mask: map[string]string{"client": masked("client"), "client_port": "0"},
	},
	Sessions: {
		name:  "sessions",
		row:   reflect.TypeFor[event.Session](),
		order: "toStartOfHour(seen), service, src, seen",
		ties:  "src, src_port, id, status, first",
		types: map[string]string{"reporter": lowCardinality, "service": lowCardinality},
		indexes: []string{
			"INDEX by_src src TYPE bloom_filter(0.01) GRANULARITY 1",
			"INDEX by_dst dst TYPE bloom_filter(0.01) GRANULARITY 1",
			"INDEX by_subscriber subscriber TYPE bloom_filter(0.01) GRANULARITY 1",
			"INDEX by_host host TYPE bloom_filter(0.01) GRANULARITY 1",
		},
	},
	Logs: {
		name:  "logs",
		row:   reflect.TypeFor[event.Log](),
		order: "toStartOfHour(seen), host, channel, time, record",
		ties:  "host, channel, record, time",
		types: map[string]string{"host": lowCardinality, "channel": lowCardinality, "provider": lowCardinality},
		indexes: []string{
			"INDEX by_addr addr TYPE bloom_filter(0.01) GRANULARITY 1",
			"INDEX by_peer peer TYPE bloom_filter(0.01) GRANULARITY 1",
			"INDEX by_words message TYPE tokenbf_v1(16384, 3, 0) GRANULARITY 1",
		},
	},
}

// masked returns the expression that leaves of an address its /22 (IPv4) or /40
// (IPv6). Masking twice changes nothing.
func masked(column string) string { return prefixOf(column, 22, 40) }

// prefixOf returns the expression for the first address of the prefix that an
// address is in, of the lengths for IPv4 and IPv6.
func prefixOf(address string, v4, v6 int) string {
	return fmt.Sprintf("tupleElement(IPv6CIDRToRange(%[1]s, if(%[1]s BETWEEN toIPv6('::ffff:0.0.0.0') AND toIPv6('::ffff:255.255.255.255'), %[2]d, %[3]d)), 1)",
		address, 96+v4, v6)
}

func init() { // the columns, once; nothing outside this file is touched
	for i := range tables {
		t := &tables[i]
		for _, f := range reflect.VisibleFields(t.row) {
			t.columns = append(t.columns, newColumn(t, f))
		}
	}
}

func newColumn(t *table, f reflect.StructField) column {
	c := column{name: columnName(f.Name), offset: f.Offset}
	switch {
	case f.Type == reflect.TypeFor[event.Time]():
		c.op, c.typ, c.codec = opTime, "DateTime64(6, 'UTC')", "T64, ZSTD(1)"
	case f.Type == reflect.TypeFor[event.Addr]():
		c.op, c.typ, c.codec = opAddr, "IPv6", "ZSTD(1)"
	case f.Type == reflect.TypeFor[event.Text]():
		c.op, c.typ, c.codec = opText, "String", "ZSTD(1)"
	default:
		switch f.Type.Kind() {
		case reflect.Uint8:
			c.op, c.typ, c.codec = op8, "UInt8", "ZSTD(1)"
		case reflect.Uint16:
			c.op, c.typ, c.codec = op16, "UInt16", "ZSTD(1)"
		case reflect.Uint32:
			c.op, c.typ, c.codec = op32, "UInt32", "T64, ZSTD(1)"
		case reflect.Uint64:
			c.op, c.typ, c.codec = op64, "UInt64", "T64, ZSTD(1)"
		default:
			panic(fmt.Sprintf("history: no column type for %s.%s of type %v", t.row.Name(), f.Name, f.Type))
		}
	}
	if typ := t.types[c.name]; typ != "" {
		c.typ = typ
	}
	if codec := t.codecs[c.name]; codec != "" {
		c.codec = codec
	}
	return c
}

// columnName returns the name of a struct field in lower case with underscores:
// SrcPort is src_port, DstAS dst_as, EventID event_id.
func columnName(field string) string {
	var b strings.Builder
	r := []rune(field)
	for i, c := range r {
		lowerBefore := i > 0 && !unicode.IsUpper(r[i-1])
		lowerAfter := i+1 < len(r) && unicode.IsLower(r[i+1])
		if unicode.IsUpper(c) && i > 0 && (lowerBefore || lowerAfter) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}
