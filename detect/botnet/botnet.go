// Package botnet finds the servers of a botnet by what is said to them and in
// which order: scan receivers, loaders, control servers; and it reads the orders
// that control servers give, so that an attack is known before it begins.
//
// The parts of a botnet are different hosts, so this detector sees the whole
// network at once. It gets few records: those whose payload looks like a part of
// the conversation, and established sessions to telnet and to the report port.
package botnet

import (
	"errors"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"noroshi/detect"
	"noroshi/event"
	"noroshi/finding"
	"noroshi/intel"
	"noroshi/network"
)

// Config are the knobs.
type Config struct {
	// MinReporters is how many hosts must have sent something small to a report
	// port for its owner to be called a scan receiver, where payload isn't seen.
	MinReporters int `yaml:"min_reporters"`
	// MinDevices is how many devices a host must have logged in to, each after
	// another host had guessed the password and reported it, to be a loader.
	MinDevices int `yaml:"min_devices"`
	// Within is how long after a guessed password a log-in may follow.
	Within time.Duration `yaml:"within"`
	// Quiet is how long a server must be silent to be gone.
	Quiet time.Duration `yaml:"quiet"`
	// Update is how often a server that goes on is reported again.
	Update time.Duration `yaml:"update"`
	// MaxServers, MaxDevices and MaxClients bound memory.
	MaxServers int `yaml:"max_servers"`
	MaxDevices int `yaml:"max_devices"`
	MaxClients int `yaml:"max_clients"`
}

func defaults() any {
	return &Config{MinReporters: 5, MinDevices: 2, Within: 30 * time.Minute, Quiet: 30 * time.Minute, Update: time.Minute,
		MaxServers: 16_384, MaxDevices: 65_536, MaxClients: 4096}
}

func (c *Config) check() error {
	switch {
	case c.MinReporters < 1 || c.MinDevices < 1:
		return errors.New("min_reporters and min_devices must be at least 1")
	case c.MaxServers < 1 || c.MaxDevices < 1 || c.MaxClients < 1:
		return errors.New("max_servers, max_devices and max_clients must be above 0")
	case c.Within <= 0 || c.Quiet < time.Minute || c.Update < time.Second:
		return errors.New("within must be above 0, quiet at least 1m, update at least 1s")
	}
	return nil
}

var telnet = func() (is [1 << 16]bool) {
	for _, s := range intel.Services() {
		if s.Service == "telnet" {
			for _, p := range s.Ports {
				is[p] = true
			}
		}
	}
	return is
}()

var reportPort = intel.Mirai().ReportPort

// wanted selects what the detector gets.
func wanted(b *event.Batch, f *event.Flow) bool {
	if f.Proto != event.TCP || f.Marks&event.Fragment != 0 || f.TCPFlags&event.ACK == 0 {
		return false
	}
	if isAnswer(f) {
		return true
	}
	if f.Payload.Len == 0 {
		return f.TCPFlags&event.PSH != 0 && (f.DstPort == reportPort || telnet[f.DstPort]) && f.Marks&event.OnePacket == 0
	}
	if telnet[f.DstPort] || f.DstPort == reportPort {
		return true
	}
	p := b.Text(f.Payload)
	if p[0] != 0 && f.Payload.Len > 80 {
		return false
	}
	if p == keepAlive {
		return true
	}
	if _, ok := isHandshake(p); ok {
		return true
	}
	if name, rest, ok := field(p); ok && rest == "" && len(name) > 2 {
		return true // perhaps a bot's name for itself
	}
	if _, ok := ParseCommand(p); ok {
		return true
	}
	_, ok := ParseReport(p)
	return ok && p[0] == 0
}

// isAnswer reports whether f may be what a scan receiver sends: nothing but that
// it got something.
func isAnswer(f *event.Flow) bool {
	return f.SrcPort == reportPort && f.Payload.Len == 0 && f.DstPort != reportPort && !telnet[f.DstPort] && f.TCPFlags&(event.ACK|event.RST) == event.ACK
}

// endpoint is one service of one host.
type endpoint struct {
	addr event.Addr
	port uint16
}

// part is an endpoint in a role.
type part struct {
	endpoint
	role string
}

// Detector joins the parts of botnets.
type Detector struct {
	cfg *Config
	net *network.Table

	servers recent[part, *server]          // what may be a control server or a receiver
	loaders recent[event.Addr, *server]    // who logs in behind others
	guessed recent[event.Addr, guess]      // devices whose password was guessed
	told    recent[event.Addr, event.Time] // who reported what it found
	first   recent[event.Addr, int]        // who logged in where nobody had before, and how often
	orders  recent[string, *order]

	clients int    // of all servers
	refused uint64 // clients that were not noted
}

// guess is a log-in to a device.
type guess struct {
	by       event.Addr
	at       event.Time
	reported bool // its report was read
}

// server is the books of a host that may be a part of a botnet.
type server struct {
	endpoint
	role        string // "c2", "receiver", "loader"
	first, last event.Time
	clients     map[event.Addr]bool
	overflow    bool         // there are more
	list        []event.Addr // the first clients

	handshakes, pulses, answers, orders int
	named                               string // a bot's name for itself
	reports                             int    // read
	token, download                     string
	behind                              int          // of its log-ins, those behind a guess that was reported
	guessers                            []event.Addr // some of those it came behind

	evidence   []string
	id         finding.ID
	net        uint32
	said       event.Time
	reportedAt event.Time
	reportedN  int
	sure       float64 // when it was reported last
}

// order is an attack command as it is handed out.
type order struct {
	Command
	server   endpoint
	first    event.Time
	last     event.Time
	bots     map[event.Addr]bool
	evidence []string
	said     int // bots when it was last reported
	sure     float64
	ended    bool
}

func newDetector(env detect.Env) (detect.Detector, error) {
	cfg := env.Config.(*Config)
	if err := cfg.check(); err != nil {
		return nil, err
	}
	d := &Detector{
		cfg: cfg, net: env.Network,
		servers: newRecent[part, *server](cfg.MaxServers), loaders: newRecent[event.Addr, *server](cfg.MaxServers),
		guessed: newRecent[event.Addr, guess](cfg.MaxDevices), told: newRecent[event.Addr, event.Time](cfg.MaxDevices), first: newRecent[event.Addr, int](cfg.MaxDevices),
		orders: newRecent[string, *order](1024),
	}
	// What was only said to be a server must not push out one that is known.
	d.servers.keep, d.loaders.keep = (*server).reported, (*server).reported
	d.servers.gone, d.loaders.gone = d.forget, d.forget
	return d, nil
}

func (s *server) reported() bool { return s.id != finding.ID{} }

// forget makes room for the clients of others.
func (d *Detector) forget(s *server) { d.clients -= len(s.clients) }

// Detect examines the records of b.
func (d *Detector) Detect(b *event.Batch, report func(*finding.Finding)) {
	for i := range b.Flows {
		f := &b.Flows[i]
		switch {
		case isAnswer(f):
			if s := d.find(endpoint{f.Src, f.SrcPort}, "receiver", f.Seen); s != nil && s.clients[f.Dst] {
				s.answers++
				d.heard(s, b, f, report)
			}
		case f.Payload.Len == 0:
			d.session(b, f, report)
		default:
			d.speech(b, f, b.Text(f.Payload), report)
		}
	}
}

// speech examines a packet by what it says.
func (d *Detector) speech(b *event.Batch, f *event.Flow, p string, report func(*finding.Finding)) {
	if p == keepAlive {
		// Alone it means nothing: it counts where a handshake was seen.
		if s := d.find(endpoint{f.Dst, f.DstPort}, "c2", f.Seen); s != nil && s.clients[f.Src] {
			s.pulses++
			d.heard(s, b, f, report)
		} else if s := d.find(endpoint{f.Src, f.SrcPort}, "c2", f.Seen); s != nil && s.clients[f.Dst] {
			s.answers++
			d.heard(s, b, f, report)
		}
		return
	}
	if name, ok := isHandshake(p); ok {
		s := d.server(endpoint{f.Dst, f.DstPort}, "c2", f, report)
		s.handshakes++
		d.client(s, f.Src)
		if name != "" {
			s.named = strings.Clone(name)
		}
		d.heard(s, b, f, report)
		return
	}
	if s := d.find(endpoint{f.Dst, f.DstPort}, "c2", f.Seen); s != nil && s.clients[f.Src] && s.named == "" {
		if name, rest, ok := field(p); ok && rest == "" && len(name) > 2 {
			s.named = strings.Clone(name)
			d.heard(s, b, f, report)
			return
		}
	}
	if c, ok := ParseCommand(p); ok {
		d.order(c, b, f, p, report)
		return
	}
	if r, ok := ParseReport(p); ok && !telnet[f.DstPort] && (p[0] == 0 || f.DstPort == reportPort) {
		s := d.server(endpoint{f.Dst, f.DstPort}, "receiver", f, report)
		s.reports++
		d.client(s, f.Src)
		d.guessed.put(r.Device, guess{f.Src, f.Seen, true})
		d.told.put(f.Src, f.Seen)
		d.heard(s, b, f, report)
		return
	}
	if telnet[f.DstPort] || f.DstPort != reportPort {
		d.login(b, f, p, report)
	}
}

// session examines an established session of which only the flow is seen.
func (d *Detector) session(b *event.Batch, f *event.Flow, report func(*finding.Finding)) {
	if f.DstPort != reportPort {
		d.login(b, f, "", report)
		return
	}
	// A report is 10 to 60 octets: one packet with a little in it among empty ones.
	if f.Sampling > 1 || f.Packets > 12 || f.Bytes > 52*f.Packets+120 {
		return
	}
	s := d.server(endpoint{f.Dst, f.DstPort}, "receiver", f, report)
	d.client(s, f.Src)
	d.told.put(f.Src, f.Seen)
	d.heard(s, b, f, report)
}

// login examines a session to a service of devices. The first to log in guessed
// the password; another who does so after the first has reported it is the
// loader. The report may pass where nobody looks: then the loader is who is
// never the first.
func (d *Detector) login(b *event.Batch, f *event.Flow, p string, report func(*finding.Finding)) {
	if d.find(endpoint{f.Dst, f.DstPort}, "c2", f.Seen) != nil {
		return // a control server on telnet's port, as published
	}
	g, known := d.guessed.get(f.Dst)
	if !telnet[f.DstPort] && !g.reported {
		return
	}
	s, loader := d.loaders.get(f.Src)
	if loader && d.silent(s, f.Seen) {
		d.end(s, report)
		d.forget(s)
		s = d.begin(endpoint{f.Src, 0}, "loader", f)
		d.loaders.put(f.Src, s)
	}
	switch {
	case loader && s.clients[f.Dst]:
		if !s.shell(p) && p != "" {
			s.last = max(s.last, f.Seen)
			return
		}
		d.heard(s, b, f, report)
		return
	case !known || f.Seen.Sub(g.at) > d.cfg.Within:
		d.guessed.put(f.Dst, guess{f.Src, f.Seen, false})
		n, _ := d.first.get(f.Src)
		d.first.put(f.Src, n+1)
		return
	case g.by == f.Src:
		return
	}
	if _, reporter := d.told.get(f.Src); reporter {
		return // another bot guessed it too
	}
	if !loader {
		s = d.begin(endpoint{f.Src, 0}, "loader", f)
		d.loaders.put(f.Src, s)
	}
	if at, told := d.told.get(g.by); g.reported || told && at >= g.at {
		s.behind++
	}
	if len(s.guessers) <= d.cfg.MinDevices && !slices.Contains(s.guessers, g.by) {
		s.guessers = append(s.guessers, g.by)
	}
	d.client(s, f.Dst)
	s.shell(p)
	d.heard(s, b, f, report)
}

// shell notes what a log-in says there, and reports whether it is news.
func (s *server) shell(p string) (news bool) {
	if t := token(p); t != "" && s.token == "" {
		s.token, news = strings.Clone(t), true
	}
	if h := download(p); h != "" && s.download == "" {
		s.download, news = strings.Clone(h), true
	}
	return news
}

// silent reports whether a server had gone by the time.
func (d *Detector) silent(s *server, at event.Time) bool { return at.Sub(s.last) > d.cfg.Quiet }

// find returns the books of an endpoint in a role, or nil.
func (d *Detector) find(e endpoint, role string, at event.Time) *server {
	if s, ok := d.servers.get(part{e, role}); ok && !d.silent(s, at) {
		return s
	}
	return nil
}

// server returns the books of an endpoint in a role, new ones if need be.
func (d *Detector) server(e endpoint, role string, f *event.Flow, report func(*finding.Finding)) *server {
	s, ok := d.servers.get(part{e, role})
	if ok && !d.silent(s, f.Seen) {
		return s
	}
	if ok {
		d.end(s, report)
		d.forget(s)
	}
	s = d.begin(e, role, f)
	d.servers.put(part{e, role}, s)
	return s
}

func (d *Detector) begin(e endpoint, role string, f *event.Flow) *server {
	return &server{endpoint: e, role: role, first: f.First, last: f.Seen, net: d.net.Lookup(e.addr), clients: map[event.Addr]bool{}}
}

// maxAllClients bounds the clients of all servers together, at about 40 octets.
const maxAllClients = 1 << 20

// client notes who has to do with a server.
func (d *Detector) client(s *server, a event.Addr) {
	if s.clients[a] {
		return
	}
	if len(s.clients) >= d.cfg.MaxClients || d.clients >= maxAllClients {
		s.overflow = true
		d.refused++
		return
	}
	d.clients++
	s.clients[a] = true
	if len(s.list) < finding.MaxPeers {
		s.list = append(s.list, a)
	}
}

// oneWay is how sure it can be at most that a host is a server if nothing of what
// it sends was seen: whoever forges a few packets to it could say as much.
const oneWay = 0.8

// heardBack reports whether the server itself was seen to take part.
func (s *server) heardBack() bool {
	return s.role == "loader" || s.role == "c2" && (s.orders > 0 || s.pulses > 0 && s.answers > 0) || s.role == "receiver" && s.answers > 0
}

// known reports whether the evidence suffices, and how sure it is.
func (d *Detector) known(s *server) (confidence float64, ok bool) {
	n := len(s.clients)
	switch s.role {
	case "c2":
		support := min(s.pulses, s.answers, 2) + s.orders
		if s.named != "" {
			support++
		}
		if n < 2 && support == 0 {
			return 0, false
		}
		if !s.heardBack() {
			return min(0.6+0.03*float64(n-1)+0.04*float64(support), oneWay), true
		}
		return min(0.9+0.03*float64(n-1)+0.04*float64(support), 0.99), true
	case "receiver":
		switch read := s.reports > 0 && s.port == reportPort || s.reports > 2 && n > 1; {
		case read && s.heardBack():
			return min(0.95+0.01*float64(s.reports), 0.99), true
		case read, s.port == reportPort && n >= d.cfg.MinReporters && !s.heardBack():
			return min(0.7+0.02*float64(n), oneWay), true
		case s.port == reportPort && n >= d.cfg.MinReporters:
			return min(0.7+0.02*float64(n), 0.9), true
		}
		return 0, false
	}
	switch first, _ := d.first.get(s.addr); {
	case s.behind > 0 && s.token != "" && s.download != "":
		return 0.98, true
	case s.behind > 0 && s.token != "":
		return 0.95, true
	case s.behind >= d.cfg.MinDevices:
		return min(0.8+0.03*float64(n), 0.95), true
	case n > d.cfg.MinDevices && 8*first <= n && len(s.guessers) > d.cfg.MinDevices:
		// No report was seen. Two systems that manage the same devices would have
		// one guesser; a bot that is always late is still a bot.
		return 0.6, true
	}
	return 0, false
}

// heard reports s if there is something new to say of it.
func (d *Detector) heard(s *server, b *event.Batch, f *event.Flow, report func(*finding.Finding)) {
	s.last = max(s.last, f.Seen)
	weight := s.handshakes + s.reports + len(s.clients) + s.orders
	if weight&(weight-1) == 0 && len(s.evidence) < 6 {
		s.evidence = append(s.evidence, b.Line(f))
	}
	confidence, ok := d.known(s)
	if !ok {
		return
	}
	if s.id == (finding.ID{}) {
		s.id = finding.NewID("iotbot."+s.role, s.addr, strconv.Itoa(int(s.port)), s.first)
		s.said = s.last
	}
	if len(s.evidence) == 0 {
		s.evidence = append(s.evidence, b.Line(f))
	}
	if s.reportedAt == 0 || weight >= 2*s.reportedN || confidence > oneWay && s.sure <= oneWay || s.last.Sub(s.reportedAt) >= d.cfg.Update {
		s.reportedAt, s.reportedN, s.sure = s.last, weight, confidence
		report(d.finding(s, confidence, false))
	}
}

// order notes an attack command. It is believed when a known control server
// gives it, or when two hosts get the same.
func (d *Detector) order(c Command, b *event.Batch, f *event.Flow, p string, report func(*finding.Finding)) {
	from := endpoint{f.Src, f.SrcPort}
	key := f.Src.String() + "\x00" + p
	o, ok := d.orders.get(key)
	if ok && f.Seen > o.end() { // the same again, later
		d.finish(o, report)
		ok = false
	}
	if !ok {
		o = &order{Command: c, server: from, first: f.First, bots: map[event.Addr]bool{}}
		for i := range o.Options {
			o.Options[i].Value = strings.Clone(o.Options[i].Value)
		}
		d.orders.put(strings.Clone(key), o)
	}
	o.last = f.Seen
	if len(o.bots) < d.cfg.MaxClients {
		o.bots[f.Dst] = true
	}
	if len(o.evidence) < 2 {
		o.evidence = append(o.evidence, b.Line(f))
	}
	if s := d.find(from, "c2", f.Seen); s != nil {
		s.orders++
		d.heard(s, b, f, report)
		o.sure, _ = d.known(s)
	} else if len(o.bots) >= 2 && o.sure == 0 {
		o.sure = 0.6 // a few forged packets could say as much
	}
	if o.sure > 0 && len(o.bots) >= max(2*o.said, 1) {
		o.said = len(o.bots)
		d.announce(o, report)
	}
}

// finish reports the end of an order that was reported.
func (d *Detector) finish(o *order, report func(*finding.Finding)) {
	if o.said > 0 {
		o.ended = true
		d.announce(o, report)
	}
}

// end reports the end of a server that was reported.
func (d *Detector) end(s *server, report func(*finding.Finding)) {
	if confidence, ok := d.known(s); ok && s.reported() {
		report(d.finding(s, confidence, true))
	}
}

// Advance reports what has ended and forgets it.
func (d *Detector) Advance(now event.Time, report func(*finding.Finding)) {
	gone := func(s *server) bool {
		if !d.silent(s, now) {
			return false
		}
		d.end(s, report)
		return true
	}
	d.servers.drop(func(_ part, s *server) bool { return gone(s) })
	d.loaders.drop(func(_ event.Addr, s *server) bool { return gone(s) })
	d.orders.drop(func(_ string, o *order) bool {
		if now <= o.end() {
			return false
		}
		d.finish(o, report)
		return true
	})
}

// Finish reports the latest numbers of servers that go on.
func (d *Detector) Finish(report func(*finding.Finding)) {
	for _, list := range []iter.Seq[*server]{values(d.servers), values(d.loaders)} {
		for s := range list {
			if confidence, ok := d.known(s); ok && s.id != (finding.ID{}) {
				s.reportedAt = s.last
				report(d.finding(s, confidence, false))
			}
		}
	}
}

// end is when the attack is to be over.
func (o *order) end() event.Time { return o.last.Add(time.Duration(o.Seconds) * time.Second) }

// Usage returns the state held.
func (d *Detector) Usage() detect.Usage {
	u := detect.Usage{
		Entries: d.servers.len() + d.loaders.len() + d.guessed.len() + d.told.len() + d.first.len() + d.orders.len(),
		Evicted: d.servers.evicted + d.loaders.evicted + d.guessed.evicted + d.told.evicted + d.first.evicted + d.orders.evicted + d.refused,
	}
	u.Bytes = 100*(d.guessed.len()+d.told.len()+d.first.len()) + 700*(d.servers.len()+d.loaders.len()) + 40*d.clients
	for _, o := range d.orders.all() {
		u.Bytes += 1500 + 40*len(o.bots)
	}
	return u
}
