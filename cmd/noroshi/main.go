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
	"os"
	"os/signal"
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
	demoCommand,
	scoreCommand,
	versionCommand,
}

// call is one invocation of a command.
type call struct {
	*command
	args   []string
	stdin  io.Reader
	stdout *os.File
	stderr *os.File
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	// The first signal asks for an orderly end; a second one ends at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	defer stop()
	if len(args) == 0 {
		help(os.Stderr)
		return exitUsage
	}
	name := args[0]
	switch name {
	case "help", "-h", "-help", "--help":
		if len(args) > 1 {
			return run([]string{args[1], "-h"})
		}
		help(os.Stdout)
		return exitOK
	case "-v", "-version", "--version":
		name = "version"
	}
	for i := range commands {
		if commands[i].name == name {
			return commands[i].run(ctx, &call{&commands[i], args[1:], os.Stdin, os.Stdout, os.Stderr})
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
			return nil, c.wrong("%v", err), false
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
	flags := false
	fs.VisitAll(func(*flag.Flag) { flags = true })
	if flags {
		fmt.Fprint(w, "\n")
		fs.SetOutput(w)
		fs.PrintDefaults()
	}
	if c.long != "" {
		fmt.Fprintf(w, "\n%s", c.long)
	}
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
