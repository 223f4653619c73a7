package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"noroshi/internal/config"
	"noroshi/store/state"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Every reason for which a source counts something is explained to the operator.
func TestReasonsExplained(t *testing.T) {
	doc := read(t, "../../docs/operations.md")
	files, err := filepath.Glob("../../source/*/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	forms := []*regexp.Regexp{
		regexp.MustCompile(`Reason: "([^"]+)"`),
		regexp.MustCompile(`\{"[a-z ]+", "([^"]+)"\}`), // a table of counters
		regexp.MustCompile(`(?s)func \(r Reason\) String\(\) string \{\s*return \[\.\.\.\]string\{(.*?)\}`),
	}
	n := 0
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		text := read(t, path)
		for _, form := range forms {
			for _, m := range form.FindAllStringSubmatch(text, -1) {
				for _, reason := range strings.Split(m[1], `", "`) {
					if reason = strings.Trim(reason, `", `); reason == "" {
						continue
					}
					if n++; !regexp.MustCompile(`(?m)^\| (?:[^|]*, )?` + regexp.QuoteMeta(reason) + `(?:, [^|]*)? \|`).MatchString(doc) {
						t.Errorf("%s counts %q; docs/operations.md has no row for it", path, reason)
					}
				}
			}
		}
	}
	if n < 40 {
		t.Errorf("only %d reasons found: look for them in another way", n)
	}
}

// The commands and metrics that the documents name exist.
func TestDocumentsNameWhatExists(t *testing.T) {
	known := map[string]bool{"score": true, "demo": true}
	for _, c := range commands {
		known[c.name] = true
	}
	metrics := read(t, "../../docs/metrics.md")
	for _, path := range []string{"operations.md", "incidents.md", "api.md"} {
		text := read(t, "../../docs/"+path)
		for _, m := range regexp.MustCompile("(?m)(?:^|[`/ ])noroshi ([a-z]+) (?:--|[a-z./]*\\.)").FindAllStringSubmatch(text, -1) {
			if !known[m[1]] {
				t.Errorf("%s: there is no command %q", path, m[1])
			}
		}
		for _, m := range regexp.MustCompile(`noroshi_[a-z_]+`).FindAllString(text, -1) {
			if !strings.Contains(metrics, "`"+m+"`") {
				t.Errorf("%s: there is no metric %s", path, m)
			}
		}
	}
}

// Every field of the JSON form is documented.
func TestIncidentFieldsDocumented(t *testing.T) {
	doc := read(t, "../../docs/incidents.md")
	for _, m := range regexp.MustCompile("`json:\"([a-z_]+)").FindAllStringSubmatch(read(t, "../../incident/incident.go"), -1) {
		if !strings.Contains(doc, "`"+m[1]+"`") {
			t.Errorf("docs/incidents.md lacks the field %s", m[1])
		}
	}
}

// The example of a deployment is one that noroshi takes.
func TestComposeExample(t *testing.T) {
	f, err := config.Load("../../deploy/compose/noroshi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if f.History.Cluster == "" || !state.IsPostgres(f.State) {
		t.Errorf("it is no example of a cluster: %+v, %s", f.History, f.State)
	}
}
