// Package engine is ClickHouse inside noroshi: the library libchdb in a child
// process of the same program, which answers a part of ClickHouse's HTTP interface
// on a unix socket.
//
// [Engine] keeps the child running; [Child] is the child itself; [Client] speaks
// to it. A crash, a leak or an out-of-memory kill of the library costs a restart
// of the child and nothing else. docs/engine.md has the interface, the limits and
// the walls around it.
package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"noroshi/store/engine/chdb"
)

// Config is what an operator decides.
type Config struct {
	// Library is the path of libchdb.so; "" looks in the usual places, see [Find].
	Library string
	// Data is the folder of everything the engine keeps; the program names it, not
	// the operator. One noroshi uses it at a time.
	Data string `yaml:"-"`
	// Memory is the limit of the engine in octets, at least 256Mi. It stays below
	// it by refusing or spilling to disk; the limit isn't a reservation. One
	// statement gets at most half of it.
	Memory int64
	// Threads is how many cores one statement may use; 0 is all.
	Threads int
	// Writers and Readers are how many statements of each sort run at a time, at
	// least 1. They don't take one another's places.
	Writers, Readers int
}

// Default returns the configuration for one machine of two cores and more:
// 1 GiB, which loading and the questions of the console stay within. Data is
// still to be named.
func Default() Config {
	return Config{Memory: 1 << 30, Writers: 2, Readers: 4}
}

// Check calls wrong with each mistake in what the operator decides: its key, and
// why.
func (c *Config) Check(wrong func(key string, err error)) {
	say := func(is bool, key, format string, got any) {
		if is {
			wrong(key, fmt.Errorf(format, got))
		}
	}
	say(c.Memory < 256<<20, "memory", "%d octets are too few; write 256Mi or more", c.Memory)
	say(c.Threads < 0 || c.Threads > 1024, "threads", "%d; write 0 for all cores, or 1 to 1024", c.Threads)
	say(c.Writers < 1 || c.Writers > 64, "writers", "%d; write 1 to 64", c.Writers)
	say(c.Readers < 1 || c.Readers > 64, "readers", "%d; write 1 to 64", c.Readers)
}

// mistakes returns what Check finds, as one error.
func (c *Config) mistakes() (err error) {
	c.Check(func(key string, why error) { err = errors.Join(err, fmt.Errorf("engine: %s: %w", key, why)) })
	return err
}

func (c Config) threads() int {
	if c.Threads > 0 {
		return c.Threads
	}
	return runtime.NumCPU()
}

// ErrNoLibrary says that there is no libchdb.so. Everything but the history works
// without it.
var ErrNoLibrary = errors.New("engine: there is no libchdb.so: run `make engine`, or see docs/engine.md for how to place it by hand")

// Find returns the absolute path of the library: path if it is given, else
// libchdb.so beside this program, in /usr/local/lib/noroshi or in
// /usr/lib/noroshi. If there is none, the error is [ErrNoLibrary]. Whether it is
// the right library is seen when it is loaded.
func Find(path string) (library string, err error) {
	if !chdb.Linked {
		return "", fmt.Errorf("%w (this is the static program, which can't load one; the one for glibc can)", ErrNoLibrary)
	}
	places := []string{path}
	if path == "" {
		places = []string{"/usr/local/lib/noroshi/libchdb.so", "/usr/lib/noroshi/libchdb.so"}
		if self, err := os.Executable(); err == nil {
			places = append([]string{filepath.Join(filepath.Dir(self), "libchdb.so")}, places...)
		}
	}
	for _, p := range places {
		info, err := os.Stat(p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return "", fmt.Errorf("engine: %w", err)
		case !info.Mode().IsRegular():
			return "", fmt.Errorf("engine: %s is no file; name libchdb.so itself", p)
		}
		return filepath.Abs(p)
	}
	if path != "" {
		return "", fmt.Errorf("%w (%s is not there)", ErrNoLibrary, path)
	}
	return "", ErrNoLibrary
}
