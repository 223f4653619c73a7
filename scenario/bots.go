package scenario

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"noroshi/event"
)

// worm is how the bots of one kind look for others.
type worm struct {
	family  string
	cluster string
	ports   []uint16 // one is drawn for each target
	never   string   // a family it must not be taken for
	// raw: SYNs of its own, as Mirai and other fast scanners send, without options,
	// from one source port and with one window; of two ports the second gets the
	// tenth probe. Else the kernel connects, and tries again.
	raw bool
	// marked: of raw SYNs, the sequence number is the destination.
	marked bool
	// even: of two ports each gets half.
	even bool
	// reserved: Mirai's list of ranges is skipped.
	reserved bool
	rate     float64 // targets a second, of each bot
	open     float64 // share of targets that answer
	refuse   float64 // share of targets that refuse
	lines    func(r *rand.Rand, target event.Addr) []line
	// found is called when a dialog was held.
	found func(b *bot, target event.Addr, port uint16, at event.Time)
}

// bot is an infected host at work.
type bot struct {
	addr          event.Addr
	sport, window uint16
	probes        int
	from, to      event.Time
	trace         *Trace
}

// infect lets hosts be bots of a worm from their time on.
func (w *world) infect(k worm, bots []*bot) {
	r := w.chance()
	var fleet *Fleet
	for _, f := range w.truth.Fleets {
		if f.Name == k.cluster {
			fleet = f
		}
	}
	const step = 100 * time.Millisecond
	for _, b := range bots {
		b.sport, b.window = uint16(1024+r.IntN(64000)), uint16(1024+r.IntN(64000))
		if b.to == 0 {
			b.to = w.end
		}
	}
	w.every(w.start, w.end, step, func(now event.Time) {
		for _, b := range bots {
			if now < b.from || now >= b.to {
				continue
			}
			if b.trace == nil {
				known := w.truth.bot(b.addr, k.family, k.cluster)
				known.Never, b.trace = k.never, &known.Trace
			}
			for range poisson(r, k.rate*step.Seconds()) {
				w.probe(&k, b, r, now+event.Time(r.Int64N(int64(step))))
			}
		}
	})
	if fleet != nil {
		w.finish = append(w.finish, func() {
			for _, b := range bots {
				if t := b.trace; t != nil && t.FirstSeen != 0 {
					fleet.Trace.told(t.FirstSeen, t.Seen)
					fleet.Trace.sent(t.First, t.Sent)
				}
			}
		})
	}
}

// probe tries one target.
func (w *world) probe(k *worm, b *bot, r *rand.Rand, at event.Time) {
	target := k.target(r)
	port := k.ports[r.IntN(len(k.ports))]
	fate := r.Float64()
	b.probes++
	if !k.raw {
		t := talk{client: b.addr, server: target, cport: ephemeral(r), sport: port, proto: event.TCP, start: at, outcome: unanswered, trace: b.trace}
		switch {
		case fate < k.open && k.lines != nil:
			b.trace.sent(at, 1)
			w.dialog(b.addr, target, t.cport, port, at, k.lines(r, target), nil)
			return
		case fate < k.open+k.refuse:
			t.outcome = refused
		}
		w.converse(t)
		return
	}
	if len(k.ports) == 2 && !k.even { // Mirai counts
		port = k.ports[0]
		if b.probes%10 == 0 {
			port = k.ports[1]
		}
	}
	syn := stream{
		src: b.addr, dst: target, sport: b.sport, dport: port, proto: event.TCP, first: at, last: at, packets: 1, size: rstSize, opening: event.SYN,
		ttl: 62, window: b.window, marked: k.marked, bare: true, trace: b.trace,
	}
	w.send(syn)
	back := stream{src: target, dst: b.addr, sport: port, dport: b.sport, proto: event.TCP, first: at + 80e6, last: at + 80e6, packets: 1, ttl: 48}
	switch {
	case fate < k.open:
		back.opening, back.size, back.window = event.SYN|event.ACK, 44, 5840
		w.send(back)
		rst := syn
		rst.first, rst.last, rst.opening, rst.marked, rst.trace = at+90e6, at+90e6, event.RST, false, nil
		w.send(rst)
		if k.lines == nil {
			return
		}
		begin := at + seconds(r, .2, .8)
		w.at(begin, func() {
			end := w.dialog(b.addr, target, ephemeral(r), port, begin, k.lines(r, target), nil)
			if k.found != nil && r.IntN(2) == 0 {
				k.found(b, target, port, end)
			}
		})
	case fate < k.open+k.refuse:
		back.opening, back.size = event.RST|event.ACK, rstSize
		w.send(back)
	}
}

// target draws an address as the worm does.
func (k *worm) target(r *rand.Rand) event.Addr {
	for {
		n := r.Uint32()
		if n>>24 == 0 || n>>24 == 127 || n>>24 >= 224 || n>>24 == 10 || k.reserved && skipped(n) {
			continue
		}
		return four(n)
	}
}

// skipped reports whether the published Mirai passes over an address.
func skipped(n uint32) bool {
	switch n >> 24 {
	case 0, 10, 127, 3, 15, 16, 56, 6, 7, 11, 21, 22, 26, 28, 29, 30, 33, 55, 214, 215:
		return true
	}
	switch {
	case n>>24 >= 224, n>>20 == 172<<4|1, n>>16 == 192<<8|168, n>>17 == (198<<8|18)>>1:
		return true
	case n>>16 == 169<<8|255: // a mistake for 169.254/16
		return true
	case n>>22 == 100<<2|1 && n>>16 != 100<<8|127: // another: the last /16 of 100.64/10 is scanned
		return true
	}
	return false
}

// someHosts draws n different addresses of the first most of a group.
func (w *world) someHosts(in int, n, most int) []event.Addr {
	r := w.chance()
	list := make([]event.Addr, 0, n)
	for _, i := range r.Perm(most)[:n] {
		list = append(list, groups[in].addr(uint32(i), false))
	}
	return list
}

// botsAt makes bots of hosts, which begin within a time.
func (w *world) botsAt(hosts []event.Addr, from, spread time.Duration) []*bot {
	r := w.chance()
	list := make([]*bot, len(hosts))
	for i, a := range hosts {
		list[i] = &bot{addr: a, from: w.start.Add(from) + event.Time(r.Float64()*float64(spread))}
	}
	return list
}

// passwords that the published Mirai tries most (facts of its table).
var passwords = [][2]string{{"root", "xc3511"}, {"root", "vizxv"}, {"root", "admin"}, {"admin", "admin"}, {"root", "888888"}, {"root", "default"}, {"support", "support"}}

// telnet returns a password dialog that ends with the round trips by which bots
// know a shell: a token as busybox applet.
func telnet(token string) func(*rand.Rand, event.Addr) []line {
	return func(r *rand.Rand, _ event.Addr) []line {
		p := passwords[r.IntN(len(passwords))]
		list := []line{
			{100e6, true, "\xff\xfd\x01\xff\xfd\x1f\r\nlogin: "}, {60e6, false, p[0] + "\r\n"}, {60e6, true, "Password: "}, {60e6, false, p[1] + "\r\n"},
		}
		if r.IntN(3) > 0 {
			return append(list, line{900e6, true, "\r\nLogin incorrect\r\nlogin: "})
		}
		return append(list, line{100e6, true, "\r\n\r\nBusyBox v1.16.2 built-in shell (ash)\r\n# "}, line{50e6, false, "enable\r\n"}, line{50e6, false, "system\r\n"},
			line{50e6, false, "shell\r\n"}, line{50e6, false, "sh\r\n"}, line{50e6, false, "/bin/busybox " + token + "\r\n"}, line{80e6, true, token + ": applet not found\r\n# "})
	}
}

// request returns a dialog of one request and a refusal.
func request(text string) func(*rand.Rand, event.Addr) []line {
	return func(r *rand.Rand, _ event.Addr) []line {
		return []line{{20e6, false, text}, {90e6, true, "HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\n\r\n"}}
	}
}

// eitherOf draws one of several dialogs.
func eitherOf(list ...func(*rand.Rand, event.Addr) []line) func(*rand.Rand, event.Addr) []line {
	return func(r *rand.Rand, a event.Addr) []line { return list[r.IntN(len(list))](r, a) }
}

// The first lines by which exploits are known (public rules; see facts in the
// families of package intel). What they would run is left out.
const (
	huawei  = "POST /ctrlt/DeviceUpgrade_1 HTTP/1.1\r\nContent-Length: 430\r\nConnection: keep-alive\r\nAuthorization: Digest username=\"dslf-config\", realm=\"HuaweiHomeGateway\"\r\n\r\n<?xml version=\"1.0\" ?><s:Envelope><s:Body><u:Upgrade><NewStatusURL>$(x)</NewStatusURL></u:Upgrade></s:Body></s:Envelope>"
	realtek = "POST /picsdesc.xml HTTP/1.1\r\nContent-Length: 630\r\nSOAPAction: urn:schemas-upnp-org:service:WANIPConnection:1#AddPortMapping\r\n\r\n<?xml version=\"1.0\" ?><s:Envelope><s:Body><u:AddPortMapping><NewInternalClient>`x`</NewInternalClient></u:AddPortMapping></s:Body></s:Envelope>"
	jaws    = "GET /shell?x HTTP/1.1\r\nUser-Agent: Hello, world\r\nHost: 127.0.0.1:80\r\nConnection: keep-alive\r\n\r\n"
	hnap    = "POST /HNAP1/ HTTP/1.0\r\nContent-Type: text/xml\r\nSOAPAction: http://purenetworks.com/HNAP1/`x`\r\nContent-Length: 640\r\n\r\n"
	gpon    = "POST /GponForm/diag_Form?images/ HTTP/1.1\r\nUser-Agent: Hello, World\r\nContent-Length: 118\r\n\r\nXWebPageName=diag&diag_action=ping&dest_host=`x`"
	tr064   = "POST /UD/act?1 HTTP/1.1\r\nUser-Agent: Mozilla/4.0\r\nSOAPAction: urn:dslforum-org:service:Time:1#SetNTPServers\r\nContent-Length: 526\r\n\r\n<?xml version=\"1.0\"?><NewNTPServer1>`x`</NewNTPServer1>"
)

// adbHello is the first message of the Android debug bridge.
func adbHello() string {
	h := binary.LittleEndian.AppendUint32([]byte("CNXN"), 0x01000000)
	h = binary.LittleEndian.AppendUint32(h, 256<<10)
	h = binary.LittleEndian.AppendUint32(h, 7)
	h = binary.LittleEndian.AppendUint32(h, 0x232)
	h = binary.LittleEndian.AppendUint32(h, 0xbc_b1_a7_b1)
	return string(h) + "host::\x00"
}

// report is what a Mirai bot tells the scan receiver of a find.
func report(target event.Addr, port uint16, user, password string) string {
	b := []byte{0}
	b = binary.BigEndian.AppendUint32(b, target.Four())
	b = binary.BigEndian.AppendUint16(b, port)
	b = append(append(b, byte(len(user))), user...)
	b = append(append(b, byte(len(password))), password...)
	return string(b)
}

// order is an attack command of a Mirai control server.
func order(length uint32, vector byte, victim event.Addr) string {
	b := binary.BigEndian.AppendUint32(nil, length)
	b = append(b, vector, 1)
	b = append(binary.BigEndian.AppendUint32(b, victim.Four()), 32)
	b = append(b, 1, 7, 2, '8', '0') // one option: destination port 80
	return string(append(binary.BigEndian.AppendUint16(nil, uint16(len(b)+2)), b...))
}

// loading is what Mirai's loader says after a log-in that succeeds at once.
func loading(user, password string) []line {
	list := []line{
		{100e6, true, "login: "}, {1500e6, false, user}, {1200e6, false, "\r\n"}, {60e6, true, "Password: "},
		{1400e6, false, password}, {1100e6, false, "\r\n"}, {100e6, true, "\r\n# "},
		{20e6, false, "enable\r\nshell\r\nsh\r\n"}, {40e6, false, "/bin/busybox ECCHI\r\n"}, {60e6, true, "ECCHI: applet not found\r\n# "},
	}
	for _, c := range []string{"/bin/busybox ps; /bin/busybox ECCHI", "/bin/busybox cat /proc/mounts; /bin/busybox ECCHI", "/bin/busybox wget; /bin/busybox tftp; /bin/busybox ECCHI"} {
		list = append(list, line{120e6, false, c + "\r\n"}, line{90e6, true, "ECCHI: applet not found\r\n# "})
	}
	return append(list, line{200e6, false, "/bin/busybox IHCCE\r\n"}, line{2e9, true, "listening tun0\r\nIHCCE: applet not found\r\n# "})
}

// The servers of the botnets.
var (
	receiver = four(criminals + 48)
	loader   = four(criminals + 77)
	control  = four(criminals + 99)
)

// command keeps a bot connected to the control server until the end of the
// play, and lets it get the orders, in order of time.
func (w *world) command(b *bot, family string, r *rand.Rand, orders []line) {
	c2 := w.truth.role(control, "c2", family)
	id := fmt.Sprintf("telnet.%s", []string{"arm7", "mips", "mpsl", "x86"}[r.IntN(4)])
	lines := []line{{20e6, false, "\x00\x00\x00\x01"}, {10e6, false, string(rune(len(id))) + id}}
	t, next := b.from+1e9, b.from+11e9
	for next < w.end {
		for len(orders) > 0 && orders[0].after < next {
			lines = append(lines, line{orders[0].after - t, true, orders[0].payload})
			t = orders[0].after
			orders = orders[1:]
		}
		lines = append(lines, line{next - t, false, "\x00\x00"}, line{30e6, true, "\x00\x00"})
		t, next = next, next+60e9
	}
	name := talk{client: b.addr, server: four(8<<24 | 8<<16 | 8<<8 | 8), cport: ephemeral(r), sport: 53, proto: event.UDP, start: b.from + 5e8, up: 1, down: 1, upSize: 70, downSize: 120}
	w.at(name.start, func() { w.converse(name) })
	w.at(b.from+1e9, func() { w.dialog(b.addr, control, ephemeral(r), 23, b.from+1e9, lines, &c2.Trace) })
}
