package engine

import (
	"encoding/xml"
	"fmt"
	"strings"
)

// The engine is set by two files that the child writes before it opens the
// library: what is its own, and what its only user may do. The second is a wall of
// its own: the grants are checked by the engine's parser, where the gate reads
// tokens, and its constraints bound what SETTINGS in a statement can do.

// server are the settings of the whole engine. Most hold its threads, files and
// memory down: the defaults are for a server of many cores.
func server(c Config, users string) string {
	cache := c.Memory / 16
	var b strings.Builder
	b.WriteString("<clickhouse>\n")
	for _, s := range [][2]any{
		{"users_config", users},
		{"max_server_memory_usage", c.Memory},
		{"merges_mutations_memory_usage_soft_limit", c.Memory / 2},
		{"mark_cache_size", cache},
		{"index_mark_cache_size", cache},
		{"primary_index_cache_size", cache},
		{"query_condition_cache_size", cache / 4},
		{"compiled_expression_cache_size", cache / 4},
		{"text_index_header_cache_size", cache / 4},
		{"text_index_postings_cache_size", cache / 4},
		{"text_index_tokens_cache_size", cache / 4},
		// Threads. Idle ones above the free size end.
		{"max_thread_pool_size", 256},
		{"max_thread_pool_free_size", 8},
		{"max_io_thread_pool_size", 8},
		{"max_format_parsing_thread_pool_size", 4},
		{"max_prefixes_deserialization_thread_pool_size", 4},
		{"load_marks_threadpool_pool_size", 2},
		{"prefetch_threadpool_pool_size", 2},
		{"threadpool_local_fs_reader_pool_size", 4},
		{"threadpool_remote_fs_reader_pool_size", 1},
		{"threadpool_writer_pool_size", 4},
		{"max_active_parts_loading_thread_pool_size", 4},
		{"max_outdated_parts_loading_thread_pool_size", 2},
		{"max_unexpected_parts_loading_thread_pool_size", 2},
		{"max_parts_cleaning_thread_pool_size", 2},
		{"async_insert_threads", 1},
		{"backup_threads", 1},
		{"restore_threads", 1},
		{"background_pool_size", 2},
		{"background_move_pool_size", 1},
		{"background_fetches_pool_size", 1},
		{"background_common_pool_size", 1},
		{"background_schedule_pool_size", 2},
		{"logger", "<level>none</level><console>0</console>"}, // its log quotes statements, and with them addresses
		{"access_control_improvements", "<table_engines_require_grant>true</table_engines_require_grant>"},
	} {
		fmt.Fprintf(&b, "<%s>%v</%[1]s>\n", s[0], s[1])
	}
	b.WriteString("</clickhouse>\n")
	return b.String()
}

// engines are those a table or database may have; the gate has the same list.
const engines = `MergeTree ReplacingMergeTree SummingMergeTree AggregatingMergeTree CollapsingMergeTree
	VersionedCollapsingMergeTree CoalescingMergeTree Memory Null View MaterializedView Dictionary`

// Limits of a statement: its default, and how far SETTINGS may go.
const (
	maxExecutionTime    = 30  // seconds
	maxExecutionTimeCap = 600 // seconds
)

// users are the settings of a statement, and the rights of the one user.
func users(c Config) string {
	statement := c.Memory / 2
	var b strings.Builder
	b.WriteString("<clickhouse>\n<profiles><default>\n")
	for _, s := range [][2]any{
		{"max_threads", c.threads()},
		{"max_insert_threads", 1},
		{"max_memory_usage", statement},
		{"max_execution_time", maxExecutionTime},
		{"max_bytes_before_external_group_by", statement / 2},
		{"max_bytes_before_external_sort", statement / 2},
		{"max_bytes_ratio_before_external_group_by", 0},
		{"max_bytes_ratio_before_external_sort", 0},
		{"async_insert", 0}, // a batch that was acknowledged is stored
		{"deduplicate_blocks_in_dependent_materialized_views", 1},
		{"local_filesystem_read_method", "pread"}, // no pool of threads for reading
		{"allow_introspection_functions", 0},
		{"implicit_select", 0},
		{"log_queries", 0},
	} {
		fmt.Fprintf(&b, "<%s>%v</%[1]s>\n", s[0], s[1])
	}
	b.WriteString("<constraints>\n")
	fmt.Fprintf(&b, "<max_threads><min>1</min><max>%d</max></max_threads>\n", max(c.threads(), 1))
	fmt.Fprintf(&b, "<max_memory_usage><min>1</min><max>%d</max></max_memory_usage>\n", statement)
	fmt.Fprintf(&b, "<max_execution_time><min>0.001</min><max>%d</max></max_execution_time>\n", maxExecutionTimeCap)
	for _, fixed := range strings.Fields(`readonly allow_ddl allow_introspection_functions dialect log_queries
		additional_table_filters additional_result_filter default_table_engine default_temporary_table_engine
		format_schema local_filesystem_read_method implicit_select max_memory_usage_for_user`) {
		fmt.Fprintf(&b, "<%s><const/></%[1]s>\n", fixed)
	}
	b.WriteString("</constraints>\n</default></profiles>\n<quotas><default/></quotas>\n<users><default>\n" +
		"<password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>\n<grants>\n")
	grants := []string{"GRANT SHOW, SELECT, INSERT, ALTER TABLE, CREATE DATABASE, CREATE TABLE, CREATE VIEW, CREATE DICTIONARY, CREATE TEMPORARY TABLE, " +
		"DROP DATABASE, DROP TABLE, DROP VIEW, DROP DICTIONARY, TRUNCATE, OPTIMIZE, CHECK, KILL QUERY, dictGet, SYSTEM MERGES, SYSTEM RELOAD DICTIONARY, SYSTEM FLUSH LOGS ON *.*"}
	for _, e := range strings.Fields(engines) {
		grants = append(grants, "GRANT TABLE ENGINE ON "+e)
	}
	for _, g := range grants {
		fmt.Fprintf(&b, "<query>%s</query>\n", g)
	}
	b.WriteString("</grants>\n</default></users>\n</clickhouse>\n")
	return b.String()
}

func escapeXML(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder never fails
	return b.String()
}
