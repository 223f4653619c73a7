package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
	"noroshi/internal/asnames"
	"noroshi/internal/config"
	"noroshi/store/history"
	"noroshi/store/memory"
	"noroshi/store/state"
)

var historyCommand = command{
	name: "history", synopsis: "QUESTION [flags]",
	short: "Ask what is remembered: flows, DNS, sessions and logs",
	long: `Questions:

  top COLUMN[,COLUMN]        the heaviest values of a column, or of several together
  series                     sums by the step, --by a column with few values
  distinct COLUMN            how many different values, --by what
  prefixes COLUMN            the heaviest prefixes of an address column
  quantiles COLUMN           how a number is distributed; duration is one too
  timeline ENTITY            events of all kinds by time: an address, a prefix, or
                             subscriber=X host=X name=X user=X
  incident ID                the events behind an incident
  coverage                   what was watched, and what was lost
  kinds                      the columns of each kind, and what they mean
  names load FILE...         AS and country names: MaxMind, CSV or iptoasn

  noroshi history top dst --last 1h --n 20
  noroshi history top dst --last 1h --step 1m --n 3 --measure packets
  noroshi history series --by proto --last 24h
  noroshi history distinct src --by dst --where 'dst_port=22,23 proto=tcp'
  noroshi history quantiles latency --kind dns --by reporter
  noroshi history timeline 192.0.2.7 --last 24h
  noroshi history timeline subscriber=c-1001 --resolve --last 24h

It asks the noroshi that runs with the same configuration, or the files of one
that doesn't run.

Times: 2026-11-24T09:00:00+09:00, -2h or now. Conditions of --where, all of which
must hold: column=value,value with != < <= > >= ~ (contains) ~~ (word) & (bits).
What nobody watched is shown as a gap, never as zero.
`,
	run: runHistory,
}

// historyFlags are the flags of all questions.
type historyFlags struct {
	config, folder           string
	last                     stretch
	from, to                 string
	step                     time.Duration
	kind, by, measure, where string
	levels                   string
	n, v4, v6, limit         int
	json, csv, raw, resolve  bool
	newest                   bool
	after, lang              string
	timeout, margin          time.Duration
}

func (h *historyFlags) define(fs *flag.FlagSet) {
	fs.StringVar(&h.config, "config", "", "configuration `file`, for where the history is (default: noroshi's own values)")
	fs.StringVar(&h.folder, "folder", "", "`folder` of a history that noroshi replay --history made")
	fs.Var(&h.last, "last", "the latest stretch of `time`, such as 1h or 7d, unless --from is given (default 1h; with --folder all there is)")
	fs.StringVar(&h.from, "from", "", "beginning: a `time`")
	fs.StringVar(&h.to, "to", "", "end: a `time` (default now)")
	fs.DurationVar(&h.step, "step", 0, "`time` of a step: 1m to 24h (series: chosen; others: one for all)")
	fs.StringVar(&h.kind, "kind", "flows", "flows, dns, sessions or logs: a `word`")
	fs.StringVar(&h.by, "by", "", "group by these `columns`")
	fs.StringVar(&h.measure, "measure", "", "what counts: octets, packets or records: a `word`")
	fs.StringVar(&h.where, "where", "", "`conditions`: 'proto=udp dst_port!=53'")
	fs.StringVar(&h.levels, "levels", "0.5,0.9,0.99", "quantiles: a list of `levels`")
	fs.IntVar(&h.n, "n", 10, "a `number` of results")
	fs.IntVar(&h.v4, "v4", 24, "prefixes: length for IPv4, a `number`")
	fs.IntVar(&h.v6, "v6", 48, "prefixes: length for IPv6, a `number`")
	fs.IntVar(&h.limit, "limit", 100, "timeline, incident: a `number` of events")
	fs.StringVar(&h.after, "after", "", "timeline: the `place` where the last page ended")
	fs.BoolVar(&h.newest, "newest", false, "timeline: the latest first")
	fs.BoolVar(&h.resolve, "resolve", false, "timeline: follow the addresses of a subscriber or host")
	fs.DurationVar(&h.margin, "margin", history.EvidenceMargin, "incident: `time` added before and after (default 5m)")
	fs.BoolVar(&h.raw, "exact", false, "ask the records, also where sums by the minute would do")
	fs.DurationVar(&h.timeout, "timeout", 30*time.Second, "`time` a question may take (default 30s)")
	fs.StringVar(&h.lang, "lang", "", "`language` of what people read: en or ja (default: the locale's)")
	fs.BoolVar(&h.json, "json", false, "one JSON object")
	fs.BoolVar(&h.csv, "csv", false, "comma-separated values, after lines with # about the answer")
}

// stretch is a duration, which may be in days.
type stretch time.Duration

// String implements flag.Value.
func (s *stretch) String() string { return "" }

// Set implements flag.Value.
func (s *stretch) Set(text string) error {
	d, err := config.ParseDuration(text)
	if err == nil && d <= 0 {
		err = fmt.Errorf("%q is not after nothing", text)
	}
	*s = stretch(d)
	return err
}

// openHistory returns where to ask, and a function that ends it. The store is
// that of a noroshi that runs, or an engine is started for the question.
func openHistory(ctx context.Context, f *config.File, h *historyFlags) (*history.Questions, func(), error) {
	c, end, err := memory.Connect(ctx, memory.Config{History: f.History, Engine: f.Engine})
	if err != nil {
		return nil, nil, err
	}
	q := &history.Questions{Client: c, Layout: f.History.Layout(), Limits: history.Limits{Time: h.timeout}}
	if f.History.URL != "" {
		q.Limits.Memory = 2 << 30 // a server may give a statement all it has
	}
	return q, end, nil
}

// historyConfig returns the configuration, with a replay's folder in it.
func (c *call) historyConfig(h *historyFlags) (*config.File, int) {
	f, code := c.configuration(h.config)
	if f == nil {
		return nil, code
	}
	if h.folder != "" {
		f.History.URL, f.History.Cluster, f.History.Database = "", "", history.Default().Database
		f.History.Folder, f.State = h.folder, filepath.Join(h.folder, stateInFolder)
	}
	if f.History.URL == history.Off {
		return nil, c.wrong("the configuration keeps no history (history.url: off)")
	}
	return f, exitOK
}

// span reads --last, --from and --to. The running minute belongs to it, but not
// to a series, where it would look like a drop.
func (h *historyFlags) span(now time.Time, series bool) (history.Range, error) {
	to := now.Truncate(time.Minute)
	if !series {
		to = to.Add(time.Minute)
	}
	var err error
	if h.to != "" {
		if to, err = moment(h.to, now); err != nil {
			return history.Range{}, fmt.Errorf("--to: %w", err)
		}
	}
	from := to.Add(-time.Duration(cmp.Or(h.last, stretch(time.Hour))))
	if h.from != "" {
		if from, err = moment(h.from, now); err != nil {
			return history.Range{}, fmt.Errorf("--from: %w", err)
		}
	}
	if !from.Before(to) {
		return history.Range{}, fmt.Errorf("the range from %s to %s is empty", from.Format(time.RFC3339), to.Format(time.RFC3339))
	}
	return history.Range{From: event.TimeOf(from), To: event.TimeOf(to)}, nil
}

// moment reads a time: absolute with its zone, or -2h before now.
func moment(s string, now time.Time) (time.Time, error) {
	if s == "now" {
		return now, nil
	}
	if strings.HasPrefix(s, "-") {
		if d, err := config.ParseDuration(s[1:]); err == nil {
			return now.Add(-d), nil
		}
	}
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02 15:04:05Z07:00"} {
		if t, err := time.Parse(form, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time; want 2026-11-24T09:00:00+09:00, -2h or now", s)
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func runHistory(ctx context.Context, c *call) int {
	h := &historyFlags{}
	rest, code, ok := c.parse(h.define)
	if !ok {
		return code
	}
	if len(rest) == 0 {
		return c.wrong("ask something: top, series, distinct, prefixes, quantiles, timeline, incident, coverage, kinds or names load")
	}
	question, args := rest[0], rest[1:]
	if h.json && h.csv {
		return c.wrong("--json or --csv, not both")
	}
	kind, err := history.ParseKind(h.kind)
	if err != nil {
		return c.wrong("--kind: %v", err)
	}
	where, err := history.ParseFilter(h.where)
	if err == nil {
		err = where.Check(kind)
	}
	if err != nil {
		return c.wrong("--where: %v", err)
	}
	r, err := h.span(time.Now(), question == "series")
	if err != nil {
		return c.wrong("%v", err)
	}
	wants := map[string]int{"top": 1, "distinct": 1, "prefixes": 1, "quantiles": 1, "timeline": 1, "incident": 1, "series": 0, "coverage": 0, "kinds": 0}
	if n, known := wants[question]; known && len(args) != n {
		return c.wrong("%s wants %s", question, map[int]string{0: "no argument", 1: "one argument"}[n])
	} else if !known && (question != "names" || len(args) < 2 || args[0] != "load") {
		return c.wrong("there is no question %q", strings.Join(rest, " "))
	}
	l, err := languageOf(h.lang)
	if err != nil {
		return c.wrong("%v", err)
	}
	out := newHistoryOutput(c, l, h, kind)
	if question == "kinds" {
		return c.done(out.kinds())
	}
	var id finding.ID
	if question == "incident" && id.UnmarshalText([]byte(args[0])) != nil {
		return c.wrong("%q is no ID of an incident: 32 hexadecimal digits", args[0])
	}
	var names asnames.Table
	if question == "names" {
		for _, path := range args[1:] {
			if err := names.ReadFile(path); err != nil {
				return c.failed(err)
			}
		}
	}
	c.quiet()
	file, code := c.historyConfig(h)
	if file == nil {
		return code
	}
	q, end, err := openHistory(ctx, file, h)
	if err != nil {
		return c.failed(err)
	}
	defer end()
	if h.folder != "" && h.last == 0 && h.from == "" && h.to == "" {
		if r, err = q.Extent(ctx); err != nil {
			return c.failed(err)
		}
	}

	switch question {
	case "top":
		a, err := q.Top(ctx, history.Top{Range: r, Kind: kind, By: list(args[0]), Measure: history.Measure(h.measure), N: h.n, Step: h.step, Filter: where, Raw: h.raw})
		if err != nil {
			return c.failed(err)
		}
		return c.done(out.top(a, list(args[0])))
	case "series":
		a, err := q.Series(ctx, history.Series{Range: r, Kind: kind, By: list(h.by), N: h.n, Step: h.step, Measure: history.Measure(h.measure), Filter: where, Raw: h.raw})
		if err != nil {
			return c.failed(err)
		}
		return c.done(out.series(a, list(h.by)))
	case "distinct":
		a, err := q.Distinct(ctx, history.Distinct{Range: r, Kind: kind, Column: args[0], By: list(h.by), N: h.n, Step: h.step, Filter: where})
		if err != nil {
			return c.failed(err)
		}
		return c.done(out.distinct(a, list(h.by), args[0]))
	case "prefixes":
		a, err := q.Prefixes(ctx, history.Prefixes{Range: r, Kind: kind, Column: args[0], V4: h.v4, V6: h.v6, Measure: history.Measure(h.measure), N: h.n, Filter: where})
		if err != nil {
			return c.failed(err)
		}
		return c.done(out.prefixes(a, args[0]))
	case "quantiles":
		var levels []float64
		for _, l := range list(h.levels) {
			x, err := strconv.ParseFloat(l, 64)
			if err != nil {
				return c.wrong("--levels: %q is no number", l)
			}
			levels = append(levels, x)
		}
		a, err := q.Quantiles(ctx, history.Quantiles{Range: r, Kind: kind, Of: args[0], Levels: levels, By: list(h.by), N: h.n, Filter: where})
		if err != nil {
			return c.failed(err)
		}
		return c.done(out.quantiles(a, list(h.by), args[0]))
	case "timeline":
		e := history.Entity{Type: history.Address, Value: args[0]}
		if typ, value, ok := strings.Cut(args[0], "="); ok {
			e = history.Entity{Type: history.EntityType(typ), Value: value}
		}
		t := history.Timeline{Range: r, Entity: e, Resolve: h.resolve, Newest: h.newest, Limit: h.limit}
		if h.after != "" {
			if t.After, err = history.ParseCursor(h.after); err != nil {
				return c.wrong("--after: %v", err)
			}
		}
		p, err := q.Timeline(ctx, t)
		if err != nil {
			return c.failed(err)
		}
		return c.done(out.page(p, ""))
	case "incident":
		return c.incidentEvidence(ctx, file.State, h, q, out, id)
	case "coverage":
		if h.step == 0 {
			h.step = history.StepFor(r)
		}
		covered, buckets, err := q.Coverage(ctx, kind, r, h.step)
		if err != nil {
			return c.failed(err)
		}
		return c.done(out.coverage(r, covered, buckets))
	}
	n, err := q.Client.LoadNames(ctx, q.Layout, names.All())
	if err != nil {
		return c.failed(err)
	}
	fmt.Fprintf(c.stdout, l.say("%s loaded from %s\n", "%sを%sから読み込みました\n"), l.say(plural(n, "prefix", "prefixes"), fmt.Sprintf("%dプレフィックス", n)), strings.Join(base(args[1:]), ", "))
	return exitOK
}

func base(paths []string) (names []string) {
	for _, p := range paths {
		names = append(names, filepath.Base(p))
	}
	return names
}

func (c *call) done(err error) int {
	if err != nil {
		return c.failed(err)
	}
	return exitOK
}

// incidentEvidence shows the events behind an incident that the state has.
func (c *call) incidentEvidence(ctx context.Context, name string, h *historyFlags, q *history.Questions, out *historyOutput, id finding.ID) int {
	store, err := state.Beside(name)
	if err != nil {
		return c.failed(err)
	}
	defer store.Close()
	in, err := store.Incident(ctx, id)
	if err != nil {
		return c.failed(err)
	}
	var members []event.Addr
	for after := (incident.Member{}); ; {
		page, err := store.Members(ctx, id, after, 5000)
		if err != nil {
			return c.failed(err)
		}
		for _, m := range page {
			members = append(members, m.Addr)
		}
		if len(page) < 5000 {
			break
		}
		after = page[len(page)-1]
	}
	a, err := q.Evidence(ctx, history.Evidence{Incident: in, Members: members, Margin: h.margin, Limit: h.limit})
	if err != nil {
		return c.failed(err)
	}
	if h.json {
		return c.done(writeLine(c.stdout, struct {
			What   finding.Text       `json:"what"`
			Total  history.Sums       `json:"total"`
			Hosts  uint64             `json:"hosts"`
			Ports  []history.PortSums `json:"ports,omitempty"`
			Events json.Marshaler     `json:"events"`
		}{a.What, a.Total, a.Hosts, a.Ports, a.Page}))
	}
	l := out.l
	return c.done(out.page(a.Page, fmt.Sprintf(l.say("%s: %s octets, %s packets, %s records of %s", "%s: %sオクテット、%sパケット、%s件、%s"), l.of(a.What), quantity(float64(a.Total.Octets)),
		quantity(float64(a.Total.Packets)), quantity(float64(a.Total.Records)), l.say(finding.Count(a.Hosts, "host", "hosts"), fmt.Sprintf("%dホスト", a.Hosts)))))
}
