-- What noroshi creates by itself. Made by go test ./store/history -update; not to be edited.

CREATE DATABASE IF NOT EXISTS `noroshi`;

CREATE TABLE IF NOT EXISTS `noroshi`.`flows` (
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
) ENGINE = MergeTree()
PARTITION BY toYYYYMMDD(seen)
ORDER BY (toStartOfMinute(seen), dst, src, dst_port, seen)
TTL toDateTime(seen) + INTERVAL 1209600 SECOND
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS `noroshi`.`dns` (
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
) ENGINE = MergeTree()
PARTITION BY toYYYYMMDD(seen)
ORDER BY (toStartOfMinute(seen), zone, name, seen)
TTL toDateTime(seen) + INTERVAL 1209600 SECOND
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS `noroshi`.`sessions` (
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
) ENGINE = MergeTree()
PARTITION BY toYYYYMMDD(seen)
ORDER BY (toStartOfHour(seen), service, src, seen)
TTL toDateTime(seen) + INTERVAL 7776000 SECOND
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS `noroshi`.`logs` (
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
) ENGINE = MergeTree()
PARTITION BY toYYYYMMDD(seen)
ORDER BY (toStartOfHour(seen), host, channel, time, record)
TTL toDateTime(seen) + INTERVAL 7776000 SECOND
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS `noroshi`.`coverage` (
	minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
	kind LowCardinality(String),
	reason LowCardinality(String),
	kept UInt64,
	lost UInt64,
	watched UInt64
) ENGINE = SummingMergeTree()
PARTITION BY toYYYYMM(minute)
ORDER BY (kind, minute, reason)
TTL toDateTime(minute) + INTERVAL 34560000 SECOND
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`flows_kept_view` TO `noroshi`.`coverage` AS SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, 'flows' AS kind, '' AS reason, count() AS kept, toUInt64(0) AS lost, toUInt64(0) AS watched FROM `noroshi`.`flows` GROUP BY minute
COMMENT 'noroshi 74e976c284d826da';

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`dns_kept_view` TO `noroshi`.`coverage` AS SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, 'dns' AS kind, '' AS reason, count() AS kept, toUInt64(0) AS lost, toUInt64(0) AS watched FROM `noroshi`.`dns` GROUP BY minute
COMMENT 'noroshi 6d328153416cbe8e';

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`sessions_kept_view` TO `noroshi`.`coverage` AS SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, 'sessions' AS kind, '' AS reason, count() AS kept, toUInt64(0) AS lost, toUInt64(0) AS watched FROM `noroshi`.`sessions` GROUP BY minute
COMMENT 'noroshi f7f888e454ed2b2a';

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`logs_kept_view` TO `noroshi`.`coverage` AS SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, 'logs' AS kind, '' AS reason, count() AS kept, toUInt64(0) AS lost, toUInt64(0) AS watched FROM `noroshi`.`logs` GROUP BY minute
COMMENT 'noroshi 4d19cbee78a51bba';

CREATE TABLE IF NOT EXISTS `noroshi`.`flows_by_exporter` (
	minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
	exporter IPv6 CODEC(ZSTD(1)),
	in_if UInt32 CODEC(T64, ZSTD(1)),
	out_if UInt32 CODEC(T64, ZSTD(1)),
	proto UInt8 CODEC(ZSTD(1)),
	octets UInt64 CODEC(T64, ZSTD(1)),
	pkts UInt64 CODEC(T64, ZSTD(1)),
	records UInt64 CODEC(T64, ZSTD(1))
) ENGINE = SummingMergeTree()
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, exporter, in_if, out_if, proto)
TTL toDateTime(minute) + INTERVAL 34560000 SECOND
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`flows_by_exporter_view` TO `noroshi`.`flows_by_exporter` AS SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, exporter, in_if, out_if, proto, sum(bytes) AS octets, sum(packets) AS pkts, count() AS records FROM `noroshi`.`flows` WHERE bitAnd(marks, 128) = 0 GROUP BY minute, exporter, in_if, out_if, proto
COMMENT 'noroshi 3d43823d2dfa3649';

CREATE TABLE IF NOT EXISTS `noroshi`.`flows_by_target` (
	minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
	dst IPv6 CODEC(ZSTD(1)),
	octets UInt64 CODEC(T64, ZSTD(1)),
	pkts UInt64 CODEC(T64, ZSTD(1)),
	records UInt64 CODEC(T64, ZSTD(1))
) ENGINE = SummingMergeTree()
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, dst)
TTL toDateTime(minute) + INTERVAL 34560000 SECOND
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`flows_by_target_view` TO `noroshi`.`flows_by_target` AS SELECT minute, dst, octets, pkts, records FROM (SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, dst, sum(bytes) AS octets, sum(packets) AS pkts, count() AS records FROM `noroshi`.`flows` WHERE bitAnd(marks, 128) = 0 GROUP BY minute, dst) ORDER BY octets / greatest(sum(octets) OVER (PARTITION BY minute), 1) + pkts / greatest(sum(pkts) OVER (PARTITION BY minute), 1) + records / greatest(sum(records) OVER (PARTITION BY minute), 1) DESC LIMIT 1000 BY minute
COMMENT 'noroshi 2be79eb8bdc78ad6';

CREATE TABLE IF NOT EXISTS `noroshi`.`flows_by_source` (
	minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
	src IPv6 CODEC(ZSTD(1)),
	octets UInt64 CODEC(T64, ZSTD(1)),
	pkts UInt64 CODEC(T64, ZSTD(1)),
	records UInt64 CODEC(T64, ZSTD(1))
) ENGINE = SummingMergeTree()
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, src)
TTL toDateTime(minute) + INTERVAL 34560000 SECOND
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`flows_by_source_view` TO `noroshi`.`flows_by_source` AS SELECT minute, src, octets, pkts, records FROM (SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, src, sum(bytes) AS octets, sum(packets) AS pkts, count() AS records FROM `noroshi`.`flows` WHERE bitAnd(marks, 128) = 0 GROUP BY minute, src) ORDER BY octets / greatest(sum(octets) OVER (PARTITION BY minute), 1) + pkts / greatest(sum(pkts) OVER (PARTITION BY minute), 1) + records / greatest(sum(records) OVER (PARTITION BY minute), 1) DESC LIMIT 1000 BY minute
COMMENT 'noroshi 29e27ab557e21015';

CREATE TABLE IF NOT EXISTS `noroshi`.`flows_by_port` (
	minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
	proto UInt8 CODEC(ZSTD(1)),
	dst_port UInt16 CODEC(ZSTD(1)),
	octets UInt64 CODEC(T64, ZSTD(1)),
	pkts UInt64 CODEC(T64, ZSTD(1)),
	records UInt64 CODEC(T64, ZSTD(1))
) ENGINE = SummingMergeTree()
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, proto, dst_port)
TTL toDateTime(minute) + INTERVAL 34560000 SECOND
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`flows_by_port_view` TO `noroshi`.`flows_by_port` AS SELECT minute, proto, dst_port, octets, pkts, records FROM (SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, proto, dst_port, sum(bytes) AS octets, sum(packets) AS pkts, count() AS records FROM `noroshi`.`flows` WHERE bitAnd(marks, 128) = 0 GROUP BY minute, proto, dst_port) ORDER BY octets / greatest(sum(octets) OVER (PARTITION BY minute), 1) + pkts / greatest(sum(pkts) OVER (PARTITION BY minute), 1) + records / greatest(sum(records) OVER (PARTITION BY minute), 1) DESC LIMIT 1000 BY minute
COMMENT 'noroshi afb9834771acaa50';

CREATE TABLE IF NOT EXISTS `noroshi`.`flows_by_as` (
	minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
	src_as UInt32 CODEC(T64, ZSTD(1)),
	dst_as UInt32 CODEC(T64, ZSTD(1)),
	octets UInt64 CODEC(T64, ZSTD(1)),
	pkts UInt64 CODEC(T64, ZSTD(1)),
	records UInt64 CODEC(T64, ZSTD(1))
) ENGINE = SummingMergeTree()
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, src_as, dst_as)
TTL toDateTime(minute) + INTERVAL 34560000 SECOND
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`flows_by_as_view` TO `noroshi`.`flows_by_as` AS SELECT minute, src_as, dst_as, octets, pkts, records FROM (SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, src_as, dst_as, sum(bytes) AS octets, sum(packets) AS pkts, count() AS records FROM `noroshi`.`flows` WHERE bitAnd(marks, 128) = 0 GROUP BY minute, src_as, dst_as) ORDER BY octets / greatest(sum(octets) OVER (PARTITION BY minute), 1) + pkts / greatest(sum(pkts) OVER (PARTITION BY minute), 1) + records / greatest(sum(records) OVER (PARTITION BY minute), 1) DESC LIMIT 1000 BY minute
COMMENT 'noroshi 1458ea3d6f221428';

CREATE TABLE IF NOT EXISTS `noroshi`.`dns_by_zone` (
	minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
	zone LowCardinality(String) CODEC(ZSTD(1)),
	role UInt8 CODEC(ZSTD(1)),
	rcode UInt8 CODEC(ZSTD(1)),
	records UInt64 CODEC(T64, ZSTD(1))
) ENGINE = SummingMergeTree()
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, zone, role, rcode)
TTL toDateTime(minute) + INTERVAL 34560000 SECOND
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`dns_by_zone_view` TO `noroshi`.`dns_by_zone` AS SELECT minute, zone, role, rcode, records FROM (SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, zone, role, rcode, count() AS records FROM `noroshi`.`dns` WHERE 1 GROUP BY minute, zone, role, rcode) ORDER BY records / greatest(sum(records) OVER (PARTITION BY minute), 1) DESC LIMIT 1000 BY minute
COMMENT 'noroshi 06d6cffbfebf8d54';

CREATE TABLE IF NOT EXISTS `noroshi`.`sessions_by_service` (
	minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
	service LowCardinality(String) CODEC(ZSTD(1)),
	reporter LowCardinality(String) CODEC(ZSTD(1)),
	status UInt8 CODEC(ZSTD(1)),
	octets UInt64 CODEC(T64, ZSTD(1)),
	records UInt64 CODEC(T64, ZSTD(1))
) ENGINE = SummingMergeTree()
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, service, reporter, status)
TTL toDateTime(minute) + INTERVAL 34560000 SECOND
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`sessions_by_service_view` TO `noroshi`.`sessions_by_service` AS SELECT minute, service, reporter, status, octets, records FROM (SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, service, reporter, status, sum(bytes_in + bytes_out) AS octets, count() AS records FROM `noroshi`.`sessions` WHERE 1 GROUP BY minute, service, reporter, status) ORDER BY octets / greatest(sum(octets) OVER (PARTITION BY minute), 1) + records / greatest(sum(records) OVER (PARTITION BY minute), 1) DESC LIMIT 1000 BY minute
COMMENT 'noroshi 7491cddb9c51737e';

CREATE TABLE IF NOT EXISTS `noroshi`.`logs_by_host` (
	minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
	host LowCardinality(String) CODEC(ZSTD(1)),
	channel LowCardinality(String) CODEC(ZSTD(1)),
	records UInt64 CODEC(T64, ZSTD(1))
) ENGINE = SummingMergeTree()
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, host, channel)
TTL toDateTime(minute) + INTERVAL 34560000 SECOND
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS `noroshi`.`logs_by_host_view` TO `noroshi`.`logs_by_host` AS SELECT minute, host, channel, records FROM (SELECT toStartOfMinute(toDateTime(seen, 'UTC')) AS minute, host, channel, count() AS records FROM `noroshi`.`logs` WHERE 1 GROUP BY minute, host, channel) ORDER BY records / greatest(sum(records) OVER (PARTITION BY minute), 1) DESC LIMIT 1000 BY minute
COMMENT 'noroshi c3f450a0444fad94';
