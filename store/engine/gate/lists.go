package gate

import "strings"

// reaching are the functions that read or write outside the tables, connect
// elsewhere, run something, or answer with more than a value. Table functions
// that exist in the engine come on top, see New; those here are named also in
// case an engine does not list them.
const reaching = `
	file url urlCluster s3 s3Cluster gcs oss cosn hdfs hdfsCluster azureBlobStorage azureBlobStorageCluster
	remote remoteSecure cluster clusterAllReplicas executable mysql postgresql sqlite odbc jdbc mongodb redis
	hudi deltaLake iceberg paimon arrowstream arrowFlight ytsaurus fileCluster filesystem input loop eval
	fuzzQuery fuzzJSON viewIfPermitted viewExplain prometheusQuery prometheusQueryRange
	catboostEvaluate modelEvaluate hasColumnInTable reverseDNSQuery showCertificate getMacro
	addressToLine addressToLineWithInlines addressToSymbol demangle
	disk ssd_cache complex_key_ssd_cache flushAsyncInsertQueue
	getClientHTTPHeader generateSerialID
`

// reachesOut covers families: functions that ask a language model
// (aiGenerate, aiClassify and what will follow), and the inside of the engine.
func reachesOut(name, lower string) bool {
	return len(name) > 2 && strings.HasPrefix(lower, "ai") && name[2] >= 'A' && name[2] <= 'Z' ||
		strings.HasPrefix(lower, "__") ||
		strings.HasPrefix(lower, "llm")
}

func set(names string) map[string]bool {
	m := map[string]bool{}
	for _, n := range strings.Fields(names) {
		m[strings.ToLower(n)] = true
	}
	return m
}

// harmlessTables are the table functions that make rows out of nothing, of their
// arguments or of tables of this engine. "format" and "null" are also names of
// ordinary functions.
var harmlessTables = set(`
	numbers numbers_mt zeros zeros_mt primes generateRandom generateSeries generate_series
	values SQLStandardValues null format view merge dictionary`)

// harmlessEngines keep their data here, or none.
var harmlessEngines = set(`
	MergeTree ReplacingMergeTree SummingMergeTree AggregatingMergeTree CollapsingMergeTree
	VersionedCollapsingMergeTree CoalescingMergeTree Memory Null View MaterializedView Dictionary Atomic`)

// clusterEngines can be looked at with EXPLAIN AST, like Replicated*MergeTree:
// the schema of a cluster is checked so.
var clusterEngines = set(`Distributed Replicated`)

// A setting passes when its name is here, or begins with what ends in "*". What
// could change how a statement is read (dialect), hold SQL in a string
// (additional_table_filters), name a path, a disk, another server or a profile,
// or lift a ban (allow_*, readonly) is none of them. How far limits (max_*) can
// go is in the engine's own constraints.
const harmlessSettings = `
	max_* min_* output_format_* input_format_null_as_default input_format_skip_unknown_fields input_format_parallel_parsing
	insert_* async_insert* wait_for_async_insert* deduplicate_* optimize_* group_by_* join_* distinct_*
	result_overflow_mode timeout_overflow_mode read_overflow_mode set_overflow_mode sort_overflow_mode
	query_plan_* read_in_order_* use_skip_indexes* use_query_condition_cache use_uncompressed_cache force_* prefer_* compile_*
	date_time_* session_timezone log_comment priority final extremes limit offset transform_null_in
	aggregate_functions_null_for_empty empty_result_for_aggregation_by_empty_set
	mutations_sync alter_sync lightweight_* materialize_* parallel_view_processing
	enable_analyzer enable_lightweight_* enable_optimize_* enable_positional_arguments
	enable_block_number_column enable_block_offset_column enable_mixed_granularity_parts enable_vertical_merge_algorithm
	allow_nullable_key allow_suspicious_low_cardinality_types allow_experimental_full_text_index
	fsync_* index_granularity* ttl_* merge_with_ttl_timeout merge_with_recompression_ttl_timeout merge_max_* merge_selecting_*
	parts_to_* inactive_parts_to_* old_parts_lifetime
	non_replicated_deduplication_window replicated_deduplication_window replicated_deduplication_window_seconds
	vertical_merge_* add_minmax_index_for_* ratio_of_defaults_for_sparse_serialization
	default_compression_codec flatten_nested
`

var settingNames, settingPrefixes = func() (map[string]bool, []string) {
	names, prefixes := map[string]bool{}, []string(nil)
	for _, s := range strings.Fields(harmlessSettings) {
		if p, ok := strings.CutSuffix(s, "*"); ok {
			prefixes = append(prefixes, p)
		} else {
			names[s] = true
		}
	}
	return names, prefixes
}()

func harmlessSetting(name string) bool {
	for _, bad := range []string{"path", "schema", "file", "url", "server"} {
		if strings.Contains(name, bad) {
			return false
		}
	}
	if settingNames[name] {
		return true
	}
	for _, p := range settingPrefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// Settings returns the names and the beginnings (with a "*") of the settings that
// pass.
func Settings() []string { return strings.Fields(harmlessSettings) }
