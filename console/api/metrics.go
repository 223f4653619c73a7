package api

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"noroshi/event"
	"noroshi/source"
	"noroshi/store/engine"
)

// metric is one of the metrics, as docs/metrics.md lists them.
type metric struct {
	name, help string
	labels     []string
	desc       *prometheus.Desc
	kind       prometheus.ValueType
}

// all is every metric of the program, in the order of the data's way.
var all []*metric

func define(kind prometheus.ValueType, name, help string, labels ...string) *metric {
	m := &metric{name, help, labels, prometheus.NewDesc(name, help, labels, nil), kind}
	all = append(all, m)
	return m
}

func counter(name, help string, labels ...string) *metric {
	return define(prometheus.CounterValue, name, help, labels...)
}

func gauge(name, help string, labels ...string) *metric {
	return define(prometheus.GaugeValue, name, help, labels...)
}

func perSource(name, help string) *metric {
	return counter("noroshi_source_"+name+"_total", help, "source", "exporter", "reason")
}

var (
	receivedDatagrams = perSource("received_datagrams", "Datagrams read from the sockets.")
	receivedBytes     = perSource("received_bytes", "Octets of the datagrams read.")
	receivedPackets   = perSource("received_packets", "Packets read from interfaces.")
	decodedDatagrams  = perSource("decoded_datagrams", "Datagrams understood, by exporter.")
	decodedFlows      = perSource("decoded_flows", "Flows handed to the pipeline, by exporter.")
	learnedTemplates  = perSource("learned_templates", "Templates learned for the first time.")
	lostDatagrams     = perSource("lost_datagrams", "Datagrams that were sent and never read: the kernel's buffer was full, or a gap in sFlow's sequence.")
	lostPackets       = perSource("lost_packets", "Packets the kernel dropped because the capture ring was full.")
	lostFlows         = perSource("lost_flows", "Flows missing by the exporters' sequence numbers.")
	lostSamples       = perSource("lost_samples", "sFlow samples missing by sequence numbers, or dropped by the agent.")
	lostSets          = perSource("lost_sets", "Data sets whose template did not come in time, or for which there was no room to wait.")
	refusedDatagrams  = perSource("refused_datagrams", "Datagrams not decoded.")
	refusedPackets    = perSource("refused_packets", "Packets that became no record.")
	refusedSamplers   = perSource("refused_samplers", "Sampling rates that were announced and not kept for want of room.")
	skippedRecords    = perSource("skipped_records", "Records that became no flow.")
	skippedSamples    = perSource("skipped_samples", "sFlow samples that became no flow.")
	oddDatagrams      = perSource("odd_datagrams", "Datagrams decoded and remarkable; among the decoded too.")
	oddFlows          = perSource("odd_flows", "Flows handed on and remarkable; among the decoded too.")
	oddSets           = perSource("odd_sets", "Data sets that waited, or were skipped.")
	oddTemplates      = perSource("odd_templates", "Templates changed, refused, evicted or not believed.")
	exporterRestarts  = perSource("exporter_restarts", "Exporters that began their sequence numbers anew.")
	otherUnits        = perSource("other_units", "Counts of kinds that have no metric of their own; the reason names them.")

	pipelineBatches  = counter("noroshi_pipeline_batches_total", "Batches dealt to the shards.")
	pipelineFlows    = counter("noroshi_pipeline_flows_total", "Flows dealt to the shards.")
	pipelineFindings = counter("noroshi_pipeline_findings_total", "Findings reported by detectors, updates included.")
	pipelinePanics   = counter("noroshi_pipeline_panics_total", "Detectors that failed on an input and were begun anew.")
	pipelineLag      = gauge("noroshi_pipeline_clock_lag_seconds", "Wall clock less event time; some seconds at most while all is well. Absent before the first flow.")

	detectorEntries = gauge("noroshi_detector_entries", "Keys a detector holds.", "detector")
	detectorBytes   = gauge("noroshi_detector_memory_bytes", "Memory of a detector's tables.", "detector")
	detectorEvicted = counter("noroshi_detector_evicted_entries_total", "Keys dropped because a table was full.", "detector")

	incidentFindings   = counter("noroshi_incident_findings_total", "Findings that reached the correlator.")
	incidentSuppressed = counter("noroshi_incident_suppressed_findings_total", "Findings covered by an exception.")
	incidentOverflowed = counter("noroshi_incident_overflowed_findings_total", "Findings counted in the overflow incident because too many incidents opened at once.")
	incidentOpened     = counter("noroshi_incident_opened_incidents_total", "Incidents opened.")
	incidentOpen       = gauge("noroshi_incident_open_incidents", "Incidents whose cause may go on.")
	incidentUncounted  = counter("noroshi_incident_uncounted_members_total", "Members beyond incident.max_members.")

	storeUp       = gauge("noroshi_store_up", "1 while the incident store works, 0 while it fails.")
	storeSaved    = counter("noroshi_store_saved_incidents_total", "Incidents written, each as often as it was.")
	storeFailed   = counter("noroshi_store_failed_transactions_total", "Transactions that failed.")
	storeWaiting  = gauge("noroshi_store_waiting_incidents", "Incidents whose latest change is not stored yet.")
	lostIncidents = counter("noroshi_store_lost_incidents_total", "Changes of incidents given up because too many waited.")
	lostMembers   = counter("noroshi_store_lost_members_total", "Changes of members given up because too many waited.")

	historyUp      = gauge("noroshi_history_up", "1 while the store of events takes blocks, 0 while they wait in the spool. Absent without history, as all of noroshi_history.")
	historyKept    = counter("noroshi_history_kept_rows_total", "Rows the store has acknowledged.", "table")
	historyLost    = counter("noroshi_history_lost_rows_total", "Events that are not remembered.", "kind", "reason")
	historyErrors  = counter("noroshi_history_store_errors_total", "Errors of the store, by ClickHouse's code; 0: it wasn't reached.", "code")
	historyBlocks  = gauge("noroshi_history_waiting_blocks", "Blocks in the spool.")
	historyBytes   = gauge("noroshi_history_waiting_bytes", "Octets of the disk that the spool takes.")
	historyQueue   = gauge("noroshi_history_queued_batches", "Batches that wait to be encoded, of 512; when all places are taken events are lost, busy.")
	historyOldest  = gauge("noroshi_history_oldest_waiting_seconds", "How long the oldest block in the spool has waited; 0 if none does.")
	historyOverdue = gauge("noroshi_history_masking_overdue", "1 if clients of resolvers may be kept unmasked for longer than 25 hours.")
	engineUp       = gauge("noroshi_engine_up", "1 while the embedded engine answers. Absent without it, as all of noroshi_engine.")
	engineRestarts = counter("noroshi_engine_restarts_total", "Times the embedded engine was started again.")
	engineMemory   = gauge("noroshi_engine_resident_bytes", "Memory of the embedded engine's process.")
	engineThreads  = gauge("noroshi_engine_threads", "Threads of the embedded engine's process.")
	engineFiles    = gauge("noroshi_engine_open_files", "Open files of the embedded engine's process.")

	streamFollowers = gauge("noroshi_stream_followers", "Clients of the stream of incidents.")
	streamWithheld  = counter("noroshi_stream_withheld_changes_total", "Changes that slow clients were told to read elsewhere.")
	apiAnswers      = counter("noroshi_api_answers_total", "Answers to requests, by hundreds of the status.", "code")
	buildInfo       = gauge("noroshi_build_info", "1, with the version.", "version")
)

// sourceMetrics says which metric a source's count is: by its name, and by
// whether it has a reason.
var sourceMetrics = map[string]struct{ plain, withReason *metric }{
	"received":       {receivedDatagrams, nil},
	"octets":         {receivedBytes, nil},
	"packets":        {receivedPackets, refusedPackets},
	"datagrams":      {decodedDatagrams, oddDatagrams},
	"flows":          {decodedFlows, oddFlows},
	"records":        {nil, skippedRecords},
	"samples":        {nil, skippedSamples},
	"sets":           {nil, oddSets},
	"templates":      {learnedTemplates, oddTemplates},
	"samplers":       {nil, refusedSamplers},
	"restarts":       {exporterRestarts, exporterRestarts},
	"refused":        {refusedDatagrams, refusedDatagrams},
	"lost":           {lostFlows, lostFlows},
	"lost datagrams": {lostDatagrams, lostDatagrams},
	"lost samples":   {lostSamples, lostSamples},
	"lost sets":      {lostSets, lostSets},
}

// metricOf returns the metric and the reason of a source's count. Sources of
// packets and of datagrams share the words "lost" and "refused".
func metricOf(c *source.Count, packets bool) (m *metric, reason string) {
	switch {
	case c.Name == "refused" && packets:
		return refusedPackets, c.Reason
	case c.Name == "lost" && packets:
		return lostPackets, c.Reason
	case c.Name == "lost" && c.Exporter == (event.Addr{}) && c.Reason == "kernel buffer full":
		return lostDatagrams, c.Reason
	}
	known := sourceMetrics[c.Name]
	if m = known.plain; c.Reason != "" {
		m = known.withReason
	}
	if m == nil {
		return otherUnits, c.Name + ": " + c.Reason
	}
	return m, c.Reason
}

// maxExporters bounds the exporters that have series of their own; the others
// share the exporter "other".
const maxExporters = 256

// exporters are those with series of their own: the first that came.
type exporters struct {
	mu    sync.Mutex
	names map[string]bool
}

func (e *exporters) label(a event.Addr) string {
	if a == (event.Addr{}) {
		return ""
	}
	name := a.String()
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.names[name]:
	case len(e.names) >= maxExporters:
		return "other"
	default:
		e.names[name] = true
	}
	return name
}

// metrics returns the handler of GET /metrics.
func (a *API) metrics() http.Handler {
	return promhttp.HandlerFor(a.registry(), promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: readWithin})
}

func (a *API) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(a, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Describe implements prometheus.Collector.
func (a *API) Describe(out chan<- *prometheus.Desc) {
	for _, m := range all {
		out <- m.desc
	}
}

// Collect implements prometheus.Collector: it asks every stage for its counters.
func (a *API) Collect(out chan<- prometheus.Metric) {
	put := func(m *metric, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(m.desc, m.kind, v, labels...)
	}
	type series struct {
		m                        *metric
		source, exporter, reason string
	}
	sums := map[series]uint64{}
	for _, s := range a.cfg.Sources {
		for c := range s.Counts() {
			m, reason := metricOf(&c, s.Packets)
			sums[series{m, s.Name, a.exporter.label(c.Exporter), reason}] += c.Value
		}
	}
	for s, v := range sums {
		put(s.m, float64(v), s.source, s.exporter, s.reason)
	}

	p := a.cfg.Pipeline.Stats()
	put(pipelineBatches, float64(p.Batches))
	put(pipelineFlows, float64(p.Flows))
	put(pipelineFindings, float64(p.Findings))
	put(pipelinePanics, float64(p.Panics))
	if p.Clock != 0 {
		put(pipelineLag, event.TimeOf(time.Now()).Sub(p.Clock).Seconds())
	}
	for name, u := range p.Detectors {
		put(detectorEntries, float64(u.Entries), name)
		put(detectorBytes, float64(u.Bytes), name)
		put(detectorEvicted, float64(u.Evicted), name)
	}

	d := a.cfg.Desk.Stats()
	put(incidentFindings, float64(d.Findings))
	put(incidentSuppressed, float64(d.Suppressed))
	put(incidentOverflowed, float64(d.Overflowed))
	put(incidentOpened, float64(d.Opened))
	put(incidentOpen, float64(d.Open))
	put(incidentUncounted, float64(d.Uncounted))
	put(storeUp, truth(d.Store.Failing == ""))
	put(storeSaved, float64(d.Store.Saved))
	put(storeFailed, float64(d.Store.Failures))
	put(storeWaiting, float64(d.Store.Waiting))
	put(lostIncidents, float64(d.Store.LostIncidents))
	put(lostMembers, float64(d.Store.LostMembers))
	if a.cfg.History != nil {
		a.collectHistory(put)
	}
	put(streamFollowers, float64(d.Followers))
	put(streamWithheld, float64(d.Withheld))
	for i := 1; i < len(a.answers); i++ {
		put(apiAnswers, float64(a.answers[i].Load()), fmt.Sprintf("%dxx", i))
	}
	put(buildInfo, 1, a.cfg.Version)
}

func (a *API) collectHistory(put func(m *metric, v float64, labels ...string)) {
	h := a.cfg.History()
	w := &h.Writer
	put(historyUp, truth(w.Away == nil))
	for table, n := range w.Kept {
		put(historyKept, float64(n), table)
	}
	for kind, reasons := range w.Lost {
		for reason, n := range reasons {
			put(historyLost, float64(n), kind, reason)
		}
	}
	for code, n := range w.Codes {
		put(historyErrors, float64(n), fmt.Sprint(code))
	}
	put(historyBlocks, float64(w.Spool.Blocks))
	put(historyBytes, float64(w.Spool.Bytes))
	put(historyQueue, float64(w.Queue))
	oldest := 0.0
	if !w.Spool.Oldest.IsZero() {
		oldest = time.Since(w.Spool.Oldest).Seconds()
	}
	put(historyOldest, oldest)
	put(historyOverdue, truth(h.MaskingOverdue))
	if e := h.Engine; e != nil {
		put(engineUp, truth(e.State == engine.Up))
		put(engineRestarts, float64(e.Restarts))
		put(engineMemory, float64(e.RSS))
		put(engineThreads, float64(e.Threads))
		put(engineFiles, float64(e.Files))
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
