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

// endpoint is one service of one host.
type endpoint struct {
	addr event.Addr
	port uint16
}

// Detector joins the parts of botnets.
type Detector struct {
	cfg *Config
	net *network.Table

	servers recent[endpoint, *server]      // what may be a control server or a receiver
	loaders recent[event.Addr, *server]    // who logs in behind others
	guessed recent[event.Addr, guess]      // devices whose password was guessed
	told    recent[event.Addr, event.Time] // who reported what it found
	first   recent[event.Addr, int]        // who logged in where nobody had before, and how often
	orders  recent[string, *order]

	now event.Time
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
	behind                              int // of its log-ins, those behind a guess that was reported

	evidence   []string
	id         finding.ID
	net        uint32
	said       event.Time
	reportedAt event.Time
	reportedN  int
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
	ended    bool
}

func newDetector(env detect.Env) (detect.Detector, error) {
	cfg := env.Config.(*Config)
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return &Detector{
		cfg: cfg, net: env.Network,
		servers: newRecent[endpoint, *server](cfg.MaxServers), loaders: newRecent[event.Addr, *server](cfg.MaxServers),
		guessed: newRecent[event.Addr, guess](cfg.MaxDevices), told: newRecent[event.Addr, event.Time](cfg.MaxDevices), first: newRecent[event.Addr, int](cfg.MaxDevices),
		orders: newRecent[string, *order](1024),
	}, nil
}

// Detect examines the records of b.
func (d *Detector) Detect(b *event.Batch, report func(*finding.Finding)) {
	for i := range b.Flows {
		f := &b.Flows[i]
		d.now = max(d.now, f.Seen)
		if f.Payload.Len == 0 {
			d.session(b, f, report)
		} else {
			d.speech(b, f, b.Text(f.Payload), report)
		}
	}
}

// speech examines a packet by what it says.
func (d *Detector) speech(b *event.Batch, f *event.Flow, p string, report func(*finding.Finding)) {
	if p == keepAlive {
		// Alone it means nothing: it counts where a handshake was seen.
		if s, ok := d.servers.get(endpoint{f.Dst, f.DstPort}); ok && s.handshakes > 0 && s.clients[f.Src] {
			s.pulses++
			d.heard(s, b, f, report)
		} else if s, ok := d.servers.get(endpoint{f.Src, f.SrcPort}); ok && s.handshakes > 0 && s.clients[f.Dst] {
			s.answers++
			d.heard(s, b, f, report)
		}
		return
	}
	if name, ok := isHandshake(p); ok {
		s := d.server(endpoint{f.Dst, f.DstPort}, "c2", f)
		s.handshakes++
		d.client(s, f.Src)
		if name != "" {
			s.named = strings.Clone(name)
		}
		d.heard(s, b, f, report)
		return
	}
	if s, ok := d.servers.get(endpoint{f.Dst, f.DstPort}); ok && s.handshakes > 0 && s.clients[f.Src] && s.named == "" {
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
		s := d.server(endpoint{f.Dst, f.DstPort}, "receiver", f)
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
	s := d.server(endpoint{f.Dst, f.DstPort}, "receiver", f)
	d.client(s, f.Src)
	d.told.put(f.Src, f.Seen)
	d.heard(s, b, f, report)
}

// login examines a session to a service of devices. The first to log in guessed
// the password; another who does so after the first has reported it is the
// loader. The report may pass where nobody looks: then the loader is who is
// never the first.
func (d *Detector) login(b *event.Batch, f *event.Flow, p string, report func(*finding.Finding)) {
	if s, ok := d.servers.get(endpoint{f.Dst, f.DstPort}); ok && s.handshakes > 0 {
		return // a control server on telnet's port, as published
	}
	g, known := d.guessed.get(f.Dst)
	if !telnet[f.DstPort] && !g.reported {
		return
	}
	s, loader := d.loaders.get(f.Src)
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
		s.net = f.SrcNet
		d.loaders.put(f.Src, s)
	}
	if at, told := d.told.get(g.by); g.reported || told && at >= g.at {
		s.behind++
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

// server returns the books of an endpoint.
func (d *Detector) server(e endpoint, role string, f *event.Flow) *server {
	s, ok := d.servers.get(e)
	if !ok || s.role != role {
		s = d.begin(e, role, f)
		s.net = f.DstNet
		d.servers.put(e, s)
	}
	return s
}

func (d *Detector) begin(e endpoint, role string, f *event.Flow) *server {
	return &server{endpoint: e, role: role, first: f.First, last: f.Seen, clients: map[event.Addr]bool{}}
}

// client notes who has to do with a server.
func (d *Detector) client(s *server, a event.Addr) {
	if s.clients[a] {
		return
	}
	if len(s.clients) >= d.cfg.MaxClients {
		s.overflow = true
		return
	}
	s.clients[a] = true
	if len(s.list) < finding.MaxPeers {
		s.list = append(s.list, a)
	}
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
		return min(0.9+0.03*float64(n-1)+0.04*float64(support), 0.99), true
	case "receiver":
		switch {
		case s.reports > 0 && s.port == reportPort, s.reports > 2 && n > 1:
			return min(0.95+0.01*float64(s.reports), 0.99), true
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
	case n > d.cfg.MinDevices && 8*first <= n:
		return min(0.7+0.03*float64(n), 0.9), true
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
		s.id = finding.NewID("iotbot."+s.role, s.addr, s.role, s.first)
		s.said = s.last
	}
	if len(s.evidence) == 0 {
		s.evidence = append(s.evidence, b.Line(f))
	}
	if s.reportedAt == 0 || weight >= 2*s.reportedN || s.last.Sub(s.reportedAt) >= d.cfg.Update {
		s.reportedAt, s.reportedN = s.last, weight
		report(d.finding(s, confidence, false))
	}
}

// order notes an attack command. It is believed when a known control server
// gives it, or when two hosts get the same.
func (d *Detector) order(c Command, b *event.Batch, f *event.Flow, p string, report func(*finding.Finding)) {
	from := endpoint{f.Src, f.SrcPort}
	key := f.Src.String() + "\x00" + p
	o, ok := d.orders.get(key)
	if ok && f.Seen.Sub(o.last) > time.Duration(c.Seconds)*time.Second {
		ok = false // the same again, later
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
	s, known := d.servers.get(from)
	known = known && s.handshakes > 0
	if known {
		s.orders++
		d.heard(s, b, f, report)
	}
	if (known || len(o.bots) >= 2) && len(o.bots) >= max(2*o.said, 1) {
		o.said = len(o.bots)
		d.announce(o, known, report)
	}
}

// Advance reports what has ended and forgets it.
func (d *Detector) Advance(now event.Time, report func(*finding.Finding)) {
	gone := func(s *server) bool {
		if now.Sub(s.last) <= d.cfg.Quiet {
			return false
		}
		if confidence, ok := d.known(s); ok && s.id != (finding.ID{}) {
			report(d.finding(s, confidence, true))
		}
		return true
	}
	d.servers.drop(func(_ endpoint, s *server) bool { return gone(s) })
	d.loaders.drop(func(_ event.Addr, s *server) bool { return gone(s) })
	d.orders.drop(func(_ string, o *order) bool {
		if now <= o.end() {
			return false
		}
		if o.said > 0 {
			o.ended = true
			d.announce(o, true, report)
		}
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
		Entries: d.servers.len() + d.loaders.len() + d.guessed.len() + d.told.len() + d.orders.len(),
		Evicted: d.servers.evicted + d.loaders.evicted + d.guessed.evicted + d.told.evicted + d.orders.evicted,
	}
	u.Bytes = 100 * (d.guessed.len() + d.told.len())
	for _, s := range d.servers.all() {
		u.Bytes += 500 + 40*len(s.clients)
	}
	for _, s := range d.loaders.all() {
		u.Bytes += 500 + 40*len(s.clients)
	}
	for _, o := range d.orders.all() {
		u.Bytes += 1500 + 40*len(o.bots)
	}
	return u
}
