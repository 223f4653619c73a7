package iotbot

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"
	"unsafe"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/intel"
	"noroshi/network"
)

// suspect is the books of a host that tries others, or, as an echo, of one that
// answers whoever did not ask.
type suspect struct {
	addr    event.Addr
	net     uint32
	network *network.Network
	isEcho  bool

	start, last event.Time    // of what is in the books, by Seen
	first, upto event.Time    // by First and Last: routers report late
	late        time.Duration // the longest that the router kept a record back

	before       int // distinct targets before the books were opened
	beforeStrong int // of these, on services of devices or servers
	earlier      int // the same, with targets of every kind: for ports of one host

	probes  int // attempts, or echoes
	packets int // of these, single packets whose header was seen
	marked  int // with Mirai's mark
	quotes  int // ICMP errors that quote the mark
	odd     int // whose TCP data offset can't be
	plain   int // SYNs of 40 octets, without options
	skipped int // into ranges that Mirai's scanner leaves out
	reached int // 100.127/16 and 169.254/16, which it scans by mistake

	targets  sketch             // addresses tried
	answered [watches][4]uint64 // addresses that answered, by kind of service, 256 places each
	octets   [4]uint64          // first octets of the targets (IPv4)
	ports    [8]tally           // destination ports, most tried first
	spread   [4]uint64          // destination ports, 256 places
	low      int                // attempts on ports below 1024 or watched
	fresh    [watches]int
	hosts    [2]event.Addr // the first two targets
	few      int           // attempts on these
	dark     int           // attempts on unused addresses of the provider

	devices [4]deviceBooks // by source port
	nth     int            // devices told apart beyond the first

	peers    [4]uint64 // by UDP from one port, 256 places
	peerPort uint16

	solicited, busy int // of an echo: SYNs it got, other flows it sent
	resets          int

	exploit *exploit

	evidence []string

	id         finding.ID // zero: not reported
	judged     verdict
	said       event.Time
	reportedAt event.Time
	reportedN  int // attempts when it was reported
	judgedN    int // and when it was judged, last
}

const suspectSize = int(unsafe.Sizeof(suspect{})) + 300

// tally is how often something was seen.
type tally struct {
	key uint16
	n   int
}

// deviceBooks is what was tried from one source port. A raw scanner keeps its
// port as long as it runs; two ports in use at one time are two devices.
type deviceBooks struct {
	port  uint16
	n     int
	since int // since the latest other port was first seen
	last  event.Time
	told  bool
	id    finding.ID
	first event.Time
}

func (s *suspect) reported() bool { return s.id != finding.ID{} }

// seen moves the times of the books.
func (s *suspect) seen(f *event.Flow) {
	s.last = max(s.last, f.Seen)
	s.late = max(s.late, f.Seen.Sub(f.Last))
	s.upto = max(s.upto, f.Last)
	if s.first == 0 || f.First < s.first {
		s.first = f.First
	}
}

// quiet is how long silence means that the host has stopped: 50 of its usual
// gaps, as far as those are known, and longer than its router waits before it
// tells.
func (s *suspect) quiet(c *Config) time.Duration {
	n := s.probes + s.quotes
	least := 5 * time.Second
	switch {
	case n < 2 || !s.reported():
		return min(tries, c.MaxQuiet)
	case n < 8:
		least = 10 * time.Minute
	}
	gap := s.last.Sub(s.start) / time.Duration(n-1)
	return max(min(max(50*gap, 2*s.late), c.MaxQuiet), least)
}

// probe enters an attempt to connect and reports whether its target was new.
func (s *suspect) probe(b *event.Batch, f *event.Flow) (fresh bool) {
	s.probes++
	s.seen(f)
	if f.Marks&event.OnePacket != 0 {
		s.packets++
	}
	marked := isMarked(f)
	if marked {
		s.marked++
	}
	if f.Marks&event.BadOffset != 0 {
		s.odd++
	}
	if isRaw(f) {
		s.plain++
		s.device(f)
	}
	kind := watched[f.DstPort].kind
	if fresh = s.targets.add(f.Dst.Hash(3)); fresh {
		s.fresh[kind]++
		if f.Dst.Is4() {
			o := f.Dst[12]
			s.octets[o>>6] |= 1 << (o & 63)
			switch n := f.Dst.Four(); {
			case telling[o]:
				s.skipped++
			case n>>16 == 100<<8|127, n>>16 == 169<<8|254:
				s.reached++
			}
		}
	}
	if kind != other || f.DstPort < 1024 {
		s.low++
	}
	switch {
	case s.few == 0 || f.Dst == s.hosts[0] || f.Dst == s.hosts[1]:
		if s.few == 0 {
			s.hosts[0] = f.Dst
		}
		s.few++
	case s.hosts[1] == event.Addr{}:
		s.hosts[1] = f.Dst
		s.few++
	}
	p := event.Mix(uint64(f.DstPort))
	s.spread[p>>6&3] |= 1 << (p & 63)
	s.count(f.DstPort)
	if s.probes&(s.probes-1) == 0 || s.marked == 1 && marked {
		s.note(b, f)
	}
	return fresh
}

// note keeps f as evidence, in place of an earlier one when there are enough.
func (s *suspect) note(b *event.Batch, f *event.Flow) {
	if len(s.evidence) == 4 {
		s.evidence = slices.Delete(s.evidence, 1, 2)
	}
	s.evidence = append(s.evidence, b.Line(f))
}

// count adds one to a port's tally; the last place is for newcomers.
func (s *suspect) count(port uint16) {
	for i := range s.ports {
		t := &s.ports[i]
		if t.n == 0 || t.key == port || i == len(s.ports)-1 && t.n <= s.probes/64 {
			if t.key != port {
				*t = tally{key: port}
			}
			t.n++
			for ; i > 0 && s.ports[i-1].n < s.ports[i].n; i-- {
				s.ports[i-1], s.ports[i] = s.ports[i], s.ports[i-1]
			}
			return
		}
	}
}

// tried reports whether the port is one of the few tried most.
func (s *suspect) tried(port uint16) bool {
	return slices.ContainsFunc(s.ports[:], func(t tally) bool { return t.n > 0 && t.key == port })
}

// device enters a raw attempt under its source port.
func (s *suspect) device(f *event.Flow) {
	var own *deviceBooks
	oldest := &s.devices[0]
	for i := range s.devices {
		v := &s.devices[i]
		if v.n > 0 && v.port == f.SrcPort {
			own = v
		}
		if !v.told && (oldest.told || v.last < oldest.last) {
			oldest = v
		}
	}
	if own == nil {
		if oldest.told {
			return
		}
		*oldest = deviceBooks{port: f.SrcPort, first: f.First}
		own = oldest
		for i := range s.devices {
			if v := &s.devices[i]; v != own {
				v.since = 0
			}
		}
	}
	own.n++
	own.since++
	own.last = f.Seen
}

// separate is how many attempts from a source port, and how many meanwhile from
// another, make two devices.
const separate, meanwhile = 16, 8

// beside returns the source ports of devices that were at work together: the
// first is the host's own, the others are further devices behind its address.
func (s *suspect) beside() []*deviceBooks {
	var list []*deviceBooks
	for i := range s.devices {
		if v := &s.devices[i]; v.n >= separate {
			list = append(list, v)
		}
	}
	slices.SortFunc(list, func(a, b *deviceBooks) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.port, b.port))
	})
	if len(list) < 2 {
		return nil
	}
	// All but the newest must have gone on after the newest began; a port that
	// was given up for another belongs to one device.
	list = slices.DeleteFunc(list, func(v *deviceBooks) bool { return v.since < meanwhile && !v.told })
	if len(list) < 2 {
		return nil
	}
	return list
}

// chatter enters a datagram sent by UDP: a peer of a network of peers, if many
// get one from the same port.
func (s *suspect) chatter(f *event.Flow) {
	if f.SrcPort < 1024 || watchedUDP(f.DstPort) || s.network.Kind == network.Shared {
		return
	}
	if s.peerPort != f.SrcPort {
		if count256(&s.peers) > 4 {
			return
		}
		s.peers, s.peerPort = [4]uint64{}, f.SrcPort
	}
	h := f.Dst.Hash(3)
	s.peers[h>>6&3] |= 1 << (h & 63)
}

// watchedUDP are ports of ordinary services, whose clients have many peers.
func watchedUDP(port uint16) bool {
	return port < 1024 || port == 3478 || port == 5353 || port == 1900
}

// minPeers is how many peers by UDP a host needs to be one of a network of peers.
const minPeers = 16

// echo enters an answer nobody asked for.
func (s *suspect) echo(b *event.Batch, f *event.Flow) {
	s.probes++
	s.seen(f)
	if f.TCPFlags&event.RST != 0 {
		s.resets++
	}
	s.targets.add(f.Dst.Hash(3))
	s.count(f.SrcPort)
	if s.probes&(s.probes-1) == 0 {
		s.note(b, f)
	}
}

// n returns how many distinct addresses the host tried.
func (s *suspect) n() int { return s.before + s.targets.count() }

// isRawScanner reports whether the attempts are SYNs as no ordinary stack sends
// them.
func (s *suspect) isRawScanner() bool { return 10*s.plain >= 9*s.probes }

// marks is how many attempts are known to bear Mirai's mark. Anybody can send an
// ICMP error that quotes one, so it counts beside raw SYNs that were seen.
func (s *suspect) marks() int {
	if s.plain == 0 {
		return s.marked
	}
	return s.marked + s.quotes
}

// silence returns how many addresses were tried on services of some kinds, and
// the share of them that did not answer. What a household does besides, with its
// browsers, must not hide a bot.
func (s *suspect) silence(kinds ...watch) (n int, share float64) {
	fresh, all, answered := 0, 0, 0
	for _, k := range s.fresh {
		all += k
	}
	for _, k := range kinds {
		fresh += s.fresh[k]
		answered += count256(&s.answered[k])
	}
	n = (fresh*s.targets.count() + all/2) / max(all, 1)
	return n, failed(n, answered)
}

// failed returns the share of n addresses that did not answer.
func failed(n, answered int) float64 {
	return float64(max(n-answered, 0)) / float64(max(n, 1))
}

// sketch counts distinct things by linear counting (Whang et al. 1990): exact
// enough to about 5,000.
type sketch [16]uint64

// add reports whether h was new.
func (k *sketch) add(h uint64) bool {
	w, bit := &k[h>>6&15], uint64(1)<<(h&63)
	fresh := *w&bit == 0
	*w |= bit
	return fresh
}

func (k *sketch) count() int {
	used := 0
	for _, w := range k {
		used += bits.OnesCount64(w)
	}
	return linear(used, 1024)
}

// count256 counts what was put in 256 places.
func count256(p *[4]uint64) int {
	used := 0
	for _, w := range p {
		used += bits.OnesCount64(w)
	}
	return linear(used, 256)
}

func linear(used, places int) int {
	free := max(places-used, 1)
	return int(math.Round(-float64(places) * math.Log(float64(free)/float64(places))))
}

// places returns how many of 256 places are in use, without correction.
func places(p *[4]uint64) (n int) {
	for _, w := range p {
		n += bits.OnesCount64(w)
	}
	return n
}

// telling are the first octets that only Mirai's scanner leaves out.
var telling = func() (t [256]bool) {
	for _, o := range intel.Mirai().Telling {
		t[o] = true
	}
	return t
}()

// exploit is one of package intel's, with its family.
type exploit struct {
	family *intel.Family
	intel.Exploit
}

var exploits = func() (list []exploit) {
	families := intel.Families()
	for i := range families {
		for _, x := range families[i].Exploits {
			list = append(list, exploit{&families[i], x})
		}
	}
	return list
}()

// exploitOf returns the exploit that a payload sent to a port is, or nil.
func exploitOf(payload string, port uint16) *exploit {
	for i := range exploits {
		if x := &exploits[i]; x.Port == port && strings.Contains(payload, x.Text) {
			return x
		}
	}
	return nil
}
