package history

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"noroshi/event"
)

// EntityType is what an Entity names.
type EntityType string

// The types of entities.
const (
	Address    EntityType = "address"    // an address or a prefix
	Subscriber EntityType = "subscriber" // User-Name or contract
	Host       EntityType = "host"       // the name of a machine
	Name       EntityType = "name"       // a DNS name, or a zone with all below it
	User       EntityType = "user"       // an account
)

// Entity is what a timeline is about.
type Entity struct {
	Type  EntityType
	Value string // an address, a prefix, or the name as the events have it
}

// holder is a column that holds an entity of a type. Of an address, port is the
// column with its port, by which those who share it are told apart; "" = the
// event has none.
type holder struct {
	kind   Kind
	typ    EntityType
	column string
	port   string
}

// holders states which columns name what.
var holders = []holder{
	{Flows, Address, "src", "src_port"},
	{Flows, Address, "dst", "dst_port"},
	{DNS, Address, "client", "client_port"},
	{DNS, Address, "server", "server_port"},
	{DNS, Address, "answer", ""},
	{DNS, Name, "name", ""},
	{DNS, Name, "zone", ""},
	{DNS, Name, "answer", ""},
	{DNS, Host, "name", ""},
	{Sessions, Address, "src", "src_port"},
	{Sessions, Address, "dst", "dst_port"},
	{Sessions, Subscriber, "subscriber", ""},
	{Sessions, User, "user", ""},
	{Sessions, User, "subscriber", ""},
	{Sessions, Host, "host", ""},
	{Sessions, Name, "host", ""},
	{Logs, Address, "addr", ""},
	{Logs, Address, "peer", ""},
	{Logs, Subscriber, "user", ""},
	{Logs, User, "user", ""},
	{Logs, Host, "host", ""},
	{Logs, Name, "host", ""},
}

// Timeline asks for the events of an entity, of all kinds, by time.
type Timeline struct {
	Range  Range
	Entity Entity
	Kinds  []Kind // none = all
	// Resolve, for a subscriber or a host, adds the events of the addresses it
	// had while it had them, as sessions tell: see Leases.
	Resolve bool
	// Newest begins with the latest event.
	Newest bool
	Limit  int // of events; 0 = 1,000
	After  *Cursor
}

// Page is a number of events of several kinds, by Seen.
type Page struct {
	Range  Range
	Events event.Batch // the page's own; its texts live as long as it does
	Order  []Ref
	// Next, if not nil, is where the next page begins.
	Next    *Cursor
	Leases  []Lease // that were followed
	Covered map[Kind]Covered
}

// Ref is one event of a Page: the index-th of its kind in Events.
type Ref struct {
	Kind  Kind
	Index int
}

// Seen returns when the event of ref was seen.
func (p *Page) Seen(ref Ref) event.Time { return seenOf(&p.Events, ref.Kind, ref.Index) }

// Cursor is a place in a timeline: after so many events of each kind with this
// Seen. Its text form is for links.
type Cursor struct {
	At   event.Time
	Skip [4]int // by kind
}

// String returns the text form.
func (c *Cursor) String() string {
	return fmt.Sprintf("%d.%d.%d.%d.%d", int64(c.At), c.Skip[0], c.Skip[1], c.Skip[2], c.Skip[3])
}

// ParseCursor reads what Cursor.String wrote.
func ParseCursor(s string) (*Cursor, error) {
	part := strings.Split(s, ".")
	c := &Cursor{}
	if len(part) != 1+len(c.Skip) {
		return nil, fmt.Errorf("history: %q is no place in a timeline", s)
	}
	for i, p := range part {
		n, err := strconv.ParseInt(p, 10, 64)
		if err != nil || n < 0 || i > 0 && n > 1<<20 {
			return nil, fmt.Errorf("history: %q is no place in a timeline", s)
		}
		if i == 0 {
			c.At = event.Time(n)
		} else {
			c.Skip[i-1] = int(n)
		}
	}
	return c, nil
}

// MaxPage is the greatest Timeline.Limit.
const MaxPage = 50_000

// Timeline answers t.
func (q *Questions) Timeline(ctx context.Context, t Timeline) (*Page, error) {
	if err := t.Range.check(); err != nil {
		return nil, err
	}
	find, err := t.Entity.finder()
	if err != nil {
		return nil, err
	}
	var leases []Lease
	if t.Resolve {
		if leases, err = q.Leases(ctx, t.Entity, t.Range); err != nil {
			return nil, err
		}
	}
	p, err := q.page(ctx, t, func(s *statement, k Kind) string {
		any := find(s, k)
		for i := range leases {
			any = append(any, leases[i].conditions(s, k)...)
		}
		return strings.Join(any, " OR ")
	})
	if p != nil {
		p.Leases = leases
	}
	return p, err
}

// finder returns a function that lists the conditions by which events of a kind
// are the entity's.
func (e Entity) finder() (func(*statement, Kind) []string, error) {
	var prefix netip.Prefix
	switch e.Type {
	case Address:
		var err error
		if prefix, err = parsePrefix(e.Value); err != nil {
			return nil, fmt.Errorf("history: %w", err)
		}
	case Subscriber, Host, Name, User:
		if e.Value == "" {
			return nil, fmt.Errorf("history: the %s's name is missing", e.Type)
		}
	default:
		return nil, fmt.Errorf("history: there is no entity %q; want address, subscriber, host, name or user", e.Type)
	}
	value := e.Value
	if e.Type == Name {
		value = strings.TrimSuffix(strings.ToLower(value), ".")
	}
	return func(s *statement, k Kind) (any []string) {
		for _, h := range holders {
			switch {
			case h.kind != k || h.typ != e.Type:
			case tables[k].column(h.column).op == opAddr:
				any = append(any, s.within(h.column, prefix))
			case e.Type != Address:
				any = append(any, h.column+" = "+s.param("String", value))
			case prefix.IsSingleIP():
				any = append(any, h.column+" = "+s.param("String", prefix.Addr().String()))
			}
		}
		return any
	}, nil
}

// page asks for the events that match, of each of t's kinds, and puts them in
// order. match returns the condition for a kind; "" = it has none such.
func (q *Questions) page(ctx context.Context, t Timeline, match func(*statement, Kind) string) (*Page, error) {
	if t.Limit == 0 {
		t.Limit = 1000
	}
	if t.Limit < 1 || t.Limit > MaxPage {
		return nil, fmt.Errorf("history: a page of %d events; want 1 to %d", t.Limit, MaxPage)
	}
	kinds := t.Kinds
	if len(kinds) == 0 {
		kinds = Kinds
	}
	// One more than asked for tells whether there is another page. The kinds are
	// asked side by side.
	parts := make([]*event.Batch, len(tables))
	covered := make([]Covered, len(tables))
	errs := make([]error, len(tables))
	asking, stop := context.WithCancel(ctx)
	defer stop()
	var all sync.WaitGroup
	for _, k := range kinds {
		if int(k) >= len(tables) {
			return nil, fmt.Errorf("history: there is no %v", k)
		}
		all.Go(func() {
			if parts[k], errs[k] = q.some(asking, t, k, match); errs[k] == nil {
				covered[k], _, errs[k] = q.Coverage(asking, k, t.Range, 0)
			}
			if errs[k] != nil {
				stop()
			}
		})
	}
	all.Wait()
	for _, stopped := range []bool{false, true} { // the cause, and not what was stopped for it
		for _, err := range errs {
			if err != nil && (stopped || ctx.Err() != nil || !strings.Contains(err.Error(), context.Canceled.Error())) {
				return nil, err
			}
		}
	}
	p := &Page{Range: t.Range, Covered: map[Kind]Covered{}}
	for _, k := range kinds {
		p.Covered[k] = covered[k]
		p.Events.Append(parts[k])
		for i := range Count(parts[k], k) {
			p.Order = append(p.Order, Ref{k, i})
		}
	}
	slices.SortStableFunc(p.Order, func(a, b Ref) int {
		n := cmp.Compare(p.Seen(a), p.Seen(b))
		if t.Newest {
			n = -n
		}
		return cmp.Or(n, cmp.Compare(a.Kind, b.Kind))
	})
	if len(p.Order) > t.Limit {
		p.Order = p.Order[:t.Limit]
		p.Next = &Cursor{At: p.Seen(p.Order[t.Limit-1])}
		if t.After != nil && t.After.At == p.Next.At {
			*p.Next = *t.After
		}
		for _, ref := range p.Order {
			if p.Seen(ref) == p.Next.At {
				p.Next.Skip[ref.Kind]++
			}
		}
	}
	return p, nil
}

// some returns the next events of one kind.
func (q *Questions) some(ctx context.Context, t Timeline, k Kind, match func(*statement, Kind) string) (*event.Batch, error) {
	batch := &event.Batch{}
	var s statement
	r, skip := t.Range, 0
	if c := t.After; c != nil {
		skip = c.Skip[k]
		if t.Newest {
			r.To = min(r.To, c.At+1000) // times are whole microseconds
		} else {
			r.From = max(r.From, c.At)
		}
		if r.From >= r.To {
			return batch, nil
		}
	}
	s.seen(r)
	any := match(&s, k)
	if any == "" {
		return batch, nil
	}
	s.where = append(s.where, "("+any+")")
	var list []string
	for _, c := range tables[k].columns {
		list = append(list, c.name)
	}
	direction := ""
	if t.Newest {
		direction = " DESC"
	}
	sql := fmt.Sprintf("SELECT %s FROM %s%s ORDER BY seen%s, %s LIMIT %d, %d",
		strings.Join(list, ", "), q.Layout.all(k.String()), s.conditions(), direction, tables[k].ties, skip, t.Limit+1)
	in, err := q.ask(ctx, &s, sql)
	if err != nil {
		return nil, err
	}
	defer in.close()
	return batch, in.events(k, batch)
}

// Lease is an address, or some ports of one, that a subscriber or a host had for
// a time, as sessions tell.
type Lease struct {
	Prefix    netip.Prefix `json:"prefix"`
	FirstPort uint16       `json:"first_port"` // with LastPort 0: all
	LastPort  uint16       `json:"last_port"`
	// First and Last are the earliest and the latest news of it. Of a session
	// that goes on nothing is claimed after its latest news, for the address may
	// be another's by then.
	First event.Time `json:"first"`
	Last  event.Time `json:"last"`
	Open  bool       `json:"open"` // no end was reported
}

// MaxLeases is how many leases of one entity are followed, the latest first.
const MaxLeases = 500

// Leases returns the addresses of a subscriber or a host over r, by time. Only
// access sessions are asked (service radius, or with ports or a prefix): in a
// honeypot's sessions the name is the one that was tried.
func (q *Questions) Leases(ctx context.Context, e Entity, r Range) ([]Lease, error) {
	if e.Type != Subscriber && e.Type != Host {
		return nil, fmt.Errorf("history: only a subscriber or a host has addresses, not a %s", e.Type)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	var s statement
	// News of a session may come after the range, and its beginning before.
	s.where = append(s.where, "last >= "+s.time(r.From), "first < "+s.time(r.To), string(e.Type)+" = "+s.param("String", e.Value),
		"(service IN ('radius', 'dhcp') OR prefix > 0 OR end_port > 0)")
	in, err := q.ask(ctx, &s, fmt.Sprintf("SELECT src, prefix, first_port, end_port, min(first) AS began, max(last) AS ended, countIf(status IN (%d, %d)) = 0 AS open FROM %s%s GROUP BY reporter, id, src, prefix, first_port, end_port ORDER BY ended DESC, src, first_port LIMIT %d",
		event.SessionWhole, event.SessionStop, q.Layout.all("sessions"), s.conditions(), MaxLeases))
	if err != nil {
		return nil, err
	}
	defer in.close()
	var list []Lease
	for in.next() {
		addr, bits := in.addr().Std(), int(in.u8())
		l := Lease{FirstPort: in.u16(), LastPort: in.u16(), First: in.time(), Last: in.time(), Open: in.bool()}
		if !addr.IsValid() {
			continue
		}
		if bits == 0 || bits > addr.BitLen() {
			bits = addr.BitLen()
		}
		l.Prefix = netip.PrefixFrom(addr, bits).Masked()
		list = append(list, l)
	}
	slices.Reverse(list)
	return list, in.err
}

// conditions lists those under which an event of kind k is the lease-holder's.
// An event that shows no port says nothing about one of many behind an address.
func (l *Lease) conditions(s *statement, k Kind) (any []string) {
	ports := l.FirstPort != 0 || l.LastPort != 0
	for _, h := range holders {
		if h.kind != k || h.typ != Address || tables[k].column(h.column).op != opAddr || ports && h.port == "" {
			continue
		}
		c := s.within(h.column, l.Prefix)
		if ports {
			c += fmt.Sprintf(" AND %s BETWEEN %d AND %d", h.port, l.FirstPort, l.LastPort)
		}
		// By the time of the event, which an active time-out may tell minutes
		// later. The third condition follows from the second; the index knows it.
		first, last := "time", "time"
		if k == Flows || k == Sessions {
			first, last = "first", "last"
		}
		any = append(any, fmt.Sprintf("(%s AND %s <= %s AND %s >= %s AND seen >= %s)", c, first, s.time(l.Last), last, s.time(l.First), s.time(l.First)))
	}
	return any
}

// MarshalJSON writes the events in order, each with its kind and the names of
// its columns.
func (p *Page) MarshalJSON() ([]byte, error) {
	events := make([]map[string]any, 0, len(p.Order))
	for _, ref := range p.Order {
		m := map[string]any{"kind": ref.Kind.String()}
		for _, f := range p.Fields(ref) {
			m[f.Name] = f.Value
			if f.Name == "payload" {
				m[f.Name] = fmt.Sprintf("%x", f.Value)
			}
		}
		events = append(events, m)
	}
	var next string
	if p.Next != nil {
		next = p.Next.String()
	}
	covered := map[string]Covered{}
	for k, c := range p.Covered {
		covered[k.String()] = c
	}
	return json.Marshal(struct {
		Range   Range              `json:"range"`
		Events  []map[string]any   `json:"events"`
		Next    string             `json:"next,omitempty"`
		Leases  []Lease            `json:"leases,omitempty"`
		Covered map[string]Covered `json:"coverage"`
	}{p.Range, events, next, p.Leases, covered})
}
