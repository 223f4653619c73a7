package main

import (
	"context"
	"log/slog"

	"noroshi/store/engine"
)

var engineCommand = command{
	name: "engine", synopsis: "--library FILE --data FOLDER --socket PATH",
	short: "Be the process that holds the history's engine; noroshi starts it by itself",
	long: `It loads ClickHouse's library, confines itself to its folders, and answers a part
of ClickHouse's HTTP interface on a unix socket of this user. It ends when its
standard input does. docs/engine.md says more.

  noroshi engine --library $PWD/bin/libchdb.so --data /var/lib/noroshi/engine --socket /var/lib/noroshi/engine/run/engine.sock
  curl --unix-socket /var/lib/noroshi/engine/run/engine.sock -d 'SELECT version()' http://engine/
`,
	run: func(ctx context.Context, c *call) int {
		var child engine.Child
		rest, code, ok := c.parse(child.Flags)
		switch {
		case !ok:
			return code
		case len(rest) > 0:
			return c.wrong("unexpected argument %q", rest[0])
		}
		for _, f := range []struct{ flag, value string }{{"library", child.Library}, {"data", child.Data}, {"socket", child.Socket}} {
			if f.value == "" {
				return c.wrong("name --%s", f.flag)
			}
		}
		if err := child.Run(ctx, c.stdin, slog.New(slog.NewTextHandler(c.stderr, nil))); err != nil {
			return c.failed(err)
		}
		return exitOK
	},
}
