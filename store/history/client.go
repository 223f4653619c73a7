package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Client speaks to one ClickHouse, or to the embedded engine, by HTTP. It is
// safe for concurrent use.
type Client struct {
	// HTTP carries the requests: for the embedded engine the client of its socket.
	HTTP *http.Client
	// URL is "http://host:8123/" or "https://…"; for the embedded engine its
	// host doesn't matter.
	URL string
	// User and Password, if set, go in the headers ClickHouse has for them.
	User, Password string
}

// Error is an error that the server gave.
type Error struct {
	Code int // ClickHouse's code; 0 if it gave none
	Text string
}

func (e *Error) Error() string { return "history: " + e.Text }

// Codes of ClickHouse on which somebody here acts.
const (
	codeBadArguments    = 36
	codeUnknownTable    = 60
	codeUnknownDatabase = 81
	codeTimeout         = 159
	codeMemory          = 241
	codeManyParts       = 252
	codeTooManyRows     = 396
)

// Params are the values of a statement's {name:Type} parameters, as text.
type Params map[string]string

// escaper prepares a value for a parameter: ClickHouse reads it as a field of
// the TabSeparated format.
var escaper = strings.NewReplacer("\\", "\\\\", "\n", "\\n", "\t", "\\t", "\r", "\\r", "\x00", "\\0")

// do sends one request and returns its answer, still to be read, or an error.
func (c *Client) do(ctx context.Context, query string, params Params, body io.Reader) (*http.Response, error) {
	v := url.Values{}
	if body == nil && strings.HasPrefix(query, "SELECT") {
		// A server of ClickHouse ends a question whose client has gone if it can
		// write nothing (readonly 2 lets settings pass), and tells an error that
		// comes late as an error and not as the end of the answer.
		v = url.Values{"readonly": {"2"}, "cancel_http_readonly_queries_on_client_close": {"1"}, "wait_end_of_query": {"1"}}
	}
	for name, value := range params {
		v.Set("param_"+name, escaper.Replace(value))
	}
	if body == nil {
		body = strings.NewReader(query)
	} else {
		v.Set("query", query)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(c.URL, "/")+"/?"+v.Encode(), body)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	if c.User != "" {
		req.Header.Set("X-ClickHouse-User", c.User)
		req.Header.Set("X-ClickHouse-Key", c.Password)
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return nil, fmt.Errorf("history: %w", bare(err))
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		e := &Error{Text: strings.TrimSpace(string(text))}
		e.Code, _ = strconv.Atoi(resp.Header.Get("X-ClickHouse-Exception-Code"))
		if e.Text == "" {
			e.Text = resp.Status
		}
		return nil, e
	}
	return resp, nil
}

// bare takes the URL, which holds the whole statement, out of an error.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// exec runs a statement that has no answer.
func (c *Client) exec(ctx context.Context, sql string, params Params) error {
	resp, err := c.do(ctx, sql, params, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return nil
}

// maxDays is how many days the rows of a block may be of.
const maxDays = 1000

// Insert writes a block. When it returns nil the block is stored, once, however
// often it was sent; after an error it may be, and is sent again.
//
// The columns are those that the block names, so that one from an older program
// goes in as well. A column that the table lacks is an error: by default the
// server would leave it out and say nothing.
func (c *Client) Insert(ctx context.Context, l Layout, b *Block) error {
	return c.insert(ctx, fmt.Sprintf("INSERT INTO %s SETTINGS insert_deduplication_token = '%s', deduplicate_blocks_in_dependent_materialized_views = 1, async_insert = 0, max_partitions_per_insert_block = %d, input_format_skip_unknown_fields = 0 FORMAT Native",
		l.local(b.Table), b.ID, maxDays), b.Data)
}

// insert runs an INSERT of data.
func (c *Client) insert(ctx context.Context, sql string, data []byte) error {
	resp, err := c.do(ctx, sql, nil, bytes.NewReader(data))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	// An INSERT has no answer. What gives one isn't ClickHouse, or tells of an error
	// that came after the status.
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	if len(text) > 0 {
		return fmt.Errorf("history: an INSERT was answered with %.200q; is the url ClickHouse's?", text)
	}
	return nil
}

// Ping reports whether the server answers.
func (c *Client) Ping(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.URL, "/")+"/ping", nil)
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return fmt.Errorf("history: %w", bare(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("history: ping: %s", resp.Status)
	}
	return nil
}

// Exec runs one statement of Layout.Statements.
func (c *Client) Exec(ctx context.Context, statement string) error {
	return c.exec(ctx, statement, nil)
}
