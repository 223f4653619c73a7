package engine

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"noroshi/store/engine/chdb"
	"noroshi/store/engine/confine"
)

// Bypass runs statements as the child would if there were no gate and, unless
// with is set, no grants either, and returns what the engine answers to each. The
// first time it begins the process anew, as the child does.
func (c *Child) Bypass(grants bool, statements []string) ([]string, error) {
	if err := c.folders(); err != nil {
		return nil, err
	}
	if os.Getenv(confined) == "" {
		return nil, c.confine(slog.New(slog.DiscardHandler))
	}
	if _, err := chdb.Load(c.Library); err != nil {
		return nil, err
	}
	if err := confine.Calls(); err != nil {
		return nil, err
	}
	var conn *chdb.Conn
	if grants {
		h, err := c.open()
		if err != nil {
			return nil, err
		}
		defer h.close()
		conn = h.keep
	} else {
		var err error
		if conn, err = chdb.Open(filepath.Join(c.Data, "db")); err != nil {
			return nil, err
		}
		defer conn.Close()
	}
	var answers []string
	for _, s := range statements {
		out, _, err := conn.Query(s, "TabSeparated")
		if e := new(chdb.Error); errors.As(err, &e) {
			out = []byte(e.Text)
		}
		answers = append(answers, string(out))
	}
	return answers, nil
}

// Impatient makes e ask its child each tenth of a second, and kill it after three
// without an answer.
func (e *Engine) Impatient() { e.asked, e.silent = 100*time.Millisecond, 3*time.Second }
