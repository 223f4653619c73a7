package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"noroshi/internal/config"
)

var checkCommand = command{
	name: "check", synopsis: "[flags]",
	short: "Say what is wrong in a configuration, where, and how to mend it",
	long: `Nothing is started and nothing is listened to. Every mistake is a line:
file:line:column: key: what is wrong; what to do.

  noroshi check --config noroshi.yaml
  noroshi check --config noroshi.yaml --json | jq .mistakes[]
`,
	run: check,
}

func check(_ context.Context, c *call) int {
	var path string
	var asJSON bool
	rest, code, ok := c.parse(func(fs *flag.FlagSet) {
		fs.StringVar(&path, "config", "", "configuration `file` (default: noroshi's own values)")
		fs.BoolVar(&asJSON, "json", false, "one JSON object")
	})
	switch {
	case !ok:
		return code
	case len(rest) > 0:
		return c.wrong("unexpected argument %q; use --config FILE", rest[0])
	}
	f, err := config.Default(), error(nil)
	if path != "" {
		f, err = config.Load(path)
	}
	if err == nil {
		err = newPipeline(f).Check()
	}
	var ms config.Mistakes
	if err != nil && !errors.As(err, &ms) {
		ms = config.Mistakes{{File: path, Problem: err.Error()}}
	}
	if asJSON {
		if ms == nil {
			ms = config.Mistakes{}
		}
		werr := writeLine(c.stdout, map[string]any{"file": path, "ok": err == nil, "mistakes": ms})
		if werr != nil {
			return c.failed(werr)
		}
		if err != nil {
			return exitUsage
		}
		return exitOK
	}
	if path != "" && err != nil {
		_, code := c.configuration(path)
		return max(code, exitUsage)
	} else if err != nil {
		return c.failed(err)
	}
	prefixes := 0
	for _, n := range f.Networks {
		prefixes += len(n.Prefixes)
	}
	if path == "" {
		path = "the default configuration"
	}
	fmt.Fprintf(c.stdout, "%s is right: %s, %s, %s with %s\n", path,
		plural(len(f.Listen.Addresses), "address to listen on", "addresses to listen on"), plural(len(f.Capture), "interface to capture", "interfaces to capture"),
		plural(len(f.Networks), "network", "networks"), plural(prefixes, "prefix", "prefixes"))
	return exitOK
}
