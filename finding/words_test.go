package finding

import (
	"testing"
	"time"
)

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]Text{
		0: {En: "less than a second", Ja: "1秒未満"}, time.Second: {En: "1 second", Ja: "1秒"}, 59900 * time.Millisecond: {En: "59 seconds", Ja: "59秒"},
		time.Minute: {En: "1 min", Ja: "1分"}, 90 * time.Second: {En: "1 min 30 s", Ja: "1分30秒"},
		2 * time.Hour: {En: "2 h", Ja: "2時間"}, 26*time.Hour + 61*time.Second: {En: "26 h 1 min", Ja: "26時間1分"},
	} {
		if got := Span(d); got != want {
			t.Errorf("%v: %v, want %v", d, got, want)
		}
	}
	for n, want := range map[int]string{0: "0 hosts", 1: "1 host", 2: "2 hosts", 999: "999 hosts", 1000: "1,000 hosts", 1234567: "1,234,567 hosts"} {
		if got := Count(n, "host", "hosts"); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
