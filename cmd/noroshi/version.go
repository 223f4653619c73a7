package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"runtime"
)

// Set by the release build; see the Makefile.
var version, commit = "development", "unknown"

var versionCommand = command{
	name: "version", synopsis: "[--json]",
	short: "Say which noroshi this is",
	run: func(_ context.Context, c *call) int {
		asJSON := false
		rest, code, ok := c.parse(func(fs *flag.FlagSet) { fs.BoolVar(&asJSON, "json", false, "as a JSON object") })
		switch {
		case !ok:
			return code
		case len(rest) > 0:
			return c.wrong("unexpected argument %q", rest[0])
		case asJSON:
			_ = json.NewEncoder(c.stdout).Encode(map[string]string{"version": version, "commit": commit, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
		default:
			fmt.Fprintf(c.stdout, "noroshi %s (commit %s, %s, %s/%s)\n", version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		}
		return exitOK
	},
}
