package scenario

import (
	"encoding/binary"
	"net/netip"
	"time"

	"noroshi/event"
	"noroshi/network"
)

// Protocol is how an exporter tells what it saw.
type Protocol uint8

// The protocols.
const (
	NetFlow5 Protocol = iota + 1
	NetFlow9
	IPFIX
	SFlow
	// Packets is no protocol: a tap that gives the packets themselves, as a
	// capture holds them.
	Packets
)

func (p Protocol) String() string {
	return [...]string{"", "NetFlow v5", "NetFlow v9", "IPFIX", "sFlow", "packets"}[p]
}

// packets reports whether the exporter tells of single packets.
func (p Protocol) packets() bool { return p >= SFlow }

// Exporter is a router, a switch or a tap of a scenario's network.
type Exporter struct {
	Name     string
	Addr     event.Addr // zero for a tap: captures name no exporter
	Protocol Protocol
	Domain   uint32
	Sampling uint32 // one packet in so many is looked at; 1 = all
	// Announced is the sampling rate the exporter tells, where that is wrong;
	// 0 means the true one.
	Announced uint32
	// Active and Inactive are the timeouts of the flow cache: a flow is
	// reported when it has lasted Active, and when it was silent for Inactive.
	Active, Inactive time.Duration
}

// Rate is the sampling rate the exporter announces.
func (e *Exporter) Rate() uint32 {
	if e.Announced != 0 {
		return e.Announced
	}
	return e.Sampling
}

// Provider is a network with what watches it.
type Provider struct {
	Networks  []network.Network
	Exporters []Exporter
	watched   []int // exporter of each network
}

// The networks that every provider here has, by index in a network.Table.
const (
	homes = 1 + iota
	mobile
	business
	servers
	resolvers
	cgn
	dark
)

// group is a range of own addresses.
type group struct {
	four uint32
	six  uint64 // upper half of the first address, each host a /64 of its own; 0 = none
}

var groups = [...]group{
	homes:     {10<<24 | 1<<20, 0x2001_0db8_1000_0000},
	mobile:    {10<<24 | 64<<16, 0x2001_0db8_4000_0000},
	business:  {10<<24 | 128<<16, 0},
	servers:   {10<<24 | 160<<16, 0x2001_0db8_a000_0000},
	resolvers: {10<<24 | 161<<16, 0x2001_0db8_a100_0000},
	cgn:       {100<<24 | 64<<16, 0},
	dark:      {10<<24 | 192<<16, 0},
}

// addr is the group's n-th address, of IPv6 if asked and there are any.
func (g group) addr(n uint32, six bool) event.Addr {
	if six && g.six != 0 {
		return sixOf(g.six+uint64(n), 0x42)
	}
	return four(g.four + n)
}

func four(n uint32) event.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return event.AddrOf4(b)
}

func sixOf(hi, lo uint64) (a event.Addr) {
	binary.BigEndian.PutUint64(a[:8], hi)
	binary.BigEndian.PutUint64(a[8:], lo)
	return a
}

// newProvider returns the usual network: IPFIX from the homes' border, NetFlow
// v9 from the mobile core, sFlow from the data centre, and NetFlow v5 from the
// edge of the business customers, with a cache that holds flows for half an
// hour. rate is the sampling of all but the last, which samples nothing.
func newProvider(rate uint32) *Provider {
	prefixes := func(list ...string) (ps []netip.Prefix) {
		for _, s := range list {
			ps = append(ps, netip.MustParsePrefix(s))
		}
		return ps
	}
	at := func(n byte) event.Addr { return event.AddrOf4([4]byte{192, 0, 2, n}) }
	return &Provider{
		Networks: []network.Network{
			{Name: "homes", Kind: network.Residential, Prefixes: prefixes("10.16.0.0/12", "2001:db8:1000::/36")},
			{Name: "mobile", Kind: network.Mobile, Prefixes: prefixes("10.64.0.0/12", "2001:db8:4000::/36")},
			{Name: "offices", Kind: network.Business, Prefixes: prefixes("10.128.0.0/16")},
			{Name: "servers", Kind: network.Server, Prefixes: prefixes("10.160.0.0/20", "2001:db8:a000::/48")},
			{Name: "resolvers", Kind: network.Resolver, Prefixes: prefixes("10.161.0.0/24", "2001:db8:a100::/48")},
			{Name: "cgn", Kind: network.Shared, Prefixes: prefixes("100.64.0.0/22")},
			{Name: "unused", Kind: network.Dark, Prefixes: prefixes("10.192.0.0/16")},
		},
		Exporters: []Exporter{
			{Name: "border", Addr: at(1), Protocol: IPFIX, Domain: 1, Sampling: rate, Active: time.Minute, Inactive: 5 * time.Second},
			{Name: "mobile-core", Addr: at(2), Protocol: NetFlow9, Domain: 7, Sampling: rate, Active: time.Minute, Inactive: 5 * time.Second},
			{Name: "data-centre", Addr: at(3), Protocol: SFlow, Sampling: rate},
			{Name: "business-edge", Addr: at(4), Protocol: NetFlow5, Domain: 0x0102, Sampling: 1, Active: 30 * time.Minute, Inactive: 15 * time.Second},
		},
		watched: []int{homes: 0, mobile: 1, business: 3, servers: 2, resolvers: 2, cgn: 1, dark: 0},
	}
}

// tapped returns the usual network with the exporter of the homes replaced by a
// tap that sees whole packets.
func tapped(rate uint32) *Provider {
	p := newProvider(rate)
	p.Exporters[0] = Exporter{Name: "tap", Protocol: Packets, Sampling: 1}
	return p
}

// switched returns the usual network with the homes' border telling by sFlow.
func switched(rate uint32) *Provider {
	p := newProvider(rate)
	p.Exporters[0] = Exporter{Name: "border", Addr: event.AddrOf4([4]byte{192, 0, 2, 1}), Protocol: SFlow, Sampling: rate}
	return p
}

// Addresses outside. They are data in records and are never sent to.
const (
	contentNet = 198<<24 | 18<<16          // servers of the world: 198.18.0.0/16 (RFC 2544)
	peopleNet  = 198<<24 | 19<<16          // other people's hosts: 198.19.0.0/16
	surveyNet  = 203<<24 | 0<<16 | 113<<8  // those who scan and say so: 203.0.113.0/24 (RFC 5737)
	criminals  = 198<<24 | 51<<16 | 100<<8 // servers of botnets: 198.51.100.0/24
	outsideSix = uint64(0x3fff_0000) << 32 // 3fff::/20 (RFC 9637)
)
