package main

import (
	"context"
	"flag"
	"fmt"

	"noroshi/store/state"
)

var verifyCommand = command{
	name: "verify", synopsis: "[flags]",
	short: "Say whether anybody changed the audit chain, and where",
	long: `It reads the state that the configuration names, also while noroshi serve has it
open, and walks the audit chain from its first row. The first row at which
something is wrong is named; the exit code is 1 then.

Somebody who may write to the database can write all of the chain anew. Keep its
head elsewhere (on paper, in another's mailbox), and give it to a later run:

  noroshi verify --config noroshi.yaml
  noroshi verify --config noroshi.yaml --head 1234:9f86d0...
  noroshi verify --json | jq .broken
`,
	run: verify,
}

func verify(ctx context.Context, c *call) int {
	var path string
	var asJSON bool
	var kept []state.Head
	rest, code, ok := c.parse(func(fs *flag.FlagSet) {
		fs.StringVar(&path, "config", "", "configuration `file` (default: noroshi's own values)")
		fs.BoolVar(&asJSON, "json", false, "one JSON object")
		fs.Func("head", "`SEQ:HASH` that an earlier run printed: it must still be in the chain; more than once for several", func(text string) error {
			h, err := state.ParseHead(text)
			kept = append(kept, h)
			return err
		})
	})
	switch {
	case !ok:
		return code
	case len(rest) > 0:
		return c.wrong("unexpected argument %q; use --config FILE", rest[0])
	}
	file, code := c.configuration(path)
	if file == nil {
		return code
	}
	db, err := state.Beside(file.State)
	if err != nil {
		return c.failed(err)
	}
	defer db.Close()
	r, err := db.Verify(ctx, kept...)
	if err != nil {
		return c.failed(err)
	}
	if asJSON {
		if err := writeLine(c.stdout, r); err != nil {
			return c.failed(err)
		}
	} else if r.Broken == nil {
		fmt.Fprintf(c.stdout, "the chain is whole: %s, %s, %s\nhead %v\n", plural(int(r.Rows), "row", "rows"), plural(int(r.Records), "record", "records"),
			plural(int(r.Incidents), "incident", "incidents"), r.Head)
	} else {
		fmt.Fprintf(c.stdout, "the chain is BROKEN at row %d: %s\n%s before it are whole\n", r.Broken.Seq, r.Broken.What, plural(int(r.Rows), "row", "rows"))
	}
	if r.Broken != nil {
		return exitFailed
	}
	return exitOK
}
