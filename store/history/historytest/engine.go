package historytest

import (
	"context"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"

	"noroshi/event"
	"noroshi/store/engine/enginetest"
	"noroshi/store/history"
)

// Open returns a client and an empty database of its own: on the server that
// NOROSHI_CLUSTER_URL names, with the cluster NOROSHI_CLUSTER, else on an
// embedded engine. Without either the test is skipped.
func Open(t *testing.T) (*history.Client, history.Layout) {
	t.Helper()
	l := history.Layout{Database: "noroshi_test_" + strings.ToLower(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, t.Name())), Cluster: os.Getenv("NOROSHI_CLUSTER")}
	c := &history.Client{HTTP: http.DefaultClient, URL: os.Getenv("NOROSHI_CLUSTER_URL"),
		User: os.Getenv("NOROSHI_CLUSTER_USER"), Password: password(t)}
	if c.URL == "" {
		c = Engine(t)
	}
	drop := func() {
		sql := "DROP DATABASE IF EXISTS `" + l.Database + "`"
		if l.Cluster != "" {
			sql += " ON CLUSTER `" + l.Cluster + "` SYNC"
		}
		if err := c.Exec(context.Background(), sql); err != nil {
			t.Errorf("dropping the test's database: %v", err)
		}
	}
	drop() // what a broken run left
	t.Cleanup(drop)
	if err := c.Prepare(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	return c, l
}

// Engine starts an embedded engine that lives as long as the test. The package's
// TestMain calls enginetest.Main.
func Engine(t *testing.T) *history.Client {
	t.Helper()
	db := enginetest.Start(t, enginetest.Config(t))
	return &history.Client{URL: "http://engine", HTTP: db.HTTP}
}

// password reads the file that NOROSHI_CLUSTER_PASSWORD_FILE names.
func password(t *testing.T) string {
	path := os.Getenv("NOROSHI_CLUSTER_PASSWORD_FILE")
	if path == "" {
		return ""
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// Addr returns the address in s.
func Addr(s string) event.Addr { return event.AddrOf(netip.MustParseAddr(s)) }
