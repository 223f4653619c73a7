package iotbot

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/intel"
	"noroshi/network"
)

// verdict is what the books say.
type verdict struct {
	rule, role string
	family     string // of iotbot.scan
	wave       string // of the family, or the services tried: what members of an incident share
	known      *intel.Family
	survey     string // of scan.survey
	severity   finding.Severity
	confidence float64
	likelihood mix
	n          int     // addresses tried on the services in question
	share      float64 // of them did not answer
	hearsay    bool    // nothing but what ICMP errors quote
}

// judge reports s when there is something new to say of it.
func (d *Detector) judge(s *suspect, report func(*finding.Finding)) {
	total := s.probes + s.quotes
	if s.reported() {
		if d.devices(s, report); 2*total < 3*s.judgedN && s.last.Sub(s.reportedAt) < d.cfg.Update {
			return
		}
	} else if s.marks() == 0 && s.exploit == nil && total > 64 && total%8 != 0 {
		return // it changes slowly
	}
	v, ok := d.verdict(s)
	if !ok {
		return
	}
	if !s.reported() {
		s.id = finding.NewID("iotbot", s.addr, "", s.start)
		s.said = s.last
	}
	// Said again when it has become something else, or much more of the same.
	was := s.judged
	s.judged, s.judgedN = v, total
	if v.rule != was.rule || v.family != was.family || v.wave != was.wave || total >= 4*s.reportedN || s.last.Sub(s.reportedAt) >= d.cfg.Update {
		s.reportedAt, s.reportedN = s.last, total
		report(d.finding(s, false))
	}
}

// devices reports further devices behind an address that is reported.
func (d *Detector) devices(s *suspect, report func(*finding.Finding)) {
	if s.probes%separate != 0 || s.judged.rule != "iotbot.scan" {
		return
	}
	list := s.beside()
	for i, v := range list {
		if i == 0 || v.told {
			continue
		}
		v.told = true
		v.id = finding.NewID("iotbot", s.addr, strconv.Itoa(int(v.port)), s.start)
		s.nth++
		report(d.further(s, v, false))
	}
}

// end reports that a host has stopped.
func (d *Detector) end(s *suspect, report func(*finding.Finding)) {
	if !s.reported() {
		return
	}
	if v, ok := d.verdict(s); ok {
		s.judged = v
	}
	report(d.finding(s, true))
	for i := range s.devices {
		if v := &s.devices[i]; v.told {
			report(d.further(s, v, true))
		}
	}
}

// own reports whether s is the provider's, as far as is known.
func (d *Detector) own(s *suspect) bool { return !d.known || s.net != 0 }

// verdict judges the books by all evidence together.
func (d *Detector) verdict(s *suspect) (verdict, bool) {
	if s.isEcho {
		return d.backscatter(s)
	}
	v := verdict{rule: "iotbot.scan", role: "bot", likelihood: s.mix()}
	v.n = s.n()
	v.share = failed(v.n, count256(&s.answered[other]))
	if name, found := d.surveys.Lookup(s.addr.Std()); found && s.marked+s.quotes == 0 {
		v.rule, v.role, v.survey, v.confidence = "scan.survey", "scanner", name, 0.95
		_, v.share = s.silence(other, device, server, web)
		return v, v.n >= d.cfg.MinTargets
	}
	bot, scan := d.searching(s, &v)
	silent := float64(v.n) * v.share
	switch {
	case s.marks() > 0:
		v.confidence = 1 - 0.01*math.Pow(0.1, float64(min(s.marks(), 4)-1))
	case s.exploit != nil && silent >= 3:
		v.confidence = 0.95
	case bot || scan:
		// Each address that does not answer is evidence of 1.4 nats (Jung et al.
		// 2004: 80 % of an honest host's first attempts succeed, 20 % of a
		// scanner's), but they aren't independent: an outage silences many. So
		// they count a tenth.
		v.confidence = 0.97 * (1 - math.Exp(-0.14*silent)*(1-v.share/2))
		if !bot {
			v.rule, v.role = "scan.horizontal", "scanner"
		}
	case d.vertical(s):
		v.rule, v.role, v.confidence = "scan.vertical", "scanner", 0.9
	case s.quotes >= minQuotes:
		v.hearsay, v.confidence = true, 0.6
	default:
		return v, false
	}
	v.known, v.family, v.wave = s.family(&v)
	if v.rule == "iotbot.scan" && s.marks() == 0 && s.exploit == nil && !v.hearsay {
		switch identified := v.family == "mirai"; {
		case identified:
			v.confidence = max(v.confidence, 0.98)
		case !d.known || s.net == 0: // a stranger who scans may be anybody
			v.rule, v.role = "scan.horizontal", "scanner"
		}
	}
	if v.rule != "iotbot.scan" {
		v.known, v.family, v.wave = nil, "", s.services()
	}
	v.severity = d.severity(s, &v)
	return v, true
}

// minQuotes is how many ICMP errors must quote Mirai's mark where no raw SYN of
// the host was seen.
const minQuotes = 3

func (d *Detector) severity(s *suspect, v *verdict) finding.Severity {
	switch {
	case v.rule == "iotbot.scan" && !d.own(s):
		return finding.Low
	case v.rule == "iotbot.scan" && (v.hearsay || v.known != nil && !v.known.Floods):
		return finding.Medium
	case v.rule == "iotbot.scan":
		return finding.High
	case !d.own(s):
		return finding.Informational // the weather of the internet
	}
	return finding.Medium
}

// crowd is how many times as many targets it takes behind an address that many
// subscribers share: the failures of each add up.
const crowd = 8

// searching reports whether the books are those of a host that looks for
// others, as a bot does (bot) or as a scanner or a worm among PCs does (scan),
// and notes in v what it tried of the kind that decides.
func (d *Detector) searching(s *suspect, v *verdict) (bot, scan bool) {
	c, raw, shared := d.cfg, s.isRawScanner(), s.network.Kind == network.Shared
	devices, strong := s.fresh[device], s.fresh[device]+s.fresh[server]
	total := strong + s.fresh[other] + s.fresh[web] + s.before - s.beforeStrong
	kinds := []watch{device, server}
	if raw { // no ordinary stack asks for a website without a TCP option
		devices, strong, kinds = devices+s.fresh[web], strong+s.fresh[web], []watch{device, server, web}
	}
	minTargets, dark := c.MinTargets, max(c.MinTargets/2, 4)
	if shared && !raw {
		minTargets, dark = crowd*minTargets, crowd*dark
	}
	if n, share := s.silence(kinds...); strong > 0 {
		v.n, v.share = n+s.beforeStrong, share
		silent := int(float64(v.n)*share + 0.5)
		isBot, all := 2*devices >= strong, strong+s.beforeStrong
		switch {
		case share < c.FailShare:
		case s.dark >= dark, all >= minTargets && silent >= minTargets && 4*all >= total+s.beforeStrong:
			return isBot, true
		}
	}
	if s.marks() > 0 || shared {
		return false, false
	}
	// What is left is asked for by everybody, and must be tried all over the world.
	wide := places(&s.octets)
	before := s.before - s.beforeStrong
	if n, share := s.silence(web); n+before >= c.MinTargetsWeb {
		silent := int(float64(n+before)*share + 0.5)
		if silent >= c.MinTargetsWeb && share >= 0.9 && wide >= 60 && 2*(s.fresh[web]+before) >= total && 4*s.attempts(everybody) < s.probes {
			v.n, v.share = n+before, share
			return true, true
		}
	}
	if n, share := s.silence(other); n+before >= c.MinTargetsOther {
		silent := int(float64(n+before)*share + 0.5)
		if silent >= c.MinTargetsOther && share >= 0.9 && (wide >= 20 || !s.addr.Is4()) && 10*s.ports[0].n >= 8*s.probes {
			v.n, v.share = n+before, share
			return false, true
		}
	}
	return false, false
}

// everybody is the port that browsers and apps use: who fails at it on hundreds
// of addresses has a broken line, or its provider has.
const everybody = 443

// attempts returns how often a port was tried, if it is one of the few tried
// most.
func (s *suspect) attempts(port uint16) int {
	for _, t := range s.ports {
		if t.key == port {
			return t.n
		}
	}
	return 0
}

// vertical reports whether the host tried many ports of one or two others.
func (d *Detector) vertical(s *suspect) bool {
	return s.few == s.probes && linear(places(&s.spread), 256) >= 4 && s.portsTried() >= d.cfg.MinPorts && 2*s.low >= s.probes
}

// portsTried returns how many distinct ports the host tried.
func (s *suspect) portsTried() int { return linear(places(&s.spread), 256) + s.earlier }

// backscatter judges an echo: the victim of a flood with forged sources answers
// those it never heard of, and does little else.
func (d *Detector) backscatter(s *suspect) (verdict, bool) {
	v := verdict{rule: "scan.backscatter", role: "victim", confidence: 0.95}
	return v, s.n() >= d.cfg.MinEchoes && 10*s.solicited <= s.probes && 10*s.busy <= s.probes && 10*s.ports[0].n >= 8*s.probes
}

// mix is how well the probes fit Mirai's habits, as natural logarithms of
// likelihood ratios.
type mix struct {
	// ports: the mix of 23 and 2323 under Mirai's share against the nearest of
	// what other scanners do: no 2323 at all, or as often as 23.
	ports  float64
	usual  bool    // the mix is within what 99.9 % of Mirai's bots show
	ranges float64 // no probe into the ranges Mirai leaves out, against a scanner that leaves out none
}

// certain is a likelihood ratio of a million.
var certain = math.Log(1e6)

// mix works out the likelihoods. They rest on attempts that could be Mirai's
// only: SYNs of 40 octets.
func (s *suspect) mix() (m mix) {
	if !s.isRawScanner() {
		return m
	}
	facts := intel.Mirai().Mix
	var a, b float64
	for _, t := range s.ports {
		switch t.key {
		case facts.First:
			a += float64(t.n)
		case facts.Second:
			b += float64(t.n)
		}
	}
	if a+b > 0 && (a+b) >= 0.9*float64(s.probes) {
		l := func(p float64) float64 { return a*math.Log(1-p) + b*math.Log(p) }
		m.ports = l(facts.Share) - max(l(facts.Share/5), l(3*facts.Share))
		// The normal approximation of the binomial's central 99.9 %.
		n := a + b
		m.usual = math.Abs(b-n*facts.Share) <= 3.29*math.Sqrt(n*facts.Share*(1-facts.Share))+0.5
	}
	if places(&s.octets) >= 100 { // a scanner of the whole address space
		n := float64(s.targets.count())
		left := float64(len(intel.Mirai().Telling)) / 221 // of the 221 first octets that are in use
		if s.skipped == 0 {
			m.ranges = -n * math.Log(1-left)
		} else {
			m.ranges = -float64(s.skipped) * 10
		}
	}
	return m
}

// mirai reports whether the likelihoods alone say that it is Mirai, or its
// offspring with other ports. Whoever leaves out Mirai's ranges and yet tries 23
// and 2323 otherwise than Mirai does has only borrowed them.
func (m mix) mirai() bool {
	return m.ranges >= certain && m.ports >= 0 || m.ranges >= 0 && m.usual && m.ports+m.ranges >= certain
}

// family names the family and its wave.
func (s *suspect) family(v *verdict) (known *intel.Family, family, wave string) {
	families, m := intel.Families(), v.likelihood
	mark := s.marks() > 0 || v.hearsay
	ports := s.mainPorts()
	for i := range families {
		f := &families[i]
		if s.exploit != nil {
			if s.exploit.family == f {
				return f, f.Family, s.wave(f, ports, s.exploit.Variant)
			}
			continue
		}
		switch {
		case f.Mark == "yes":
			if !mark && !(s.packets == 0 && m.mirai()) {
				continue
			}
			return f, f.Family, s.wave(f, ports, portList(ports))
		case f.Mark == "no" && (mark || s.packets == 0 && m.mirai()):
			continue
		case f.DHT && count256(&s.peers) < minPeers:
			continue
		}
		if s.shareOf(f) >= 0.8 {
			return f, f.Family, s.wave(f, ports, portList(ports))
		}
	}
	return nil, "unmarked", s.services()
}

// settled is how many attempts show all ports of a variant: one that tries four
// alike has not been seen trying one of them, or once, in a thousandth of cases.
const settled = 40

// wave names the ports tried: the wave of f that has them, or instead when they
// are of none, or "" while more may come to light.
func (s *suspect) wave(f *intel.Family, ports []uint16, instead string) string {
	if w := f.Wave(ports); w != "" && len(ports) > 0 {
		return w
	}
	if s.probes < settled {
		return ""
	}
	return instead
}

// shareOf returns the share of the attempts on ports of f's waves.
func (s *suspect) shareOf(f *intel.Family) float64 {
	n := 0
	for _, t := range s.ports {
		if t.n > 0 && f.Has(t.key) {
			n += t.n
		}
	}
	return float64(n) / float64(max(s.probes, 1))
}

// mainPorts returns the ports that are more than an accident, sorted.
func (s *suspect) mainPorts() (list []uint16) {
	for _, t := range s.ports {
		if t.n > 0 && (s.probes < 8 || t.n >= 2 && 25*t.n >= s.probes) {
			list = append(list, t.key)
		}
	}
	slices.Sort(list)
	return list
}

func portList(ports []uint16) string {
	var words []string
	for _, p := range ports {
		words = append(words, strconv.Itoa(int(p)))
	}
	return strings.Join(words, ",")
}

// services names what was tried, by services where the ports have one.
func (s *suspect) services() string {
	counts := map[string]int{}
	for _, t := range s.ports {
		if t.n == 0 {
			continue
		}
		name := watched[t.key].name
		if name == "" {
			name = strconv.Itoa(int(t.key))
		}
		counts[name] += t.n
	}
	var names []string
	for name, n := range counts {
		if n >= 2 && 100*n >= 15*s.probes || s.probes < 4 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, "+")
}

// tenant is what keeps hosts of different customers in incidents of their own.
func (d *Detector) tenant(s *suspect) string {
	switch {
	case !d.known:
		return ""
	case s.net == 0:
		return "outside"
	}
	return s.network.Tenant
}

// isDark reports whether nobody uses the address a flow goes to.
func (d *Detector) isDark(f *event.Flow) bool {
	return f.DstNet != 0 && d.net.At(f.DstNet).Kind == network.Dark
}
