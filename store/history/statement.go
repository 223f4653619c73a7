package history

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"noroshi/event"
)

// Limits bound what one question may cost the store.
type Limits struct {
	Time   time.Duration // 0 = 30 s; at least 1 ms
	Memory uint64        // octets in the engine; 0 = what the server gives one statement
	Rows   int           // rows of an answer; 0 = 100,000
}

func (l Limits) or() Limits {
	if l.Time <= 0 {
		l.Time = 30 * time.Second
	}
	if l.Rows <= 0 {
		l.Rows = 100_000
	}
	return l
}

// statement gathers a SELECT. Its text consists of our own words and of the
// names of our own columns; every value is a parameter.
type statement struct {
	params Params
	where  []string
}

// param returns the parameter that stands for a value.
func (s *statement) param(typ, value string) string {
	if s.params == nil {
		s.params = Params{}
	}
	name := "p" + strconv.Itoa(len(s.params))
	s.params[name] = value
	return "{" + name + ":" + typ + "}"
}

func (s *statement) number(n uint64) string { return s.param("UInt64", strconv.FormatUint(n, 10)) }

func (s *statement) addr(a netip.Addr) string {
	return s.param("IPv6", netip.AddrFrom16(a.As16()).String())
}

func (s *statement) time(t event.Time) string {
	return "fromUnixTimestamp64Micro(" + s.param("Int64", strconv.FormatInt(int64(t)/1000, 10)) + ", 'UTC')"
}

func (s *statement) minute(t event.Time) string {
	return "toDateTime(" + s.param("UInt32", strconv.FormatInt(int64(t)/1e9, 10)) + ", 'UTC')"
}

// within returns the condition that an address is in p.
func (s *statement) within(expr string, p netip.Prefix) string {
	first, last := ends(p)
	if first == last {
		return expr + " = " + s.addr(first)
	}
	return expr + " BETWEEN " + s.addr(first) + " AND " + s.addr(last)
}

// ends returns the first and the last address of p.
func ends(p netip.Prefix) (first, last netip.Addr) {
	first = p.Masked().Addr()
	b := first.AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ = netip.AddrFromSlice(b)
	return first, last
}

// among returns the condition that an address is one of list. Four octets an
// address keep twenty thousand of them within what a URL may hold.
func (s *statement) among(expr string, list []event.Addr) string {
	var four, six strings.Builder
	for _, a := range list {
		if a.Is4() {
			fmt.Fprintf(&four, ",%d", a.Four())
		} else {
			fmt.Fprintf(&six, ",'%s'", netip.AddrFrom16(a))
		}
	}
	var any []string
	array := func(b *strings.Builder, typ, convert string) {
		if b.Len() > 0 {
			any = append(any, expr+" IN (SELECT "+strings.Replace(convert, "?", "arrayJoin("+s.param(typ, "["+b.String()[1:]+"]")+")", 1)+")")
		}
	}
	array(&four, "Array(UInt32)", "toIPv6(toIPv4(?))")
	array(&six, "Array(IPv6)", "?")
	if any == nil {
		return "0"
	}
	return "(" + strings.Join(any, " OR ") + ")"
}

// seen limits the statement to r.
func (s *statement) seen(r Range) {
	s.where = append(s.where, "seen >= "+s.time(r.From), "seen < "+s.time(r.To))
}

// conditions returns the WHERE clause.
func (s *statement) conditions() string {
	if len(s.where) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(s.where, " AND ")
}

// ask runs a SELECT within the limits.
func (q *Questions) ask(ctx context.Context, s *statement, sql string) (*rows, error) {
	l := q.Limits.or()
	sql += fmt.Sprintf(" SETTINGS max_execution_time = %.3f, timeout_overflow_mode = 'throw', max_result_rows = %d, result_overflow_mode = 'throw'",
		max(l.Time, time.Millisecond).Seconds(), l.Rows)
	if l.Memory > 0 {
		sql += fmt.Sprintf(", max_memory_usage = %d, max_bytes_before_external_group_by = %d, max_bytes_before_external_sort = %[2]d", l.Memory, l.Memory/2)
	}
	r, err := q.Client.query(ctx, sql, s.params)
	if err != nil {
		return nil, explain(err)
	}
	return r, nil
}

// explained is an error of the server in our words; the server's own repeat the
// whole statement.
type explained struct {
	text string
	err  error
}

func (e *explained) Error() string { return "history: " + e.text }
func (e *explained) Unwrap() error { return e.err }

// explain says what to do about an error that the server gave.
func explain(err error) error {
	e, ok := err.(*Error)
	if !ok {
		return err
	}
	switch e.Code {
	case codeTimeout:
		return &explained{"the question took longer than allowed; ask for a shorter range or a narrower filter", err}
	case codeMemory:
		return &explained{"the question needs more memory than allowed; ask for a shorter range or fewer keys", err}
	case codeTooManyRows:
		return &explained{"the answer has more rows than allowed; ask for a longer step, a shorter range or a narrower filter", err}
	case codeBadArguments:
		if strings.Contains(e.Text, "Dictionary") {
			return &explained{"no names of AS and countries are loaded; noroshi history names load FILE does it", err}
		}
	case codeUnknownTable, codeUnknownDatabase:
		return &explained{"there is nothing here yet: noroshi serve makes the tables when it first remembers", err}
	}
	return err
}
