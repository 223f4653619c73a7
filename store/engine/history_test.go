package engine_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"noroshi/event"
	"noroshi/store/engine/enginetest"
	"noroshi/store/history"
)

// flows returns a block of n flows, all different in source.
func flows(id string, n int) history.Block {
	b := history.NewBuilder(history.Flows)
	batch := new(event.Batch)
	now := event.Time(time.Now().UnixNano())
	for i := range n {
		f := event.Flow{Packets: 3, Bytes: 120, Proto: 6, SrcPort: uint16(i), DstPort: 443}
		f.Seen = now - event.Time(i)
		f.Src[0], f.Src[13], f.Src[14], f.Src[15] = 0x20, byte(i>>16), byte(i>>8), byte(i)
		f.Dst[0], f.Dst[15] = 0x20, byte(i)
		if batch.Flows = append(batch.Flows, f); len(batch.Flows) == 1000 || i == n-1 {
			b.Add(batch, 0, len(batch.Flows))
			batch.Flows = batch.Flows[:0]
		}
	}
	return b.Seal(id, nil)
}

// All that package history sends passes the gate: making the tables, again when
// they are there, changing how long rows stay, and blocks, which are stored once
// however often they are sent.
func TestHistory(t *testing.T) {
	db := enginetest.Start(t, enginetest.Config(t))
	client := &history.Client{HTTP: db.HTTP, URL: "http://engine/"}
	c := history.Default()
	layout := c.Layout()
	for range 2 {
		if err := client.Prepare(t.Context(), layout); err != nil {
			t.Fatal(err)
		}
	}
	const n = 50_000
	block := flows("block-1", n)
	for range 3 {
		if err := client.Insert(t.Context(), layout, &block); err != nil {
			t.Fatal(err)
		}
	}
	if got := db.Must("SELECT count() FROM noroshi.flows"); got != fmt.Sprint(n) {
		t.Errorf("%s flows are stored, want %d", got, n)
	}
	// By port there are few values, so that the rollup has all of them.
	if got := db.Must("SELECT sum(records), sum(octets) FROM noroshi.flows_by_port"); got != fmt.Sprintf("%d\t%d", n, n*120) {
		t.Errorf("the rollup counts %s", got)
	}

	// A column that is missing comes back, a view of another version is renewed,
	// and another time to keep rows, or none, is taken over.
	db.Must("ALTER TABLE noroshi.logs DROP COLUMN pid")
	db.Must("DROP VIEW noroshi.flows_by_as_view")
	db.Must("CREATE MATERIALIZED VIEW noroshi.flows_by_as_view TO noroshi.flows_by_as AS SELECT toStartOfMinute(seen) AS minute, src_as FROM noroshi.flows COMMENT 'noroshi of old'")
	layout.Keep.Flows, layout.Keep.DNS = 3*24*time.Hour, 0
	if err := client.Prepare(t.Context(), layout); err != nil {
		t.Fatal(err)
	}
	for what, sql := range map[string]string{
		"the column":     "SELECT count() FROM system.columns WHERE database = 'noroshi' AND table = 'logs' AND name = 'pid'",
		"the view":       "SELECT count() FROM system.tables WHERE name = 'flows_by_as_view' AND comment != 'noroshi of old'",
		"flows' time":    "SELECT count() FROM system.tables WHERE name = 'flows' AND create_table_query LIKE '%toIntervalSecond(259200)%'",
		"no time of DNS": "SELECT count() FROM system.tables WHERE database = 'noroshi' AND name = 'dns' AND create_table_query NOT LIKE '% TTL %'",
	} {
		if got := db.Must(sql); got != "1" {
			t.Errorf("%s is not as Prepare should leave it: %s", what, got)
		}
	}

	// Those of other parts of history: masking, names of prefixes, catalogues.
	for _, sql := range strings.Split(strings.TrimSpace(`
ALTER TABLE noroshi.dns UPDATE client_port = 0 IN PARTITION 20000101 WHERE client_port != 0 SETTINGS mutations_sync = 1
ALTER TABLE noroshi.dns DROP PARTITION 20000101
SELECT database, table, mutation_id, parts_to_do, latest_fail_reason FROM system.mutations WHERE database = 'noroshi' AND NOT is_done
SELECT partition, sum(rows), sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'noroshi' GROUP BY partition
SELECT name, status, last_exception FROM system.dictionaries WHERE database = 'noroshi'
SELECT name, total_rows, total_bytes FROM system.tables WHERE database = 'noroshi'
CREATE TABLE noroshi.names (prefix String, name String) ENGINE = MergeTree ORDER BY prefix
INSERT INTO noroshi.names VALUES ('192.0.2.0/24', 'example')
CREATE OR REPLACE DICTIONARY noroshi.by_prefix (prefix String, name String) PRIMARY KEY prefix SOURCE(CLICKHOUSE(TABLE 'names' DB 'noroshi')) LAYOUT(IP_TRIE(ACCESS_TO_KEY_FROM_ATTRIBUTES 1)) LIFETIME(0)
SYSTEM RELOAD DICTIONARY noroshi.by_prefix
SELECT dictGetOrDefault('noroshi.by_prefix', 'name', dst, '') AS name, sum(bytes) FROM noroshi.flows GROUP BY name SETTINGS max_execution_time = 5, max_memory_usage = 100000000, max_result_rows = 1000, result_overflow_mode = 'throw', max_threads = 1
SELECT formatQuery('SELECT 1')
`), "\n") {
		if a, err := db.Post(sql, nil); err != nil || a.Status != 200 {
			t.Errorf("%s: %d %.300s, %v", sql, a.Status, a.Body, err)
		}
	}
}
