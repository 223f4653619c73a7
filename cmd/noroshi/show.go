package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
	"noroshi/internal/terminal"
)

// language is the language of text for people: "en" or "ja".
type language string

// languageOf returns the language a person asked for: the flag, else the
// locale's, else English.
func languageOf(flag string) (language, error) {
	switch flag {
	case "en", "ja":
		return language(flag), nil
	case "":
		for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
			if v := os.Getenv(name); v != "" {
				if strings.HasPrefix(v, "ja") {
					return "ja", nil
				}
				return "en", nil
			}
		}
		return "en", nil
	}
	return "", fmt.Errorf("--lang %q: want en or ja", flag)
}

func (l language) of(t finding.Text) string {
	if l == "ja" && t.Ja != "" {
		return t.Ja
	}
	return t.En
}

// say returns one of two fixed texts.
func (l language) say(en, ja string) string { return l.of(finding.Text{En: en, Ja: ja}) }

var severityStyle = map[finding.Severity]terminal.Style{
	finding.Critical: terminal.Red, finding.High: terminal.Red, finding.Medium: terminal.Yellow,
	finding.Low: terminal.Cyan, finding.Informational: terminal.Dim,
}

// showIncident writes one incident for a person to read: the line that names
// it, why it is said, whom it is about, what it rests on and what to do.
func showIncident(w *terminal.Writer, l language, in *incident.Incident) {
	fmt.Fprintf(w, "%s %s  %s\n", w.Styled(severityStyle[in.Severity], "■ "+l.severity(in.Severity)),
		w.Styled(terminal.Bold, l.of(in.Title)), w.Styled(terminal.Dim, in.Kind+" "+in.ID.String()[:8]))
	row := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "  %s %s\n", w.Styled(terminal.Dim, pad(name, 9)), text)
		}
	}
	row(l.say("when", "期間"), terminal.Clean(period(l, in.First, in.Last, in.Ended)))
	row(l.say("who", "対象"), terminal.Clean(people(l, in.Subjects, in.Members)))
	row(l.say("with", "相手"), terminal.Clean(people(l, in.Peers, in.PeerCount)))
	row(l.say("why", "根拠"), terminal.Clean(l.of(in.Why)))
	for _, m := range in.Measured {
		row("", terminal.Clean(measure(l, m)))
	}
	for i, e := range in.Evidence {
		if i < 3 {
			row(map[bool]string{true: l.say("evidence", "証拠")}[i == 0], w.Styled(terminal.Dim, e))
		}
	}
	row(l.say("sure", "確度"), fmt.Sprintf("%.1f %%  %s", 100*in.Confidence, strings.Join(in.Attack, " ")))
	row(l.say("next", "次の手順"), terminal.Clean(l.of(in.Next)))
	fmt.Fprintln(w)
}

// pad fills s with spaces to width columns, counting a Japanese character as two.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(width-columns(s), 0))
}

// columns is how wide s is: a Japanese character counts as two.
func columns(s string) (n int) {
	for _, r := range s {
		n++
		if r > 0x2e7f {
			n++
		}
	}
	return n
}

func period(l language, first, last event.Time, ended bool) string {
	s := first.String()
	if d := last.Sub(first).Round(100 * time.Millisecond); d > 0 {
		s += fmt.Sprintf(" + %v", d)
	}
	if ended {
		return s + l.say(", over", "、終息")
	}
	return s + l.say(", going on at the end of the data", "、データ末尾で継続中")
}

// people lists the first few subjects and says how many there are.
func people(l language, subjects []finding.Subject, total uint64) string {
	if len(subjects) == 0 {
		return ""
	}
	const few = 4
	var s []string
	for _, x := range subjects[:min(few, len(subjects))] {
		text := x.String()
		if x.Network != "" && x.Network != text {
			text += " (" + x.Network + ")"
		}
		if x.Share > 0 {
			text += fmt.Sprintf(" %.0f %%", 100*x.Share)
		}
		s = append(s, text)
	}
	total = max(total, uint64(len(subjects)))
	if more := total - uint64(len(s)); more > 0 {
		s = append(s, fmt.Sprintf(l.say("and %d more", "ほか%d件"), more))
	}
	role := l.word(subjects[0].Role, rolesJa)
	if role != "" {
		role += ": "
	}
	return role + strings.Join(s, ", ")
}

func measure(l language, m finding.Measure) string {
	s := fmt.Sprintf("%s: %s %s", l.of(finding.Text{En: m.What, Ja: m.Ja}), quantity(m.Value), l.word(m.Unit, unitsJa))
	if m.Error > 0 {
		s += " ± " + quantity(m.Error)
	}
	if m.Limit != 0 {
		s += fmt.Sprintf(l.say(" (limit %s)", "(しきい値 %s)"), quantity(m.Limit))
	}
	if m.Usual != nil {
		s += fmt.Sprintf(l.say(" (usually %s)", "(通常 %s)"), quantity(*m.Usual))
	}
	return s
}

// quantity writes a number with three digits and a decimal prefix: 1.20 M.
func quantity(v float64) string {
	for _, p := range []struct {
		unit float64
		name string
	}{{1e12, " T"}, {1e9, " G"}, {1e6, " M"}, {1e4, " k"}} {
		if v >= p.unit || v <= -p.unit {
			if p.name == " k" {
				return fmt.Sprintf("%.3g k", v/1e3)
			}
			return fmt.Sprintf("%.3g%s", v/p.unit, p.name)
		}
	}
	if v == float64(int64(v)) {
		return fmt.Sprintf("%d", int64(v))
	}
	return fmt.Sprintf("%.3g", v)
}

// inOrder sorts incidents by when they began; the order is the same in every run.
func inOrder(ins []*incident.Incident) {
	slices.SortFunc(ins, func(a, b *incident.Incident) int {
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.ID.String(), b.ID.String()))
	})
}

// writeLine writes v as one line of JSON.
func writeLine(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}
