package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"noroshi/internal/terminal"
	"noroshi/store/history"
)

// A gap is a gap in each form, and text of the network stays text.
func TestHistoryShown(t *testing.T) {
	nothing, some := history.Sums{}, history.Sums{Octets: 20_000, Packets: 2, Records: 1}
	a := &history.SeriesAnswer{Step: time.Hour, Answer: history.Answer{Table: "flows", Range: history.Range{From: 1e9, To: 4 * 3600e9}},
		Buckets: []history.Bucket{{Minutes: 60, Watched: 60}, {Minutes: 60}, {Minutes: 60, Watched: 10}},
		Groups:  []history.Group{{Key: []history.Value{uint64(6)}, Sums: []*history.Sums{&nothing, nil, &some}}}}
	a.Covered.Minutes = 180
	show := func(h historyFlags, plain bool) string {
		t.Helper()
		var b bytes.Buffer
		o := &historyOutput{&terminal.Writer{Writer: &b}, language(h.lang), &h, history.Flows, plain}
		if err := o.series(a, []string{"proto"}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	f := func(got string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s\nlacks %q", got, w)
			}
		}
	}
	f(show(historyFlags{}, false), "tcp             ▕▁ █▏")
	f(show(historyFlags{}, true), "tcp    not watched  not watched  not watched  gap", "1970-01-01 00:00Z  tcp              0            0            0  whole", "20 k            2            1  partial")
	f(show(historyFlags{lang: "ja"}, true), "180分中180分は観測なし", "観測なし  観測なし  欠測", "一部")
	f(show(historyFlags{lang: "ja"}, false), "最大 20 k octets", "空白は観測なし")
	f(show(historyFlags{csv: true, lang: "ja"}, true), "tcp,,,,gap") // for programs
	f(show(historyFlags{csv: true}, true), "T00:00:00Z,tcp,0,0,0,whole", "tcp,,,,gap", "tcp,20000,2,1,partial")
	f(show(historyFlags{json: true}, true), `"known":"gap","octets":null`, `"octets":20000`)

	hostile := "=1+\x1b[2J\u202e\n"
	top := &history.TopAnswer{Rows: []history.TopRow{{Key: []history.Value{hostile, netip.MustParseAddr("192.0.2.1")}, Sums: some}}}
	for _, h := range []historyFlags{{}, {csv: true}, {json: true}} {
		var b bytes.Buffer
		o := &historyOutput{&terminal.Writer{Writer: &b}, "en", &h, history.DNS, false}
		if err := o.top(top, []string{"name", "client"}); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(b.String(), "\x1b") || !h.json && strings.Contains(b.String(), "\u202e") || h.csv && !strings.Contains(b.String(), "\n'=1+") {
			t.Errorf("%q", b.String())
		}
	}
}

func TestMoment(t *testing.T) {
	now := time.Date(2026, 11, 24, 9, 30, 15, 0, time.UTC)
	f := func(h historyFlags, from, to string) {
		t.Helper()
		r, err := h.span(now, true)
		if err != nil || r.From.Std().Format(time.RFC3339) != from || r.To.Std().Format(time.RFC3339) != to {
			t.Errorf("%+v: %v, %v", h, r, err)
		}
	}
	f(historyFlags{last: stretch(time.Hour)}, "2026-11-24T08:30:00Z", "2026-11-24T09:30:00Z")
	f(historyFlags{from: "-2h", to: "now"}, "2026-11-24T07:30:15Z", "2026-11-24T09:30:15Z")
	f(historyFlags{from: "2026-11-24T09:00:00+09:00"}, "2026-11-24T00:00:00Z", "2026-11-24T09:30:00Z")
}
