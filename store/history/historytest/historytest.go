// Package historytest is the test that every place for history must pass: the
// embedded engine, and any ClickHouse. It compares each answer with one that is
// computed here, from the same events, in the plainest way.
package historytest

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
	"noroshi/internal/asnames"
	"noroshi/store/history"
)

// suite is one run.
type suite struct {
	*history.Questions
	blocks int
}

// Run passes the whole test with what open returns: a client and the layout of
// an empty database, its tables made.
func Run(t *testing.T, open func(*testing.T) (*history.Client, history.Layout)) {
	c, l := open(t)
	s := &suite{Questions: &history.Questions{Client: c, Layout: l}}
	// Each part has days of its own, so that none sees another's events.
	t.Run("EveryColumn", s.everyColumn)
	t.Run("OnceOnly", s.onceOnly)
	t.Run("Sums", s.sums)
	t.Run("Rollups", s.rollups)
	t.Run("Gaps", s.gaps)
	t.Run("Timeline", s.timeline)
	t.Run("Leases", s.leases)
	t.Run("Evidence", s.evidence)
	t.Run("Injection", s.injection)
	t.Run("Limits", s.limits)
	t.Run("Names", s.asNames)
}

// day returns the beginning of one of the days that parts use.
func day(n int) event.Time {
	return event.TimeOf(time.Date(2026, 1, 1+n, 0, 0, 0, 0, time.UTC))
}

func dayRange(n int) history.Range { return history.Range{From: day(n), To: day(n + 1)} }

// insert stores all events of b, each kind in one block, and returns the blocks.
func (s *suite) insert(t *testing.T, b *event.Batch) []history.Block {
	t.Helper()
	var blocks []history.Block
	for _, k := range history.Kinds {
		n := history.Count(b, k)
		if n == 0 {
			continue
		}
		w := history.NewBuilder(k)
		w.Add(b, 0, n)
		s.blocks++
		block := w.Seal(fmt.Sprintf("test-%d-%d", time.Now().UnixNano(), s.blocks), nil)
		if err := s.Client.Insert(t.Context(), s.Layout, &block); err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, block)
	}
	return blocks
}

// Hostile is text that must come back as it is.
const Hostile = "\x00\n\r\t\\\\n'\"`{p0:String}; DROP TABLE flows -- 狼煙 \xff\xfe%00\b"

// fill sets each field of the struct at p to a value of its own: of the kind
// that shows a swapped, shortened or signed column.
func fill(b *event.Batch, p reflect.Value, seed uint64, seen event.Time) {
	for i := range p.NumField() {
		f, n := p.Field(i), seed+uint64(i)*0x9e3779b97f4a7c15+1
		switch f.Interface().(type) {
		case event.Time:
			f.SetInt(int64(seen) + int64(i)*1000) // whole microseconds
		case event.Addr:
			var a event.Addr
			for j := range a {
				a[j] = byte(event.Mix(n) >> (j % 8 * 8))
			}
			f.Set(reflect.ValueOf(a))
		case event.Text:
			f.Set(reflect.ValueOf(b.AddText(fmt.Appendf(nil, "%s %d %d", Hostile, seed, i))))
		default:
			f.SetUint(event.Mix(n) & (1<<f.Type().Bits() - 1))
		}
		if p.Type().Field(i).Name == "Seen" {
			f.SetInt(int64(seen))
		}
	}
}

// extreme sets each number to its greatest value, and texts to a long one.
func extreme(b *event.Batch, p reflect.Value, seen event.Time) {
	for i := range p.NumField() {
		f := p.Field(i)
		switch f.Interface().(type) {
		case event.Time:
			f.SetInt(int64(seen))
		case event.Addr:
			f.Set(reflect.ValueOf(event.Addr(slices.Repeat([]byte{0xff}, 16))))
		case event.Text:
			f.Set(reflect.ValueOf(b.AddText([]byte(strings.Repeat("\xff狼", 20_000)))))
		default:
			f.SetUint(math.MaxUint64 >> (64 - f.Type().Bits()))
		}
	}
}

// plain returns an event with its texts in place of their positions.
func plain(b *event.Batch, v any) map[string]any {
	m := map[string]any{}
	p := reflect.ValueOf(v)
	for i := range p.NumField() {
		x := p.Field(i).Interface()
		if text, ok := x.(event.Text); ok {
			x = b.CloneText(text)
		}
		m[p.Type().Field(i).Name] = x
	}
	return m
}

func events(b *event.Batch) (list []any) {
	for _, e := range b.Flows {
		list = append(list, e)
	}
	for _, e := range b.DNS {
		list = append(list, e)
	}
	for _, e := range b.Sessions {
		list = append(list, e)
	}
	for _, e := range b.Logs {
		list = append(list, e)
	}
	return list
}

// Every column of every kind comes back as it was.
func (s *suite) everyColumn(t *testing.T) {
	var b event.Batch
	at := day(0)
	b.Flows, b.DNS, b.Sessions, b.Logs = make([]event.Flow, 3), make([]event.DNS, 3), make([]event.Session, 3), make([]event.Log, 3)
	who := netip.MustParseAddr("2001:db8::77")
	for i, p := range []reflect.Value{reflect.ValueOf(&b.Flows[0]), reflect.ValueOf(&b.DNS[0]), reflect.ValueOf(&b.Sessions[0]), reflect.ValueOf(&b.Logs[0])} {
		fill(&b, p.Elem(), uint64(i)<<32, at)
	}
	for _, p := range []reflect.Value{reflect.ValueOf(&b.Flows[1]), reflect.ValueOf(&b.DNS[1]), reflect.ValueOf(&b.Sessions[1]), reflect.ValueOf(&b.Logs[1])} {
		extreme(&b, p.Elem(), at+1e9)
	}
	// The third of each is all zero but Seen. One address holds all together.
	for i := range 3 {
		seen := at + event.Time(i)*1e9
		b.Flows[i].Seen, b.DNS[i].Seen, b.Sessions[i].Seen, b.Logs[i].Seen = seen, seen, seen, seen
		b.Flows[i].Src, b.DNS[i].Client, b.Sessions[i].Dst, b.Logs[i].Peer = event.AddrOf(who), event.AddrOf(who), event.AddrOf(who), event.AddrOf(who)
	}
	s.insert(t, &b)
	p, err := s.Timeline(t.Context(), history.Timeline{Range: dayRange(0), Entity: history.Entity{Type: history.Address, Value: who.String()}})
	if err != nil {
		t.Fatal(err)
	}
	got, want := events(&p.Events), events(&b)
	if len(got) != len(want) {
		t.Fatalf("%d events came back of %d", len(got), len(want))
	}
	for i := range want {
		g, w := plain(&p.Events, got[i]), plain(&b, want[i])
		for name, x := range w {
			if g[name] != x {
				t.Errorf("%T.%s: %.80q came back as %.80q", want[i], name, fmt.Sprint(x), fmt.Sprint(g[name]))
			}
		}
	}
}

// A block that is sent again changes nothing, in no table.
func (s *suite) onceOnly(t *testing.T) {
	var b event.Batch
	for i := range 100 {
		b.Flows = append(b.Flows, event.Flow{Seen: day(2).Add(time.Duration(i) * time.Second), Dst: four(192, 0, 2, byte(i%7)), Bytes: 100, Packets: 1, Proto: event.UDP, DstPort: 53})
		b.DNS = append(b.DNS, event.DNS{Seen: day(2) + 1, Rcode: 3})
		b.Sessions = append(b.Sessions, event.Session{Seen: day(2) + 1, BytesIn: 5})
		b.Logs = append(b.Logs, event.Log{Seen: day(2) + 1})
	}
	blocks := s.insert(t, &b)
	for range 3 {
		for i := range blocks {
			if err := s.Client.Insert(t.Context(), s.Layout, &blocks[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, by := range []struct {
		kind history.Kind
		key  []string
	}{
		{history.Flows, []string{"dst"}}, {history.Flows, []string{"src"}}, {history.Flows, []string{"proto", "dst_port"}},
		{history.Flows, []string{"src_as", "dst_as"}}, {history.Flows, []string{"proto"}}, {history.DNS, []string{"zone", "role", "rcode"}},
		{history.Sessions, []string{"service", "reporter", "status"}}, {history.Logs, []string{"host", "channel"}},
	} {
		for _, raw := range []bool{false, true} {
			a, err := s.Top(t.Context(), history.Top{Range: dayRange(2), Kind: by.kind, By: by.key, Raw: raw, N: 100})
			if err != nil {
				t.Fatal(err)
			}
			var n uint64
			for _, r := range a.Rows {
				n += r.Records
			}
			if n != 100 || (a.Table == by.kind.String()) != raw {
				t.Errorf("%s has %d records of %v after four inserts, want 100", a.Table, n, by.kind)
			}
		}
	}
}

func four(a, b, c, d byte) event.Addr { return event.AddrOf4([4]byte{a, b, c, d}) }

// some returns flows of a day with few values of every key, tunnels among them.
func some(n int, from event.Time) *event.Batch {
	b := &event.Batch{}
	for i := range uint64(n) {
		r := event.Mix(i + 1)
		f := event.Flow{
			Seen: from.Add(time.Duration(i) * 17 * time.Second % (20 * time.Hour)), Proto: uint8(6 + 11*(r&1)), DstPort: uint16(r >> 8 & 15),
			Src: four(198, 51, byte(r>>16&3), byte(r>>24)), Dst: four(192, 0, 2, byte(r>>32&31)), Exporter: four(203, 0, 113, byte(r>>40&1)),
			Bytes: r >> 44 & 0xfff, Packets: 1 + r>>56&7, SrcAS: uint32(r >> 4 & 3), TCPFlags: uint8(r >> 50),
		}
		if r&0x700 == 0 {
			f.Marks |= event.Tunnelled
		}
		if r&0x3800 == 0 {
			f.Dst = event.AddrOf(netip.MustParseAddr(fmt.Sprintf("2001:db8:%x::%x", r>>60, r>>20&7)))
		}
		f.First, f.Last = f.Seen.Add(-time.Duration(r>>44&0xffff)*time.Millisecond), f.Seen
		b.Flows = append(b.Flows, f)
	}
	return b
}

// brute sums flows by a key, all in memory.
func brute(flows []event.Flow, r history.Range, keep func(*event.Flow) bool, key func(*event.Flow) string) map[string]history.Sums {
	m := map[string]history.Sums{}
	for i := range flows {
		f := &flows[i]
		if f.Has(event.Tunnelled) || f.Seen < r.From || f.Seen >= r.To || keep != nil && !keep(f) {
			continue
		}
		x := m[key(f)]
		x.Octets, x.Packets, x.Records = x.Octets+f.Bytes, x.Packets+f.Packets, x.Records+1
		m[key(f)] = x
	}
	return m
}

// Sums of rows, and of rollups that leave out nothing, are what they are.
func (s *suite) sums(t *testing.T) {
	b := some(4000, day(4))
	s.insert(t, b)
	r := history.Range{From: day(4) + event.Time(time.Hour), To: day(4) + event.Time(11*time.Hour)}
	filters := []struct {
		text string
		keep func(*event.Flow) bool
	}{
		{"", nil},
		{"proto=udp", func(f *event.Flow) bool { return f.Proto == event.UDP }},
		{"proto!=udp", func(f *event.Flow) bool { return f.Proto != event.UDP }},
		{"dst=192.0.2.0/29", func(f *event.Flow) bool { return f.Dst.Masked(29) == four(192, 0, 2, 0) }},
		{"dst!=192.0.2.0/29,2001:db8::/32", func(f *event.Flow) bool { return f.Dst.Is4() && f.Dst.Masked(29) != four(192, 0, 2, 0) }},
		{"dst=0.0.0.0/0", func(f *event.Flow) bool { return f.Dst.Is4() }},
		{"dst=2001:db8:1::/48", func(f *event.Flow) bool { return strings.HasPrefix(f.Dst.String(), "2001:db8:1:") }},
		{"dst_port=3-5,9 bytes>=1000", func(f *event.Flow) bool {
			return (f.DstPort >= 3 && f.DstPort <= 5 || f.DstPort == 9) && f.Bytes >= 1000
		}},
		{"tcp_flags&SYN", func(f *event.Flow) bool { return f.TCPFlags&event.SYN != 0 }},
		{"tcp_flags!&SYN+ACK packets<4", func(f *event.Flow) bool {
			return f.TCPFlags&(event.SYN|event.ACK) != event.SYN|event.ACK && f.Packets < 4
		}},
	}
	for _, f := range filters {
		filter, err := history.ParseFilter(f.text)
		if err != nil {
			t.Fatal(err)
		}
		for _, raw := range []bool{false, true} {
			for _, by := range []struct {
				keys []string
				key  func(*event.Flow) string
			}{
				{[]string{"dst"}, func(f *event.Flow) string { return f.Dst.String() }},
				{[]string{"proto", "dst_port"}, func(f *event.Flow) string { return fmt.Sprint(f.Proto, f.DstPort) }},
				{[]string{"exporter"}, func(f *event.Flow) string { return f.Exporter.String() }},
			} {
				for _, m := range []history.Measure{history.Octets, history.Packets, history.Records} {
					want := brute(b.Flows, r, f.keep, by.key)
					a, err := s.Top(t.Context(), history.Top{Range: r, Kind: history.Flows, By: by.keys, Measure: m, N: 12, Filter: filter, Raw: raw})
					if err != nil {
						t.Fatal(err)
					}
					s.checkTop(t, fmt.Sprintf("top %v %s %q from %s", by.keys, m, f.text, a.Table), a.Rows, want, m, 12)
				}
			}
			s.checkSeries(t, b.Flows, r, filter, f.keep, raw)
		}
		s.checkDistinct(t, b.Flows, r, filter, f.keep)
		s.checkPrefixes(t, b.Flows, r, filter, f.keep)
		s.checkQuantiles(t, b.Flows, r, filter, f.keep)
	}
	// The heaviest of each step.
	a, err := s.Top(t.Context(), history.Top{Range: r, Kind: history.Flows, By: []string{"dst"}, Step: time.Hour, N: 3})
	if err != nil {
		t.Fatal(err)
	}
	for h := range 10 {
		hour := history.Range{From: r.From.Add(time.Duration(h) * time.Hour), To: r.From.Add(time.Duration(h+1) * time.Hour)}
		var rows []history.TopRow
		for _, row := range a.Rows {
			if row.At == hour.From {
				rows = append(rows, row)
			}
		}
		s.checkTop(t, "top of an hour", rows, brute(b.Flows, hour, nil, func(f *event.Flow) string { return f.Dst.String() }), history.Octets, 3)
	}
}

func keyText(key []history.Value) string {
	var list []any
	for _, v := range key {
		if a, ok := v.(netip.Addr); ok {
			v = event.AddrOf(a).String()
		}
		list = append(list, v)
	}
	if len(list) == 1 {
		return fmt.Sprint(list[0])
	}
	return fmt.Sprint(list...)
}

func (s *suite) checkTop(t *testing.T, what string, rows []history.TopRow, want map[string]history.Sums, m history.Measure, n int) {
	t.Helper()
	var all []uint64
	for _, x := range want {
		all = append(all, m.Of(x))
	}
	slices.SortFunc(all, func(a, b uint64) int { return cmp.Compare(b, a) })
	if len(rows) != min(n, len(want)) {
		t.Errorf("%s: %d rows, want %d", what, len(rows), min(n, len(want)))
		return
	}
	for i, row := range rows {
		if w := want[keyText(row.Key)]; row.Sums != w || m.Of(w) != all[i] {
			t.Errorf("%s: row %d is %v %+v, want %+v; the %d heaviest has %d", what, i, row.Key, row.Sums, w, i, all[i])
		}
	}
}

func (s *suite) checkSeries(t *testing.T, flows []event.Flow, r history.Range, filter history.Filter, keep func(*event.Flow) bool, raw bool) {
	t.Helper()
	a, err := s.Series(t.Context(), history.Series{Range: r, Kind: history.Flows, By: []string{"proto"}, Step: 30 * time.Minute, Filter: filter, Raw: raw})
	if err != nil {
		t.Fatal(err)
	}
	want := brute(flows, r, keep, func(f *event.Flow) string { return fmt.Sprint(f.Proto, int64(f.Seen)/int64(30*time.Minute)) })
	n := 0
	for _, g := range a.Groups {
		for i, x := range g.Sums {
			if x == nil || *x == (history.Sums{}) {
				continue
			}
			n++
			if w := want[fmt.Sprint(g.Key[0], int64(a.Buckets[i].At)/int64(30*time.Minute))]; *x != w {
				t.Errorf("series %q from %s: %v at %v has %+v, want %+v", filter, a.Table, g.Key, a.Buckets[i].At, *x, w)
			}
		}
	}
	if n != len(want) {
		t.Errorf("series %q from %s: %d values, want %d", filter, a.Table, n, len(want))
	}
}

func (s *suite) checkDistinct(t *testing.T, flows []event.Flow, r history.Range, filter history.Filter, keep func(*event.Flow) bool) {
	t.Helper()
	a, err := s.Distinct(t.Context(), history.Distinct{Range: r, Kind: history.Flows, Column: "src", By: []string{"dst"}, N: 1000, Filter: filter})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{}
	for pair := range brute(flows, r, keep, func(f *event.Flow) string { return f.Dst.String() + " " + f.Src.String() }) {
		dst, _, _ := strings.Cut(pair, " ")
		want[dst]++
	}
	if len(a.Rows) != len(want) {
		t.Errorf("distinct %q: %d rows, want %d", filter, len(a.Rows), len(want))
	}
	for _, row := range a.Rows {
		if w := want[keyText(row.Key)]; math.Abs(float64(row.Count)-w) > 1+2*a.Error*w {
			t.Errorf("distinct %q: %v has %d, want %v", filter, row.Key, row.Count, w)
		}
	}
}

func (s *suite) checkPrefixes(t *testing.T, flows []event.Flow, r history.Range, filter history.Filter, keep func(*event.Flow) bool) {
	t.Helper()
	a, err := s.Prefixes(t.Context(), history.Prefixes{Range: r, Kind: history.Flows, Column: "dst", V4: 29, V6: 47, N: 1000, Filter: filter})
	if err != nil {
		t.Fatal(err)
	}
	want := brute(flows, r, keep, func(f *event.Flow) string {
		if f.Dst.Is4() {
			return f.Dst.Masked(29).String() + "/29"
		}
		return f.Dst.Masked(47).String() + "/47"
	})
	if len(a.Rows) != len(want) {
		t.Errorf("prefixes %q: %d rows, want %d", filter, len(a.Rows), len(want))
	}
	for _, row := range a.Rows {
		if row.Sums != want[fmt.Sprint(row.Prefix)] {
			t.Errorf("prefixes %q: %v has %+v, want %+v", filter, row.Prefix, row.Sums, want[fmt.Sprint(row.Prefix)])
		}
	}
}

func (s *suite) checkQuantiles(t *testing.T, flows []event.Flow, r history.Range, filter history.Filter, keep func(*event.Flow) bool) {
	t.Helper()
	for of, value := range map[string]func(*event.Flow) float64{
		"bytes":    func(f *event.Flow) float64 { return float64(f.Bytes) },
		"duration": func(f *event.Flow) float64 { return float64(f.Last.Sub(f.First)) / 1e6 },
	} {
		a, err := s.Quantiles(t.Context(), history.Quantiles{Range: r, Kind: history.Flows, Of: of, By: []string{"proto"}, Filter: filter})
		if err != nil {
			t.Fatal(err)
		}
		values := map[string][]float64{}
		for i := range flows {
			f := &flows[i]
			if !f.Has(event.Tunnelled) && f.Seen >= r.From && f.Seen < r.To && (keep == nil || keep(f)) {
				values[fmt.Sprint(f.Proto)] = append(values[fmt.Sprint(f.Proto)], value(f))
			}
		}
		if len(a.Rows) != len(values) {
			t.Errorf("quantiles %q: %d rows, want %d", filter, len(a.Rows), len(values))
		}
		for _, row := range a.Rows {
			list := values[keyText(row.Key)]
			slices.Sort(list)
			if int(row.Records) != len(list) || len(row.Values) != 3 {
				t.Errorf("quantiles %q: %v of %d records, want %d", filter, row.Key, row.Records, len(list))
				continue
			}
			for i, level := range a.Levels {
				n := float64(len(list) - 1)
				slack := max(2, 2*a.Error*n) // between two ranks it interpolates
				low, high := list[int(max(0, level*n-slack))], list[int(min(n, level*n+slack))]
				if row.Values[i] < low-1 || row.Values[i] > high+1 {
					t.Errorf("quantiles %q: %v: %v of %s is %v, want %v to %v", filter, row.Key, level, of, row.Values[i], low, high)
				}
			}
		}
	}
}

// Of a key with more values than a rollup keeps, what is missing stays within
// what the answer says.
func (s *suite) rollups(t *testing.T) {
	b := &event.Batch{}
	for i := range uint64(60_000) {
		r := event.Mix(i + 99)
		dst := four(10, byte(r>>8), byte(r>>16), byte(r>>24)) // 60,000 forged ones
		if i%4 == 0 {
			dst = four(192, 0, 2, byte(r>>32&31)) // and some that matter
		}
		b.Flows = append(b.Flows, event.Flow{Seen: day(6).Add(time.Duration(i) * time.Millisecond), Dst: dst, Bytes: r & 0x3ff, Packets: 1, Proto: event.UDP})
	}
	for from := 0; from < len(b.Flows); from += 20_000 {
		s.insert(t, &event.Batch{Flows: b.Flows[from : from+20_000]})
	}
	r := history.Range{From: day(6), To: day(6) + event.Time(time.Hour)}
	a, err := s.Top(t.Context(), history.Top{Range: r, Kind: history.Flows, By: []string{"dst"}, N: 40})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := s.Top(t.Context(), history.Top{Range: r, Kind: history.Flows, By: []string{"dst"}, N: 40, Raw: true})
	if err != nil {
		t.Fatal(err)
	}
	total := brute(b.Flows, r, nil, func(*event.Flow) string { return "" })[""]
	want := brute(b.Flows, r, nil, func(f *event.Flow) string { return f.Dst.String() })
	if a.Error == 0 || raw.Error != 0 || a.Table != "flows_by_target" || len(a.Rows) != 40 {
		t.Errorf("%d rows of %s with an error of %v; raw %v", len(a.Rows), a.Table, a.Error, raw.Error)
	}
	s.checkTop(t, "raw", raw.Rows, want, history.Octets, 40)
	for i, row := range a.Rows {
		w := want[keyText(row.Key)]
		if row.Octets > w.Octets || float64(w.Octets-row.Octets) > a.Error*float64(total.Octets) ||
			float64(w.Packets-row.Packets) > a.Error*float64(total.Packets) || float64(w.Records-row.Records) > a.Error*float64(total.Records) {
			t.Errorf("%v has %+v in the rollup and %+v in truth, of %+v", row.Key, row.Sums, w, total)
		}
		if i < 32 && row.Key[0] != raw.Rows[i].Key[0] {
			t.Errorf("place %d is %v, want %v", i, row.Key, raw.Rows[i].Key)
		}
	}
	// No rollup states an error for a part of its key.
	part, err := s.Top(t.Context(), history.Top{Range: r, Kind: history.Flows, By: []string{"dst_port"}})
	if err != nil || part.Table != "flows" {
		t.Errorf("top ports were answered by %s, %v", part.Table, err)
	}
	fixed, err := s.Top(t.Context(), history.Top{Range: r, Kind: history.Flows, By: []string{"dst_port"}, Filter: history.Filter{{Column: "proto", Op: history.Equal, Values: []string{"udp"}}}})
	if err != nil || fixed.Table != "flows_by_port" || len(fixed.Rows) != 1 {
		t.Errorf("top UDP ports were answered by %s, %v", fixed.Table, err)
	}
}

// What nobody watched is no zero.
func (s *suite) gaps(t *testing.T) {
	minute := func(n int) event.Time { return day(8).Add(time.Duration(n) * time.Minute) }
	r := history.Range{From: minute(0), To: minute(40)}
	b := &event.Batch{Flows: []event.Flow{
		{Seen: minute(3), Bytes: 7, Packets: 1, Proto: event.UDP}, {Seen: minute(31), Bytes: 9, Packets: 1, Proto: event.TCP},
	}}
	s.insert(t, b)
	for n := range 35 {
		if n >= 10 && n < 20 {
			continue
		}
		lost := 0
		if n == 31 {
			lost = 3
		}
		sql := fmt.Sprintf("INSERT INTO `%s`.coverage (minute, kind, reason, kept, lost) SELECT toDateTime(%d, 'UTC'), 'flows', '%s', 1, %d", s.Layout.Database, int64(minute(n))/1e9, map[bool]string{true: "spool full"}[lost > 0], lost)
		if err := s.Client.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for _, raw := range []bool{false, true} {
		a, err := s.Series(t.Context(), history.Series{Range: r, Kind: history.Flows, Step: 10 * time.Minute, Raw: raw})
		if err != nil {
			t.Fatal(err)
		}
		if len(a.Groups) != 1 || len(a.Groups[0].Sums) != 4 {
			t.Fatalf("%+v", a.Groups)
		}
		g := a.Groups[0].Sums
		if g[0] == nil || g[0].Octets != 7 || g[1] != nil || g[2] == nil || *g[2] != (history.Sums{}) || g[3] == nil || g[3].Octets != 9 {
			t.Errorf("watched, not watched, nothing, watched in part gave %v %v %v %v", g[0], g[1], g[2], g[3])
		}
		for i, partial := range []bool{false, true, false, true} {
			if a.Buckets[i].Partial() != partial {
				t.Errorf("step %d: %+v", i, a.Buckets[i])
			}
		}
		c := a.Covered
		want := []history.Range{{From: minute(10), To: minute(20)}, {From: minute(35), To: minute(40)}}
		if c.Minutes != 40 || c.Watched != 25 || c.Lost != 3 || !slices.Equal(c.Gaps, want) || len(c.Losses) != 1 || c.Losses[0].Reason != "spool full" || c.Whole() {
			t.Errorf("coverage %+v", c)
		}
	}
	// A range that cuts steps short is not widened, and has no gaps but its own.
	cut, err := s.Series(t.Context(), history.Series{Range: history.Range{From: minute(1), To: minute(9)}, Kind: history.Flows, Step: 5 * time.Minute})
	if err != nil || !cut.Covered.Whole() || len(cut.Buckets) != 2 || cut.Buckets[0].Minutes != 4 || cut.Buckets[1].Minutes != 4 || cut.Buckets[1].Partial() || cut.Groups[0].Total.Octets != 7 {
		t.Errorf("%+v, %v", cut, err)
	}
	// Nothing at all: one line of unknowns.
	a, err := s.Series(t.Context(), history.Series{Range: history.Range{From: minute(100), To: minute(120)}, Kind: history.Flows, Step: 10 * time.Minute})
	if err != nil || len(a.Groups) != 1 || a.Groups[0].Sums[0] != nil {
		t.Errorf("%+v, %v", a, err)
	}
}

// Events of all kinds in order, page by page, from both ends.
func (s *suite) timeline(t *testing.T) {
	who := four(198, 51, 100, 7)
	b := &event.Batch{}
	for i := range 50 {
		at := day(10).Add(time.Duration(i/5) * time.Second) // five at a time
		b.Flows = append(b.Flows, event.Flow{Seen: at, Src: who, DstPort: uint16(i)}, event.Flow{Seen: at, Dst: who, SrcPort: uint16(i)}, event.Flow{Seen: at, Src: four(1, 2, 3, 4)})
		b.DNS = append(b.DNS, event.DNS{Seen: at, Answer: b.AddText([]byte(who.String())), ID: uint16(i), Name: b.AddText([]byte("bad.example"))})
		b.Sessions = append(b.Sessions, event.Session{Seen: at, Src: who, ID: b.AddText(fmt.Append(nil, i)), Host: b.AddText([]byte("bad.example"))})
		b.Logs = append(b.Logs, event.Log{Seen: at, Peer: who, Record: uint64(i)})
	}
	s.insert(t, b)
	for _, newest := range []bool{false, true} {
		seen := map[string]bool{}
		var last event.Time
		q := history.Timeline{Range: dayRange(10), Entity: history.Entity{Type: history.Address, Value: "198.51.100.7"}, Limit: 7, Newest: newest}
		for pages := 0; ; pages++ {
			p, err := s.Timeline(t.Context(), q)
			if err != nil || pages > 100 {
				t.Fatal(pages, err)
			}
			for _, ref := range p.Order {
				at := p.Seen(ref)
				if last != 0 && (at < last) != newest && at != last {
					t.Fatalf("%v after %v", at, last)
				}
				last = at
				seen[fmt.Sprint(ref.Kind, p.Fields(ref))] = true
			}
			if p.Next == nil {
				break
			}
			if q.After, err = history.ParseCursor(p.Next.String()); err != nil {
				t.Fatal(err)
			}
		}
		if len(seen) != 250 {
			t.Errorf("newest %v: %d different events, want 250", newest, len(seen))
		}
	}
	f := func(e history.Entity, want int) {
		t.Helper()
		p, err := s.Timeline(t.Context(), history.Timeline{Range: dayRange(10), Entity: e})
		if err != nil || len(p.Order) != want {
			t.Errorf("%+v: %v events, %v; want %d", e, len(p.Order), err, want)
		}
	}
	f(history.Entity{Type: history.Address, Value: "198.51.100.0/24"}, 200) // a prefix is no text of an answer
	f(history.Entity{Type: history.Name, Value: "Bad.Example."}, 100)
	f(history.Entity{Type: history.Host, Value: "bad.example"}, 100)
	f(history.Entity{Type: history.Host, Value: "other"}, 0)
}

// A subscriber's events are those of the addresses it had, while it had them.
func (s *suite) leases(t *testing.T) {
	at := func(m int) event.Time { return day(12).Add(time.Duration(m) * time.Minute) }
	b := &event.Batch{}
	shared, whole := four(203, 0, 113, 1), four(203, 0, 113, 2)
	session := func(sub string, src event.Addr, from, to int, status event.SessionStatus, ports ...uint16) {
		x := event.Session{First: at(from), Last: at(to), Seen: at(to), Src: src, Status: status, Service: b.AddText([]byte("radius")), Subscriber: b.AddText([]byte(sub)), ID: b.AddText([]byte(sub))}
		if len(ports) > 0 {
			x.FirstPort, x.EndPort = ports[0], ports[1]
		}
		b.Sessions = append(b.Sessions, x)
	}
	session("ann", whole, 10, 10, event.SessionStart)
	session("ann", whole, 10, 20, event.SessionStop)
	session("bob", whole, 25, 40, event.SessionWhole)
	session("cyd", shared, 0, 60, event.SessionInterim, 1024, 2047)
	flow := func(m int, src event.Addr, port uint16) {
		b.Flows = append(b.Flows, event.Flow{First: at(m), Last: at(m), Seen: at(m + 2), Src: src, SrcPort: port})
	}
	flow(5, whole, 1)      // before ann
	flow(19, whole, 2)     // ann, told after her session's end
	flow(30, whole, 3)     // bob
	flow(30, shared, 1500) // cyd
	flow(30, shared, 2500) // a neighbour behind the same address
	s.insert(t, b)
	f := func(sub string, open bool, ports ...uint16) {
		t.Helper()
		p, err := s.Timeline(t.Context(), history.Timeline{Range: dayRange(12), Entity: history.Entity{Type: history.Subscriber, Value: sub}, Resolve: true})
		if err != nil {
			t.Fatal(err)
		}
		var got []uint16
		for _, f := range p.Events.Flows {
			got = append(got, f.SrcPort)
		}
		if !slices.Equal(got, ports) || len(p.Leases) != 1 || p.Leases[0].Open != open {
			t.Errorf("%s: flows from ports %v, want %v; leases %+v", sub, got, ports, p.Leases)
		}
	}
	f("ann", false, 2)
	f("bob", false, 3)
	f("cyd", true, 1500)
}

// The evidence of an incident with twenty thousand members.
func (s *suite) evidence(t *testing.T) {
	b := &event.Batch{}
	var members []event.Addr
	begin := day(14).Add(time.Hour)
	for i := range 20_000 {
		a := four(100, 64+byte(i>>16), byte(i>>8), byte(i))
		if i%10 == 0 {
			a = event.AddrOf(netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i+1)))
		}
		members = append(members, a)
		b.Flows = append(b.Flows, event.Flow{Seen: begin.Add(time.Duration(i) * time.Millisecond), Src: a, Dst: four(192, 0, 2, byte(i)), DstPort: 23, Proto: event.TCP, Bytes: 40, Packets: 1},
			event.Flow{Seen: begin, Src: a, Dst: four(8, 8, 8, 8), DstPort: 53, Proto: event.UDP, Bytes: 60, Packets: 1},
			event.Flow{Seen: begin, Src: four(10, 0, 0, byte(i)), Dst: four(192, 0, 2, byte(i)), DstPort: 23, Proto: event.TCP, Bytes: 1, Packets: 1})
	}
	s.insert(t, b)
	in := &incident.Incident{Kind: "iotbot.scan", First: begin, Last: begin.Add(20 * time.Second), Members: 20_000}
	a, err := s.Evidence(t.Context(), history.Evidence{Incident: in, Members: members, Limit: 500})
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Ports) != 1 || a.Ports[0].Port != uint64(23) || a.Total != (history.Sums{Octets: 800_000, Packets: 20_000, Records: 20_000}) || a.Hosts != 20_000 || len(a.Order) != 500 {
		t.Errorf("ports %v, total %+v of %d hosts, %d events", a.Ports, a.Total, a.Hosts, len(a.Order))
	}
	for i, ref := range a.Order {
		if f := a.Events.Flows[ref.Index]; f.DstPort != 23 || f.Bytes != 40 || i > 0 && f.Seen < a.Seen(a.Order[i-1]) {
			t.Fatalf("event %d is %+v", i, f)
		}
	}
	victim := finding.Host(four(192, 0, 2, 9), "victim", "")
	flood := &incident.Incident{Kind: "flood.inbound", First: begin, Last: begin.Add(20 * time.Second), Subjects: []finding.Subject{victim}, Cause: finding.Cause{Target: victim.Addr, Bits: 32}}
	a, err = s.Evidence(t.Context(), history.Evidence{Incident: flood})
	want := brute(b.Flows, dayRange(14), func(f *event.Flow) bool { return f.Dst == victim.Addr }, func(*event.Flow) string { return "" })[""]
	if err != nil || a.Total != want || len(a.Order) != int(want.Records) {
		t.Errorf("flood: %+v, want %+v; %v", a, want, err)
	}
	outbound := &incident.Incident{Kind: "flood.outbound", First: begin, Last: begin.Add(20 * time.Second), Cause: finding.Cause{Target: four(8, 8, 8, 8), Bits: 32}}
	a, err = s.Evidence(t.Context(), history.Evidence{Incident: outbound, Members: members[:10]})
	if err != nil || a.Total.Records != 10 || a.Hosts != 10 {
		t.Errorf("outbound: %+v, %v", a, err)
	}
	other := &incident.Incident{Kind: "iotbot.c2", First: begin, Last: begin, Subjects: []finding.Subject{finding.Host(members[1], "c2", "")}}
	a, err = s.Evidence(t.Context(), history.Evidence{Incident: other})
	if err != nil || len(a.Order) != 2 || a.Total.Records != 2 {
		t.Errorf("others: %+v, %v", a, err)
	}
}

// No text becomes SQL, wherever it stands.
func (s *suite) injection(t *testing.T) {
	b := &event.Batch{}
	texts := []string{Hostile, "' OR 1=1 --", "\\' OR 1=1 --", "{p0:String}", "\\", "\\N", "`", "\x00", "%", "_", "", "') UNION ALL SELECT * FROM system.tables --", "$$ $$", "\u2028"}
	for i, x := range texts {
		b.DNS = append(b.DNS, event.DNS{Seen: day(16) + event.Time(i)*1000, Name: b.AddText([]byte(x)), ID: uint16(i)})
		b.Logs = append(b.Logs, event.Log{Seen: day(16), User: b.AddText([]byte(x)), Message: b.AddText([]byte(x))})
	}
	s.insert(t, b)
	for i, x := range texts {
		a, err := s.Top(t.Context(), history.Top{Range: dayRange(16), Kind: history.DNS, By: []string{"name", "id"}, N: 100, Filter: history.Filter{{Column: "name", Op: history.Equal, Values: []string{x}}}})
		if err != nil || len(a.Rows) != 1 || a.Rows[0].Key[0] != x || a.Rows[0].Key[1] != uint64(i) {
			t.Errorf("name = %q: %+v, %v", x, a, err)
		}
		if x != "" {
			a, err = s.Top(t.Context(), history.Top{Range: dayRange(16), Kind: history.Logs, By: []string{"message"}, N: 100, Filter: history.Filter{{Column: "message", Op: history.Contains, Values: []string{x}}}})
			want := 0
			for _, y := range texts {
				if strings.Contains(y, x) {
					want++
				}
			}
			if err != nil || len(a.Rows) != want {
				t.Errorf("message ~ %q: %v rows, want %d; %v", x, len(a.Rows), want, err)
			}
			for _, typ := range []history.EntityType{history.Name, history.User, history.Host, history.Subscriber} {
				if _, err := s.Timeline(t.Context(), history.Timeline{Range: dayRange(16), Entity: history.Entity{Type: typ, Value: x}}); err != nil {
					t.Errorf("%s %q: %v", typ, x, err)
				}
			}
		}
		// In places that are no text it is refused before anything is asked.
		for _, q := range []history.Top{
			{By: []string{x}}, {By: []string{"dst"}, Measure: history.Measure("x" + x)},
			{By: []string{"dst"}, Filter: history.Filter{{Column: x, Op: history.Equal, Values: []string{"1"}}}},
			{By: []string{"dst"}, Filter: history.Filter{{Column: "dst", Op: history.Equal, Values: []string{x}}}},
			{By: []string{"dst"}, Filter: history.Filter{{Column: "bytes", Op: history.Equal, Values: []string{x}}}},
			{By: []string{"dst"}, Filter: history.Filter{{Column: "bytes", Op: history.Op(x), Values: []string{"1"}}}},
			{By: []string{"dst"}, Filter: history.Filter{{Column: "seen", Op: history.Op(x), Values: []string{"2026-01-01T00:00:00Z"}}}},
		} {
			q.Range, q.Kind = dayRange(16), history.Flows
			if _, err := s.Top(t.Context(), q); err == nil {
				t.Errorf("%+v was accepted", q)
			}
		}
	}
}

// A question ends when nobody waits for it, and when it costs too much.
func (s *suite) limits(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q := history.Top{Range: dayRange(6), Kind: history.Flows, By: []string{"dst"}, Raw: true}
	if _, err := s.Top(ctx, q); err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("cancelled: %v", err)
	}
	tight := *s.Questions
	tight.Limits = history.Limits{Rows: 20}
	if _, err := tight.Series(t.Context(), history.Series{Range: dayRange(6), Kind: history.Flows, By: []string{"dst"}, Raw: true}); err == nil || !strings.Contains(err.Error(), "more rows than allowed") {
		t.Errorf("too many rows: %v", err)
	}
	tight.Limits = history.Limits{Memory: 1 << 10}
	if _, err := tight.Top(t.Context(), q); err == nil || !strings.Contains(err.Error(), "more memory than allowed") {
		t.Errorf("too much memory: %v", err)
	}
	tight.Limits = history.Limits{Time: time.Millisecond}
	if _, err := tight.Distinct(t.Context(), history.Distinct{Range: history.Range{From: day(0), To: day(20)}, Kind: history.Flows, Column: "src", By: []string{"dst", "seen"}}); err == nil || !strings.Contains(err.Error(), "longer than allowed") {
		t.Errorf("too long: %v", err)
	}
	// And afterwards all is well.
	if _, err := s.Top(t.Context(), q); err != nil {
		t.Error(err)
	}
}

func (s *suite) asNames(t *testing.T) {
	var names asnames.Table
	load := func(csv string, want int) {
		t.Helper()
		names = asnames.Table{}
		if err := names.Read(strings.NewReader(csv)); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Client.LoadNames(t.Context(), s.Layout, names.All()); err != nil || n != want {
			t.Fatal(n, err)
		}
	}
	q := history.Top{Range: dayRange(18), Kind: history.Flows, By: []string{"src.as", "src.as_name", "src.country"}, N: 10}
	if _, err := s.Top(t.Context(), q); err == nil || !strings.Contains(err.Error(), "names load") {
		t.Errorf("without names: %v", err)
	}
	s.insert(t, &event.Batch{Flows: []event.Flow{
		{Seen: day(18), Src: four(192, 0, 2, 1), Bytes: 30}, {Seen: day(18), Src: four(192, 0, 2, 200), Bytes: 20},
		{Seen: day(18), Src: event.AddrOf(netip.MustParseAddr("2001:db8::1")), Bytes: 10}, {Seen: day(18), Bytes: 1},
	}})
	f := func(want string) {
		t.Helper()
		a, err := s.Top(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range a.Rows {
			got = append(got, fmt.Sprint(r.Key, r.Octets))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("got %s, want %s", strings.Join(got, " "), want)
		}
	}
	load("192.0.2.0/24,64500,\"It's \\ \"\"Ex\"\"\",JP\n192.0.2.128/25,64501,狼煙,\n2001:db8::/32,64502,Six,DE\n", 3)
	f(`[64500 It's \ "Ex" JP] 30 [64501 狼煙 ] 20 [64502 Six DE] 10 [0  ] 1`)
	load("192.0.2.0/24,64510,New,JP\n", 1)
	f("[64510 New JP] 50 [0  ] 11")
	q.Filter = history.Filter{{Column: "src.country", Op: history.Equal, Values: []string{"JP"}}}
	f("[64510 New JP] 50")
}
