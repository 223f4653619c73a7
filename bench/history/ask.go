package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"noroshi/event"
	"noroshi/store/history"
	"noroshi/store/memory"
)

// asked is a question that is measured.
type asked struct {
	name     string
	lastHour bool
	rows     bool // from the rows where sums would do
	ask      func(ctx context.Context, q *history.Questions, now event.Time) (rows int, err error)
}

func last(now event.Time, d time.Duration) history.Range {
	now -= now % event.Time(time.Minute)
	return history.Range{From: now.Add(-d), To: now}
}

// questions are what the console's pages will ask, about an address that the
// data has.
func questions(host event.Addr, subscriber string) []asked {
	const day = 24 * time.Hour
	top := func(d time.Duration, raw bool) func(context.Context, *history.Questions, event.Time) (int, error) {
		return func(ctx context.Context, q *history.Questions, now event.Time) (int, error) {
			a, err := q.Top(ctx, history.Top{Range: last(now, d), By: []string{"dst"}, Step: time.Minute, Raw: raw})
			if err != nil {
				return 0, err
			}
			return len(a.Rows), nil
		}
	}
	series := func(raw bool) func(context.Context, *history.Questions, event.Time) (int, error) {
		return func(ctx context.Context, q *history.Questions, now event.Time) (int, error) {
			_, err := q.Series(ctx, history.Series{Range: last(now, day), By: []string{"proto"}, Step: 5 * time.Minute, Raw: raw})
			return 288, err
		}
	}
	timeline := func(e history.Entity, resolve bool) func(context.Context, *history.Questions, event.Time) (int, error) {
		return func(ctx context.Context, q *history.Questions, now event.Time) (int, error) {
			p, err := q.Timeline(ctx, history.Timeline{Range: last(now, day), Entity: e, Resolve: resolve, Newest: true})
			if err != nil {
				return 0, err
			}
			return p.Events.Len(), nil
		}
	}
	return []asked{
		{"top 10 targets per minute, last hour", true, false, top(time.Hour, false)},
		{"the same from the rows", true, true, top(time.Hour, true)},
		{"series by protocol, 24 h", false, false, series(false)},
		{"the same from the rows", false, true, series(true)},
		{"one source over 24 h: its targets", false, false, func(ctx context.Context, q *history.Questions, now event.Time) (int, error) {
			f, err := history.ParseFilter("src=" + host.String())
			if err != nil {
				return 0, err
			}
			a, err := q.Top(ctx, history.Top{Range: last(now, day), By: []string{"dst", "dst_port"}, N: 100, Filter: f})
			if err != nil {
				return 0, err
			}
			return len(a.Rows), nil
		}},
		{"distinct sources by target, last hour", true, false, func(ctx context.Context, q *history.Questions, now event.Time) (int, error) {
			_, err := q.Distinct(ctx, history.Distinct{Range: last(now, time.Hour), Column: "src", By: []string{"dst"}})
			return 10, err
		}},
		{"an address's events of all kinds, 24 h", false, false, timeline(history.Entity{Type: history.Address, Value: host.String()}, false)},
		{"a subscriber's, by its sessions' addresses", false, false, timeline(history.Entity{Type: history.Subscriber, Value: subscriber}, true)},
	}
}

// subject is an address in the data, with the subscriber who has it.
func subject(g *generator) (event.Addr, string) {
	a := g.flows[len(g.flows)/2].Src
	return a, "line-" + a.String()
}

// layout is that of a configuration of defaults.
var layout = func() history.Layout { c := history.Default(); return c.Layout() }()

func ask(ctx context.Context, o *options) error {
	c, end, err := memory.Connect(ctx, o.config())
	if err != nil {
		return err
	}
	defer end()
	q := &history.Questions{Client: c, Layout: layout}
	host, subscriber := subject(newGenerator())
	_, _, err = measure(ctx, q, questions(host, subscriber), 20, 0)
	return errors.Join(err, agree(ctx, q))
}

// measure asks each question a number of times, warm, and says how long it took.
func measure(ctx context.Context, q *history.Questions, list []asked, times int, pause time.Duration) (all []time.Duration, rows int, err error) {
	for _, a := range list {
		var took []time.Duration
		for i := range times + 1 {
			began := time.Now()
			if rows, err = a.ask(ctx, q, event.TimeOf(began)); err != nil {
				return all, rows, fmt.Errorf("%s: %w", a.name, err)
			}
			if i > 0 {
				took = append(took, time.Since(began))
			}
			time.Sleep(pause)
		}
		slices.Sort(took)
		all = append(all, took...)
		fmt.Printf("%-46s median %4d ms, p95 %4d ms, most %4d ms (%d rows)\n", a.name,
			took[len(took)/2].Milliseconds(), took[len(took)*95/100].Milliseconds(), took[len(took)-1].Milliseconds(), rows)
	}
	return all, rows, nil
}

// agree holds the rollups' answers against the rows'.
func agree(ctx context.Context, q *history.Questions) error {
	r := last(event.TimeOf(time.Now()), time.Hour)
	for _, by := range [][]string{{"dst"}, {"src"}, {"proto", "dst_port"}, {"exporter"}} {
		t := history.Top{Range: r, By: by, Step: time.Minute, N: 20}
		sums, err := q.Top(ctx, t)
		if err != nil {
			return err
		}
		t.Raw = true
		rows, err := q.Top(ctx, t)
		if err != nil {
			return err
		}
		all, err := q.Series(ctx, history.Series{Range: r, Step: time.Minute, Raw: true})
		if err != nil {
			return err
		}
		total := map[event.Time]uint64{}
		for _, g := range all.Groups {
			for i, s := range g.Sums {
				if s != nil {
					total[all.Buckets[i].At] += s.Octets
				}
			}
		}
		exact := map[string]uint64{}
		for _, x := range rows.Rows {
			exact[fmt.Sprint(x.At, x.Key)] = x.Octets
		}
		worst, compared := 0.0, 0
		for _, x := range sums.Rows {
			if want, ok := exact[fmt.Sprint(x.At, x.Key)]; ok && total[x.At] > 0 {
				compared++
				worst = max(worst, (float64(want)-float64(x.Octets))/float64(total[x.At]))
			}
		}
		fmt.Printf("rollup by %v: of %d heavy values of a minute %d are also the rows', at most %.4f %% of the minute's octets too low (stated: %.1f %%)\n",
			by, len(sums.Rows), compared, worst*100, sums.Error*100)
	}
	return nil
}

// mixed asks while rows are written.
func mixed(ctx context.Context, o *options) error {
	g := newGenerator()
	host, subscriber := subject(g)
	m, err := start(o.config())
	if err != nil {
		return err
	}
	writing, stop := context.WithTimeout(ctx, o.length)
	defer stop()
	written := make(chan int, 1)
	go func() { written <- g.write(writing, m.Memory, o.rate) }()
	time.Sleep(5 * time.Second)
	c, end, err := memory.Connect(ctx, o.config())
	if err != nil {
		return err
	}
	q := &history.Questions{Client: c, Layout: layout}
	// Pages ask the sums by the minute; what rows cost meanwhile is measured apart.
	list := slices.DeleteFunc(questions(host, subscriber), func(a asked) bool { return !a.lastHour || a.rows })
	var all []time.Duration
	for writing.Err() == nil {
		took, _, err := measure(ctx, q, list, 10, 500*time.Millisecond)
		if err != nil {
			return err
		}
		all = append(all, took...)
	}
	rows := <-written
	end()
	slices.Sort(all)
	s := m.Stats().Writer
	fmt.Printf("while %.0f rows/s were written (%d, lost %v): %d answers, p95 %d ms\n", o.rate, rows, s.Lost, len(all), all[len(all)*95/100].Milliseconds())
	return m.end()
}

// others adds, for R137, DNS messages, sessions and log records about the hosts
// of the flows: over the day that ends now.
func (g *generator) others(m *memory.Memory, n int) {
	r := rand.New(rand.NewPCG(1, 2))
	end := event.TimeOf(time.Now())
	var b event.Batch
	for i := range n {
		if i%500 == 0 {
			m.Keep(&b)
			b.Reset()
		}
		host := g.flows[r.IntN(len(g.flows))].Src
		at := end - event.Time(24*time.Hour) + event.Time(float64(24*time.Hour)*float64(i)/float64(n))
		text := func(s string) event.Text { return b.AddText([]byte(s)) }
		name := fmt.Sprintf("h%d.z%d.example", r.IntN(1<<20), r.IntN(1<<14))
		b.DNS = append(b.DNS, event.DNS{Time: at, Seen: at, Client: host, Name: text(name), Zone: text(name[len(name)-13:]), Reporter: text("resolver-1"),
			Type: 1, Role: event.ClientQuery, Size: 60, ClientPort: uint16(r.Uint32())})
		if i%20 == 0 {
			b.Sessions = append(b.Sessions, event.Session{First: at, Last: at, Seen: at, Src: host, Prefix: 32, Service: text("radius"),
				Reporter: text("nas-1"), Subscriber: text("line-" + host.String()), ID: text("s-" + host.String()), Status: event.SessionInterim})
		}
		if i%10 == 0 {
			b.Logs = append(b.Logs, event.Log{Time: at, Seen: at, Addr: host, Host: text("pc-" + host.String()), Channel: text("Security"),
				Provider: text("Microsoft-Windows-Security-Auditing"), EventID: 4624, Record: uint64(i), Message: text("An account was successfully logged on")})
		}
	}
	m.Keep(&b)
}

func memoryOfSelf() uint64 {
	var pages uint64
	if f, err := os.Open("/proc/self/statm"); err == nil {
		_, _ = fmt.Fscan(f, new(uint64), &pages)
		_ = f.Close()
	}
	return pages * uint64(os.Getpagesize())
}
