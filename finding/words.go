package finding

import (
	"fmt"
	"strconv"
	"time"
)

// Count writes n, with commas, and the noun that fits it: "1 address", "20,000
// addresses".
func Count[N int | uint64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return Grouped(n) + " " + many
}

// Grouped writes n with commas: 20,000.
func Grouped[N int | uint64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Span says how long d is: "less than a second", "42 seconds", "3 h 5 min".
func Span(d time.Duration) Text {
	h, m, s := int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60
	switch {
	case d < time.Second:
		return Text{En: "less than a second", Ja: "1秒未満"}
	case d < time.Minute:
		return Text{En: Count(s, "second", "seconds"), Ja: fmt.Sprintf("%d秒", s)}
	case d < time.Hour && s == 0:
		return Text{En: fmt.Sprintf("%d min", m), Ja: fmt.Sprintf("%d分", m)}
	case d < time.Hour:
		return Text{En: fmt.Sprintf("%d min %d s", m, s), Ja: fmt.Sprintf("%d分%d秒", m, s)}
	case m == 0:
		return Text{En: fmt.Sprintf("%d h", h), Ja: fmt.Sprintf("%d時間", h)}
	}
	return Text{En: fmt.Sprintf("%d h %d min", h, m), Ja: fmt.Sprintf("%d時間%d分", h, m)}
}
