package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"

	"noroshi/store/state"
)

var backupCommand = command{
	name: "backup", synopsis: "[flags] FILE",
	short: "Write the state into a file, also while noroshi serve runs",
	long: `The file holds incidents, decisions and the audit chain as they are at one
moment, whichever database they are in; noroshi restore reads it. It appears
whole or not at all, and only its owner can read it.

  noroshi backup --config noroshi.yaml /var/backups/noroshi-$(date +%F).gz
`,
	run: backup,
}

var restoreCommand = command{
	name: "restore", synopsis: "[flags] FILE",
	short: "Fill an empty state with a backup",
	long: `The state is the one that the configuration names: a file that isn't there yet, or
an empty database of PostgreSQL. noroshi serve must not have it open. A backup
that was altered or cut short, or whose audit chain is broken, is refused and
changes nothing. So one moves from SQLite to PostgreSQL:

  noroshi backup --config old.yaml state.gz
  noroshi restore --config new.yaml state.gz
`,
	run: restore,
}

// oneFile reads the flags and the one argument of backup and restore.
func (c *call) oneFile(force string) (stateName, path string, forced bool, code int, ok bool) {
	var conf string
	rest, code, ok := c.parse(func(fs *flag.FlagSet) {
		fs.StringVar(&conf, "config", "", "configuration `file` (default: noroshi's own values)")
		fs.BoolVar(&forced, "force", false, force)
	})
	switch {
	case !ok:
		return "", "", false, code, false
	case len(rest) == 0:
		return "", "", false, c.wrong("name the file"), false
	case len(rest) > 1:
		return "", "", false, c.wrong("unexpected argument %q; one file is wanted", rest[1]), false
	}
	f, code := c.configuration(conf)
	if f == nil {
		return "", "", false, code, false
	}
	return f.State, rest[0], forced, exitOK, true
}

func backup(ctx context.Context, c *call) int {
	name, path, force, code, ok := c.oneFile("replace the file if it is there")
	if !ok {
		return code
	}
	db, err := state.Beside(name)
	if err != nil {
		return c.failed(err)
	}
	defer db.Close()
	var s state.Summary
	err = writeWhole(path, force, func(w io.Writer) (err error) {
		s, err = db.Backup(ctx, w)
		return err
	})
	var broken *state.Break
	switch {
	case errors.As(err, &broken):
		return c.failed(fmt.Errorf("%w; copy the database by its own means as evidence, and restore an older backup", err))
	case err != nil:
		return c.failed(fmt.Errorf("%s: %w", path, err))
	}
	fmt.Fprintf(c.stdout, "%s: %s\nhead %v\n", path, plural(int(s.Rows), "row", "rows"), s.Head)
	// The backup is there and whole; on a full disk it is all that still works.
	if err := db.Append(ctx, person(), "state.backed_up", "state", map[string]any{"head": s.Head, "rows": s.Rows}); err != nil {
		fmt.Fprintf(c.stderr, "noroshi backup: the backup is whole; that it was made could not be entered in the audit chain: %v\n", err)
	}
	return exitOK
}

// person is who runs the command, as the system knows it.
func person() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return fmt.Sprint("uid ", os.Getuid())
}

// writeWhole makes a file for its owner only, which appears when write has
// written all of it, and not at all otherwise.
func writeWhole(path string, force bool, write func(io.Writer) error) error {
	if _, err := os.Lstat(path); err == nil && !force {
		return errors.New("the file is there already; name another, or use --force to replace it")
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".noroshi-*.part") // of mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing is there any more if all went well
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if force {
		err = os.Rename(f.Name(), path)
	} else {
		err = os.Link(f.Name(), path) // fails if somebody made it meanwhile
	}
	if err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder makes a new name in a folder survive a power cut.
func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func restore(ctx context.Context, c *call) int {
	name, path, force, code, ok := c.oneFile("replace what the state holds")
	if !ok {
		return code
	}
	f, err := os.Open(path)
	if err != nil {
		return c.failed(err)
	}
	defer f.Close()
	db, err := state.Open(name)
	if err != nil {
		return c.failed(err)
	}
	defer db.Close()
	s, err := db.Restore(ctx, f, force)
	if err != nil {
		return c.failed(fmt.Errorf("%s: %w", path, err))
	}
	r, err := db.Verify(ctx, s.Head)
	switch {
	case err != nil:
		return c.failed(err)
	case r.Broken != nil:
		return c.failed(r.Broken)
	}
	fmt.Fprintf(c.stdout, "%s of %v restored: %s; the chain is whole\nhead %v\n", path, s.At, plural(int(s.Rows), "row", "rows"), r.Head)
	return exitOK
}
