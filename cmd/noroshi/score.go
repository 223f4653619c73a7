package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"noroshi/internal/terminal"
	"noroshi/scenario"
	"noroshi/scenario/score"
	"noroshi/scenario/wire"
)

var scoreCommand = command{
	name: "score", synopsis: "[flags] [NAME...]",
	short: "Play generated attacks and ordinary days, and say how well they were told apart",
	long: `NAME is a scenario, or its beginning with a * behind it; none means all.
Exit code 1 says that a target was missed.

  noroshi score
  noroshi score --list
  noroshi score ordinary-day 'flood-*'
  noroshi score --write captures/ carpet-bombing    # pcap files, for replay or other programs
`,
	run: scoring,
}

func scoring(ctx context.Context, c *call) int {
	var asJSON, list bool
	var dir, lang string
	var seed uint64
	var shards int
	names, code, ok := c.parse(func(fs *flag.FlagSet) {
		fs.BoolVar(&asJSON, "json", false, "one JSON object for each check")
		fs.BoolVar(&list, "list", false, "say what scenarios there are, and play none")
		fs.StringVar(&dir, "write", "", "write the scenarios as captures into this `folder` and score none")
		fs.StringVar(&lang, "lang", "", "`language` of the list: en or ja (default: the locale's)")
		fs.Uint64Var(&seed, "seed", 1, "`number` from which all chance is drawn")
		fs.IntVar(&shards, "shards", 1, "`number` of goroutines that detect, a power of two")
	})
	if !ok {
		return code
	}
	l, err := languageOf(lang)
	if err != nil {
		return c.wrong("%v", err)
	}
	chosen, err := scenariosNamed(names)
	if err != nil {
		return c.wrong("%v", err)
	}
	if shards < 1 || shards > 256 || shards&(shards-1) != 0 {
		return c.wrong("--shards %d: want a power of two, 1 to 256", shards)
	}
	if list {
		w := terminal.New(c.stdout)
		for _, s := range chosen {
			fmt.Fprintf(w, "%s  %s\n  %s\n", w.Styled(terminal.Bold, s.Name), w.Styled(terminal.Dim, strings.Join(s.Requirements, " ")), l.of(s.Doc))
		}
		return exitOK
	}
	if dir != "" {
		return c.writeCaptures(ctx, chosen, dir, seed)
	}
	var all []score.Check
	w := terminal.New(c.stdout)
	for i, s := range chosen {
		show := c.progressOf(fmt.Sprintf("%d of %d, %s", i+1, len(chosen), s.Name), s.Length)
		r, err := score.Run(ctx, s, score.Config{Seed: seed, Shards: shards, Progress: show})
		show(-1)
		if err != nil {
			return c.failed(fmt.Errorf("%s: %w", s.Name, err))
		}
		checks := score.Judge(r)
		all = append(all, checks...)
		if asJSON {
			for _, k := range checks {
				_ = writeLine(c.stdout, k)
			}
			continue
		}
		fmt.Fprintf(w, "%s  %s\n", w.Styled(terminal.Bold, s.Name), w.Styled(terminal.Dim,
			fmt.Sprintf("%d records in %v, played in %.1f s", r.Records, s.Length, r.Took.Seconds())))
		for _, k := range checks {
			showCheck(w, k)
		}
	}
	missed := slices.ContainsFunc(all, func(k score.Check) bool { return !k.Met && k.Skipped == "" })
	if !asJSON {
		showTotal(w, all)
	}
	if missed {
		return exitFailed
	}
	return exitOK
}

// scenariosNamed returns the scenarios of the names given, in the order of the
// manual.
func scenariosNamed(names []string) ([]*scenario.Scenario, error) {
	every := scenario.All()
	if len(names) == 0 {
		return every, nil
	}
	used := map[string]bool{}
	var list []*scenario.Scenario
	for _, s := range every {
		hit := false
		for _, n := range names {
			if begin, open := strings.CutSuffix(n, "*"); n == s.Name || open && strings.HasPrefix(s.Name, begin) {
				used[n], hit = true, true
			}
		}
		if hit {
			list = append(list, s)
		}
	}
	for _, n := range names {
		if !used[n] {
			return nil, fmt.Errorf("no scenario %q; noroshi score --list says which there are", n)
		}
	}
	return list, nil
}

// progressOf returns a function that shows how far a play is; a negative time
// ends it.
func (c *call) progressOf(what string, length time.Duration) func(time.Duration) {
	if !term.IsTerminal(int(c.stderr.Fd())) {
		return func(time.Duration) {}
	}
	last := time.Time{}
	return func(done time.Duration) {
		switch {
		case done < 0:
			fmt.Fprint(c.stderr, "\r\x1b[K")
		case time.Since(last) > 200*time.Millisecond:
			last = time.Now()
			fmt.Fprintf(c.stderr, "\r\x1b[K%s: %d %%", what, min(100*done/length, 100))
		}
	}
}

func showCheck(w *terminal.Writer, k score.Check) {
	verdict, style := "met", terminal.Dim
	switch {
	case k.Skipped != "":
		verdict, style = "skipped", terminal.Yellow
	case !k.Met:
		verdict, style = "MISSED", terminal.Red
	}
	sign := "≤"
	if k.AtLeast {
		sign = "≥"
	}
	value := fmt.Sprintf("%.4g %s %.4g %s", k.Value, sign, k.Limit, k.Unit)
	if k.Skipped != "" {
		value = k.Skipped
	}
	fmt.Fprintf(w, "  %s %-62s %-26s of %-7d %s\n", w.Styled(style, fmt.Sprintf("%-7s", verdict)), k.What, value, k.Of, strings.Join(k.Requirements, " "))
	if !k.Met && k.Skipped == "" {
		for _, s := range k.Wrong {
			fmt.Fprintf(w, "          %s\n", w.Styled(terminal.Dim, s))
		}
	}
}

// showTotal prints how many checks of each requirement were met.
func showTotal(w *terminal.Writer, all []score.Check) {
	type tally struct{ met, missed, skipped int }
	by := map[string]*tally{}
	var sum tally
	for _, k := range all {
		for _, t := range append(slices.Clone(k.Requirements), "") {
			x := &sum
			if t != "" {
				if by[t] == nil {
					by[t] = new(tally)
				}
				x = by[t]
			}
			switch {
			case k.Skipped != "":
				x.skipped++
			case k.Met:
				x.met++
			default:
				x.missed++
			}
		}
	}
	fmt.Fprintln(w)
	names := slices.SortedFunc(maps.Keys(by), func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	for _, n := range names {
		t := by[n]
		fmt.Fprintf(w, "  %-5s %4d met %4d missed %4d skipped\n", n, t.met, t.missed, t.skipped)
	}
	fmt.Fprintf(w, "%s\n", w.Styled(terminal.Bold, fmt.Sprintf("%d checks met, %d missed, %d skipped", sum.met, sum.missed, sum.skipped)))
}

// writeCaptures writes each scenario as a pcap file of what its exporters send.
func (c *call) writeCaptures(ctx context.Context, list []*scenario.Scenario, dir string, seed uint64) int {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return c.failed(err)
	}
	for _, s := range list {
		path := filepath.Join(dir, s.Name+".pcap")
		err := writeFile(path, func(f io.Writer) error { return wire.WriteCapture(ctx, f, s, seed) })
		if err != nil {
			return c.failed(err)
		}
		fmt.Fprintln(c.stdout, path)
	}
	return exitOK
}

// writeFile creates a file; one that could not be written whole is removed.
func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = write(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(path)
	}
	return err
}
