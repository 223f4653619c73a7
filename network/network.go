// Package network knows which addresses are the provider's own and what stands
// behind them: homes, SIM cards, offices, servers, resolvers. Detectors need it
// to tell a victim from a passer-by and an infected subscriber from a stranger.
package network

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/gaissmai/bart"

	"noroshi/event"
)

// Kind is what stands behind the addresses of a network.
type Kind string

// The kinds. The role decides which behaviour is ordinary.
const (
	Residential Kind = "residential" // homes; one address is one contract
	Mobile      Kind = "mobile"      // SIM cards; addresses move from device to device
	Business    Kind = "business"    // offices and customers' servers
	Server      Kind = "server"      // the provider's own services
	Resolver    Kind = "resolver"    // DNS resolvers, NTP servers, mail hubs: talk to everybody
	Shared      Kind = "shared"      // CGN or proxy pools: one address is many subscribers
	Dark        Kind = "dark"        // unused addresses: whoever talks to them scans or answers a forged packet
)

// Network is one of the provider's own networks: a group of prefixes that is
// watched, named and limited as one thing. Its zero values mean the defaults.
type Network struct {
	Name     string         `yaml:"name"`
	Kind     Kind           `yaml:"kind"`
	Tenant   string         `yaml:"tenant"` // the customer to whom all of it belongs; "" for many
	Prefixes []netip.Prefix `yaml:"prefixes"`

	// Limits of what is ordinary towards or from one address and towards the
	// whole network; 0 means the detector's default.
	HostPPS  uint64 `yaml:"host_pps"`  // packets/s
	HostBPS  uint64 `yaml:"host_bps"`  // bits/s
	TotalPPS uint64 `yaml:"total_pps"` // packets/s
	TotalBPS uint64 `yaml:"total_bps"` // bits/s
}

// Table finds the network of an address by longest prefix. The nil Table knows
// no networks. It is read-only after New and safe for concurrent use.
type Table struct {
	networks []Network
	prefixes bart.Table[uint32]
	// four answers for each IPv4 /16 at once, where all its addresses are of one
	// network; elsewhere it says mixed. Most of the world is one or the other,
	// and this look-up costs a tenth of the prefix table's.
	four [1 << 16]uint32
}

const mixed = ^uint32(0)

// New returns a table of networks. It reports all mistakes at once, each with
// the network's name: missing names, doubled names or prefixes, unknown kinds.
func New(networks []Network) (*Table, error) {
	t := &Table{networks: append([]Network{{}}, networks...)}
	var errs []error
	names := map[string]bool{}
	for i := range networks {
		n := &networks[i]
		bad := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("network %q: "+format, append([]any{n.Name}, args...)...))
		}
		switch n.Kind {
		case "", Residential, Mobile, Business, Server, Resolver, Shared, Dark:
		default:
			bad("unknown kind %q; want residential, mobile, business, server, resolver, shared or dark", n.Kind)
		}
		if n.Name == "" || names[n.Name] {
			bad("each network needs a name of its own")
		}
		names[n.Name] = true
		if len(n.Prefixes) == 0 {
			bad("has no prefixes")
		}
		for _, p := range n.Prefixes {
			switch _, taken := t.prefixes.Get(p.Masked()); {
			case !p.IsValid():
				bad("has an invalid prefix")
			case p.Masked() != p:
				bad("%v has bits set behind its length; meant %v?", p, p.Masked())
			case taken:
				bad("%v stands twice", p)
			default:
				t.prefixes.Insert(p, uint32(i+1))
			}
		}
	}
	t.fillFour()
	return t, errors.Join(errs...)
}

func (t *Table) fillFour() {
	for i := range t.four {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(i >> 8), byte(i)}), 16)
		t.four[i], _ = t.prefixes.LookupPrefix(p)
	}
	for p := range t.prefixes.All() {
		if a := p.Addr(); a.Is4() && p.Bits() > 16 {
			b := a.As4()
			t.four[int(b[0])<<8|int(b[1])] = mixed
		}
	}
}

// Known reports whether the provider has said which networks are its own. If it
// has not, every address may be a victim or a subscriber.
func (t *Table) Known() bool { return t != nil && len(t.networks) > 1 }

// Len returns the number of networks plus one: indexes run from 1 to Len()-1.
func (t *Table) Len() int {
	if t == nil {
		return 1
	}
	return len(t.networks)
}

// At returns the network with index i, as in Flow.SrcNet. Index 0 is the zero
// Network: an address outside, or unknown.
func (t *Table) At(i uint32) *Network {
	if t == nil {
		return &Network{}
	}
	return &t.networks[i]
}

// Lookup returns the index of a's network, or 0.
func (t *Table) Lookup(a event.Addr) uint32 {
	if !t.Known() {
		return 0
	}
	return t.lookup(&a)
}

func (t *Table) lookup(a *event.Addr) uint32 {
	if a.Is4() {
		if i := t.four[int(a[12])<<8|int(a[13])]; i != mixed {
			return i
		}
	}
	i, _ := t.prefixes.Lookup(a.Std())
	return i
}

// Annotate sets SrcNet and DstNet of each flow in b.
func (t *Table) Annotate(b *event.Batch) {
	if !t.Known() {
		return
	}
	for i := range b.Flows {
		f := &b.Flows[i]
		f.SrcNet, f.DstNet = t.lookup(&f.Src), t.lookup(&f.Dst)
	}
}
