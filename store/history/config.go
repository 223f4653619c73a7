package history

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Config is where events are remembered, and for how long.
type Config struct {
	// URL is a ClickHouse's HTTP interface, "https://clickhouse.example:8443".
	// Empty is the embedded engine; "off" keeps no history.
	URL string `yaml:"url"`
	// User and the file that holds its password, for URL.
	User         string
	PasswordFile string
	// Database is created if it isn't there.
	Database string
	// Cluster is the name by which the server at URL knows its cluster; empty is
	// one server.
	Cluster string
	// Folder holds the spool and the embedded engine's data.
	Folder string
	// Spool bounds what waits on disk while the store is away, in octets.
	Spool int64
	// Keep is how long events stay.
	Keep Keep
}

// Off is the URL of a configuration without history.
const Off = "off"

// Default returns the configuration of an empty file. How long things are kept
// is a choice between evidence and privacy: docs/history.md.
func Default() Config {
	const day = 24 * time.Hour
	return Config{
		Database: "noroshi", Folder: "noroshi.history", Spool: 8 << 30,
		Keep: Keep{Flows: 14 * day, DNS: 14 * day, Sessions: 90 * day, Logs: 90 * day, Rollups: 400 * day},
	}
}

// Check calls wrong with each mistake: its key, and why.
func (c *Config) Check(wrong func(key string, err error)) {
	if c.URL == Off {
		return
	}
	say := func(is bool, key, format string, args ...any) {
		if is {
			wrong(key, fmt.Errorf(format, args...))
		}
	}
	u, err := url.Parse(c.URL)
	bad := err != nil || c.URL != "" && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "")
	say(bad, "url", "that is no address; write https://host:8443, or leave it out for the embedded engine") // not repeated: it may hold a password
	say(err == nil && u.User != nil, "url", "a name or password doesn't belong in the address; use user and password_file")
	say(c.URL == "" && c.Cluster != "", "cluster", "the embedded engine is no member of a cluster; give the url of one")
	say(c.URL == "" && c.User != "", "user", "the embedded engine has no users")
	say(c.User == "" && c.PasswordFile != "", "password_file", "whose password? add user")
	say(c.Database == "", "database", "name a database, such as noroshi")
	say(c.Folder == "", "folder", "name a folder, such as noroshi.history")
	say(c.Spool < 64<<20, "spool", "%d octets hold less than a few blocks; write 64Mi or more", c.Spool)
	for _, k := range []struct {
		key  string
		keep time.Duration
	}{{"keep.flows", c.Keep.Flows}, {"keep.dns", c.Keep.DNS}, {"keep.sessions", c.Keep.Sessions}, {"keep.logs", c.Keep.Logs}, {"keep.rollups", c.Keep.Rollups}} {
		say(k.keep != 0 && (k.keep < 24*time.Hour || k.keep > 36500*24*time.Hour), k.key,
			"%v: events go by whole days; write 1d or more, or 0 to keep them for ever", k.keep)
	}
}

// Layout returns the layout of the tables.
func (c *Config) Layout() Layout {
	return Layout{Database: c.Database, Cluster: c.Cluster, Keep: c.Keep}
}

// Remote returns the client for URL, which is neither empty nor Off.
func (c *Config) Remote() (*Client, error) {
	client := &Client{URL: c.URL, User: c.User, HTTP: &http.Client{
		Transport: http.DefaultTransport.(*http.Transport).Clone(),
		// A redirect would take the password to another host, and make of a POST a GET
		// without rows: it is an error instead.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if c.PasswordFile != "" {
		text, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("history: password_file: %w", err)
		}
		client.Password = strings.TrimRight(string(text), "\r\n")
	}
	return client, nil
}

// Data is the folder of the embedded engine's data, as an absolute path.
func (c *Config) Data() (string, error) { return filepath.Abs(filepath.Join(c.Folder, "engine")) }

// SpoolFolder is where blocks wait.
func (c *Config) SpoolFolder() string { return filepath.Join(c.Folder, "spool") }
