package engine_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"noroshi/store/engine/enginetest"
	"noroshi/store/engine/gate"
)

// Whatever reaches a file, another server or a program is refused, and no
// secret comes back: neither that of a file outside the engine's folders, nor that
// of one inside, which Landlock would let it read.
func TestRefused(t *testing.T) {
	c := enginetest.Config(t)
	db := enginetest.Start(t, c)
	outside, inside := filepath.Join(filepath.Dir(c.Data), "secret"), filepath.Join(c.Data, "db", "user_files", "secret")
	if err := os.MkdirAll(filepath.Dir(inside), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{outside, inside} {
		if err := os.WriteFile(p, []byte("s3cret\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	db.Must("CREATE TABLE t (n UInt64, s String) ENGINE=MergeTree ORDER BY n")
	db.Must("INSERT INTO t VALUES (1, '" + inside + "')")
	before := tree(t, c.Data)

	for _, form := range append(refused, "SELECT file -- a comment\n('SECRET')", "SELECT file\t\r\n('SECRET')") {
		for _, path := range []string{outside, inside, "secret"} {
			sql := strings.ReplaceAll(form, "SECRET", path)
			a, err := db.Post(sql, nil)
			if err != nil {
				t.Errorf("%s: %v", sql, err)
			} else if a.Status != http.StatusForbidden || !strings.HasPrefix(a.Body, "gate: ") {
				t.Errorf("%s: passed the gate: %d: %.200s", sql, a.Status, a.Body)
			}
			if strings.Contains(a.Body, "s3cret") {
				t.Errorf("%s: gave the secret away", sql)
			}
			if !strings.Contains(form, "SECRET") {
				break
			}
		}
	}
	for name := range tree(t, c.Data) {
		if !before[name] && strings.Contains(name, "out") {
			t.Errorf("%s was written", name)
		}
	}
	status, err := db.Status(t.Context())
	if err != nil || status.Refused < uint64(len(refused)) {
		t.Errorf("%d refusals counted for %d forms, %v", status.Refused, len(refused), err)
	}
}

func tree(t *testing.T, dir string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	if err := filepath.Walk(dir, func(path string, _ os.FileInfo, _ error) error { names[path] = true; return nil }); err != nil {
		t.Fatal(err)
	}
	return names
}

var refused = strings.Split(strings.TrimSpace(`
SELECT file('SECRET')
SELECT FILE('SECRET')
select File ('SECRET')
SELECT file/* a comment */('SECRET')
`+"SELECT `file`('SECRET')"+`
SELECT "file"('SECRET')
SELECT "fi\x6ce"('SECRET')
SELECT * FROM (SELECT file('SECRET'))
SELECT (SELECT file('SECRET'))
SELECT 1 WHERE file('SECRET') != ''
SELECT 1 ORDER BY file('SECRET')
SELECT 1 HAVING file('SECRET') != ''
SELECT 1 IN (SELECT file('SECRET'))
SELECT n FROM t PREWHERE file('SECRET') != ''
SELECT arrayMap(x -> file(x), ['SECRET'])
SELECT t.* APPLY(file) FROM t
SELECT * APPLY(toString) APPLY(file) FROM t
SELECT * APPLY file FROM t
SELECT * APPLY "file" FROM t
SELECT COLUMNS('s') APPLY (file) FROM t
SELECT * APPLY(x -> file(x)) FROM t
SELECT * REPLACE(file(s) AS s) FROM t
WITH x AS (SELECT file('SECRET') AS f) SELECT f FROM x
WITH file('SECRET') AS f SELECT f
SELECT 1 UNION ALL SELECT file('SECRET')
(SELECT file('SECRET'))
FROM file('SECRET', 'LineAsString') SELECT *
SELECT * FROM file('SECRET', 'LineAsString')
SELECT * FROM File('SECRET', LineAsString)
SELECT * FROM t JOIN file('SECRET', 'LineAsString', 'line String') AS f ON 1
SELECT * FROM view(SELECT file('SECRET'))
SELECT * FROM viewIfPermitted(SELECT file('SECRET') ELSE null('x String'))
SELECT * FROM loop(file('SECRET', 'LineAsString'))
SELECT * FROM fileCluster('default', 'SECRET', 'LineAsString')
SELECT * FROM sqlite('SECRET', 't')
SELECT * FROM filesystem('SECRET')
SELECT * FROM eval('SELECT 1')
SELECT * FROM executable('cat', 'LineAsString', 'x String', (SELECT 1))
SELECT * FROM url('http://127.0.0.1:9/', 'LineAsString')
SELECT * FROM s3('http://127.0.0.1:9/b/k', 'LineAsString')
SELECT * FROM gcs('http://127.0.0.1:9/b/k', 'LineAsString')
SELECT * FROM hdfs('hdfs://127.0.0.1:9/x', 'LineAsString')
SELECT * FROM azureBlobStorage('http://127.0.0.1:9/', 'c', 'b', 'n', 'k', 'CSV')
SELECT * FROM deltaLake('http://127.0.0.1:9/x')
SELECT * FROM icebergLocal('SECRET')
SELECT * FROM remote('127.0.0.1:9', 'system.one')
SELECT * FROM remote('127.0.0.1', view(SELECT file('SECRET')))
SELECT * FROM remoteSecure('127.0.0.1:9', 'system.one')
SELECT * FROM cluster('default', 'system.one')
SELECT * FROM clusterAllReplicas('default', 'system.one')
SELECT * FROM mysql('127.0.0.1:9', 'd', 't', 'u', 'p')
SELECT * FROM postgresql('127.0.0.1:9', 'd', 't', 'u', 'p')
SELECT * FROM mongodb('127.0.0.1:9', 'd', 't', 'u', 'p', 'x String')
SELECT * FROM redis('127.0.0.1:9', 'k', 'k String')
SELECT * FROM odbc('DSN=x', 'd', 't')
SELECT * FROM jdbc('DSN=x', 'd', 't')
SELECT catboostEvaluate('SECRET', 1)
SELECT hasColumnInTable('127.0.0.1', 'system', 'one', 'dummy')
SELECT reverseDNSQuery('192.0.2.1')
SELECT showCertificate()
SELECT aiGenerate('x')
SELECT * FROM system.stack_trace
SELECT 1 INTO OUTFILE 'SECRET.out'
SELECT 1 INTO/**/OUTFILE 'SECRET.out'
SELECT 1 into outfile 'SECRET.out' APPEND FORMAT CSV
SELECT 1 INTO OUTFILE 'SECRET.out' AND STDOUT
SHOW TABLES INTO OUTFILE 'SECRET.out'
DESCRIBE TABLE t INTO OUTFILE 'SECRET.out'
EXPLAIN SELECT file('SECRET')
DESCRIBE TABLE file('SECRET', 'LineAsString')
DESCRIBE (SELECT file('SECRET'))
INSERT INTO t (s) SELECT file('SECRET')
INSERT INTO t (s) VALUES (file('SECRET'))
INSERT INTO t SELECT * FROM file('SECRET', 'CSV')
INSERT INTO FUNCTION file('SECRET.out', 'CSV') SELECT 1
INSERT INTO TABLE FUNCTION file('SECRET.out', 'CSV') SELECT 1
INSERT INTO FUNCTION url('http://127.0.0.1:9/') SELECT 1
INSERT INTO t FROM INFILE 'SECRET' FORMAT CSV
INSERT INTO t FORMAT CSV 1,a
CREATE TABLE f (s String) ENGINE=File(CSV, 'SECRET')
CREATE TABLE f (s String) ENGINE File(CSV)
CREATE TABLE f (s String) ENGINE = "File"(CSV)
CREATE TABLE f (s String) engine/**/=/**/URL('http://127.0.0.1:9/', CSV)
CREATE TABLE f (s String) ENGINE = S3('http://127.0.0.1:9/', 'CSV')
CREATE TABLE f (s String) ENGINE = Executable('cat', CSV)
CREATE TABLE f (s String) ENGINE = Distributed(default, default, t)
CREATE TABLE f (s String) ENGINE = ReplicatedMergeTree('/t', 'r') ORDER BY s
CREATE TABLE f (s String) ENGINE = Merge(currentDatabase(), '.*')
CREATE TABLE f (s String) ENGINE = MergeTree ORDER BY s SETTINGS disk = disk(type = local, path = 'SECRET/')
CREATE TABLE f (s String) ENGINE = MergeTree ORDER BY s SETTINGS index_granularity = 8192, disk = 'x'
CREATE TABLE f (s String) ENGINE = MergeTree ORDER BY s SETTINGS storage_policy = 's3'
CREATE TABLE f (s String) ENGINE = MergeTree ORDER BY s SETTINGS "disk" = 'x'
CREATE TABLE f AS file('SECRET', 'LineAsString')
CREATE TABLE f AS remote('127.0.0.1:9', 'system.one')
CREATE TABLE f ENGINE=Memory AS SELECT file('SECRET')
CREATE TABLE f (s String DEFAULT file('SECRET')) ENGINE=Memory
CREATE TABLE f (s String MATERIALIZED file('SECRET')) ENGINE=Memory
CREATE TABLE f (s String ALIAS file('SECRET')) ENGINE=Memory
CREATE TABLE f (s String CODEC(file('SECRET'))) ENGINE=Memory
CREATE TABLE f (s String, CONSTRAINT c CHECK file('SECRET') = '') ENGINE=Memory
CREATE TABLE f (s String) ENGINE=MergeTree ORDER BY file('SECRET')
CREATE TABLE f (s String) ENGINE=MergeTree ORDER BY s TTL toDateTime(file('SECRET'))
CREATE TABLE f (s String, PROJECTION p (SELECT file('SECRET'))) ENGINE=MergeTree ORDER BY s
CREATE TABLE f UUID '00000000-0000-0000-0000-000000000001' (s String) ENGINE=File(CSV)
CREATE TEMPORARY TABLE f (s String)
CREATE TABLE f ON CLUSTER c (s String) ENGINE=MergeTree ORDER BY s
CREATE VIEW v AS SELECT file('SECRET')
CREATE VIEW v SQL SECURITY NONE AS SELECT 1
CREATE VIEW v DEFINER = default SQL SECURITY DEFINER AS SELECT 1
CREATE MATERIALIZED VIEW v ENGINE=Memory AS SELECT file('SECRET') FROM t
CREATE MATERIALIZED VIEW v ENGINE=File(CSV) AS SELECT 1
CREATE DATABASE f ENGINE=Filesystem('SECRET')
CREATE DATABASE f ENGINE=MySQL('127.0.0.1:9', 'd', 'u', 'p')
CREATE DATABASE f ENGINE=SQLite('SECRET')
CREATE DICTIONARY d (k UInt64) PRIMARY KEY k SOURCE(FILE(PATH 'SECRET' FORMAT 'CSV')) LAYOUT(FLAT()) LIFETIME(0)
CREATE DICTIONARY d (k UInt64) PRIMARY KEY k SOURCE(HTTP(URL 'http://127.0.0.1:9/' FORMAT 'CSV')) LAYOUT(FLAT()) LIFETIME(0)
CREATE DICTIONARY d (k UInt64) PRIMARY KEY k SOURCE(EXECUTABLE(COMMAND 'cat' FORMAT 'CSV')) LAYOUT(FLAT()) LIFETIME(0)
CREATE DICTIONARY d (k UInt64) PRIMARY KEY k SOURCE(MYSQL(HOST '127.0.0.1')) LAYOUT(FLAT()) LIFETIME(0)
CREATE DICTIONARY d (k UInt64) PRIMARY KEY k SOURCE(CLICKHOUSE(HOST '127.0.0.1' TABLE 't')) LAYOUT(FLAT()) LIFETIME(0)
CREATE DICTIONARY d (k UInt64) PRIMARY KEY k SOURCE(CLICKHOUSE(TABLE 't' WHERE 'file(1) = 1')) LAYOUT(FLAT()) LIFETIME(0)
CREATE DICTIONARY d (s String) PRIMARY KEY s SOURCE(CLICKHOUSE(QUERY $q$SELECT file('SECRET')$q$)) LAYOUT(COMPLEX_KEY_HASHED()) LIFETIME(0)
CREATE DICTIONARY d (s String) PRIMARY KEY s SOURCE(CLICKHOUSE(QUERY 'SELECT file(\'SECRET\')')) LAYOUT(COMPLEX_KEY_HASHED()) LIFETIME(0)
CREATE DICTIONARY d (k UInt64) PRIMARY KEY k SOURCE(CLICKHOUSE(TABLE 't')) LAYOUT(SSD_CACHE(PATH 'SECRET')) LIFETIME(0)
CREATE FUNCTION f AS (x) -> file(x)
CREATE FUNCTION f AS x -> x
CREATE NAMED COLLECTION c AS url = 'http://127.0.0.1:9/'
CREATE USER u
CREATE ROLE r
ALTER USER default IDENTIFIED BY 'x'
ALTER TABLE t ADD COLUMN f String DEFAULT file('SECRET')
ALTER TABLE t UPDATE s = file('SECRET') WHERE 1
ALTER TABLE t MODIFY SETTING storage_policy = 'x'
ALTER TABLE t MODIFY SETTING index_granularity = 1, disk = 'x'
ALTER TABLE t FREEZE
ALTER TABLE t FETCH PARTITION tuple() FROM '/t'
ALTER TABLE t MOVE PARTITION tuple() TO DISK 'x'
ALTER TABLE t ON CLUSTER c DROP COLUMN s
ATTACH TABLE f FROM 'SECRET' (s String) ENGINE=File(CSV)
ATTACH DATABASE f
DETACH TABLE t
UPDATE t SET s = file('SECRET') WHERE 1
DELETE FROM t WHERE file('SECRET') = ''
BACKUP TABLE t TO File('SECRET.out')
BACKUP TABLE t TO Disk('default', 'out')
RESTORE TABLE t FROM File('SECRET')
GRANT ALL ON *.* TO default
REVOKE ALL ON *.* FROM default
SET max_threads = 1
SET ROLE ALL
USE system
SYSTEM SHUTDOWN
SYSTEM KILL
SYSTEM DROP MARK CACHE
SYSTEM RELOAD CONFIG
SYSTEM LISTEN ON HTTP
KILL QUERY WHERE 1
BEGIN TRANSACTION
EXECUTE AS default SELECT 1
SELECT 1 SETTINGS readonly = 0
SELECT 1 SETTINGS max_threads = 1, allow_introspection_functions = 1
SELECT 1 SETTINGS allow_ddl=1
SELECT 1 SETTINGS dialect = 'kusto'
SELECT 1 SETTINGS max_threads=1 :: UInt8, dialect = 'kusto'
SELECT 1 SETTINGS profile = 'default'
SELECT n FROM t SETTINGS additional_table_filters = {'t': 'file(\'SECRET\') != \'\''}
SELECT 1 SETTINGS format_schema = 'SECRET:x' FORMAT Protobuf
SELECT 1 SETTINGS output_format_schema = 'SECRET.out' FORMAT Protobuf
SELECT 1 SETTINGS max_server_memory_usage = 0
SELECT 1 SETTINGS some_new_setting
SELECT 1; SELECT 2
SELECT 1; SELECT file('SECRET')
1 + 1
SELECT {f:Identifier}('SECRET')
DROP TABLE t PARALLEL WITH DROP TABLE t
`), "\n")

// What noroshi needs passes.
func TestPasses(t *testing.T) {
	db := enginetest.Start(t, enginetest.Config(t))
	for _, sql := range strings.Split(strings.TrimSpace(`
CREATE DATABASE IF NOT EXISTS noroshi
CREATE TABLE noroshi.f (at DateTime64(9) CODEC(Delta, ZSTD(1)), a IPv6, s LowCardinality(String), n UInt64, INDEX i a TYPE bloom_filter(0.01) GRANULARITY 4) ENGINE = MergeTree PARTITION BY toDate(at) ORDER BY (at, a) TTL toDateTime(at) + INTERVAL 30 DAY SETTINGS ttl_only_drop_parts = 1, fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 1000
CREATE TABLE noroshi.r (m DateTime, n AggregateFunction(sum, UInt64), u AggregateFunction(uniq, IPv6)) ENGINE = AggregatingMergeTree ORDER BY m SETTINGS non_replicated_deduplication_window = 1000
CREATE MATERIALIZED VIEW noroshi.v TO noroshi.r AS SELECT toStartOfMinute(at) AS m, sumState(n) AS n, uniqState(a) AS u FROM noroshi.f GROUP BY m
CREATE VIEW noroshi.w AS SELECT s, count() AS c FROM noroshi.f GROUP BY s
CREATE TABLE noroshi.p (prefix String, name String) ENGINE = ReplacingMergeTree ORDER BY prefix
CREATE DICTIONARY noroshi.d (prefix String, name String) PRIMARY KEY prefix SOURCE(CLICKHOUSE(DB 'noroshi' TABLE 'p')) LAYOUT(IP_TRIE()) LIFETIME(0)
CREATE DICTIONARY noroshi.q (prefix String, name String) PRIMARY KEY prefix SOURCE(CLICKHOUSE(QUERY 'SELECT prefix, name FROM noroshi.p')) LAYOUT(IP_TRIE()) LIFETIME(MIN 0 MAX 3600)
INSERT INTO noroshi.p VALUES ('192.0.2.0/24', 'file(x); DROP TABLE y')
INSERT INTO noroshi.f SELECT now64(9), toIPv6('192.0.2.1'), 'it''s', number FROM numbers(1000)
SYSTEM RELOAD DICTIONARY noroshi.d
SELECT dictGet('noroshi.d', 'name', tuple(toIPv4('192.0.2.7'))), dictGet('noroshi.q', 'name', tuple(toIPv4('192.0.2.7')))
SELECT m, sumMerge(n), uniqMerge(u) FROM noroshi.r GROUP BY m ORDER BY m LIMIT 10 FORMAT JSONEachRow
WITH (SELECT max(at) FROM noroshi.f) AS last SELECT topKWeighted(10)(s, n), quantiles(0.5, 0.9)(n) FROM noroshi.f WHERE at > last - INTERVAL 1 HOUR SETTINGS max_threads = 1, max_execution_time = 60
SELECT count() OVER (PARTITION BY s ORDER BY n) FROM noroshi.f LIMIT 1
SELECT s FROM merge('noroshi', '^f$') GROUP BY s
SELECT arrayJoin([1, 2]) AS x, format('{} {}', 1, 2), 'file(1)', $$url('x')$$, "n" FROM noroshi.f LIMIT 1 -- file(
SELECT file FROM (SELECT 1 AS file)
SELECT count() FROM system.settings AS s WHERE s.name = 'max_threads'
SELECT * EXCEPT(n) APPLY(toString) FROM noroshi.f LIMIT 1
SHOW TABLES FROM noroshi
SHOW CREATE TABLE noroshi.f
DESCRIBE TABLE noroshi.f
EXISTS TABLE noroshi.f
EXPLAIN SELECT * FROM noroshi.f
EXPLAIN AST CREATE TABLE x ON CLUSTER c (n UInt8) ENGINE = ReplicatedMergeTree('/clickhouse/{shard}/x', '{replica}') ORDER BY n
EXPLAIN AST CREATE TABLE x ON CLUSTER c AS y ENGINE = Distributed(c, d, y, rand())
SELECT name, total_rows, total_bytes, engine FROM system.tables WHERE database = 'noroshi'
SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'noroshi'
ALTER TABLE noroshi.f ADD COLUMN x UInt8 DEFAULT 0
ALTER TABLE noroshi.f UPDATE s = '' WHERE n > 5 SETTINGS mutations_sync = 1
ALTER TABLE noroshi.f DROP PARTITION '2000-01-01'
ALTER TABLE noroshi.f MODIFY SETTING ttl_only_drop_parts = 0
ALTER TABLE noroshi.f MODIFY TTL toDateTime(at) + INTERVAL 40 DAY
DELETE FROM noroshi.f WHERE n = 3
OPTIMIZE TABLE noroshi.f FINAL
CHECK TABLE noroshi.f
SYSTEM STOP MERGES noroshi.f
SYSTEM START MERGES noroshi.f
SYSTEM FLUSH LOGS
DROP DICTIONARY noroshi.q
DROP DICTIONARY noroshi.d
RENAME TABLE noroshi.p TO noroshi.p2
TRUNCATE TABLE noroshi.p2
DROP VIEW noroshi.w
DROP TABLE noroshi.v
DROP DATABASE noroshi SYNC
`), "\n") {
		if a, err := db.Post(sql, nil); err != nil || a.Status != http.StatusOK {
			t.Errorf("%s: %d %s: %.300s; %v", sql, a.Status, a.Code, a.Body, err)
		}
	}
}

// Every table function of the engine passes only if it is known.
func TestTableFunctions(t *testing.T) {
	db := enginetest.Start(t, enginetest.Config(t))
	pass := []string{}
	for _, f := range strings.Fields(db.Must("SELECT name FROM system.table_functions ORDER BY name")) {
		if a, err := db.Post("EXPLAIN AST SELECT * FROM "+f+"(1)", nil); err != nil {
			t.Error(err)
		} else if a.Status != http.StatusForbidden {
			pass = append(pass, f)
		}
	}
	want := "SQLStandardValues dictionary format generateRandom generateSeries generate_series merge null numbers numbers_mt primes values view zeros zeros_mt"
	if got := strings.Join(pass, " "); got != want {
		t.Errorf("these pass: %s\nwant: %s", got, want)
	}
}

// Every setting that passes exists: the list has no misspelt and no stale names.
func TestSettingsExist(t *testing.T) {
	db := enginetest.Start(t, enginetest.Config(t))
	names := strings.Fields(db.Must("SELECT name FROM system.settings UNION ALL SELECT name FROM system.merge_tree_settings"))
	for _, s := range gate.Settings() {
		prefix, any := strings.CutSuffix(s, "*")
		if !slices.ContainsFunc(names, func(n string) bool { return n == s || any && strings.HasPrefix(n, prefix) }) {
			t.Errorf("there is no setting %s", s)
		}
	}
}
