package sampling

import (
	"testing"

	"noroshi/detect"
	"noroshi/detect/detecttest"
)

func TestCases(t *testing.T) { detecttest.Run(t, &Spec) }

func TestKnobs(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"min_rate": func(c *Config) { c.MinRate = 10 }, "max_whole": func(c *Config) { c.MaxWhole = 1 }, "min_records": func(c *Config) { c.MinRecords = 10 },
	} {
		cfg := defaults().(*Config)
		change(cfg)
		if _, err := Spec.New(detect.Env{Config: cfg}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
