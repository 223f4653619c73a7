// Package noroshi_test holds the tests of the whole: its shape, and properties
// that no single package can promise.
package noroshi_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mayImport says which other stages each stage may import. A stage knows the
// records and the findings, never another stage; pipeline joins sources to
// detectors, and cmd joins everything.
var mayImport = map[string]string{
	"event":           "",
	"network":         "event",
	"finding":         "event",
	"intel":           "",
	"source":          "event",
	"detect":          "event finding network intel internal/aging internal/hosttable",
	"pipeline":        "event finding network source detect",
	"incident":        "event finding",
	"store":           "event finding incident internal",
	"scenario":        "event finding incident intel network pipeline source detect",
	"console":         "event finding incident network store pipeline source detect",
	"internal":        "event",
	"bench":           "event finding network detect pipeline scenario source store",
	"internal/config": "event network detect incident source store",
}

// TestImports holds the layers. It lists what non-test code imports.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		pkg, ours := strings.CutPrefix(f[0], "noroshi/")
		if !ours || strings.HasPrefix(pkg, "cmd/") {
			continue
		}
		stage := stageOf(pkg)
		allowed, known := mayImport[stage]
		if !known {
			t.Errorf("%s is in no stage that house_test.go knows", pkg)
			continue
		}
		for _, im := range f[1:] {
			name, ours := strings.CutPrefix(im, "noroshi/")
			if !ours || stageOf(name) == stage {
				continue
			}
			ok := false
			for _, a := range strings.Fields(allowed) {
				ok = ok || name == a || strings.HasPrefix(name, a+"/")
			}
			if !ok {
				t.Errorf("%s imports %s; stage %s may import only [%s]", pkg, name, stage, allowed)
			}
		}
	}
}

// stageOf returns the stage a package belongs to: the longest known prefix.
func stageOf(pkg string) string {
	for p := pkg; p != "."; p = filepath.Dir(p) {
		if _, ok := mayImport[p]; ok {
			return p
		}
	}
	return pkg
}

// goFiles calls f with each Go file of the house.
func goFiles(t *testing.T, f func(path string, test bool)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(path, ".go") {
			f(path, strings.HasSuffix(path, "_test.go"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Every package has exactly one package comment.
func TestPackageDocs(t *testing.T) {
	docs := map[string]int{}
	goFiles(t, func(path string, test bool) {
		if test {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Error(err)
			return
		}
		docs[filepath.Dir(path)] += 0
		if f.Doc != nil {
			docs[filepath.Dir(path)]++
		}
	})
	for dir, n := range docs {
		if n != 1 {
			t.Errorf("%s has %d package comments, want 1", dir, n)
		}
	}
}

// parses matches the names of exported functions that read outside bytes.
var parses = regexp.MustCompile(`^(Parse|Decode|NewReader|ReadCase)`)

// Every package of sources that decodes outside bytes has a native fuzz target.
func TestFuzzTargets(t *testing.T) {
	needs, has := map[string]string{}, map[string]bool{}
	goFiles(t, func(path string, test bool) {
		dir := filepath.Dir(path)
		if !strings.HasPrefix(dir, "source/") && !strings.HasPrefix(dir, "detect/botnet") {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Error(err)
			return
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			switch {
			case !ok:
			case test && strings.HasPrefix(fn.Name.Name, "Fuzz"):
				has[dir] = true
			case !test && parses.MatchString(fn.Name.Name):
				needs[dir] = fn.Name.Name
			}
		}
	})
	for dir, name := range needs {
		if !has[dir] {
			t.Errorf("%s has %s and no fuzz target", dir, name)
		}
	}
}

// Only stable names are allowed for outside things: nothing in the house may
// depend on the machine it was written on.
func TestNoMachinePaths(t *testing.T) {
	bad := regexp.MustCompile(`/work/|/home/|/Users/`)
	goFiles(t, func(path string, _ bool) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		if path != "house_test.go" && bad.Match(data) {
			t.Errorf("%s names a path of one machine: %s", path, bad.Find(data))
		}
	})
}

// Every relative link in a document leads to something that is there, and every
// make target that one names exists.
func TestLinks(t *testing.T) {
	link, target := regexp.MustCompile(`\]\(([^)#: ]+)(?:#[^)]*)?\)`), regexp.MustCompile("(?m)(?:^|`)make ([a-z]+)")
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	links := 0
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "node_modules" { // others' documents
			return filepath.SkipDir
		}
		if err != nil || d.IsDir() || filepath.Ext(path) != ".md" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range link.FindAllSubmatch(text, -1) {
			links++
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), string(m[1]))); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		for _, m := range target.FindAllSubmatch(text, -1) {
			if !regexp.MustCompile(`(?m)^` + string(m[1]) + `:`).Match(makefile) {
				t.Errorf("%s: there is no make %s", path, m[1])
			}
		}
		return nil
	})
	if err != nil || links < 15 {
		t.Errorf("%d links, %v", links, err)
	}
}
