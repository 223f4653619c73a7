package flood

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"noroshi/detect/detecttest"
)

func TestCases(t *testing.T) { detecttest.Run(t, &Spec) }

// The manual names every rule, every knob with its default's key, and every
// kind of flood that isn't an amplifier's.
func TestManual(t *testing.T) {
	data, err := os.ReadFile("../../docs/detectors/flood.md")
	if err != nil {
		t.Fatal(err)
	}
	has := func(what string) {
		if !strings.Contains(string(data), "`"+what+"`") {
			t.Errorf("docs/detectors/flood.md lacks `%s`", what)
		}
	}
	for _, r := range Spec.Rules {
		has(r.Name)
	}
	for f := range reflect.TypeFor[Config]().Fields() {
		has(f.Tag.Get("yaml"))
	}
	for c := total; c < amplified; c++ {
		if c != esp { // never a flood
			has(c.String())
		}
	}
}
