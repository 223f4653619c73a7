package scenario

import (
	"maps"
	"slices"
	"time"

	"noroshi/event"
	"noroshi/finding"
)

// Truth is what really happened in a play: all that a detector could rightly
// say. Whatever else it says is false.
type Truth struct {
	Bots   map[event.Addr]*Bot
	Roles  map[event.Addr]*Role
	Floods []*Flood
	Fleets []*Fleet
	// Announced are the attacks that a control server ordered in clear text,
	// where packets showed it.
	Announced []*Announcement
	// BotWithin is how soon after its first datagram a bot should be found, of the
	// one found soonest.
	BotWithin time.Duration
	// WrongSampling: an exporter told a wrong rate, which is to be noticed.
	WrongSampling bool
	Records       uint64 // how many records were told
}

// Trace is what could be known of somebody's packets.
type Trace struct {
	Sent, Seen uint64     // packets sent, and those that exporters looked at
	First      event.Time // when the first was sent
	FirstSeen  event.Time // when the first record of one was told; 0 = never
}

// Bot is an infected own host; one whose address changes is several.
type Bot struct {
	Addr    event.Addr
	Family  string // key of intel; "" = any name is right
	Never   string // a family that is wrong though it looks like it; "" = none
	Cluster string // variant or fleet: bots of one cluster belong in one incident
	Trace          // of its probes
}

// Role is a server of a botnet.
type Role struct {
	Addr   event.Addr
	Role   string // "receiver", "loader", "c2"
	Family string
	Trace
}

// Flood is one attack by volume.
type Flood struct {
	Rule    string     // "flood.inbound", "flood.outbound", "flood.reflector"
	Target  event.Addr // the victim, or the prefix's first address
	Bits    int        // of the prefix in its own family; 32 or 128 for a host
	Vectors []string   // sorted
	Senders map[event.Addr]*Trace
	// Within is how soon after its first record was told it should be found.
	Within time.Duration
	Trace
}

// Fleet is many hosts with one behaviour that belong together.
type Fleet struct {
	Name string
	Size int // devices, which may have had several addresses
	Trace
}

// Announcement is an order to attack.
type Announcement struct {
	C2, Victim event.Addr
	Trace
}

func newTruth() *Truth {
	return &Truth{Bots: map[event.Addr]*Bot{}, Roles: map[event.Addr]*Role{}, BotWithin: time.Minute}
}

func (t *Truth) bot(a event.Addr, family, cluster string) *Bot {
	b := t.Bots[a]
	if b == nil {
		b = &Bot{Addr: a, Family: family, Cluster: cluster}
		t.Bots[a] = b
	}
	return b
}

func (t *Truth) role(a event.Addr, role, family string) *Role {
	r := t.Roles[a]
	if r == nil {
		r = &Role{Addr: a, Role: role, Family: family}
		t.Roles[a] = r
	}
	return r
}

// BotsInOrder returns the bots by address.
func (t *Truth) BotsInOrder() []*Bot {
	return slices.SortedFunc(maps.Values(t.Bots), func(a, b *Bot) int { return slices.Compare(a.Addr[:], b.Addr[:]) })
}

// Covers reports whether the flood's target contains, or is contained in, the
// subject's.
func (f *Flood) Covers(s finding.Subject) bool {
	if f.Target.Is4() != s.Addr.Is4() || s.Addr == (event.Addr{}) {
		return false
	}
	n := min(f.Bits, int(s.Bits))
	return f.Target.Masked(n) == s.Addr.Masked(n)
}

func (t *Trace) sent(at event.Time, n uint64) {
	t.Sent += n
	if t.First == 0 || at < t.First {
		t.First = at
	}
}

func (t *Trace) told(at event.Time, n uint64) {
	t.Seen += n
	if t.FirstSeen == 0 || at < t.FirstSeen {
		t.FirstSeen = at
	}
}
