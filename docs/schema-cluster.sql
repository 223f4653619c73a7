-- What noroshi creates by itself. Made by go test ./store/history -update; not to be edited.

CREATE DATABASE IF NOT EXISTS `noroshi` ON CLUSTER `noroshi`;

CREATE TABLE IF NOT EXISTS `noroshi`.`flows_local` ON CLUSTER `noroshi` (
	first DateTime64(6, 'UTC') CODEC(T64, ZSTD(1)),
	last DateTime64(6, 'UTC') CODEC(T64, ZSTD(1)),
	seen DateTime64(6, 'UTC') CODEC(T64, ZSTD(1)),
	src IPv6 CODEC(ZSTD(1)),
	dst IPv6 CODEC(ZSTD(1)),
	exporter IPv6 CODEC(ZSTD(1)),
	bytes UInt64 CODEC(T64, ZSTD(1)),
	packets UInt64 CODEC(T64, ZSTD(1)),
	sampling UInt32 CODEC(T64, ZSTD(1)),
	in_if UInt32 CODEC(T64, ZSTD(1)),
	out_if UInt32 CODEC(T64, ZSTD(1)),
	src_as UInt32 CODEC(T64, ZSTD(1)),
	dst_as UInt32 CODEC(T64, ZSTD(1)),
	src_net UInt32 CODEC(T64, ZSTD(1)),
	dst_net UInt32 CODEC(T64, ZSTD(1)),
	src_port UInt16 CODEC(ZSTD(1)),
	dst_port UInt16 CODEC(ZSTD(1)),
	proto UInt8 CODEC(ZSTD(1)),
	tcp_flags UInt8 CODEC(ZSTD(1)),
	tos UInt8 CODEC(ZSTD(1)),
	ttl UInt8 CODEC(ZSTD(1)),
	window UInt16 CODEC(ZSTD(1)),
	marks UInt16 CODEC(ZSTD(1)),
	payload String CODEC(ZSTD(1)),
	INDEX by_src src TYPE bloom_filter(0.01) GRANULARITY 1,
	INDEX by_dst dst TYPE bloom_filter(0.01) GRANULARITY 1
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toYYYYMMDD(seen)
ORDER BY (toStartOfMinute(seen), dst, src, dst_port, seen)
TTL toDateTime(seen) + INTERVAL 1209600 SECOND
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS `noroshi`.`flows` ON CLUSTER `noroshi` AS `noroshi`.`flows_local` ENGINE = Distributed(`noroshi`, `noroshi`, `flows_local`, rand());

CREATE TABLE IF NOT EXISTS `noroshi`.`dns_local` ON CLUSTER `noroshi` (
	time DateTime64(6, 'UTC') CODEC(T64, ZSTD(1)),
	seen DateTime64(6, 'UTC') CODEC(T64, ZSTD(1)),
	client IPv6 CODEC(ZSTD(1)),
	server IPv6 CODEC(ZSTD(1)),
	name String CODEC(ZSTD(1)),
	zone LowCardinality(String) CODEC(ZSTD(1)),
	reporter LowCardinality(String) CODEC(ZSTD(1)),
	answer String CODEC(ZSTD(1)),
	latency UInt32 CODEC(T64, ZSTD(1)),
	client_port UInt16 CODEC(ZSTD(1)),
	server_port UInt16 CODEC(ZSTD(1)),
	type UInt16 CODEC(ZSTD(1)),
	class UInt16 CODEC(ZSTD(1)),
	id UInt16 CODEC(ZSTD(1)),
	flags UInt16 CODEC(ZSTD(1)),
	answers UInt16 CODEC(ZSTD(1)),
	size UInt16 CODEC(ZSTD(1)),
	rcode UInt8 CODEC(ZSTD(1)),
	role UInt8 CODEC(ZSTD(1)),
	transport UInt8 CODEC(ZSTD(1)),
	network UInt32 CODEC(T64, ZSTD(1)),
	INDEX by_client client TYPE bloom_filter(0.01) GRANULARITY 1,
	INDEX by_name name TYPE bloom_filter(0.01) GRANULARITY 1,
	INDEX by_answer answer TYPE bloom_filter(0.01) GRANULARITY 1
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toYYYYMMDD(seen)
ORDER BY (toStartOfMinute(seen), zone, name, seen)
TTL toDateTime(seen) + INTERVAL 1209600 SECOND
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS `noroshi`.`dns` ON CLUSTER `noroshi` AS `noroshi`.`dns_local` ENGINE = Distributed(`noroshi`, `noroshi`, `dns_local`, rand());

CREATE TABLE IF NOT EXISTS `noroshi`.`sessions_local` ON CLUSTER `noroshi` (
	first DateTime64(6, 'UTC') CODEC(T64, ZSTD(1)),
	last DateTime64(6, 'UTC') CODEC(T64, ZSTD(1)),
	seen DateTime64(6, 'UTC') CODEC(T64, ZSTD(1)),
	src IPv6 CODEC(ZSTD(1)),
	dst IPv6 CODEC(ZSTD(1)),
	bytes_in UInt64 CODEC(T64, ZSTD(1)),
	bytes_out UInt64 CODEC(T64, ZSTD(1)),
	id String CODEC(ZSTD(1)),
	reporter LowCardinality(String) CODEC(ZSTD(1)),
	service LowCardinality(String) CODEC(ZSTD(1)),
	subscriber String CODEC(ZSTD(1)),
	user String CODEC(ZSTD(1)),
	host String CODEC(ZSTD(1)),
	detail String CODEC(ZSTD(1)),
	fingerprint String CODEC(ZSTD(1)),
	src_port UInt16 CODEC(ZSTD(1)),
	dst_port UInt16 CODEC(ZSTD(1)),
	first_port UInt16 CODEC(ZSTD(1)),
	end_port UInt16 CODEC(ZSTD(1)),
	prefix UInt8 CODEC(ZSTD(1)),
	status UInt8 CODEC(ZSTD(1)),
	marks UInt16 CODEC(ZSTD(1)),
	INDEX by_src src TYPE bloom_filter(0.01) GRANULARITY 1,
	INDEX by_dst dst TYPE bloom_filter(0.01) GRANULARITY 1,
	INDEX by_subscriber subscriber TYPE bloom_filter(0.01) GRANULARITY 1,
	INDEX by_host host TYPE bloom_filter(0.01) GRANULARITY 1
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toYYYYMMDD(seen)
ORDER BY (toStartOfHour(seen), service, src, seen)
TTL toDateTime(seen) + INTERVAL 7776000 SECOND
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS `noroshi`.`sessions` ON CLUSTER `noroshi` AS `noroshi`.`sessions_local` ENGINE = Distributed(`noroshi`, `noroshi`, `sessions_local`, rand());

CREATE TABLE IF NOT EXISTS `noroshi`.`logs_local` ON CLUSTER `noroshi` (
	time DateTime64(6, 'UTC') CODEC(T64, ZSTD(1)),
	seen DateTime64(6, 'UTC') CODEC(T64, ZSTD(1)),
	addr IPv6 CODEC(ZSTD(1)),
	peer IPv6 CODEC(ZSTD(1)),
	record UInt64 CODEC(T64, ZSTD(1)),
	host LowCardinality(String) CODEC(ZSTD(1)),
	channel LowCardinality(String) CODEC(ZSTD(1)),
	provider LowCardinality(String) CODEC(ZSTD(1)),
	user String CODEC(ZSTD(1)),
	image String CODEC(ZSTD(1)),
	message String CODEC(ZSTD(1)),
	data String CODEC(ZSTD(1)),
	event_id UInt32 CODEC(T64, ZSTD(1)),
	pid UInt32 CODEC(T64, ZSTD(1)),
	level UInt8 CODEC(ZSTD(1)),
	marks UInt16 CODEC(ZSTD(1)),
	INDEX by_addr addr TYPE bloom_filter(0.01) GRANULARITY 1,
	INDEX by_peer peer TYPE bloom_filter(0.01) GRANULARITY 1,
	INDEX by_words message TYPE tokenbf_v1(16384, 3, 0) GRANULARITY 1
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toYYYYMMDD(seen)
ORDER BY (toStartOfHour(seen), host, channel, time, record)
TTL toDateTime(seen) + INTERVAL 7776000 SECOND
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS `noroshi`.`logs` ON CLUSTER `noroshi` AS `noroshi`.`logs_local` ENGINE = Distributed(`noroshi`, `noroshi`, `logs_local`, rand());

CREATE TABLE IF NOT EXISTS `noroshi`.`coverage_local` ON CLUSTER `noroshi` (
	minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
	kind LowCardinality(String),
	reason LowCardinality(String),
	kept UInt64,
	lost UInt64,
	watched UInt64
) ENGINE = ReplicatedSummingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toYYYYMM(minute)
ORDER BY (kind, minute, reason)
TTL toDateTime(minute) + INTERVAL 34560000 SECOND
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS `noroshi`.`coverage` ON CLUSTER `noroshi` AS `noroshi`.`coverage_local` ENGINE = Distributed(`noroshi`, `noroshi`, `coverage_local`, rand());

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`flows_kept_view` ON CLUSTER `noroshi` TO `noroshi`.`coverage_local` AS SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, 'flows' AS kind, '' AS reason, count() AS kept, toUInt64(0) AS lost, toUInt64(0) AS watched FROM `noroshi`.`flows_local` GROUP BY minute
COMMENT 'noroshi 70b4f4bf82760106';

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`dns_kept_view` ON CLUSTER `noroshi` TO `noroshi`.`coverage_local` AS SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, 'dns' AS kind, '' AS reason, count() AS kept, toUInt64(0) AS lost, toUInt64(0) AS watched FROM `noroshi`.`dns_local` GROUP BY minute
COMMENT 'noroshi 578008811424226a';

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`sessions_kept_view` ON CLUSTER `noroshi` TO `noroshi`.`coverage_local` AS SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, 'sessions' AS kind, '' AS reason, count() AS kept, toUInt64(0) AS lost, toUInt64(0) AS watched FROM `noroshi`.`sessions_local` GROUP BY minute
COMMENT 'noroshi dc52dc2c76799976';

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`logs_kept_view` ON CLUSTER `noroshi` TO `noroshi`.`coverage_local` AS SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, 'logs' AS kind, '' AS reason, count() AS kept, toUInt64(0) AS lost, toUInt64(0) AS watched FROM `noroshi`.`logs_local` GROUP BY minute
COMMENT 'noroshi db1e2490cfe74226';

CREATE TABLE IF NOT EXISTS `noroshi`.`flows_by_exporter_local` ON CLUSTER `noroshi` (
	minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
	exporter IPv6 CODEC(ZSTD(1)),
	in_if UInt32 CODEC(T64, ZSTD(1)),
	out_if UInt32 CODEC(T64, ZSTD(1)),
	proto UInt8 CODEC(ZSTD(1)),
	octets UInt64 CODEC(T64, ZSTD(1)),
	pkts UInt64 CODEC(T64, ZSTD(1)),
	records UInt64 CODEC(T64, ZSTD(1))
) ENGINE = ReplicatedSummingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, exporter, in_if, out_if, proto)
TTL toDateTime(minute) + INTERVAL 34560000 SECOND
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS `noroshi`.`flows_by_exporter` ON CLUSTER `noroshi` AS `noroshi`.`flows_by_exporter_local` ENGINE = Distributed(`noroshi`, `noroshi`, `flows_by_exporter_local`, rand());

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`flows_by_exporter_view` ON CLUSTER `noroshi` TO `noroshi`.`flows_by_exporter_local` AS SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, exporter, in_if, out_if, proto, sum(bytes) AS octets, sum(packets) AS pkts, count() AS records FROM `noroshi`.`flows_local` WHERE bitAnd(marks, 128) = 0 GROUP BY minute, exporter, in_if, out_if, proto
COMMENT 'noroshi 62ce6173dc6cb359';

CREATE TABLE IF NOT EXISTS `noroshi`.`flows_by_target_local` ON CLUSTER `noroshi` (
	minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
	dst IPv6 CODEC(ZSTD(1)),
	octets UInt64 CODEC(T64, ZSTD(1)),
	pkts UInt64 CODEC(T64, ZSTD(1)),
	records UInt64 CODEC(T64, ZSTD(1))
) ENGINE = ReplicatedSummingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, dst)
TTL toDateTime(minute) + INTERVAL 34560000 SECOND
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS `noroshi`.`flows_by_target` ON CLUSTER `noroshi` AS `noroshi`.`flows_by_target_local` ENGINE = Distributed(`noroshi`, `noroshi`, `flows_by_target_local`, rand());

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`flows_by_target_view` ON CLUSTER `noroshi` TO `noroshi`.`flows_by_target_local` AS SELECT minute, dst, octets, pkts, records FROM (SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, dst, sum(bytes) AS octets, sum(packets) AS pkts, count() AS records FROM `noroshi`.`flows_local` WHERE bitAnd(marks, 128) = 0 GROUP BY minute, dst) ORDER BY octets / greatest(sum(octets) OVER (PARTITION BY minute), 1) + pkts / greatest(sum(pkts) OVER (PARTITION BY minute), 1) + records / greatest(sum(records) OVER (PARTITION BY minute), 1) DESC LIMIT 1000 BY minute
COMMENT 'noroshi a08519da631b8b42';

CREATE TABLE IF NOT EXISTS `noroshi`.`flows_by_source_local` ON CLUSTER `noroshi` (
	minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
	src IPv6 CODEC(ZSTD(1)),
	octets UInt64 CODEC(T64, ZSTD(1)),
	pkts UInt64 CODEC(T64, ZSTD(1)),
	records UInt64 CODEC(T64, ZSTD(1))
) ENGINE = ReplicatedSummingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, src)
TTL toDateTime(minute) + INTERVAL 34560000 SECOND
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS `noroshi`.`flows_by_source` ON CLUSTER `noroshi` AS `noroshi`.`flows_by_source_local` ENGINE = Distributed(`noroshi`, `noroshi`, `flows_by_source_local`, rand());

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`flows_by_source_view` ON CLUSTER `noroshi` TO `noroshi`.`flows_by_source_local` AS SELECT minute, src, octets, pkts, records FROM (SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, src, sum(bytes) AS octets, sum(packets) AS pkts, count() AS records FROM `noroshi`.`flows_local` WHERE bitAnd(marks, 128) = 0 GROUP BY minute, src) ORDER BY octets / greatest(sum(octets) OVER (PARTITION BY minute), 1) + pkts / greatest(sum(pkts) OVER (PARTITION BY minute), 1) + records / greatest(sum(records) OVER (PARTITION BY minute), 1) DESC LIMIT 1000 BY minute
COMMENT 'noroshi 1813eb27d861f5d1';

CREATE TABLE IF NOT EXISTS `noroshi`.`flows_by_port_local` ON CLUSTER `noroshi` (
	minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
	proto UInt8 CODEC(ZSTD(1)),
	dst_port UInt16 CODEC(ZSTD(1)),
	octets UInt64 CODEC(T64, ZSTD(1)),
	pkts UInt64 CODEC(T64, ZSTD(1)),
	records UInt64 CODEC(T64, ZSTD(1))
) ENGINE = ReplicatedSummingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, proto, dst_port)
TTL toDateTime(minute) + INTERVAL 34560000 SECOND
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS `noroshi`.`flows_by_port` ON CLUSTER `noroshi` AS `noroshi`.`flows_by_port_local` ENGINE = Distributed(`noroshi`, `noroshi`, `flows_by_port_local`, rand());

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`flows_by_port_view` ON CLUSTER `noroshi` TO `noroshi`.`flows_by_port_local` AS SELECT minute, proto, dst_port, octets, pkts, records FROM (SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, proto, dst_port, sum(bytes) AS octets, sum(packets) AS pkts, count() AS records FROM `noroshi`.`flows_local` WHERE bitAnd(marks, 128) = 0 GROUP BY minute, proto, dst_port) ORDER BY octets / greatest(sum(octets) OVER (PARTITION BY minute), 1) + pkts / greatest(sum(pkts) OVER (PARTITION BY minute), 1) + records / greatest(sum(records) OVER (PARTITION BY minute), 1) DESC LIMIT 1000 BY minute
COMMENT 'noroshi c632cab99477b184';

CREATE TABLE IF NOT EXISTS `noroshi`.`flows_by_as_local` ON CLUSTER `noroshi` (
	minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
	src_as UInt32 CODEC(T64, ZSTD(1)),
	dst_as UInt32 CODEC(T64, ZSTD(1)),
	octets UInt64 CODEC(T64, ZSTD(1)),
	pkts UInt64 CODEC(T64, ZSTD(1)),
	records UInt64 CODEC(T64, ZSTD(1))
) ENGINE = ReplicatedSummingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, src_as, dst_as)
TTL toDateTime(minute) + INTERVAL 34560000 SECOND
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS `noroshi`.`flows_by_as` ON CLUSTER `noroshi` AS `noroshi`.`flows_by_as_local` ENGINE = Distributed(`noroshi`, `noroshi`, `flows_by_as_local`, rand());

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`flows_by_as_view` ON CLUSTER `noroshi` TO `noroshi`.`flows_by_as_local` AS SELECT minute, src_as, dst_as, octets, pkts, records FROM (SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, src_as, dst_as, sum(bytes) AS octets, sum(packets) AS pkts, count() AS records FROM `noroshi`.`flows_local` WHERE bitAnd(marks, 128) = 0 GROUP BY minute, src_as, dst_as) ORDER BY octets / greatest(sum(octets) OVER (PARTITION BY minute), 1) + pkts / greatest(sum(pkts) OVER (PARTITION BY minute), 1) + records / greatest(sum(records) OVER (PARTITION BY minute), 1) DESC LIMIT 1000 BY minute
COMMENT 'noroshi 92244f15a523d974';

CREATE TABLE IF NOT EXISTS `noroshi`.`dns_by_zone_local` ON CLUSTER `noroshi` (
	minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
	zone LowCardinality(String) CODEC(ZSTD(1)),
	role UInt8 CODEC(ZSTD(1)),
	rcode UInt8 CODEC(ZSTD(1)),
	records UInt64 CODEC(T64, ZSTD(1))
) ENGINE = ReplicatedSummingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, zone, role, rcode)
TTL toDateTime(minute) + INTERVAL 34560000 SECOND
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS `noroshi`.`dns_by_zone` ON CLUSTER `noroshi` AS `noroshi`.`dns_by_zone_local` ENGINE = Distributed(`noroshi`, `noroshi`, `dns_by_zone_local`, rand());

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`dns_by_zone_view` ON CLUSTER `noroshi` TO `noroshi`.`dns_by_zone_local` AS SELECT minute, zone, role, rcode, records FROM (SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, zone, role, rcode, count() AS records FROM `noroshi`.`dns_local` WHERE 1 GROUP BY minute, zone, role, rcode) ORDER BY records / greatest(sum(records) OVER (PARTITION BY minute), 1) DESC LIMIT 1000 BY minute
COMMENT 'noroshi 419886f22cf0c460';

CREATE TABLE IF NOT EXISTS `noroshi`.`sessions_by_service_local` ON CLUSTER `noroshi` (
	minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
	service LowCardinality(String) CODEC(ZSTD(1)),
	reporter LowCardinality(String) CODEC(ZSTD(1)),
	status UInt8 CODEC(ZSTD(1)),
	octets UInt64 CODEC(T64, ZSTD(1)),
	records UInt64 CODEC(T64, ZSTD(1))
) ENGINE = ReplicatedSummingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, service, reporter, status)
TTL toDateTime(minute) + INTERVAL 34560000 SECOND
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS `noroshi`.`sessions_by_service` ON CLUSTER `noroshi` AS `noroshi`.`sessions_by_service_local` ENGINE = Distributed(`noroshi`, `noroshi`, `sessions_by_service_local`, rand());

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`sessions_by_service_view` ON CLUSTER `noroshi` TO `noroshi`.`sessions_by_service_local` AS SELECT minute, service, reporter, status, octets, records FROM (SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, service, reporter, status, sum(bytes_in + bytes_out) AS octets, count() AS records FROM `noroshi`.`sessions_local` WHERE 1 GROUP BY minute, service, reporter, status) ORDER BY octets / greatest(sum(octets) OVER (PARTITION BY minute), 1) + records / greatest(sum(records) OVER (PARTITION BY minute), 1) DESC LIMIT 1000 BY minute
COMMENT 'noroshi 4c083739dff6c332';

CREATE TABLE IF NOT EXISTS `noroshi`.`logs_by_host_local` ON CLUSTER `noroshi` (
	minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
	host LowCardinality(String) CODEC(ZSTD(1)),
	channel LowCardinality(String) CODEC(ZSTD(1)),
	records UInt64 CODEC(T64, ZSTD(1))
) ENGINE = ReplicatedSummingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, host, channel)
TTL toDateTime(minute) + INTERVAL 34560000 SECOND
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS `noroshi`.`logs_by_host` ON CLUSTER `noroshi` AS `noroshi`.`logs_by_host_local` ENGINE = Distributed(`noroshi`, `noroshi`, `logs_by_host_local`, rand());

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`logs_by_host_view` ON CLUSTER `noroshi` TO `noroshi`.`logs_by_host_local` AS SELECT minute, host, channel, records FROM (SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, host, channel, count() AS records FROM `noroshi`.`logs_local` WHERE 1 GROUP BY minute, host, channel) ORDER BY records / greatest(sum(records) OVER (PARTITION BY minute), 1) DESC LIMIT 1000 BY minute
COMMENT 'noroshi 27196933c2e61d80';
