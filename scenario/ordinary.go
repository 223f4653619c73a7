package scenario

import (
	"math/rand/v2"
	"time"

	"noroshi/event"
)

// ordinary is how much of ordinary life there is in a play: how many
// subscribers of each kind are active, and the share of their usual activity.
type ordinary struct {
	homes, mobile, offices, behindNAT int
	// servers, resolvers and strangers: traffic that begins outside or at the
	// provider's own services.
	servers bool
	// survey, radiation and backscatter: what comes unasked from outside.
	unasked bool
	// light leaves out what moves much: video, calls, games, backups. A tap tells
	// of each packet.
	light bool
	// rate multiplies the activity of subscribers; 0 means 1.
	rate float64
}

// Hours of the day in which people are up, in UTC to keep plays simple: the
// share of the busiest hour's activity.
var (
	atHome   = [24]float64{.45, .28, .18, .12, .10, .12, .22, .38, .42, .40, .40, .42, .48, .45, .42, .45, .52, .62, .75, .88, .97, 1, .92, .70}
	onTheWay = [24]float64{.35, .22, .14, .10, .10, .18, .42, .80, .85, .65, .60, .66, .85, .70, .62, .64, .70, .88, 1, .92, .85, .80, .70, .52}
	atWork   = [24]float64{.06, .05, .05, .05, .05, .06, .12, .35, .80, .98, 1, .95, .70, .92, .98, .95, .88, .65, .38, .22, .15, .12, .10, .08}
)

// deed is one kind of thing that subscribers do; weight is how often.
type deed struct {
	weight float64
	do     func(p *people, host uint32)
}

var (
	homeLife   = []deed{{30, (*people).web}, {20, (*people).quic}, {25, (*people).app}, {10, (*people).lookup}, {4, (*people).video}, {1.5, (*people).game}, {4, (*people).ntp}, {1, (*people).call}, {.3, (*people).vpn}, {.12, (*people).speedTest}, {.12, (*people).torrent}, {.2, (*people).backup}, {3, (*people).mail}}
	mobileLife = []deed{{22, (*people).web}, {26, (*people).quic}, {40, (*people).app}, {8, (*people).lookup}, {4, (*people).video}, {.5, (*people).game}, {2, (*people).ntp}, {1, (*people).call}, {.1, (*people).speedTest}}
	lightLife  = []deed{{20, (*people).app}, {10, (*people).lookup}, {4, (*people).ntp}, {3, (*people).mail}, {6, (*people).web}}
	officeLife = []deed{{36, (*people).web}, {12, (*people).quic}, {20, (*people).app}, {8, (*people).lookup}, {1, (*people).video}, {3, (*people).ntp}, {2, (*people).call}, {1, (*people).vpn}, {.1, (*people).speedTest}, {1, (*people).backup}, {6, (*people).mail}, {2, (*people).remote}}
)

// people are the subscribers of one network.
type people struct {
	*world
	*rand.Rand
	in    group
	life  []deed
	total float64
	most  uint32 // addresses
}

// live lets n subscribers on as many addresses, or fewer, do so many things an
// hour each in the busiest hour. running videos and games have begun before.
func (w *world) live(in int, n, addresses, running int, perHour float64, day *[24]float64, life []deed) {
	if n == 0 {
		return
	}
	p := &people{world: w, Rand: w.chance(), in: groups[in], life: life, most: uint32(addresses)}
	for _, d := range life {
		p.total += d.weight
	}
	const step = 100 * time.Millisecond
	w.every(w.start, w.end, step, func(now event.Time) {
		share := day[now.Std().Hour()]
		for range poisson(p.Rand, float64(n)*perHour*share*step.Hours()) {
			p.act()
		}
	})
	for range running { // who was on line before the play began goes on
		p.video(p.who())
		p.game(p.who())
	}
}

// who draws a subscriber; some are much more active than others.
func (p *people) who() uint32 {
	u := p.Float64()
	if p.IntN(4) == 0 {
		u *= u * u
	}
	return uint32(u * float64(p.most))
}

func (p *people) act() {
	host, x := p.who(), p.Float64()*p.total
	for _, d := range p.life {
		if x -= d.weight; x < 0 {
			d.do(p, host)
			return
		}
	}
}

// soon is a moment within the step.
func (p *people) soon() event.Time { return p.now + event.Time(p.Int64N(100e6)) }

// pair draws the host's address and one of the world's servers, in the same
// family. A few servers have most of the traffic.
func (p *people) pair(host uint32) (own, other event.Addr) {
	six := p.in.six != 0 && p.IntN(5) < 2
	return p.in.addr(host, six), content(p.Rand, six)
}

// content draws one of the world's servers.
func content(r *rand.Rand, six bool) event.Addr {
	u := r.Float64()
	n := uint32(u * u * u * 20000)
	if six {
		return sixOf(outsideSix|1, uint64(n)<<8|1)
	}
	return four(contentNet + n)
}

// stranger draws another provider's subscriber.
func stranger(r *rand.Rand) event.Addr { return four(peopleNet + r.Uint32N(1<<16)) }

func (p *people) lookup(host uint32) {
	six := p.in.six != 0 && p.IntN(2) == 0
	p.udp(p.in.addr(host, six), groups[resolvers].addr(uint32(1+p.IntN(2)), six), ephemeral(p.Rand), 53, p.soon(), 0, 1, 1,
		uint16(between(p.Rand, 60, 85)), uint16(between(p.Rand, 90, 400)))
}

// udp is a conversation over UDP.
func (w *world) udp(client, server event.Addr, cport, sport uint16, at event.Time, lasts time.Duration, up, down uint64, upSize, downSize uint16) {
	w.converse(talk{client: client, server: server, cport: cport, sport: sport, proto: event.UDP, start: at, lasts: lasts, up: up, down: down, upSize: upSize, downSize: downSize})
}

// tls is a connection to a server that gives about octets; some are lost, some
// fail.
func (p *people) tls(own, other event.Addr, port uint16, at event.Time, octets float64) {
	down := uint64(octets/1380) + 4
	t := talk{
		client: own, server: other, cport: ephemeral(p.Rand), sport: port, proto: event.TCP, start: at,
		lasts: time.Duration(seconds(p.Rand, .05, 1) + event.Time(octets/6e6*1e9)),
		up:    down/2 + uint64(between(p.Rand, 3, 9)), down: down + uint64(float64(down)*.01*p.Float64()), // retransmissions
		upSize: uint16(between(p.Rand, 60, 180)), downSize: uint16(between(p.Rand, 900, 1420)),
	}
	switch x := p.IntN(1000); {
	case x < 15:
		t.outcome = unanswered
	case x < 22:
		t.outcome = refused
	case x < 150:
		t.outcome = aborted
	case x < 450: // kept open for more
		t.outcome = left
		t.lasts += time.Duration(seconds(p.Rand, 5, 60))
	}
	p.converse(t)
}

func (p *people) web(host uint32) {
	p.lookup(host)
	at := p.soon() + seconds(p.Rand, .02, .1)
	for range between(p.Rand, 2, 6) {
		own, other := p.pair(host)
		port := uint16(443)
		if p.IntN(12) == 0 {
			port = 80
		}
		p.tls(own, other, port, at, heavyTail(p.Rand, 8e3, 2e7))
		at += seconds(p.Rand, 0, .5)
	}
}

func (p *people) quic(host uint32) {
	own, other := p.pair(host)
	octets := heavyTail(p.Rand, 2e4, 8e7)
	down := uint64(octets/1300) + 5
	p.udp(own, other, ephemeral(p.Rand), 443, p.soon(), time.Duration(seconds(p.Rand, .2, 20)), down/4+6, down, uint16(between(p.Rand, 70, 300)), 1280)
}

func (p *people) app(host uint32) {
	own, other := p.pair(host)
	p.tls(own, other, 443, p.soon(), heavyTail(p.Rand, 1e3, 2e5))
}

func (p *people) mail(host uint32) {
	own, other := p.pair(host)
	p.tls(own, other, 993, p.soon(), heavyTail(p.Rand, 2e3, 3e6))
}

func (p *people) remote(host uint32) {
	own, other := p.pair(host)
	p.tls(own, other, 22, p.soon(), heavyTail(p.Rand, 5e3, 1e8))
}

func (p *people) video(host uint32) {
	own, other := p.pair(host)
	minutes := 5 + 35*p.Float64()
	down := uint64(minutes * 60 * float64(between(p.Rand, 120, 900)))
	t := talk{
		client: own, server: other, cport: ephemeral(p.Rand), sport: 443, proto: event.UDP, start: p.soon(),
		lasts: time.Duration(minutes * float64(time.Minute)), up: down / 5, down: down, upSize: 75, downSize: 1330,
	}
	if p.IntN(2) == 0 {
		t.proto, t.up, t.upSize, t.downSize = event.TCP, down/2, ackSize, 1480
	}
	p.converse(t)
}

func (p *people) game(host uint32) {
	own, other := p.pair(host)
	minutes, rate := 8+30*p.Float64(), float64(between(p.Rand, 20, 64))
	n := uint64(minutes * 60 * rate)
	port := []uint16{27015, 3074, 27960, 7777, 30000}[p.IntN(5)]
	p.udp(own, other, ephemeral(p.Rand), port, p.soon(), time.Duration(minutes*float64(time.Minute)), n, n, uint16(between(p.Rand, 70, 120)), uint16(between(p.Rand, 90, 420)))
}

func (p *people) ntp(host uint32) {
	own, _ := p.pair(host)
	server := groups[resolvers].addr(3, !own.Is4())
	if p.IntN(3) > 0 {
		server = content(p.Rand, !own.Is4())
	}
	p.udp(own, server, ephemeral(p.Rand), 123, p.soon(), 0, 1, 1, 76, 76)
}

// call is a video call over a TURN server, whose port amplifiers have too.
func (p *people) call(host uint32) {
	own, other := p.pair(host)
	minutes, rate := 3+25*p.Float64(), float64(between(p.Rand, 50, 220))
	n := uint64(minutes * 60 * rate)
	size := uint16(between(p.Rand, 180, 1100))
	p.udp(own, other, ephemeral(p.Rand), 3478, p.soon(), time.Duration(minutes*float64(time.Minute)), n, n, size, size)
}

// vpn is a tunnel by IPsec, OpenVPN or WireGuard.
func (p *people) vpn(host uint32) {
	own, other := p.pair(host)
	minutes := 20 + 200*p.Float64()
	n := uint64(minutes * 60 * float64(between(p.Rand, 5, 300)))
	t := talk{
		client: own, server: other, proto: event.UDP, start: p.soon(), lasts: time.Duration(minutes * float64(time.Minute)),
		up: n / 2, down: n, upSize: uint16(between(p.Rand, 120, 600)), downSize: uint16(between(p.Rand, 400, 1300)),
	}
	switch p.IntN(4) {
	case 0:
		t.proto = event.ESP
	case 1:
		t.cport, t.sport = 4500, 4500
	case 2:
		t.cport, t.sport = ephemeral(p.Rand), 1194
	case 3:
		t.cport, t.sport = ephemeral(p.Rand), 51820
	}
	p.converse(t)
}

// speedTest is ten seconds down and ten up, at a few hundred Mbit/s, with four
// connections to each of two servers.
func (p *people) speedTest(host uint32) {
	at, mbps := p.soon(), float64(between(p.Rand, 100, 900))
	for i := range 8 {
		own, other := p.in.addr(host, false), four(contentNet+0xf000+uint32(p.IntN(2)+2*int(host%50)))
		n := uint64(mbps / 8 / 8 * 1e6 * 10 / 1480)
		t := talk{
			client: own, server: other, cport: ephemeral(p.Rand), sport: 8080, proto: event.TCP, start: at + event.Time(i)*20e6,
			lasts: 10 * time.Second, up: n / 2, down: n, upSize: ackSize, downSize: 1480,
		}
		p.converse(t)
		t.cport++
		t.start += 11e9
		t.up, t.down, t.upSize, t.downSize = n/3, n/6, 1480, ackSize
		p.converse(t)
	}
}

// torrent is file sharing for a while: very many peers on any port, of which a
// third is gone, and look-ups in the distributed table.
func (p *people) torrent(host uint32) {
	own := p.in.addr(host, false)
	mine := uint16(20000 + host%30000)
	minutes := 15 + 45*p.Float64()
	for range between(p.Rand, 40, 140) {
		at := p.soon() + seconds(p.Rand, 0, minutes*50)
		peer, port := stranger(p.Rand), uint16(1024+p.IntN(64000))
		octets := heavyTail(p.Rand, 2e4, 3e8)
		n := uint64(octets/1400) + 3
		t := talk{client: own, server: peer, cport: ephemeral(p.Rand), sport: port, proto: event.TCP, start: at, lasts: time.Duration(seconds(p.Rand, 5, 600)), up: n, down: n/2 + 1, upSize: 900, downSize: 300, outcome: left}
		if p.IntN(2) == 0 {
			t.proto, t.cport = event.UDP, mine // uTP
			if p.IntN(3) == 0 {
				t.up, t.down, t.lasts, t.upSize = 3, 0, 7*time.Second, 48
			}
		} else if p.IntN(3) == 0 {
			t.outcome = unanswered
		}
		p.at(at, func() { p.converse(t) })
	}
	for range between(p.Rand, 60, 300) {
		at := p.soon() + seconds(p.Rand, 0, minutes*60)
		answered := uint64(1)
		if p.IntN(5) < 2 {
			answered = 0
		}
		peer, port, size := stranger(p.Rand), uint16(1024+p.IntN(64000)), uint16(between(p.Rand, 90, 150))
		p.at(at, func() { p.udp(own, peer, mine, port, at, 0, 1, answered, size, size+200) })
	}
}

// backup is one long upload, mostly at night for those who let it.
func (p *people) backup(host uint32) {
	if hour := p.now.Std().Hour(); hour > 6 && p.IntN(4) > 0 {
		return
	}
	minutes, mbps := 5+50*p.Float64(), float64(between(p.Rand, 20, 160))
	n := uint64(mbps / 8 * 1e6 * minutes * 60 / 1480)
	own, other := p.pair(host)
	p.converse(talk{
		client: own, server: other, cport: ephemeral(p.Rand), sport: 443, proto: event.TCP, start: p.soon(),
		lasts: time.Duration(minutes * float64(time.Minute)), up: n, down: n / 2, upSize: 1480, downSize: ackSize,
	})
}

// serve is what the provider's own servers and resolvers do.
func (w *world) serve(share float64) {
	r := w.chance()
	const step = 100 * time.Millisecond
	w.every(w.start, w.end, step, func(now event.Time) {
		day := atHome[now.Std().Hour()]
		n := func(perSecond float64) int { return poisson(r, perSecond*day*share*step.Seconds()) }
		soon := func() event.Time { return now + event.Time(r.Int64N(100e6)) }
		for range n(40) { // visitors of web servers
			six := r.IntN(3) == 0
			client := stranger(r)
			if six {
				client = sixOf(outsideSix|2<<8|uint64(r.Uint32N(1<<14))<<16, 7)
			}
			octets := heavyTail(r, 3e3, 3e7)
			down := uint64(octets/1400) + 4
			t := talk{client: client, server: groups[servers].addr(uint32(10+r.IntN(20)), six), cport: ephemeral(r), sport: 443, proto: event.TCP, start: soon(),
				lasts: time.Duration(seconds(r, .1, 20)), up: down/2 + 5, down: down, upSize: 80, downSize: 1400}
			switch x := r.IntN(240); {
			case x < 4:
				t.outcome = aborted
			case x < 6:
				t.outcome = unanswered
			}
			w.converse(t)
		}
		for range n(30) { // questions to the authoritative name servers
			w.udp(four(contentNet+r.Uint32N(3000)), groups[servers].addr(uint32(2+r.IntN(2)), false), ephemeral(r), 53, soon(), 0, 1, 1, 75, uint16(between(r, 100, 900)))
		}
		for range n(120) { // and those that the resolvers ask
			six := r.IntN(4) == 0
			size := uint16(between(r, 90, 450))
			if r.IntN(5) == 0 {
				size = uint16(between(r, 900, 1400)) // signed
			}
			w.udp(groups[resolvers].addr(uint32(1+r.IntN(2)), six), content(r, six), ephemeral(r), 53, soon(), 0, 1, 1, 78, size)
		}
		for range n(2) { // mail from everywhere
			w.converse(talk{client: stranger(r), server: groups[servers].addr(5, false), cport: ephemeral(r), sport: 25, proto: event.TCP, start: soon(),
				lasts: time.Duration(seconds(r, .5, 5)), up: uint64(between(r, 10, 60)), down: 12, upSize: 900, downSize: 90})
		}
		for range n(8) { // clocks
			w.udp(stranger(r), groups[resolvers].addr(3, false), ephemeral(r), 123, soon(), 0, 1, 1, 76, 76)
		}
	})
}

// unasked is what comes to every network without having been asked for.
func (w *world) unasked() {
	r := w.chance()
	own := func() event.Addr { // an own address, often one that nobody uses
		g := []int{homes, homes, mobile, business, servers, dark, dark, dark}[r.IntN(8)]
		size := map[int]uint32{homes: 1 << 20, mobile: 1 << 20, business: 1 << 16, servers: 1 << 12, dark: 1 << 16}[g]
		return groups[g].addr(r.Uint32N(size), false)
	}
	probe := func(src event.Addr, at event.Time, sport, dport uint16) {
		dst := own()
		w.send(stream{src: src, dst: dst, sport: sport, dport: dport, proto: event.TCP, first: at, last: at, packets: 1, size: rstSize,
			opening: event.SYN, ttl: 241, window: 1024, bare: true})
		if dst.Four()>>16 == groups[servers].four>>16 && r.IntN(2) == 0 {
			w.send(stream{src: dst, dst: src, sport: dport, dport: sport, proto: event.TCP, first: at + 2e6, last: at + 2e6, packets: 1, size: rstSize, opening: event.RST | event.ACK, ttl: 64})
		}
	}
	ports := []uint16{80, 443, 22, 21, 25, 8080, 8443, 3389, 5900, 1883, 502, 47808, 6379, 9200}
	w.every(w.start, w.end, 100*time.Millisecond, func(now event.Time) {
		soon := func() event.Time { return now + event.Time(r.Int64N(100e6)) }
		for i := range uint32(3) { // surveys: three hosts, one port for each hour
			port := ports[(now.Std().Hour()*3+int(i)*5)%len(ports)]
			for range poisson(r, 3) {
				probe(four(surveyNet+10+i), soon(), uint16(40000+i), port)
			}
		}
		for range poisson(r, 1) { // infected hosts of other people
			port := []uint16{23, 23, 23, 2323, 8080, 5555, 37215, 445}[r.IntN(8)]
			probe(stranger(r), soon(), ephemeral(r), port)
		}
		// Two victims of floods with forged sources answer to anybody.
		for range poisson(r, 3) {
			src := four(contentNet + 0xe000 + uint32(r.IntN(2)))
			flags := uint8(event.SYN | event.ACK)
			if r.IntN(3) == 0 {
				flags = event.RST | event.ACK
			}
			at := soon()
			w.send(stream{src: src, dst: own(), sport: 443, dport: uint16(1024 + r.IntN(64000)), proto: event.TCP, first: at, last: at, packets: 1, size: 44, opening: flags, ttl: 50, window: 29200})
		}
	})
}

// ordinaryLife lets all of it happen.
func (w *world) ordinaryLife(o ordinary) {
	rate := o.rate
	if rate == 0 {
		rate = 1
	}
	life, running := homeLife, o.homes/50
	if o.light {
		life, running = lightLife, 0
	}
	w.live(homes, o.homes, o.homes, running, 24*rate, &atHome, life)
	w.live(mobile, o.mobile, o.mobile, o.mobile/50, 16*rate, &onTheWay, mobileLife)
	w.live(business, o.offices, o.offices, 0, 40*rate, &atWork, officeLife)
	w.live(cgn, o.behindNAT, 64, o.behindNAT/50, 16*rate, &onTheWay, mobileLife)
	if o.servers {
		w.serve(rate)
	}
	if o.unasked {
		w.unasked()
	}
}
