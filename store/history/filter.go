package history

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"noroshi/event"
)

// Op is how a condition compares.
type Op string

// The operators. A number, an address or a time compares by value, a text octet
// by octet.
const (
	Equal    Op = "="  // any of the values; of an address any of the prefixes
	Less     Op = "<"  // numbers and times
	AtMost   Op = "<=" //
	More     Op = ">"
	AtLeast  Op = ">="
	Contains Op = "~"  // texts: has any of the values somewhere
	Word     Op = "~~" // texts: has any of the values as a whole word (letters, digits, '_'); fast on log messages
	Bits     Op = "&"  // numbers: has all bits of any of the values
)

// operators lists them, the longer first.
var operators = []Op{AtMost, AtLeast, Word, Equal, Less, More, Contains, Bits}

// Condition is one condition on a column. Not turns it round.
type Condition struct {
	Column string
	Op     Op
	Not    bool
	// Values are in the form in which they are shown: numbers or their names
	// (udp, SYN, AAAA), addresses or prefixes, texts as they are, times in RFC
	// 3339. With Equal on numbers also a range: 1-1023.
	Values []string
}

// Filter is a number of conditions that must all hold. Nil holds always. It is
// checked against the columns of a kind when it is used.
type Filter []Condition

// Bounds of a filter.
const (
	MaxConditions = 64
	MaxValues     = 1000
)

// ParseFilter reads conditions separated by spaces:
//
//	dst=192.0.2.0/24 proto=udp dst_port!=53,123 bytes>=1000 name~example tcp_flags&SYN
//
// A condition is a column, one of = != < <= > >= ~ !~ ~~ !~~ & !&, and values
// separated by commas, any of which will do (with ! none may). A value with a
// space, a comma or a quote stands in double quotes, with Go's escapes:
// name="a b\x00".
func ParseFilter(s string) (Filter, error) {
	var f Filter
	for {
		s = strings.TrimLeft(s, " \t\r\n")
		if s == "" {
			return f, nil
		}
		if len(f) == MaxConditions {
			return nil, fmt.Errorf("history: filter: more than %d conditions", MaxConditions)
		}
		c, rest, err := parseCondition(s)
		if err != nil {
			return nil, fmt.Errorf("history: filter: %w", err)
		}
		f, s = append(f, c), rest
	}
}

func parseCondition(s string) (c Condition, rest string, err error) {
	n := strings.IndexFunc(s, func(r rune) bool {
		return !(r == '_' || r == '.' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9')
	})
	if n < 0 {
		n = len(s)
	}
	if n == 0 {
		word, _, _ := strings.Cut(s, " ")
		return c, "", fmt.Errorf("%q is no condition; want one like dst_port=53", word)
	}
	c.Column, s = s[:n], s[n:]
	rest, c.Not = strings.CutPrefix(s, "!")
	for _, op := range operators {
		if s, ok := strings.CutPrefix(rest, string(op)); ok {
			c.Op, rest = op, s
			break
		}
	}
	switch c.Op {
	case "":
		return c, "", fmt.Errorf("%s: want one of = != < <= > >= ~ !~ ~~ !~~ & !& after it", c.Column)
	case Less, AtMost, More, AtLeast:
		if c.Not {
			return c, "", fmt.Errorf("%s: there is no !%s", c.Column, c.Op)
		}
	}
	for {
		var v string
		if v, rest, err = parseValue(rest); err != nil {
			return c, "", fmt.Errorf("%s: %w", c.Column, err)
		}
		if c.Values = append(c.Values, v); len(c.Values) > MaxValues {
			return c, "", fmt.Errorf("%s: more than %d values", c.Column, MaxValues)
		}
		switch {
		case rest == "" || strings.ContainsRune(" \t\r\n", rune(rest[0])):
			return c, rest, nil
		case rest[0] != ',':
			return c, "", fmt.Errorf("%s: after a quoted value stands a comma or a space", c.Column)
		}
		rest = rest[1:]
	}
}

func parseValue(s string) (v, rest string, err error) {
	if strings.HasPrefix(s, `"`) {
		q, err := strconv.QuotedPrefix(s)
		if err != nil {
			return "", "", fmt.Errorf("a value that begins with a quote has no end, or a wrong escape")
		}
		v, err = strconv.Unquote(q)
		return v, s[len(q):], err
	}
	n := strings.IndexAny(s, " \t\r\n,\"")
	switch {
	case n < 0:
		n = len(s)
	case s[n] == '"':
		return "", "", fmt.Errorf("a quote inside a value: put the whole value in quotes")
	}
	if n == 0 {
		return "", "", fmt.Errorf(`the value is missing; "" is the empty text`)
	}
	return s[:n], s[n:], nil
}

// String is the inverse of ParseFilter.
func (f Filter) String() string {
	var b strings.Builder
	for i, c := range f {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(c.Column)
		if c.Not {
			b.WriteByte('!')
		}
		b.WriteString(string(c.Op))
		for j, v := range c.Values {
			if j > 0 {
				b.WriteByte(',')
			}
			if v == "" || strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r == ',' || r == '"' || r >= 0x7f }) {
				v = strconv.Quote(v)
			}
			// What begins like an operator would be read as one.
			if j == 0 && v != "" && strings.ContainsRune("=~", rune(v[0])) {
				v = strconv.Quote(v)
			}
			b.WriteString(v)
		}
	}
	return b.String()
}

// Check reports what is wrong with f for events of kind k.
func (f Filter) Check(k Kind) error {
	var s statement
	return f.where(&s, Layout{Database: "x"}, k)
}

// one returns the value that f demands of a column, if it is a single one.
func (f Filter) one(column string) bool {
	return slices.ContainsFunc(f, func(c Condition) bool {
		return c.Column == column && c.Op == Equal && !c.Not && len(c.Values) == 1 && !strings.ContainsAny(c.Values[0], "-/")
	})
}

// where adds f's conditions to s.
func (f Filter) where(s *statement, l Layout, k Kind) error {
	if len(f) > MaxConditions {
		return fmt.Errorf("history: filter: more than %d conditions", MaxConditions)
	}
	for _, c := range f {
		key, err := l.key(k, c.Column)
		if err != nil {
			return err
		}
		sql, err := c.sql(s, key)
		if err != nil {
			return fmt.Errorf("history: filter: %s: %w", c.Column, err)
		}
		if c.Not {
			sql = "NOT (" + sql + ")"
		}
		s.where = append(s.where, "("+sql+")")
	}
	return nil
}

func (c *Condition) sql(s *statement, k key) (string, error) {
	if len(c.Values) == 0 || len(c.Values) > MaxValues {
		return "", fmt.Errorf("%d values; want 1 to %d", len(c.Values), MaxValues)
	}
	// An operator becomes part of the statement, so it must be one of ours.
	if !slices.Contains(operators, c.Op) {
		return "", fmt.Errorf("there is no operator %q", string(c.Op))
	}
	var any []string
	for _, v := range c.Values {
		sql, err := c.one(s, k, v)
		if err != nil {
			return "", err
		}
		any = append(any, sql)
	}
	return strings.Join(any, " OR "), nil
}

func (c *Condition) one(s *statement, k key, v string) (string, error) {
	switch k.op {
	case opAddr:
		if c.Op != Equal {
			return "", fmt.Errorf("an address has only = and !=, not %s", c.Op)
		}
		p, err := parsePrefix(v)
		if err != nil {
			return "", err
		}
		return s.within(k.expr, p), nil
	case opText:
		switch c.Op {
		case Equal:
			return k.expr + " = " + s.param("String", v), nil
		case Contains:
			return "position(" + k.expr + ", " + s.param("String", v) + ") > 0", nil
		case Word:
			if v == "" || strings.ContainsFunc(v, func(r rune) bool {
				return r < 0x80 && r != '_' && !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
			}) {
				return "", fmt.Errorf("%q is no single word; use ~", v)
			}
			// The underscore parts tokens, and so do only ASCII characters.
			var all []string
			for _, w := range strings.FieldsFunc(v, func(r rune) bool { return r == '_' }) {
				all = append(all, "hasToken("+k.expr+", "+s.param("String", w)+")")
			}
			all = append(all, "position("+k.expr+", "+s.param("String", v)+") > 0")
			return strings.Join(all, " AND "), nil
		}
		return "", fmt.Errorf("a text has =, ~ and ~~, not %s", c.Op)
	case opTime:
		t, err := time.Parse(time.RFC3339Nano, v)
		if err != nil {
			return "", fmt.Errorf("%q is no time; want one like 2026-11-24T09:00:00Z", v)
		}
		if c.Op == Contains || c.Op == Word || c.Op == Bits {
			return "", fmt.Errorf("a time has =, <, <=, > and >=, not %s", c.Op)
		}
		return k.expr + " " + string(c.Op) + " " + s.time(event.TimeOf(t)), nil
	}
	n, err := parseNumber(k.column, v)
	switch {
	case c.Op == Contains || c.Op == Word:
		return "", fmt.Errorf("a number has =, <, <=, >, >= and &, not %s", c.Op)
	case c.Op == Equal && err != nil:
		if from, to, ok := strings.Cut(v, "-"); ok {
			a, erra := parseNumber(k.column, from)
			b, errb := parseNumber(k.column, to)
			if erra == nil && errb == nil && a <= b {
				return k.expr + " BETWEEN " + s.number(a) + " AND " + s.number(b), nil
			}
		}
		return "", err
	case err != nil:
		return "", err
	case c.Op == Bits:
		if n == 0 {
			return "", fmt.Errorf("& wants at least one bit")
		}
		return "bitAnd(" + k.expr + ", " + s.number(n) + ") = " + s.number(n), nil
	}
	return k.expr + " " + string(c.Op) + " " + s.number(n), nil
}

// parsePrefix reads an address or a prefix. An IPv4 one stays one.
func parsePrefix(v string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(v); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(v)
	if err != nil || p.Addr().Is4In6() {
		return p, fmt.Errorf("%q is no address or prefix; want one like 192.0.2.0/24 or 2001:db8::1", v)
	}
	return p.Masked(), nil
}
