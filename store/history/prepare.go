package history

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Prepare makes the database what this version wants it to be: it creates what
// isn't there, adds columns that the event structs have gained, sets how long
// rows are kept, and renews views whose query has changed. It may be repeated,
// and touches no row. What it can't change (a column's type) is an error that
// says what to do.
func (c *Client) Prepare(ctx context.Context, l Layout) error {
	for _, s := range l.Statements() {
		if strings.HasPrefix(s, createView) {
			continue // renew makes it, once its table has the columns it wants
		}
		if err := c.exec(ctx, s, nil); err != nil {
			return fmt.Errorf("%w, in: %s", err, firstLine(s))
		}
	}
	for _, k := range Kinds {
		if err := c.columns(ctx, l, &tables[k]); err != nil {
			return err
		}
		if err := c.keep(ctx, l, tables[k].name, "seen", l.Keep.of(k)); err != nil {
			return err
		}
	}
	if err := c.keep(ctx, l, coverageTable, "minute", l.Keep.Rollups); err != nil {
		return err
	}
	for i := range rollups {
		if err := c.keep(ctx, l, rollups[i].name, "minute", l.Keep.Rollups); err != nil {
			return err
		}
	}
	return c.renew(ctx, l)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// columns adds the columns that a table lacks.
func (c *Client) columns(ctx context.Context, l Layout, t *table) error {
	names := []string{l.plain(t.name)}
	if l.Cluster != "" {
		names = append(names, t.name) // the Distributed table has columns of its own
	}
	for i, name := range names {
		found, err := c.text(ctx, "SELECT name, type FROM system.columns WHERE database = {db:String} AND table = {table:String}",
			Params{"db": l.Database, "table": name})
		if err != nil {
			return err
		}
		has := map[string]string{}
		for _, row := range found {
			has[row[0]] = row[1]
		}
		for _, col := range t.columns {
			switch typ := has[col.name]; {
			case typ == "":
				definition := col.definition()
				if i > 0 {
					definition = col.name + " " + col.typ
				}
				err := c.exec(ctx, fmt.Sprintf("ALTER TABLE %s%s ADD COLUMN IF NOT EXISTS %s", l.all(name), l.on(), definition), nil)
				if err != nil {
					return err
				}
			case typ != col.typ:
				return fmt.Errorf("history: column %s of %s.%s is %s, and this version wants %s; use another database, or ALTER TABLE it",
					col.name, l.Database, name, typ, col.typ)
			}
		}
	}
	return nil
}

// keep makes the table forget rows when the layout says so.
func (c *Client) keep(ctx context.Context, l Layout, table, column string, keep time.Duration) error {
	found, err := c.text(ctx, "SELECT create_table_query FROM system.tables WHERE database = {db:String} AND name = {table:String}",
		Params{"db": l.Database, "table": l.plain(table)})
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("history: there is no table %s.%s although it was just created", l.Database, l.plain(table))
	}
	has := strings.Contains(found[0][0], " TTL ")
	want := fmt.Sprintf("toIntervalSecond(%d)", int64(keep/time.Second))
	switch {
	case keep == 0 && has:
		return c.exec(ctx, fmt.Sprintf("ALTER TABLE %s%s REMOVE TTL", l.local(table), l.on()), nil)
	case keep != 0 && !strings.Contains(found[0][0], want):
		// Parts carry the end of their life with them, so those that are there are
		// told too; it changes no row.
		if err := c.exec(ctx, fmt.Sprintf("ALTER TABLE %s%s MODIFY SETTING ttl_only_drop_parts = 1", l.local(table), l.on()), nil); err != nil {
			return err
		}
		return c.exec(ctx, fmt.Sprintf("ALTER TABLE %s%s MODIFY %s", l.local(table), l.on(), strings.TrimSpace(ttl(column, keep))), nil)
	}
	return nil
}

// renew makes the views that aren't there, and anew those that another version
// made. Rows that another program inserts meanwhile would be missing in the
// rollup; noroshi's writer waits for Prepare.
func (c *Client) renew(ctx context.Context, l Layout) error {
	found, err := c.text(ctx, "SELECT name, comment FROM system.tables WHERE database = {db:String} AND engine = 'MaterializedView'", Params{"db": l.Database})
	if err != nil {
		return err
	}
	comments := map[string]string{}
	for _, row := range found {
		comments[row[0]] = row[1]
	}
	for name, create := range l.views() {
		if strings.HasSuffix(create, "COMMENT '"+comments[name]+"'") {
			continue
		}
		if err := errors.Join(c.exec(ctx, fmt.Sprintf("DROP VIEW IF EXISTS %s%s", l.all(name), l.on()), nil), c.exec(ctx, create, nil)); err != nil {
			return err
		}
	}
	return nil
}

// text runs a SELECT whose answer is small, as text.
func (c *Client) text(ctx context.Context, sql string, params Params) ([][]string, error) {
	resp, err := c.do(ctx, sql+" FORMAT JSONCompactStrings", params, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct{ Data [][]string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("history: an answer can't be read: %w", err)
	}
	return answer.Data, nil
}
