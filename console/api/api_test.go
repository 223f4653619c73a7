package api

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"noroshi/console/desk"
	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
	"noroshi/pipeline"
	"noroshi/source"
	"noroshi/store/state"
)

var update = flag.Bool("update", false, "write docs/metrics.md")

// counts is a source that only counts.
type counts []source.Count

func (c counts) Run(context.Context, func(*event.Batch)) error { return nil }

func (c counts) Counts() iter.Seq[source.Count] {
	return func(yield func(source.Count) bool) {
		for _, x := range c {
			if !yield(x) {
				return
			}
		}
	}
}

// house is an API with all that is behind it.
type house struct {
	*httptest.Server
	t    *testing.T
	api  *API
	desk *desk.Desk
	db   *state.DB
}

func newHouse(t *testing.T, sources ...Source) *house {
	t.Helper()
	db, err := state.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, db: db, desk: desk.New(db, incident.Config{})}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.desk.Run(ctx) }()
	h.api = New(Config{Desk: h.desk, Pipeline: new(pipeline.Pipeline), Sources: sources, Version: "v0"})
	h.Server = httptest.NewUnstartedServer(nil)
	h.Server.Config = h.api.Server()
	h.Server.Start()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		h.Close()
		_ = db.Close()
	})
	return h
}

// do sends a request and returns the status and the answer.
func (h *house) do(method, path, body string, change ...func(*http.Request)) (int, string, http.Header) {
	h.t.Helper()
	r, err := http.NewRequest(method, h.URL+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, f := range change {
		f(r)
	}
	resp, err := h.Client().Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header
}

// get reads the JSON at path into v.
func (h *house) get(path string, v any) {
	h.t.Helper()
	status, text, _ := h.do(http.MethodGet, path, "")
	if status != http.StatusOK {
		h.t.Fatalf("GET %s: %d %s", path, status, text)
	}
	if err := json.Unmarshal([]byte(text), v); err != nil {
		h.t.Fatalf("GET %s: %v in %s", path, err, text)
	}
}

func nth(i int) event.Addr { return event.AddrOf4([4]byte{10, 0, byte(i >> 8), byte(i)}) }

// add makes an incident of n bots.
func (h *house) add(fleet string, n int) {
	now := event.TimeOf(time.Now())
	for i := range n {
		h.desk.Add(&finding.Finding{
			ID: finding.NewID("iotbot.scan", nth(i), fleet, now), Rule: "iotbot.scan", Family: "mirai", Severity: finding.High, Confidence: .9,
			Subject: finding.Host(nth(i), "bot", "homes"), First: now - 1e9, Last: now, Said: now,
			Cause: finding.Cause{Kind: "iotbot", Key: fleet}, Title: finding.Text{En: "<script>alert(1)</script>", Ja: "\u202e感染"},
			Measured: []finding.Measure{{What: "targets", Value: 10, Unit: "addresses", Limit: 4}},
		})
	}
	stored := func() bool {
		list, err := h.desk.Incidents(context.Background(), state.Filter{Limit: 100})
		if err != nil {
			h.t.Fatal(err)
		}
		for _, in := range list {
			if in.Cause.Key == fleet && in.Members == uint64(n) {
				return h.desk.Stats().Store.Waiting == 0
			}
		}
		return false
	}
	for end := time.Now().Add(10 * time.Second); !stored(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatal("never stored")
		}
	}
}

type page struct {
	Incidents []incident.Incident
	Members   []struct{ Address, Role string }
	Next      string
}

func TestIncidents(t *testing.T) {
	h := newHouse(t)
	var p page
	if h.get("/api/incidents", &p); p.Incidents == nil || len(p.Incidents) != 0 {
		t.Errorf("empty: %+v", p)
	}
	for i := range 5 {
		h.add(fmt.Sprint("fleet ", i), 3)
	}
	seen := map[finding.ID]bool{}
	for next, pages := "", 0; pages == 0 || next != ""; pages++ {
		p = page{}
		h.get("/api/incidents?limit=2&before="+next, &p)
		for _, in := range p.Incidents {
			seen[in.ID] = true
		}
		if next = p.Next; pages > 3 {
			t.Fatal("pages without end")
		}
	}
	if len(seen) != 5 {
		t.Errorf("%d incidents on all pages, want 5", len(seen))
	}
	for query, want := range map[string]int{
		"state=new": 5, "state=closed": 0, "kind=iotbot.scan": 5, "kind=iotbot.": 5, "kind=flood.": 0, "active=true": 5,
		"since=2026-01-01": 5, "since=2199-01-01T00:00:00%2B09:00": 0, "limit=3": 3,
	} {
		p = page{}
		if h.get("/api/incidents?"+query, &p); len(p.Incidents) != want {
			t.Errorf("%s: %d, want %d", query, len(p.Incidents), want)
		}
	}
	for _, query := range []string{"state=open", "active=1", "since=yesterday", "limit=0", "limit=1001", "before=x", "stat=new", "state=new&state=new", "a=%zz"} {
		if status, text, header := h.do("GET", "/api/incidents?"+query, ""); status != 400 || header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s", query, status, text)
		}
	}
	var id finding.ID
	for id = range seen {
	}
	status, text, _ := h.do("GET", "/api/incidents/"+id.String(), "")
	if status != 200 || strings.Contains(text, "<script") {
		t.Errorf("%d %s", status, text)
	}
	var m page
	h.get("/api/incidents/"+id.String()+"/members?limit=2", &m)
	if len(m.Members) != 2 || m.Members[0].Address != "10.0.0.0" || m.Next == "" {
		t.Errorf("%+v", m)
	}
	next := m.Next
	m = page{}
	h.get("/api/incidents/"+id.String()+"/members?limit=2&after="+next, &m)
	if len(m.Members) != 1 || m.Members[0].Address != "10.0.0.2" || m.Next != "" {
		t.Errorf("the second page: %+v", m)
	}
	for path, want := range map[string]int{
		"/api/incidents/00112233445566778899aabbccddeeff": 404, "/api/incidents/00112233445566778899aabbccddeeff/members": 404,
		"/api/incidents/xyz": 400, "/api/incidents/" + id.String() + "/members?after=1": 400, "/": 404, "/api": 404, "/api/incidents/": 404,
	} {
		if status, text, _ := h.do("GET", path, ""); status != want || !strings.Contains(text, `"status":`) {
			t.Errorf("%s: %d %s, want %d", path, status, text, want)
		}
	}
}

func TestMoves(t *testing.T) {
	h := newHouse(t)
	h.add("fleet", 1)
	var p page
	h.get("/api/incidents", &p)
	path := "/api/incidents/" + p.Incidents[0].ID.String() + "/move"
	for _, c := range []struct {
		body string
		want int
		say  string
	}{
		{`{"from":"new","to":"acknowledged"}`, 422, "who does it is missing"},
		{`{"from":"new","to":"acknowledged","by":"a"}`, 200, `"state":"acknowledged"`},
		{`{"from":"new","to":"acknowledged","by":"b"}`, 409, `"state":"acknowledged"`},
		{`{"from":"acknowledged","to":"assigned","by":"a","owner":"b"}`, 200, `"owner":"b"`},
		{`{"from":"assigned","to":"closed","by":"b","reason":"maybe","note":"x"}`, 422, "reason"},
		{`{"from":"assigned","to":"closed","by":"b","reason":"true","note":"cleaned"}`, 200, `"reason":"true"`},
		{`{"from":"assigned"`, 400, "can't be read"},
		{`{"form":"assigned"}`, 400, "unknown field"},
		{`{} {}`, 400, "follows"},
		{`{"note":"` + strings.Repeat("x", 5000) + `"}`, 400, "longer"},
		{`{"note":"` + strings.Repeat("x", 70000) + `"}`, 413, "at most"},
	} {
		if status, text, _ := h.do("POST", path, c.body); status != c.want || !strings.Contains(text, c.say) {
			t.Errorf("%.80s: %d %s, want %d %s", c.body, status, text, c.want, c.say)
		}
	}
	in, err := h.db.Incident(context.Background(), p.Incidents[0].ID)
	if err != nil || in.State != incident.Closed || len(in.History) != 3 {
		t.Errorf("stored: %+v, %v", in, err)
	}
	if status, _, _ := h.do("POST", "/api/incidents/00112233445566778899aabbccddeeff/move", `{"from":"new","to":"closed"}`); status != 404 {
		t.Errorf("no such incident: %d", status)
	}
}

func TestNotes(t *testing.T) {
	h := newHouse(t)
	h.add("fleet", 1)
	var p page
	h.get("/api/incidents", &p)
	id := p.Incidents[0].ID.String()
	path := "/api/incidents/" + id + "/notes"
	for _, c := range []struct {
		path, body string
		want       int
		say        string
	}{
		{path, `{"by":"me","text":"told <b>them</b>"}`, 201, `"by":"me"`},
		{path, `{"text":"x"}`, 422, "who writes it is missing"},
		{path, `{"by":"me"}`, 422, "the text is missing"},
		{path, `{"by":"me\u0000","text":"x"}`, 422, "isn't plain text"},
		{path, `{"by":"me","text":"x","at":1}`, 400, "unknown field"},
		{"/api/incidents/00112233445566778899aabbccddeeff/notes", `{"by":"me","text":"x"}`, 404, "no such incident"},
	} {
		if status, text, _ := h.do("POST", c.path, c.body); status != c.want || !strings.Contains(text, c.say) {
			t.Errorf("%s: %d %s, want %d %s", c.body, status, text, c.want, c.say)
		}
	}
	var l struct{ Notes []state.Note }
	if h.get(path, &l); len(l.Notes) != 1 || l.Notes[0].Text != "told <b>them</b>" || l.Notes[0].At == 0 {
		t.Errorf("%+v", l)
	}
	if status, _, _ := h.do("GET", "/api/incidents/00112233445566778899aabbccddeeff/notes", ""); status != 404 {
		t.Error(status)
	}
	var a struct {
		Rows []state.Entry
		Next string
	}
	if h.get("/api/audit?limit=1&object=incident/"+id, &a); len(a.Rows) != 1 || a.Rows[0].Action != "note.added" || a.Rows[0].Actor != "me" || a.Next == "" {
		t.Errorf("%+v", a)
	}
	next := a.Next
	a.Next = ""
	if h.get("/api/audit?object=incident/"+id+"&before="+next, &a); len(a.Rows) != 1 || a.Rows[0].Action != "incident.opened" || a.Next != "" {
		t.Errorf("%+v", a)
	}
	for _, q := range []string{"before=x", "before=0", "limit=0", "who=me"} {
		if status, _, _ := h.do("GET", "/api/audit?"+q, ""); status != 400 {
			t.Errorf("%s: %d", q, status)
		}
	}
}

func TestExceptions(t *testing.T) {
	h := newHouse(t)
	for _, c := range []struct {
		body string
		want int
	}{
		{`{"owner":"me","note":"why","expires":"2199-01-01T00:00:00Z"}`, 422},
		{`{"rule":"iotbot.scan","owner":"me","note":"why","expires":"2020-01-01T00:00:00Z"}`, 422},
		{`{"rule":"iotbot.scan","owner":"me","note":"why"}`, 422},
		{`{"subject":"10.0.0.1/24","owner":"me","note":"why","expires":"2199-01-01T00:00:00Z"}`, 422},
		{`{"subject":"10.0.0.0/24","owner":"me","note":"our scanner","expires":"2199-01-01T00:00:00Z"}`, 201},
	} {
		if status, text, _ := h.do("POST", "/api/exceptions", c.body); status != c.want {
			t.Errorf("%s: %d %s, want %d", c.body, status, text, c.want)
		}
	}
	var l struct{ Exceptions []incident.Exception }
	if h.get("/api/exceptions", &l); len(l.Exceptions) != 1 || l.Exceptions[0].Owner != "me" {
		t.Fatalf("%+v", l)
	}
	path := fmt.Sprint("/api/exceptions/", l.Exceptions[0].ID)
	for _, want := range []int{204, 404} {
		if status, text, _ := h.do("DELETE", path+"?by=me", ""); status != want {
			t.Errorf("DELETE: %d %s, want %d", status, text, want)
		}
	}
	if status, text, _ := h.do("DELETE", path, ""); status != 400 || !strings.Contains(text, "who removes it") {
		t.Errorf("removed by nobody: %d %s", status, text)
	}
	if status, _, _ := h.do("DELETE", "/api/exceptions/x", ""); status != 400 {
		t.Error(status)
	}
}

// A page of another site, open in the operator's browser, can neither read nor
// change anything.
func TestStrangers(t *testing.T) {
	h := newHouse(t)
	header := func(k, v string) func(*http.Request) {
		return func(r *http.Request) {
			if r.Header.Set(k, v); k == "Host" {
				r.Host = v
			}
		}
	}
	const move = "/api/incidents/00112233445566778899aabbccddeeff/move"
	for _, c := range []struct {
		method, path string
		change       func(*http.Request)
		want         int
	}{
		{"GET", "/api/incidents", header("Host", "rebound.example"), 421},
		{"GET", "/metrics", header("Host", "rebound.example:8479"), 421},
		{"GET", "/api/incidents", header("Host", "127.0.0.1.example"), 421},
		{"GET", "/api/incidents", header("Host", "192.0.2.1"), 421},
		{"GET", "/api/incidents", header("Host", "localhost:8479"), 200},
		{"GET", "/api/incidents", header("Host", "[::1]:8479"), 200},
		{"GET", "/api/incidents", header("Host", "127.9.9.9"), 200},
		{"POST", move, header("Content-Type", "text/plain"), 415},
		{"POST", move, header("Content-Type", "application/x-www-form-urlencoded"), 415},
		{"POST", move, header("Content-Type", "application/json; charset=utf-8"), 400},
		{"POST", move, header("Sec-Fetch-Site", "cross-site"), 403},
		{"POST", move, header("Origin", "https://evil.example"), 403},
		{"DELETE", "/api/exceptions/1", header("Origin", "http://evil.example"), 403},
		{"PUT", "/api/incidents", header("X", "y"), 405},
		{"POST", "/healthz", header("X", "y"), 405},
	} {
		status, text, head := h.do(c.method, c.path, "", c.change)
		if status != c.want {
			t.Errorf("%s %s: %d %s, want %d", c.method, c.path, status, text, c.want)
		}
		if status == 405 && head.Get("Allow") != "GET" || head.Get("Access-Control-Allow-Origin") != "" || head.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s %s: %v", c.method, c.path, head)
		}
	}
}

// A day on which nothing was found is told from a day on which nobody looked.
func TestInfected(t *testing.T) {
	h := newHouse(t)
	h.add("fleet", 3)
	type day struct {
		Day      string
		Observed bool
		Hosts    *[]state.Hosts
	}
	var got struct{ Days []day }
	now := time.Now().UTC()
	if err := h.db.Observed(context.Background(), event.TimeOf(now.AddDate(0, 0, -2))); err != nil {
		t.Fatal(err)
	}
	h.get("/api/infected?from="+now.AddDate(0, 0, -2).Format(time.DateOnly)+"&to="+now.Format(time.DateOnly), &got)
	if len(got.Days) != 3 {
		t.Fatalf("%+v", got)
	}
	zero, missing, today := got.Days[0], got.Days[1], got.Days[2]
	if !zero.Observed || zero.Hosts == nil || len(*zero.Hosts) != 0 {
		t.Errorf("a day without bots: %+v", zero)
	}
	if missing.Observed || missing.Hosts != nil {
		t.Errorf("a day without observation: %+v", missing)
	}
	if !today.Observed || len(*today.Hosts) != 1 || (*today.Hosts)[0] != (state.Hosts{Family: "mirai", Network: "homes", Count: 3}) {
		t.Errorf("today: %+v", today)
	}
	if h.get("/api/infected", &got); len(got.Days) != 30 {
		t.Errorf("%d days unless told", len(got.Days))
	}
	for _, q := range []string{"from=2026-02-01&to=2026-01-01", "from=1980-01-01", "from=now", "till=2026-01-01"} {
		if status, text, _ := h.do("GET", "/api/infected?"+q, ""); status != 400 {
			t.Errorf("%s: %d %s", q, status, text)
		}
	}
}

func TestStream(t *testing.T) {
	h := newHouse(t)
	open := func(last string) (func() (id, name, data string), func()) {
		r, _ := http.NewRequest("GET", h.URL+"/api/incidents/stream", nil)
		if last != "" {
			r.Header.Set("Last-Event-ID", last)
		}
		resp, err := h.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("%d %v", resp.StatusCode, resp.Header)
		}
		in := bufio.NewReader(resp.Body)
		return func() (id, name, data string) {
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				k, v, _ := strings.Cut(strings.TrimSpace(line), ": ")
				switch k {
				case "id":
					id = v
				case "event":
					name = v
				case "data":
					return id, name, v
				}
			}
		}, func() { _ = resp.Body.Close() }
	}
	next, done := open("")
	h.add("fleet", 1)
	id, name, data := next()
	var in incident.Incident
	if err := json.Unmarshal([]byte(data), &in); err != nil || name != "incident" || in.Kind != "iotbot.scan" {
		t.Errorf("%s %s: %v", name, data, err)
	}
	done()
	h.add("second", 1)
	next, done = open(id)
	if again, _, _ := next(); again == id {
		t.Error("the client had that already")
	}
	done()
	next, done = open("older-7")
	if _, name, _ := next(); name != "lost" {
		t.Errorf("an id of an earlier run: %s", name)
	}
	done()
}

func TestHealth(t *testing.T) {
	h := newHouse(t)
	if status, _, _ := h.do("GET", "/readyz", ""); status != 503 {
		t.Errorf("before the start: %d", status)
	}
	h.api.SetReady(true)
	if status, _, _ := h.do("GET", "/readyz", ""); status != 200 {
		t.Errorf("after it: %d", status)
	}
	var got struct {
		Status string
		Store  struct{ Status string }
	}
	if h.get("/healthz", &got); got.Status != "ok" || got.Store.Status != "ok" {
		t.Errorf("%+v", got)
	}
}

// samples returns every sample of the metrics by name and labels.
func samples(t *testing.T, a *API) map[string]float64 {
	t.Helper()
	families, err := a.registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				if l.GetValue() != "" {
					labels = append(labels, l.GetName()+"="+l.GetValue())
				}
			}
			v := m.GetGauge().GetValue()
			if f.GetType() == dto.MetricType_COUNTER {
				v = m.GetCounter().GetValue()
			}
			out[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = v
		}
	}
	return out
}

func TestMetrics(t *testing.T) {
	router := event.AddrOf4([4]byte{192, 0, 2, 1})
	list := counts{
		{Name: "received", Value: 10}, {Name: "lost", Reason: "kernel buffer full", Value: 3},
		{Name: "lost", Reason: "kernel buffer full", Value: 4}, // of another socket
		{Name: "refused", Reason: "exporter not allowed", Value: 2},
		{Name: "flows", Exporter: router, Domain: 1, Value: 100}, {Name: "flows", Exporter: router, Domain: 2, Value: 11},
		{Name: "lost", Reason: "sequence gap", Exporter: router, Value: 5},
		{Name: "something", Reason: "new", Value: 6},
	}
	for i := range 300 {
		list = append(list, source.Count{Name: "datagrams", Exporter: nth(i), Value: 1})
	}
	h := newHouse(t, Source{Name: "udp", Source: list}, Source{Name: "capture eth0", Packets: true, Source: counts{
		{Name: "packets", Value: 7}, {Name: "lost", Reason: "kernel ring full", Value: 8}, {Name: "refused", Reason: "not IP", Value: 9},
	}})
	got := samples(t, h.api)
	for name, want := range map[string]float64{
		"noroshi_source_received_datagrams_total{source=udp}":                                10,
		"noroshi_source_lost_datagrams_total{reason=kernel buffer full,source=udp}":          7,
		"noroshi_source_refused_datagrams_total{reason=exporter not allowed,source=udp}":     2,
		"noroshi_source_decoded_flows_total{exporter=192.0.2.1,source=udp}":                  111,
		"noroshi_source_lost_flows_total{exporter=192.0.2.1,reason=sequence gap,source=udp}": 5,
		"noroshi_source_other_units_total{reason=something: new,source=udp}":                 6,
		"noroshi_source_received_packets_total{source=capture eth0}":                         7,
		"noroshi_source_lost_packets_total{reason=kernel ring full,source=capture eth0}":     8,
		"noroshi_source_refused_packets_total{reason=not IP,source=capture eth0}":            9,
		"noroshi_source_decoded_datagrams_total{exporter=other,source=udp}":                  300 - maxExporters + 1,
		"noroshi_store_up{}":                1,
		"noroshi_build_info{version=v0}":    1,
		"noroshi_incident_open_incidents{}": 0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s = %v (there: %v), want %v", name, v, ok, want)
		}
	}
	if status, text, _ := h.do("GET", "/metrics", ""); status != 200 || !strings.Contains(text, "\nnoroshi_store_up 1\n") {
		t.Errorf("%d %.300s", status, text)
	}
}

// Every metric is named noroshi_<stage>_<thing>_<unit>, counters end in _total,
// each is explained, and docs/metrics.md lists them all. -update writes it.
func TestMetricNames(t *testing.T) {
	form := regexp.MustCompile(`^noroshi_[a-z]+(_[a-z]+)+$`)
	var b strings.Builder
	b.WriteString("# Metrics\n\nWhat `/metrics` serves, in the order of the data's way, beside the Go runtime's and the process's own. Written by `go test ./console/api -update`.\n`reason`s are explained in [operations.md](operations.md).\n\n| metric | labels | meaning |\n|---|---|---|\n")
	seen := map[string]bool{}
	for _, m := range all {
		if !form.MatchString(m.name) || strings.HasSuffix(m.name, "_total") != (m.desc != nil && m.kind == 1) || seen[m.name] || !strings.HasSuffix(m.help, ".") && m.name != "noroshi_build_info" {
			t.Errorf("%s: %s", m.name, m.help)
		}
		seen[m.name] = true
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", m.name, strings.Join(m.labels, ", "), m.help)
	}
	const path = "../../docs/metrics.md"
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != b.String() {
		t.Errorf("docs/metrics.md is not what the program serves (%v); run go test ./console/api -update", err)
	}
}

func FuzzBody(f *testing.F) {
	f.Add(`{"from":"new","to":"closed","by":"a","reason":"true","note":"x"}`)
	f.Add(`{"subject":"10.0.0.0/8","expires":"2026-01-01T00:00:00Z"}`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, v := range []any{new(moving), new(incident.Exception)} {
			r := httptest.NewRequest("POST", "/", strings.NewReader(text))
			if err := body(r, v); err == nil && !json.Valid([]byte(text)) {
				t.Error("accepted what isn't JSON")
			}
		}
	})
}
