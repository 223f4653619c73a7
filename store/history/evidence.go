package history

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
)

// Evidence asks for the events behind an incident.
type Evidence struct {
	Incident *incident.Incident
	// Members are the hosts that take part, as the state has them. None are
	// the incident's Subjects.
	Members []event.Addr
	// Margin is added before First and after Last. 0 adds what a router's active
	// timeout may delay (EvidenceMargin).
	Margin time.Duration
	Limit  int // of events; 0 = 1,000
}

// EvidenceMargin is added around an incident: records tell of traffic up to some
// minutes later.
const EvidenceMargin = 5 * time.Minute

// EvidenceAnswer is the events of an incident with their sums.
type EvidenceAnswer struct {
	*Page
	// What says which events these are.
	What finding.Text
	// Total is of all events, also those beyond the limit. Hosts is how many
	// members it counts the events of (those with any).
	Total Sums
	Hosts uint64
	// Ports are the ports they are about, for incidents of scans.
	Ports []PortSums
}

// PortSums is one port that was tried.
type PortSums struct {
	Proto, Port Value // uint64
	Targets     uint64
	Sums
}

// setSize is how many addresses one query takes: their text stays below half of
// the megabyte that a request's head may have.
const setSize = 10_000

// Evidence returns the events behind an incident: of a scan or an infection the
// flows of its members to the ports they try, of a flood the flows to its
// target, or, of an outbound one, those of its senders to it; of anything else
// the events of all kinds about its subjects and their peers.
func (q *Questions) Evidence(ctx context.Context, e Evidence) (*EvidenceAnswer, error) {
	in := e.Incident
	if e.Margin == 0 {
		e.Margin = EvidenceMargin
	}
	r := Range{in.First.Add(-e.Margin), in.Last.Add(e.Margin)}
	r = r.whole(time.Minute)
	if err := r.check(); err != nil {
		return nil, err
	}
	members := slices.Clone(e.Members)
	var subjects, peers []netip.Prefix
	for _, s := range in.Subjects {
		if s.Addr != (event.Addr{}) {
			subjects = append(subjects, prefixAt(s.Addr, s.Bits))
			if len(e.Members) == 0 && s.IsHost() {
				members = append(members, s.Addr)
			}
		}
	}
	for _, s := range in.Peers {
		if s.Addr != (event.Addr{}) {
			peers = append(peers, prefixAt(s.Addr, s.Bits))
		}
	}
	slices.SortFunc(members, func(a, b event.Addr) int { return slices.Compare(a[:], b[:]) })
	members = slices.Compact(members)

	t := Timeline{Range: r, Limit: e.Limit, Kinds: []Kind{Flows}}
	target := subjects
	if in.Cause.Target != (event.Addr{}) {
		target = []netip.Prefix{prefixAt(in.Cause.Target, in.Cause.Bits)}
	}
	switch {
	case in.Kind == "iotbot.scan" || in.Kind == "scan.horizontal" || in.Kind == "scan.vertical" || in.Kind == "scan.survey":
		a := &EvidenceAnswer{What: finding.Text{En: "flows of the members to the ports that they try", Ja: "該当ホストが試しているポートへのフロー"}}
		var err error
		if a.Ports, err = q.tried(ctx, r, members); err != nil {
			return nil, err
		}
		return a, q.collect(ctx, a, t, members, func(s *statement, chunk []event.Addr) string {
			c := s.among("src", chunk)
			if in.Kind != "scan.vertical" && len(a.Ports) > 0 {
				var any []string
				for _, p := range a.Ports {
					any = append(any, fmt.Sprintf("proto = %d AND dst_port = %d", p.Proto, p.Port))
				}
				c += " AND (" + strings.Join(any, " OR ") + ")"
			}
			return c
		})
	case in.Kind == "flood.outbound":
		a := &EvidenceAnswer{What: finding.Text{En: "flows of the members to the target", Ja: "該当ホストから標的へのフロー"}}
		return a, q.collect(ctx, a, t, members, func(s *statement, chunk []event.Addr) string {
			return s.among("src", chunk) + " AND " + s.any("dst", target)
		})
	case in.Kind == "flood.reflector":
		a := &EvidenceAnswer{What: finding.Text{En: "flows of the reflectors", Ja: "リフレクターのフロー"}}
		return a, q.collect(ctx, a, t, nil, func(s *statement, _ []event.Addr) string { return s.any("src", subjects) })
	case strings.HasPrefix(in.Kind, "flood.") && len(target) > 0:
		a := &EvidenceAnswer{What: finding.Text{En: "flows to the target", Ja: "標的へのフロー"}}
		return a, q.collect(ctx, a, t, nil, func(s *statement, _ []event.Addr) string { return s.any("dst", target) })
	}
	a := &EvidenceAnswer{What: finding.Text{En: "events about the subjects and their peers", Ja: "対象とその相手に関するイベント"}}
	t.Kinds = nil
	about := slices.Concat(subjects, peers)
	if len(about) == 0 {
		return nil, fmt.Errorf("history: the incident %v names no address; its evidence can't be looked up", in.ID)
	}
	var err error
	a.Page, err = q.page(ctx, t, func(s *statement, k Kind) string {
		var any []string
		for _, h := range holders {
			if h.kind == k && h.typ == Address && tables[k].column(h.column).op == opAddr {
				any = append(any, s.any(h.column, about))
			}
		}
		return strings.Join(any, " OR ")
	})
	if err != nil {
		return nil, err
	}
	return a, q.total(ctx, a, r, func(s *statement) string {
		return s.any("src", about) + " OR " + s.any("dst", about)
	})
}

func prefixAt(a event.Addr, bits uint8) netip.Prefix {
	std := a.Std()
	return netip.PrefixFrom(std, min(int(bits), std.BitLen())).Masked()
}

// any returns the condition that an address is in one of list.
func (s *statement) any(expr string, list []netip.Prefix) string {
	var any []string
	for _, p := range list {
		any = append(any, s.within(expr, p))
	}
	if any == nil {
		return "0"
	}
	return "(" + strings.Join(any, " OR ") + ")"
}

// collect fills a with the flows that match, asking for the members setSize at
// a time. With nil members it asks once.
func (q *Questions) collect(ctx context.Context, a *EvidenceAnswer, t Timeline, members []event.Addr, match func(*statement, []event.Addr) string) error {
	if members != nil && len(members) == 0 {
		return fmt.Errorf("history: the incident has no members that are known by their address")
	}
	chunks := [][]event.Addr{nil}
	if members != nil {
		chunks = slices.Collect(slices.Chunk(members, setSize))
	}
	if t.Limit == 0 {
		t.Limit = 1000
	}
	for _, chunk := range chunks {
		p, err := q.page(ctx, t, func(s *statement, _ Kind) string { return match(s, chunk) })
		if err != nil {
			return err
		}
		if err := q.total(ctx, a, t.Range, func(s *statement) string { return match(s, chunk) }); err != nil {
			return err
		}
		if a.Page == nil {
			a.Page = p
			continue
		}
		had := len(a.Events.Flows)
		a.Events.Append(&p.Events)
		for _, ref := range p.Order {
			a.Order = append(a.Order, Ref{ref.Kind, had + ref.Index})
		}
		slices.SortStableFunc(a.Order, func(x, y Ref) int { return cmp.Compare(a.Seen(x), a.Seen(y)) })
		a.Order = a.Order[:min(len(a.Order), t.Limit)]
	}
	a.Next = nil // the sums say how much more there is
	return nil
}

// total adds the sums of the flows that match, and how many sources they have.
func (q *Questions) total(ctx context.Context, a *EvidenceAnswer, r Range, match func(*statement) string) error {
	s, err := q.source(Flows, r, nil, nil, true)
	if err != nil {
		return err
	}
	s.where = append(s.where, "("+match(&s.statement)+")")
	in, err := q.ask(ctx, &s.statement, "SELECT uniqExact(src), "+Flows.sums(false)+" FROM "+s.name+s.conditions())
	if err != nil {
		return err
	}
	defer in.close()
	for in.next() {
		a.Hosts += in.u64()
		a.Total.add(in.sums(Flows))
	}
	return in.err
}

// mostPorts bounds EvidenceAnswer.Ports.
const mostPorts = 16

// tried returns the ports on which members tried the most addresses, those with
// at least a tenth of the first one's.
func (q *Questions) tried(ctx context.Context, r Range, members []event.Addr) ([]PortSums, error) {
	ports := map[[2]Value]*PortSums{}
	for chunk := range slices.Chunk(members, setSize) {
		s, err := q.source(Flows, r, nil, nil, true)
		if err != nil {
			return nil, err
		}
		s.where = append(s.where, s.among("src", chunk), fmt.Sprintf("proto IN (%d, %d)", event.TCP, event.UDP))
		in, err := q.ask(ctx, &s.statement, fmt.Sprintf("SELECT proto, dst_port, uniqCombined64(17)(dst) AS n, %s FROM %s%s GROUP BY proto, dst_port ORDER BY n DESC, proto, dst_port LIMIT 1000",
			Flows.sums(false), s.name, s.conditions()))
		if err != nil {
			return nil, err
		}
		for in.next() {
			proto, port, n, sums := in.value(op8), in.value(op16), in.u64(), in.sums(Flows)
			p := ports[[2]Value{proto, port}]
			if p == nil {
				p = &PortSums{Proto: proto, Port: port}
				ports[[2]Value{proto, port}] = p
			}
			p.Targets += n // of several sets at most, for they may share some
			p.add(sums)
		}
		in.close()
		if in.err != nil {
			return nil, in.err
		}
	}
	var list []PortSums
	for _, p := range ports {
		list = append(list, *p)
	}
	slices.SortFunc(list, func(a, b PortSums) int {
		return cmp.Or(cmp.Compare(b.Targets, a.Targets), cmp.Compare(a.Proto.(uint64), b.Proto.(uint64)), cmp.Compare(a.Port.(uint64), b.Port.(uint64)))
	})
	for i, p := range list {
		if i == mostPorts || p.Targets*10 < list[0].Targets {
			return list[:i], nil
		}
	}
	return list, nil
}
