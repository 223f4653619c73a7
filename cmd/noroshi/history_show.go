package main

import (
	"encoding/csv"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"noroshi/event"
	"noroshi/internal/terminal"
	"noroshi/store/history"
)

// historyOutput writes answers: as a table for people, as CSV, or as JSON. The
// last two have plain numbers and all that the answer says of itself.
type historyOutput struct {
	*terminal.Writer
	l    language
	h    *historyFlags
	kind history.Kind
	// plain: no terminal, so no bars either.
	plain bool
}

func newHistoryOutput(c *call, l language, h *historyFlags, k history.Kind) *historyOutput {
	w := terminal.New(c.stdout)
	return &historyOutput{w, l, h, k, !w.Colour}
}

// cell is one value of a table: what programs read, and what people read.
type cell struct {
	value any // nil = not known
	human string
}

func number(n uint64) cell { return cell{n, quantity(float64(n))} }

func valueCell(column string, v history.Value) cell {
	base, part, _ := strings.Cut(column, ".")
	if part != "" {
		base = part
	}
	return cell{history.Describe(base, v), history.Describe(base, v)}
}

func at(t event.Time) cell {
	return cell{t.Std().Format(time.RFC3339), t.Std().Format("2006-01-02 15:04Z")}
}

// unwatched stands where nobody knows a number.
func (o *historyOutput) unwatched() cell { return cell{nil, o.l.say("not watched", "観測なし")} }

func (o *historyOutput) sums(k history.Kind, s *history.Sums) (list []cell) {
	for _, name := range sumNames(k) {
		if s == nil {
			list = append(list, o.unwatched())
			continue
		}
		list = append(list, number(history.Measure(name).Of(*s)))
	}
	return list
}

func sumNames(k history.Kind) []string {
	switch k {
	case history.Flows:
		return []string{"octets", "packets", "records"}
	case history.Sessions:
		return []string{"octets", "records"}
	}
	return []string{"records"}
}

// table writes rows. weigh, if not nil, gives the length of each row's bar.
func (o *historyOutput) table(a *history.Answer, names []string, rows [][]cell, weigh func(i int) float64, more map[string]any) error {
	switch {
	case o.h.json:
		list := make([]map[string]any, 0, len(rows))
		for _, r := range rows {
			m := map[string]any{}
			for i, c := range r {
				m[names[i]] = c.value
			}
			list = append(list, m)
		}
		m := map[string]any{"rows": list}
		if a != nil {
			m["range"], m["table"], m["error"], m["coverage"] = a.Range, a.Table, a.Error, a.Covered
		}
		for k, v := range more {
			m[k] = v
		}
		return writeLine(o.Writer, m)
	case o.h.csv:
		if a != nil {
			fmt.Fprintf(o, "# %s to %s from %s; error %g; %s\n", at(a.Range.From).value, at(a.Range.To).value, a.Table, a.Error, terminal.Clean(a.Covered.String()))
			for _, g := range a.Covered.Gaps {
				fmt.Fprintf(o, "# not watched: %s to %s\n", at(g.From).value, at(g.To).value)
			}
		}
		w := csv.NewWriter(o)
		_ = w.Write(names)
		for _, r := range rows {
			var line []string
			for _, c := range r {
				text := ""
				if c.value != nil {
					text = terminal.Clean(fmt.Sprint(c.value))
				}
				// A spreadsheet takes what begins so for a formula (OWASP, "CSV Injection").
				if _, isText := c.value.(string); isText && text != "" && text != "-" && strings.ContainsRune("=+-@", rune(text[0])) {
					text = "'" + text
				}
				line = append(line, text)
			}
			_ = w.Write(line)
		}
		w.Flush()
		return w.Error()
	}
	if a != nil {
		o.head(a)
	}
	widths := make([]int, len(names))
	text := func(c cell) string {
		s := terminal.Clean(c.human)
		if r := []rune(s); len(r) > 60 {
			s = string(r[:59]) + "…"
		}
		return s
	}
	for i, n := range names {
		widths[i] = utf8.RuneCountInString(n)
		for _, r := range rows {
			widths[i] = max(widths[i], columns(text(r[i])))
		}
	}
	var most float64
	if weigh != nil && !o.plain {
		for i := range rows {
			most = max(most, weigh(i))
		}
	}
	line := func(cells []cell, style terminal.Style, bar string) {
		var b strings.Builder
		for i, c := range cells {
			s := text(c)
			_, isNumber := c.value.(uint64)
			_, isFloat := c.value.(float64)
			if isNumber || isFloat {
				s = strings.Repeat(" ", widths[i]-columns(s)) + s
			} else {
				s = pad(s, widths[i])
			}
			b.WriteString(s + "  ")
		}
		out := strings.TrimRight(b.String()+bar, " ")
		if style != "" {
			out = o.Styled(style, out)
		}
		fmt.Fprintln(o, out)
	}
	var head []cell
	for i, n := range names {
		c := cell{n, n}
		if len(rows) > 0 {
			if _, isNumber := rows[0][i].value.(uint64); isNumber {
				c.value = uint64(0)
			}
		}
		head = append(head, c)
	}
	line(head, terminal.Dim, "")
	for i, r := range rows {
		bar := ""
		if most > 0 {
			bar = strings.Repeat("█", int(20*weigh(i)/most+.5))
		}
		line(r, "", bar)
	}
	return nil
}

// head says what an answer rests on.
func (o *historyOutput) head(a *history.Answer) {
	exact := o.l.say("exact", "厳密値")
	if a.Error > 0 {
		exact = fmt.Sprintf(o.l.say("within %.2g %%", "誤差%.2g %%以内"), 100*a.Error)
	}
	fmt.Fprintln(o, o.Styled(terminal.Dim, fmt.Sprintf(o.l.say("%s to %s, from %s, %s", "%s 〜 %s、%s より、%s"), at(a.Range.From).human, at(a.Range.To).human, a.Table, exact)))
	o.covered("", a.Covered)
}

// covered says what isn't known.
func (o *historyOutput) covered(of string, c history.Covered) {
	switch {
	case c.Whole():
		return
	case c.Watched == 0 && of != "": // a kind without a source, beside others
		fmt.Fprintln(o, o.Styled(terminal.Yellow, of+o.l.say("not watched", "観測なし")))
		return
	}
	fmt.Fprintln(o, o.Styled(terminal.Yellow, of+o.unknown(&c)))
	for i, g := range c.Gaps {
		if i == 5 {
			fmt.Fprintf(o, o.l.say("  … and %d more gaps\n", "  … ほか%d区間\n"), len(c.Gaps)-i)
			break
		}
		fmt.Fprintf(o, o.l.say("  not watched: %s to %s\n", "  観測なし: %s 〜 %s\n"), at(g.From).human, at(g.To).human)
	}
}

// unknown is history.Covered.String in the reader's language.
func (o *historyOutput) unknown(c *history.Covered) string {
	if o.l != "ja" {
		return c.String()
	}
	var s []string
	if n := c.Minutes - c.Watched; n > 0 {
		s = append(s, fmt.Sprintf("%d分中%d分は観測なし", c.Minutes, n))
	}
	if c.Lost > 0 {
		s = append(s, fmt.Sprintf("イベントの%.2g %%が保存されず失われた", 100*float64(c.Lost)/float64(c.Lost+c.Kept)))
	}
	return strings.Join(s, "、")
}

func (o *historyOutput) measure() history.Measure {
	if o.h.measure != "" {
		return history.Measure(o.h.measure)
	}
	return history.Measure(sumNames(o.kind)[0])
}

// lead is what the rows of an answer begin with: the step, if it was asked for,
// and the key.
func (o *historyOutput) lead(t event.Time, key []history.Value, by []string) (line []cell) {
	if o.h.step > 0 {
		line = append(line, at(t))
	}
	for i, v := range key {
		line = append(line, valueCell(by[i], v))
	}
	return line
}

// leadNames names what lead returns.
func (o *historyOutput) leadNames(by []string) (names []string) {
	if o.h.step > 0 {
		names = append(names, "time")
	}
	return append(names, by...)
}

func (o *historyOutput) top(a *history.TopAnswer, by []string) error {
	names := append(o.leadNames(by), sumNames(o.kind)...)
	var rows [][]cell
	for _, r := range a.Rows {
		rows = append(rows, append(o.lead(r.At, r.Key, by), o.sums(o.kind, &r.Sums)...))
	}
	return o.table(&a.Answer, names, rows, func(i int) float64 { return float64(o.measure().Of(a.Rows[i].Sums)) }, nil)
}

// blocks are the heights of a sparkline.
var blocks = []rune("▁▂▃▄▅▆▇█")

func (o *historyOutput) series(a *history.SeriesAnswer, by []string) error {
	m := o.measure()
	if !o.h.json && !o.h.csv && !o.plain {
		// A line of blocks for each group. A space is a step nobody watched.
		o.head(&a.Answer)
		for _, g := range a.Groups {
			var most uint64
			for _, s := range g.Sums {
				if s != nil {
					most = max(most, m.Of(*s))
				}
			}
			var line strings.Builder
			for _, s := range g.Sums {
				switch {
				case s == nil:
					line.WriteByte(' ')
				case most == 0:
					line.WriteRune(blocks[0])
				default:
					line.WriteRune(blocks[int(float64(m.Of(*s))/float64(most)*float64(len(blocks)-1)+.5)])
				}
			}
			fmt.Fprintf(o, o.l.say("%s▕%s▏ max %s %s\n", "%s▕%s▏ 最大 %s %s\n"), pad(terminal.Clean(o.groupName(g, by)), 16), line.String(), quantity(float64(most)), m)
		}
		fmt.Fprintf(o, o.l.say("%s a block is %v; a blank was not watched\n", "%s 1文字は%v、空白は観測なし\n"), strings.Repeat(" ", 16), a.Step)
		return nil
	}
	names := append(append([]string{"time"}, by...), sumNames(o.kind)...)
	names = append(names, "known")
	var rows [][]cell
	for i, b := range a.Buckets {
		known := cell{"whole", o.l.say("whole", "全部")}
		if b.Partial() {
			known = cell{"partial", o.l.say("partial", "一部")}
		}
		for _, g := range a.Groups {
			line := []cell{at(b.At)}
			for j := range by {
				if g.Key == nil {
					line = append(line, cell{"(others)", o.l.say("(others)", "(その他)")})
				} else {
					line = append(line, valueCell(by[j], g.Key[j]))
				}
			}
			k := known
			if g.Sums[i] == nil {
				k = cell{"gap", o.l.say("gap", "欠測")}
			}
			rows = append(rows, append(append(line, o.sums(o.kind, g.Sums[i])...), k))
		}
	}
	return o.table(&a.Answer, names, rows, nil, map[string]any{"step": a.Step.String()})
}

func (o *historyOutput) groupName(g history.Group, by []string) string {
	if g.Key == nil && len(by) > 0 {
		return o.l.say("(others)", "(その他)")
	}
	var s []string
	for i, v := range g.Key {
		s = append(s, valueCell(by[i], v).human)
	}
	if s == nil {
		return o.l.say("all", "合計")
	}
	return strings.Join(s, " ")
}

func (o *historyOutput) distinct(a *history.DistinctAnswer, by []string, column string) error {
	names := append(o.leadNames(by), "distinct_"+column)
	var rows [][]cell
	for _, r := range a.Rows {
		rows = append(rows, append(o.lead(r.At, r.Key, by), number(r.Count)))
	}
	return o.table(&a.Answer, names, rows, func(i int) float64 { return float64(a.Rows[i].Count) }, nil)
}

func (o *historyOutput) prefixes(a *history.PrefixesAnswer, column string) error {
	var rows [][]cell
	for _, r := range a.Rows {
		rows = append(rows, append([]cell{valueCell(column, r.Prefix), number(r.Addresses)}, o.sums(o.kind, &r.Sums)...))
	}
	return o.table(&a.Answer, append([]string{"prefix", "addresses"}, sumNames(o.kind)...), rows,
		func(i int) float64 { return float64(o.measure().Of(a.Rows[i].Sums)) }, nil)
}

func (o *historyOutput) quantiles(a *history.QuantilesAnswer, by []string, of string) error {
	names := append(append([]string{}, by...), "records")
	for _, l := range a.Levels {
		names = append(names, of+"_"+strconv.FormatFloat(l, 'g', -1, 64))
	}
	var rows [][]cell
	for _, r := range a.Rows {
		var line []cell
		for i, v := range r.Key {
			line = append(line, valueCell(by[i], v))
		}
		line = append(line, number(r.Records))
		for _, v := range r.Values {
			human := v
			if v >= 100 {
				human = math.Round(v) // no exponent below ten thousand
			}
			line = append(line, cell{v, quantity(human)})
		}
		rows = append(rows, line)
	}
	return o.table(&a.Answer, names, rows, nil, nil)
}

func (o *historyOutput) page(p *history.Page, what string) error {
	if o.h.json {
		return writeLine(o.Writer, p)
	}
	if o.h.csv {
		var rows [][]cell
		for _, ref := range p.Order {
			rows = append(rows, []cell{{p.Seen(ref).String(), ""}, {ref.Kind.String(), ""}, {eventLine(p, ref), ""}})
		}
		return o.table(nil, []string{"seen", "kind", "event"}, rows, nil, nil)
	}
	if what != "" {
		fmt.Fprintln(o, terminal.Clean(what))
	}
	for _, k := range history.Kinds {
		if c, asked := p.Covered[k]; asked {
			o.covered(k.String()+": ", c)
		}
	}
	for _, l := range p.Leases {
		ports := ""
		if l.FirstPort != 0 || l.LastPort != 0 {
			ports = fmt.Sprintf(" ports %d-%d", l.FirstPort, l.LastPort)
		}
		fmt.Fprintf(o, o.l.say("had %v%s from %v to %v\n", "割当 %v%s: %v 〜 %v\n"), l.Prefix, ports, l.First, l.Last)
	}
	for _, ref := range p.Order {
		fmt.Fprintf(o, "%v %s %s\n", p.Seen(ref), o.Styled(terminal.Cyan, pad(ref.Kind.String(), 8)), terminal.Clean(eventLine(p, ref)))
	}
	if p.Next != nil {
		fmt.Fprintf(o, o.l.say("%d events; the next page begins with --after %v\n", "%d件。続きは --after %v\n"), len(p.Order), p.Next)
	}
	return nil
}

// eventLine writes an event in one line: flows in their own notation, others
// column by column.
func eventLine(p *history.Page, ref history.Ref) string {
	if ref.Kind == history.Flows {
		_, line, _ := strings.Cut(p.Events.Line(&p.Events.Flows[ref.Index]), " ")
		return line
	}
	var s []string
	for _, f := range p.Fields(ref) {
		if f.Name != "seen" {
			s = append(s, f.Name+"="+history.Describe(f.Name, f.Value))
		}
	}
	return strings.Join(s, " ")
}

func (o *historyOutput) coverage(r history.Range, c history.Covered, buckets []history.Bucket) error {
	var rows [][]cell
	for _, b := range buckets {
		if b.Watched == 0 {
			rows = append(rows, []cell{at(b.At), {uint64(0), "0"}, number(uint64(b.Minutes)), o.unwatched(), o.unwatched()})
			continue
		}
		rows = append(rows, []cell{at(b.At), number(uint64(b.Watched)), number(uint64(b.Minutes)), number(b.Kept), number(b.Lost)})
	}
	return o.table(&history.Answer{Range: r, Table: "coverage", Covered: c}, []string{"time", "watched", "minutes", "kept", "lost"}, rows, nil, nil)
}

func (o *historyOutput) kinds() error {
	var rows [][]cell
	for _, k := range history.Kinds {
		for _, c := range k.Columns() {
			rows = append(rows, []cell{{k.String(), k.String()}, {c.Name, c.Name}, {c.Type, c.Type}, {c.What, c.What}})
		}
	}
	return o.table(nil, []string{"kind", "column", "type", "what"}, rows, nil, nil)
}
