package config

import (
	"encoding"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// A Mistake is one thing wrong in a configuration file.
type Mistake struct {
	File    string `json:"file"`
	Line    int    `json:"line"` // of the value, or of an unknown key; from 1
	Column  int    `json:"column"`
	Key     string `json:"key"` // "detect.flood.host_pps"; empty for the file as a whole
	Problem string `json:"problem"`
	Fix     string `json:"fix,omitempty"`
}

func (m *Mistake) Error() string {
	s := fmt.Sprintf("%s:%d:%d: ", m.File, m.Line, m.Column)
	if m.Key != "" {
		s += m.Key + ": "
	}
	s += m.Problem
	if m.Fix != "" {
		s += "; " + m.Fix
	}
	return s
}

// Mistakes are all that is wrong in a file, in its order.
type Mistakes []*Mistake

func (ms Mistakes) Error() string {
	lines := make([]string, len(ms))
	for i, m := range ms {
		lines[i] = m.Error()
	}
	return strings.Join(lines, "\n")
}

// decoder carries a YAML document into Go values and collects what does not fit.
type decoder struct {
	file     string
	mistakes Mistakes
	at       map[string]ast.Node // where each key's value stands
	// knobs are the groups of keys that no field of File holds: pointers to
	// structs by key.
	knobs map[string]map[string]any
}

func newDecoder(file string) *decoder {
	return &decoder{file: file, at: map[string]ast.Node{}, knobs: map[string]map[string]any{}}
}

// wrong notes a mistake at the node n of the file; nil is the file as a whole.
func (d *decoder) wrong(n ast.Node, key, fix, format string, args ...any) {
	at := startOf(n)
	d.mistakes = append(d.mistakes, &Mistake{File: d.file, Line: at.Line, Column: at.Column, Key: key, Problem: fmt.Sprintf(format, args...), Fix: fix})
}

// startOf returns where n begins. The parser's own answer for a group of keys
// is the colon behind the first of them.
func startOf(n ast.Node) token.Position {
	switch m := n.(type) {
	case *ast.MappingNode:
		if len(m.Values) > 0 {
			return startOf(m.Values[0])
		}
	case *ast.MappingValueNode:
		return startOf(m.Key)
	}
	if n != nil && n.GetToken() != nil && n.GetToken().Position != nil {
		return *n.GetToken().Position
	}
	return token.Position{Line: 1, Column: 1}
}

// parse returns the root of the document, nil when it is empty.
func (d *decoder) parse(text []byte) ast.Node {
	f, err := parser.ParseBytes(text, 0)
	if err != nil {
		m := &Mistake{File: d.file, Line: 1, Column: 1, Problem: "not YAML: " + firstLine(err.Error())}
		var at interface {
			GetToken() *token.Token
			GetMessage() string
		}
		if errors.As(err, &at) {
			m.Problem = "not YAML: " + firstLine(at.GetMessage())
			if t := at.GetToken(); t != nil && t.Position != nil {
				m.Line, m.Column = t.Position.Line, t.Position.Column
			}
		}
		d.mistakes = append(d.mistakes, m)
		return nil
	}
	if len(f.Docs) > 1 {
		d.wrong(f.Docs[1].Body, "", "keep one", "%d YAML documents in one file", len(f.Docs))
	}
	if len(f.Docs) == 0 {
		return nil
	}
	return f.Docs[0].Body
}

// into stores n in v, whose name in the file is key.
func (d *decoder) into(n ast.Node, key string, v reflect.Value) {
	d.at[key] = n
	switch n.(type) {
	case nil, *ast.NullNode:
		return // a key without a value: the default
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		d.wrong(n, key, "write the value itself", "anchors, aliases and tags of YAML aren't understood")
		return
	}
	if named := d.knobs[key]; named != nil {
		d.groups(n, key, named)
		return
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		d.scalar(n, key, wantOf(v.Type()), func(s string) error { return u.UnmarshalText([]byte(s)) })
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.fields(n, key, v)
	case reflect.Slice:
		d.elements(n, key, v)
	case reflect.String:
		d.scalar(n, key, "a text", func(s string) error { v.SetString(s); return nil })
	case reflect.Bool:
		d.scalar(n, key, "true or false", func(s string) (err error) {
			b, err := strconv.ParseBool(s)
			v.SetBool(b)
			return err
		})
	case reflect.Int64, reflect.Int, reflect.Int32, reflect.Int16, reflect.Int8:
		if v.Type() == reflect.TypeFor[time.Duration]() {
			d.scalar(n, key, "a duration with its unit, such as 500ms, 30s, 10m, 6h or 14d", func(s string) error {
				t, err := ParseDuration(s)
				v.SetInt(int64(t))
				return err
			})
			return
		}
		d.number(n, key, v)
	case reflect.Uint64, reflect.Uint, reflect.Uint32, reflect.Uint16, reflect.Uint8, reflect.Float64:
		d.number(n, key, v)
	default:
		panic("config: no way to write a " + v.Type().String())
	}
}

// ParseDuration is time.ParseDuration, with days: 14d.
func ParseDuration(s string) (time.Duration, error) {
	days, ok := strings.CutSuffix(s, "d")
	if !ok {
		return time.ParseDuration(s)
	}
	n, err := strconv.ParseUint(days, 10, 16)
	return time.Duration(n) * 24 * time.Hour, err
}

// wantOf describes what a text-like type wants.
func wantOf(t reflect.Type) string {
	switch t.String() {
	case "netip.Prefix":
		return "a prefix such as 192.0.2.0/24 or 2001:db8::/32"
	case "netip.AddrPort":
		return `an address and a port, such as 127.0.0.1:2055 or "[::1]:2055"`
	}
	return "a " + t.Name()
}

func (d *decoder) scalar(n ast.Node, key, want string, set func(string) error) {
	s, ok := n.(ast.ScalarNode)
	if !ok {
		if list, ok := pairs(n); ok && strings.Contains(want, ":") && len(list) == 1 && startOf(list[0].Key).Line == startOf(list[0].Value).Line {
			d.wrong(n, key, "in quotes it would be "+want, "without quotes its colon makes it a key and a value")
			return
		}
		d.wrong(n, key, "write "+want, "%s can't stand here", nodeWord(n))
		return
	}
	text := s.GetToken().Value
	if set(text) != nil {
		d.wrong(n, key, "write "+want, "%q isn't valid here", text)
	}
}

func nodeWord(n ast.Node) string {
	switch n.(type) {
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a group of keys"
	}
	return "this"
}

// number takes integers and fractions, with a unit prefix: 20k, 1.5M, 64Mi.
func (d *decoder) number(n ast.Node, key string, v reflect.Value) {
	want := "a number, such as 1500, 20k, 1.5M or 64Mi"
	d.scalar(n, key, want, func(s string) error {
		x, err := parseNumber(s)
		if err != nil {
			return err
		}
		whole := x == math.Trunc(x)
		switch {
		case v.CanFloat():
			v.SetFloat(x)
		case !whole:
			return errors.New("a fraction")
		case v.CanInt() && math.Abs(x) < 1<<62 && !v.OverflowInt(int64(x)):
			v.SetInt(int64(x))
		case v.CanUint() && x >= 0 && x < 1<<63 && !v.OverflowUint(uint64(x)):
			v.SetUint(uint64(x))
		default:
			return errors.New("out of range")
		}
		return nil
	})
}

var prefixes = []struct {
	suffix string
	factor float64
}{{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}}

func parseNumber(s string) (float64, error) {
	s = strings.ReplaceAll(s, "_", "")
	for _, p := range prefixes {
		if rest, ok := strings.CutSuffix(s, p.suffix); ok {
			x, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			return x * p.factor, err
		}
	}
	x, err := strconv.ParseFloat(s, 64)
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return 0, errors.New("not a number")
	}
	return x, err
}

func (d *decoder) elements(n ast.Node, key string, v reflect.Value) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.wrong(n, key, "write a list: each element on a line of its own after a dash, or in [brackets]", "a list is wanted")
		return
	}
	v.SetZero() // the file's list replaces the default
	for i, el := range seq.Values {
		e := reflect.New(v.Type().Elem()).Elem()
		d.into(el, fmt.Sprintf("%s[%d]", key, i), e)
		v.Set(reflect.Append(v, e))
	}
}

// pairs returns the keys and values of a mapping.
func pairs(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

func (d *decoder) fields(n ast.Node, key string, v reflect.Value) {
	list, ok := pairs(n)
	if !ok {
		d.wrong(n, key, "indent its keys below it", "a group of keys is wanted")
		return
	}
	names := fieldNames(v.Type())
	for _, p := range list {
		if i, full := d.lookUp(p, key, names); i >= 0 {
			d.into(p.Value, full, v.Field(i))
		}
	}
}

// groups stores the groups of keys in n in the structs of those names.
func (d *decoder) groups(n ast.Node, key string, named map[string]any) {
	list, ok := pairs(n)
	if !ok {
		d.wrong(n, key, "indent its keys below it", "a group of keys is wanted")
		return
	}
	names := slices.Sorted(maps.Keys(named))
	for _, p := range list {
		if i, full := d.lookUp(p, key, names); i >= 0 {
			d.into(p.Value, full, reflect.ValueOf(named[names[i]]).Elem())
		}
	}
}

// lookUp returns the index of p's key among names, -1 if it isn't there, and
// its name in the file.
func (d *decoder) lookUp(p *ast.MappingValueNode, group string, names []string) (int, string) {
	name := p.Key.GetToken().Value
	full := strings.TrimPrefix(group+"."+name, ".")
	i := slices.Index(names, name)
	if i < 0 || name == "" {
		d.wrong(p.Key, full, suggest(name, names), "there is no such key")
		return -1, full
	}
	return i, full
}

// fieldNames returns the key of each field, "" for one that has none.
func fieldNames(t reflect.Type) []string {
	names := make([]string, t.NumField())
	for i := range names {
		if f := t.Field(i); f.IsExported() && f.Tag.Get("yaml") != "-" {
			names[i] = keyOf(f)
		}
	}
	return names
}

// keyOf returns the key of a field: its yaml tag, else its name in snake case.
func keyOf(f reflect.StructField) string {
	if tag, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); tag != "" {
		return tag
	}
	var b strings.Builder
	upper := func(c byte) bool { return 'A' <= c && c <= 'Z' }
	for i := range len(f.Name) {
		c := f.Name[i]
		if upper(c) && i > 0 && (!upper(f.Name[i-1]) || i+1 < len(f.Name) && !upper(f.Name[i+1])) {
			b.WriteByte('_')
		}
		b.WriteByte(c | 0x20)
	}
	return b.String()
}

// suggest says which key was meant, or which there are.
func suggest(name string, names []string) string {
	best, least := "", len(name)/2+1
	var known []string
	for _, n := range names {
		if n == "" {
			continue
		}
		known = append(known, n)
		if dist := distance(strings.ToLower(name), n); dist < least {
			best, least = n, dist
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %s?", best)
	}
	return "the keys here are " + strings.Join(known, ", ")
}

// distance is the number of letters to add, drop, change or swap (optimal string
// alignment).
func distance(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}
