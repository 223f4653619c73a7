// Package intel holds what is known about attackers and protocols as data: bot
// families, amplifier protocols, survey scanners, protected names. A new Mirai
// variant is an entry in a YAML file here, with source and date, and not a
// change of code. Each file has a typed loader beside it.
package intel

import (
	"embed"
	"fmt"
	"time"

	"github.com/goccy/go-yaml"
)

//go:embed *.yaml
var files embed.FS

// Origin says where an entry is from. Every entry has one; a test holds each
// file to it.
type Origin struct {
	Source string `yaml:"source"` // paper, advisory, published source code, capture
	Date   string `yaml:"date"`   // when it was published or last checked, 2006-01-02
}

// Check returns an error if o lacks its source or a date.
func (o Origin) Check() error {
	if o.Source == "" {
		return fmt.Errorf("intel: an entry without source")
	}
	if _, err := time.Parse(time.DateOnly, o.Date); err != nil {
		return fmt.Errorf("intel: source %q: %w", o.Source, err)
	}
	return nil
}

// load decodes the embedded file name into v, refusing unknown keys. The files
// are part of the program, so a mistake in one is a programming error.
func load(name string, v any) {
	data, err := files.ReadFile(name)
	if err == nil {
		err = yaml.UnmarshalWithOptions(data, v, yaml.Strict())
	}
	if err != nil {
		panic(fmt.Sprintf("intel: %s: %v", name, err))
	}
}
