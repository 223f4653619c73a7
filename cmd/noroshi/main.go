// Command noroshi sees the attacks in and through a provider's network, names
// the subscriber or host behind each, and says what to do.
//
// Everything it does is a subcommand; this file holds their table and what they
// share: exit codes, signals and help.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// Exit codes, the same for every command.
const (
	exitOK      = 0
	exitFailed  = 1 // it could not do its work
	exitUsage   = 2 // wrong flags, arguments or configuration: nothing was done
	exitPartial = 3 // some input could not be read; the rest was, and is reported
)

// A command is one subcommand.
type command struct {
	name     string
	synopsis string // its arguments
	short    string // what it does, in a line
	long     string // more, with examples; after the flags
	run      func(ctx context.Context, c *call) int
}

var commands = []command{
	replayCommand,
	serveCommand,
	checkCommand,
	verifyCommand,
	backupCommand,
	restoreCommand,
	demoCommand,
	historyCommand,
	scoreCommand,
	engineCommand,
	versionCommand,
}

// call is one invocation of a command.
type call struct {
	*command
	args   []string
	stdin  io.Reader
	stdout *output
	stderr *os.File
}

// output is standard output. Its first error is kept, for those who print text
// don't look at it, and ends the command: nobody hears it any more.
type output struct {
	file   *os.File
	failed func()
	err    error
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	n, err := o.file.Write(p)
	if err != nil && o.err == nil {
		if path := new(os.PathError); errors.As(err, &path) {
			err = path.Err
		}
		o.err = err
		o.failed()
	}
	return n, err
}

// Fd returns the file descriptor.
func (o *output) Fd() uintptr { return o.file.Fd() }

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	// The first signal asks for an orderly end; a second one ends at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := &output{file: os.Stdout, failed: cancel}
	code := dispatch(ctx, args, out)
	if out.err != nil {
		fmt.Fprintf(os.Stderr, "noroshi: standard output: %v\n", out.err)
		return exitFailed
	}
	return code
}

func dispatch(ctx context.Context, args []string, out *output) int {
	if len(args) == 0 {
		help(os.Stderr)
		return exitUsage
	}
	name := args[0]
	switch name {
	case "help", "-h", "-help", "--help":
		if len(args) > 1 {
			return dispatch(ctx, []string{args[1], "-h"}, out)
		}
		help(out)
		return exitOK
	case "-v", "-version", "--version":
		name = "version"
	}
	for i := range commands {
		if commands[i].name == name {
			return commands[i].run(ctx, &call{&commands[i], args[1:], os.Stdin, out, os.Stderr})
		}
	}
	fmt.Fprintf(os.Stderr, "noroshi: there is no command %q; noroshi help lists them\n", name)
	return exitUsage
}

func help(w io.Writer) {
	fmt.Fprint(w, "noroshi sees the attacks in and through a provider's network.\n\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  noroshi %-8s %s\n", c.name, c.short)
	}
	fmt.Fprint(w, "\nnoroshi COMMAND -h says more.\n\nExit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 part of the input could not be read.\n")
}

// parse reads the flags that define declares, which may stand before, between
// and after the other arguments, and returns those. ok is false when the
// command is over: help was printed, or the usage was wrong.
func (c *call) parse(define func(*flag.FlagSet)) (rest []string, code int, ok bool) {
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	define(fs)
	for args := c.args; ; {
		if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
			c.usage(c.stdout, fs)
			return nil, exitOK, false
		} else if err != nil {
			return nil, c.wrong("%s", strings.Replace(err.Error(), "flag provided but not defined: ", "there is no flag ", 1)), false
		}
		args = fs.Args()
		switch {
		case len(args) == 0:
			return rest, exitOK, true
		case len(c.args) > len(args) && c.args[len(c.args)-len(args)-1] == "--":
			return append(rest, args...), exitOK, true
		}
		rest, args = append(rest, args[0]), args[1:]
		if len(args) == 0 {
			return rest, exitOK, true
		}
	}
}

func (c *call) usage(w io.Writer, fs *flag.FlagSet) {
	fmt.Fprintf(w, "noroshi %s %s\n\n%s.\n", c.name, c.synopsis, c.short)
	fmt.Fprint(w, "\n")
	fs.VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		if value == "number" {
			text += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(w, "  %-18s %s\n", strings.TrimSpace("--"+f.Name+" "+strings.ToUpper(value)), text)
	})
	if c.long != "" {
		fmt.Fprintf(w, "\n%s", c.long)
	}
}

// quiet keeps the log of a command that answers and ends to what is wrong.
func (c *call) quiet() {
	slog.SetDefault(slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
}

// wrong says that the command was called wrongly.
func (c *call) wrong(format string, args ...any) int {
	fmt.Fprintf(c.stderr, "noroshi %s: %s\nnoroshi %s -h shows how to call it.\n", c.name, fmt.Sprintf(format, args...), c.name)
	return exitUsage
}

// failed says why the command could not do its work.
func (c *call) failed(err error) int {
	fmt.Fprintf(c.stderr, "noroshi %s: %v\n", c.name, err)
	return exitFailed
}
