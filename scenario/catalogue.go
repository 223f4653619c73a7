package scenario

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/intel"
	"noroshi/network"
)

// background is the ordinary life beside an attack: enough to be in its way.
var background = ordinary{homes: 1500, mobile: 800, offices: 80, behindNAT: 300, servers: true, unasked: true}

// evening is when most people are on line.
const evening = 21

// All returns the scenarios in the order of the manual. They are made anew for
// each call.
func All() []*Scenario {
	list := []*Scenario{
		ordinaryDay(), ordinaryHour(), ordinaryEvening(), wrongSampling(),
		miraiOutbreak(), notMirai(), miraiRoles(), unmarked(), closedPort(), variants(), satori(), hajime(), adb(), fleet(),
	}
	for _, a := range intel.Amplifiers() {
		list = append(list, amplification(&a))
	}
	for _, v := range vectors {
		list = append(list, directFlood(v))
	}
	return append(list, carpet(), manyOnOne(), slowOutbound(), reflectors(), terabit())
}

func ordinaryDay() *Scenario {
	return &Scenario{
		Name: "ordinary-day", Requirements: []string{"R24", "R25", "R47"}, Length: 24 * time.Hour, Provider: newProvider(2000),
		Doc: finding.Text{
			En: "A day of 2,900 subscribers, servers and resolvers, with speed tests, backups, video calls, file sharing, surveys and backscatter. Nothing is to be reported.",
			Ja: "加入者2,900とサーバー、リゾルバーの平常時の1日。速度測定、バックアップ、ビデオ通話、ファイル共有、調査スキャン、跳ね返りを含む。何も報告しないのが正しい。",
		},
		play: func(w *world) {
			w.ordinaryLife(ordinary{homes: 1500, mobile: 1000, offices: 120, behindNAT: 300, servers: true, unasked: true})
		},
	}
}

func ordinaryHour() *Scenario {
	p := newProvider(1)
	p.Exporters[2].Sampling = 50
	return &Scenario{
		Name: "ordinary-hour", Requirements: []string{"R24", "R36", "R37"}, Length: time.Hour, Hour: evening, Provider: p,
		Doc: finding.Text{
			En: "An evening hour of 760 subscribers without sampling, every tenth of whom shares files with a hundred peers, many of them gone. Nothing is to be reported.",
			Ja: "加入者760の夜の1時間をサンプリングなしで観測する。10軒に1軒が百のピアとファイルを共有し、その多くは応答しない。何も報告しないのが正しい。",
		},
		play: func(w *world) {
			w.ordinaryLife(ordinary{homes: 400, mobile: 300, offices: 60, behindNAT: 300, servers: true, unasked: true})
			p := &people{world: w, Rand: w.chance(), in: groups[homes], most: 400}
			for range 40 {
				at := w.start + seconds(p.Rand, 0, 3000)
				w.at(at, func() { p.torrent(p.who()) })
			}
		},
	}
}

func ordinaryEvening() *Scenario {
	return &Scenario{
		Name: "ordinary-evening", Requirements: []string{"R24", "R25", "R47"}, Length: 12 * time.Minute, Hour: evening, Provider: newProvider(1000),
		Doc: finding.Text{
			En: "Twelve minutes of the busiest evening with 160,000 subscribers at 1:1,000: games and calls are more packets than a flood. Nothing is to be reported.",
			Ja: "加入者16万の最も混む夜の12分、サンプリングは1:1,000。ゲームや通話のパケット数はフラッドを上回る。何も報告しないのが正しい。",
		},
		play: func(w *world) {
			w.ordinaryLife(ordinary{homes: 100_000, mobile: 60_000, offices: 200, behindNAT: 3000, servers: true, unasked: true})
		},
	}
}

func wrongSampling() *Scenario {
	p := newProvider(100)
	p.Exporters[0].Sampling, p.Exporters[0].Announced = 1, 1000
	return &Scenario{
		Name: "wrong-sampling", Requirements: []string{"R25"}, Length: 30 * time.Minute, Hour: evening, Provider: p,
		Doc: finding.Text{
			En: "Ordinary traffic while the border router announces a sampling rate a thousand times too high. That is to be suspected, and the alarms it causes stay below the cap.",
			Ja: "平常時のトラフィックだが、境界ルーターが実際の千倍のサンプリングレートを通知する。そのことを疑い、警報は上限内に収まるのが正しい。",
		},
		play: func(w *world) {
			w.truth.WrongSampling = true
			w.ordinaryLife(background)
		},
	}
}

func mirai(rate float64) worm {
	return worm{family: "mirai", cluster: "mirai", ports: []uint16{23, 2323}, raw: true, marked: true, reserved: true, rate: rate, open: .004, refuse: .06, lines: telnet("MIRAI")}
}

// bots of different speeds: from those that sampling hardly sees to the fastest
// there are.
func (w *world) outbreak(k worm, in, n, most int, from, spread time.Duration) []*bot {
	bots := w.botsAt(w.someHosts(in, n, most), from, spread)
	for i, rate := range []float64{1.5, 8, 40, 160} {
		part := k
		part.rate = rate
		share := bots[len(bots)*i/4 : len(bots)*(i+1)/4]
		if i == 3 {
			share = share[:min(len(share), 12)]
			slow := k
			slow.rate = 20
			w.infect(slow, bots[len(bots)*i/4+len(share):])
		}
		w.infect(part, share)
	}
	return bots
}

func miraiOutbreak() *Scenario {
	return &Scenario{
		Name: "mirai-outbreak", Requirements: []string{"R24", "R36", "R37"}, Length: 150 * time.Second, Hour: evening, Provider: switched(1),
		Doc: finding.Text{
			En: "200 homes and 60 mobile subscribers are infected within half a minute and scan at 1.5 to 160 SYN/s; the homes' border tells by sFlow, the mobile core by NetFlow v9, which has no sequence numbers.",
			Ja: "家庭200、モバイル60の加入者が30秒以内に感染し、毎秒1.5〜160のSYNでスキャンする。家庭側はsFlow、モバイル側はシーケンス番号のないNetFlow v9で観測する。",
		},
		play: func(w *world) {
			w.ordinaryLife(ordinary{homes: 300, mobile: 300, offices: 40, servers: true, unasked: true, rate: .3})
			w.truth.BotWithin = 5 * time.Second
			w.outbreak(mirai(0), homes, 200, 300, 10*time.Second, 30*time.Second)
			w.outbreak(mirai(0), mobile, 60, 300, 10*time.Second, 30*time.Second)
		},
	}
}

func notMirai() *Scenario {
	return &Scenario{
		Name: "not-mirai", Requirements: []string{"R24", "R36", "R37"}, Length: 180 * time.Second, Hour: evening, Provider: newProvider(1),
		Doc: finding.Text{
			En: "Bots that look like Mirai at a glance, told by flows without sequence numbers: telnet alone, both telnet ports alike, and the right mix without the skipped ranges. Beside them the true one.",
			Ja: "一見Miraiに似た感染端末をシーケンス番号のないフローで観測する。23番のみ、23番と2323番を同数、比率は正しいが除外範囲を避けないもの。本物も混ざる。",
		},
		play: func(w *world) {
			w.ordinaryLife(ordinary{homes: 400, mobile: 100, servers: true, unasked: true, rate: .5})
			hosts := w.someHosts(homes, 80, 400)
			for i, k := range []worm{
				{cluster: "telnet", never: "mirai", ports: []uint16{23}, reserved: true},
				{cluster: "alike", never: "mirai", ports: []uint16{23, 2323}, even: true, reserved: true},
				{cluster: "everywhere", never: "mirai", ports: []uint16{23, 2323}},
				{family: "mirai", cluster: "mirai", ports: []uint16{23, 2323}, marked: true, reserved: true},
			} {
				k.raw, k.rate, k.refuse, k.open = true, 15, .05, .004
				w.infect(k, w.botsAt(hosts[20*i:20*(i+1)], 5*time.Second, 10*time.Second))
			}
		},
	}
}

func miraiRoles() *Scenario {
	return &Scenario{
		Name: "mirai-roles", Requirements: []string{"R24", "R35", "R38"}, Length: 240 * time.Second, Hour: evening, Provider: tapped(100),
		Doc: finding.Text{
			En: "On a tap: strangers guess the passwords of 50 homes, a loader logs in to each, and each then scans, reports finds to a receiver and holds on to its control server, which at last orders a flood.",
			Ja: "タップ上で、外部の感染端末が家庭50軒のパスワードを破り、ローダーがログインし、感染端末はスキャンと報告を行いC&Cに接続し続け、最後に攻撃命令を受けてフラッドを行う。",
		},
		play: func(w *world) {
			w.ordinaryLife(ordinary{homes: 100, servers: true, light: true})
			r := w.chance()
			hosts := w.someHosts(homes, 50, 100)
			victim := four(contentNet + 0xc801)
			k := mirai(25)
			k.open = .02
			k.found = func(b *bot, target event.Addr, port uint16, at event.Time) {
				t := w.truth.role(receiver, "receiver", "mirai")
				begin := at + seconds(r, .05, .3)
				w.at(begin, func() {
					w.dialog(b.addr, receiver, ephemeral(r), 48101, begin, []line{{10e6, false, report(target, port, "root", "xc3511")}}, &t.Trace)
				})
			}
			attackAt := w.start.Add(170 * time.Second)
			announced := &Announcement{C2: control, Victim: victim}
			w.truth.Announced = append(w.truth.Announced, announced)
			var bots []*bot
			load := w.truth.role(loader, "loader", "mirai")
			for i, a := range hosts {
				at := w.start + 5e9 + event.Time(i)*8e8
				w.at(at, func() { // somebody else's bot gets in
					w.dialog(stranger(r), a, ephemeral(r), 23, at, telnet("MIRAI")(rand.New(rand.NewPCG(1, 1)), a), nil)
				})
				login := at + 6e9
				w.at(login, func() { w.dialog(loader, a, ephemeral(r), 23, login, loading("root", "xc3511"), &load.Trace) })
				b := &bot{addr: a, from: login + 18e9}
				w.command(b, "mirai", r, []line{{attackAt, true, order(30, 0, victim)}})
				bots = append(bots, b)
			}
			w.infect(k, bots)
			w.at(attackAt, func() { announced.Trace.sent(attackAt, 1); announced.Trace.told(attackAt, 1) })
			v := vectorOf("udp")
			v.dport = 80
			f := w.floodFrom(outbound{victim: victim, senders: hosts, vector: v, pps: 500, from: 171 * time.Second, to: 201 * time.Second, spread: 500 * time.Millisecond})
			f.Within = 3 * time.Second // it is little above the limit
		},
	}
}

func unmarked() *Scenario {
	return &Scenario{
		Name: "unmarked-bots", Requirements: []string{"R24"}, Length: 240 * time.Second, Hour: evening, Provider: newProvider(1),
		Doc: finding.Text{
			En: "150 bots without any mark: connections by the kernel with its retransmissions, several ports each, one target every two seconds or five a second.",
			Ja: "印のない感染端末150台。カーネルの通常の接続(再送あり)で複数のポートを試し、速さは2秒に1宛先から毎秒5宛先まで。",
		},
		play: func(w *world) {
			w.ordinaryLife(ordinary{homes: 600, mobile: 600, offices: 80, servers: true, unasked: true, rate: .5})
			k := worm{family: "unmarked", cluster: "unmarked", ports: []uint16{23, 2323, 80, 8080, 8081, 81, 5555}, open: .01, refuse: .05, lines: telnet("LZRD")}
			for i, rate := range []float64{.5, 2, 5} {
				k.rate = rate
				w.infect(k, w.botsAt(w.someHosts([]int{homes, mobile, homes}[i], 50, 600), 5*time.Second, 20*time.Second))
			}
		},
	}
}

func closedPort() *Scenario {
	return &Scenario{
		Name: "closed-port", Requirements: []string{"R24", "R46"}, Length: 150 * time.Second, Hour: evening, Provider: newProvider(1),
		Doc: finding.Text{
			En: "Bots close their telnet port behind them: whoever checks from outside is refused, while they scan.",
			Ja: "感染端末が自らのtelnetポートを閉じる。外部からの確認は拒否されるが、スキャンは続いている。",
		},
		play: func(w *world) {
			w.ordinaryLife(ordinary{homes: 400, servers: true, unasked: true, rate: .5})
			bots := w.botsAt(w.someHosts(homes, 40, 400), 5*time.Second, 10*time.Second)
			w.infect(mirai(12), bots)
			r := w.chance()
			w.every(w.start.Add(20*time.Second), w.end, time.Second, func(now event.Time) {
				for _, b := range bots {
					if r.IntN(5) == 0 {
						w.converse(talk{client: four(surveyNet + 9), server: b.addr, cport: ephemeral(r), sport: 23, proto: event.TCP, start: now + event.Time(r.Int64N(1e9)), outcome: refused})
					}
				}
			})
		},
	}
}

func variants() *Scenario {
	return &Scenario{
		Name: "mirai-variants", Requirements: []string{"R24", "R120"}, Length: 180 * time.Second, Hour: evening, Provider: tapped(100),
		Doc: finding.Text{
			En: "Five variants of Mirai at once, of 25 bots each, which differ in ports, exploits and the word they give busybox.",
			Ja: "Miraiの5つの変種が各25台同時に活動する。ポート、攻撃コード、busyboxに渡す語が異なる。",
		},
		play: func(w *world) {
			w.ordinaryLife(ordinary{homes: 200, servers: true, light: true})
			list := []worm{
				{cluster: "mirai", ports: []uint16{23, 2323}, lines: telnet("MIRAI")},
				{cluster: "sora", ports: []uint16{23, 80, 8080, 81}, lines: eitherOf(telnet("SORA"), request(jaws))},
				{cluster: "owari", ports: []uint16{23, 52869, 37215}, lines: eitherOf(telnet("OWARI"), request(realtek))},
				{cluster: "masuta", ports: []uint16{80, 8081}, lines: request(hnap)},
				{cluster: "josho", ports: []uint16{8080, 80, 5500}, lines: request(gpon)},
			}
			hosts := w.someHosts(homes, 25*len(list), 200)
			for i, k := range list {
				k.raw, k.marked, k.reserved, k.rate, k.open, k.refuse = true, true, true, 20, .02, .06
				w.infect(k, w.botsAt(hosts[25*i:25*(i+1)], 5*time.Second, 20*time.Second))
			}
		},
	}
}

func satori() *Scenario {
	return &Scenario{
		Name: "satori", Requirements: []string{"R24", "R121"}, Length: 180 * time.Second, Hour: evening, Provider: switched(1),
		Doc: finding.Text{
			En: "120 Satori bots scan 37215 and 52869 with Mirai's scanner and exploit what answers; nobody loads them.",
			Ja: "Satori 120台がMiraiのスキャナーで37215番と52869番を調べ、応答した機器を直接攻撃する。ローダーは使わない。",
		},
		play: func(w *world) {
			w.ordinaryLife(ordinary{homes: 300, mobile: 100, servers: true, unasked: true, rate: .3})
			k := worm{family: "satori", cluster: "satori", ports: []uint16{37215, 52869, 37215, 52869, 37215}, raw: true, marked: true, reserved: true, rate: 20, open: .01, refuse: .05, lines: eitherOf(request(huawei), request(realtek))}
			w.infect(k, w.botsAt(w.someHosts(homes, 120, 300), 5*time.Second, 20*time.Second))
		},
	}
}

func hajime() *Scenario {
	return &Scenario{
		Name: "hajime", Requirements: []string{"R24", "R127"}, Length: 240 * time.Second, Hour: evening, Provider: newProvider(1),
		Doc: finding.Text{
			En: "60 Hajime bots: telnet and TR-069 scanning together with the BitTorrent table, and no attack. Beside them homes that share files and nothing else.",
			Ja: "Hajime 60台。telnetとTR-069のスキャンに加えBitTorrentのDHTを使い、攻撃はしない。ファイル共有だけを行う家庭もある。",
		},
		play: func(w *world) {
			w.ordinaryLife(ordinary{homes: 400, servers: true, unasked: true, rate: .5})
			hosts := w.someHosts(homes, 90, 400)
			bots := w.botsAt(hosts[:60], 5*time.Second, 20*time.Second)
			w.infect(worm{family: "hajime", cluster: "hajime", ports: []uint16{23, 23, 23, 7547, 5358}, rate: 8, open: .004, refuse: .05, lines: telnet("QZKFW")}, bots)
			p := &people{world: w, Rand: w.chance(), in: groups[homes]}
			for i, a := range hosts {
				host := a.Four() - groups[homes].four
				if i >= 60 {
					p.torrent(host)
					continue
				}
				port := uint16(1024 + p.IntN(64000))
				w.every(bots[i].from, w.end, 700*time.Millisecond, func(now event.Time) {
					w.udp(a, stranger(p.Rand), port, uint16(1024+p.IntN(64000)), now, 0, 1, uint64(p.IntN(2)), uint16(between(p.Rand, 95, 140)), 300)
				})
			}
		},
	}
}

func adb() *Scenario {
	return &Scenario{
		Name: "adb-worm", Requirements: []string{"R24"}, Length: 180 * time.Second, Hour: evening, Provider: tapped(100),
		Doc: finding.Text{
			En: "40 television boxes with an open Android debug bridge look for others on port 5555.",
			Ja: "Androidのデバッグ機能を開いたテレビ用端末40台が5555番で仲間を探す。",
		},
		play: func(w *world) {
			w.ordinaryLife(ordinary{homes: 150, servers: true, light: true})
			hello := func(r *rand.Rand, _ event.Addr) []line {
				return []line{{20e6, false, adbHello()}, {80e6, true, adbHello()}, {20e6, false, "OPEN\x01\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\xb0\xaf\xba\xb1shell:x\x00"}}
			}
			w.infect(worm{family: "adb", cluster: "adb", ports: []uint16{5555}, raw: true, marked: true, reserved: true, rate: 15, open: .01, refuse: .05, lines: hello},
				w.botsAt(w.someHosts(homes, 40, 150), 5*time.Second, 20*time.Second))
		},
	}
}

func fleet() *Scenario {
	const size = 20_000
	p := newProvider(1)
	p.Networks = append(p.Networks, network.Network{Name: "cars", Kind: network.Mobile, Tenant: "car-maker", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.72.0.0/14")}})
	p.watched = append(p.watched, 1)
	return &Scenario{
		Name: "moving-fleet", Requirements: []string{"R24", "R122"}, Length: 85 * time.Second, Hour: 17, Provider: p,
		Doc: finding.Text{
			En: "20,000 cars of one maker are infected and scan at five SYN/s each; every tenth gets a new address on the way.",
			Ja: "ある自動車メーカーの車載SIM 20,000枚が感染し、毎秒5SYNでスキャンする。10枚に1枚は途中でアドレスが変わる。",
		},
		play: func(w *world) {
			w.ordinaryLife(ordinary{homes: 300, mobile: 600, servers: true, unasked: true, rate: .3})
			r := w.chance()
			w.truth.Fleets = append(w.truth.Fleets, &Fleet{Name: "cars", Size: size})
			base := uint32(10<<24 | 72<<16)
			bots := make([]*bot, 0, size*11/10)
			places := r.Perm(size * 2)
			for i := range size {
				b := &bot{addr: four(base + uint32(places[i])), from: w.start + 5e9 + event.Time(r.Float64()*5e9)}
				if i%10 == 0 {
					b.to = w.start.Add(40*time.Second) + event.Time(r.Float64()*15e9)
					bots = append(bots, &bot{addr: four(base + uint32(places[size+i])), from: b.to})
				}
				bots = append(bots, b)
			}
			w.infect(worm{cluster: "cars", ports: []uint16{23, 8080, 5555}, raw: true, rate: 5, refuse: .02}, bots)
		},
	}
}

func amplification(a *intel.Amplifier) *Scenario {
	name := a.Vector
	if a.Port == 4500 { // two ports have one vector
		name += "-4500"
	}
	v := amplified(a)
	return &Scenario{
		Name: name, Requirements: []string{"R25"}, Length: 50 * time.Second, Hour: evening, Provider: newProvider(100),
		Doc: finding.Text{
			En: fmt.Sprintf("4,000 open services answer one server with %s at 100,000 packets/s (%s).", a.Name, v[0].sizeText()),
			Ja: fmt.Sprintf("%sの応答が4,000の踏み台から1台のサーバーに毎秒10万パケット届く。", a.Name),
		},
		play: func(w *world) {
			w.ordinaryLife(ordinary{homes: 300, mobile: 200, offices: 20, servers: true, unasked: true, rate: .5})
			// Some on a home, some on a server, some on a server's IPv6 address.
			target := []event.Addr{groups[homes].addr(1000, false), groups[servers].addr(12, false), groups[servers].addr(12, true)}[a.Port%3]
			w.flood(attack{target: target, vectors: v, pps: 100_000, from: 10 * time.Second, to: 35 * time.Second})
		},
	}
}

func (v vector) sizeText() string { return fmt.Sprintf("packets of %d octets", v.size) }

func directFlood(v vector) *Scenario {
	return &Scenario{
		Name: "flood-" + v.name, Requirements: []string{"R25", "R47"}, Length: 50 * time.Second, Hour: evening, Provider: newProvider(100),
		Doc: finding.Text{
			En: fmt.Sprintf("A flood of %s, 150,000 packets/s on one server.", v.name),
			Ja: fmt.Sprintf("1台のサーバーへの毎秒15万パケットのフラッド(%s)。", v.name),
		},
		play: func(w *world) {
			w.ordinaryLife(ordinary{homes: 300, mobile: 200, offices: 20, servers: true, unasked: true, rate: .5})
			w.flood(attack{target: groups[servers].addr(11, false), vectors: []vector{v}, pps: 150_000, from: 10 * time.Second, to: 35 * time.Second})
		},
	}
}

func carpet() *Scenario {
	return &Scenario{
		Name: "carpet-bombing", Requirements: []string{"R25", "R52"}, Length: 60 * time.Second, Hour: evening, Provider: newProvider(100),
		Doc: finding.Text{
			En: "200,000 packets/s of DNS answers over a /22: 195 for each address, which no limit for hosts sees.",
			Ja: "/22全体に毎秒20万パケットのDNS応答。1アドレス当たりは毎秒195パケットで、ホスト別のしきい値では見えない。",
		},
		play: func(w *world) {
			w.ordinaryLife(background)
			v := amplified(&intel.Amplifiers()[0])[:1]
			v[0].share = 1
			w.flood(attack{target: groups[homes].addr(4096, false), bits: 22, vectors: v, pps: 200_000, from: 10 * time.Second, to: 40 * time.Second})
		},
	}
}

func manyOnOne() *Scenario {
	return &Scenario{
		Name: "100000-on-one", Requirements: []string{"R47"}, Length: 60 * time.Second, Hour: evening, Provider: switched(10),
		Doc: finding.Text{
			En: "100,000 subscribers send one victim outside five packets a second each.",
			Ja: "加入者10万が外部の1被害者へ、それぞれ毎秒5パケットを送る。",
		},
		play: func(w *world) {
			w.ordinaryLife(ordinary{homes: 1000, servers: true, unasked: true, rate: .5})
			v := vectorOf("udp")
			v.dport = 443
			w.floodFrom(outbound{victim: four(contentNet + 0xc802), senders: w.someHosts(homes, 100_000, 120_000), vector: v, pps: 5, from: 10 * time.Second, to: 50 * time.Second, spread: 2 * time.Second})
		},
	}
}

func slowOutbound() *Scenario {
	return &Scenario{
		Name: "slow-outbound", Requirements: []string{"R47"}, Length: 150 * time.Second, Hour: evening, Provider: newProvider(1),
		Doc: finding.Text{
			En: "500 bots send one victim 50 packets a second each, told by flow caches that hold them for a minute.",
			Ja: "感染端末500台が1被害者へ毎秒50パケットずつ送る。フローキャッシュが1分保持してから通知する。",
		},
		play: func(w *world) {
			w.ordinaryLife(ordinary{homes: 800, mobile: 300, servers: true, unasked: true, rate: .5})
			v := vectorOf("udp")
			v.dport = 53
			f := w.floodFrom(outbound{victim: four(contentNet + 0xc803), senders: w.someHosts(homes, 500, 800), vector: v, pps: 50, from: 10 * time.Second, to: 120 * time.Second, spread: 3 * time.Second})
			f.Within = 5 * time.Second // the routers themselves take three and a half to tell of all bots
		},
	}
}

func reflectors() *Scenario {
	return &Scenario{
		Name: "own-reflectors", Requirements: []string{"R25"}, Length: 90 * time.Second, Hour: evening, Provider: newProvider(10),
		Doc: finding.Text{
			En: "80 home routers answer forged SSDP requests: what they send to the victim is many times what they were asked.",
			Ja: "家庭用ルーター80台が詐称されたSSDP要求に応答し、要求の何倍もの通信が被害者へ向かう。",
		},
		play: func(w *world) {
			w.ordinaryLife(ordinary{homes: 600, servers: true, unasked: true, rate: .5})
			for _, a := range intel.Amplifiers() {
				if a.Port == 1900 {
					w.reflect(four(contentNet+0xc804), w.someHosts(homes, 80, 600), &a, 150, 10*time.Second, 60*time.Second)
				}
			}
		},
	}
}

func terabit() *Scenario {
	return &Scenario{
		Name: "terabit", Requirements: []string{"R25", "R52"}, Length: 60 * time.Second, Hour: evening, Provider: newProvider(10_000),
		Doc: finding.Text{
			En: "1 Tbit/s of UDP, DNS and CLDAP on one server for 30 s, seen at one packet in 10,000.",
			Ja: "1台のサーバーへ30秒間、合計1TbpsのUDP・DNS・CLDAP。1万分の1のサンプリングで観測する。",
		},
		play: func(w *world) {
			w.ordinaryLife(background)
			var list []vector
			for _, a := range intel.Amplifiers() {
				if a.Port == 53 || a.Port == 389 {
					v := amplified(&a)[0]
					v.size, v.share = 1480, .3
					list = append(list, v)
				}
			}
			u := vectorOf("udp")
			u.size, u.share, u.sources = 1400, .4, 30_000
			list = append(list, u)
			w.flood(attack{target: groups[servers].addr(13, false), vectors: list, pps: 1e12 / 8 / 1450, from: 10 * time.Second, to: 40 * time.Second})
		},
	}
}

// Demo returns the scenario that noroshi demo shows: less than a minute of a
// small provider's network, whose exporters hold nothing back for long. It is
// not one of All, because nothing is scored by it.
func Demo() *Scenario {
	p := newProvider(10)
	p.Exporters = []Exporter{
		{Name: "access", Addr: event.AddrOf4([4]byte{192, 0, 2, 1}), Protocol: SFlow, Sampling: 10},
		{Name: "mobile-core", Addr: event.AddrOf4([4]byte{192, 0, 2, 2}), Protocol: NetFlow9, Domain: 7, Sampling: 20, Active: 5 * time.Second, Inactive: time.Second},
		{Name: "data-centre", Addr: event.AddrOf4([4]byte{192, 0, 2, 3}), Protocol: IPFIX, Domain: 1, Sampling: 50, Active: 5 * time.Second, Inactive: time.Second},
		p.Exporters[3],
	}
	const bots = 60
	victim, server := four(contentNet+0xc805), groups[servers].addr(12, false)
	blanket := groups[mobile].addr(4096, false)
	act := func(at time.Duration, en, ja string) Act { return Act{at, finding.Text{En: en, Ja: ja}} }
	return &Scenario{
		Name: "demo", Requirements: []string{"R24", "R25", "R47"}, Length: 48 * time.Second, Provider: p,
		Doc: finding.Text{
			En: "3,500 subscribers, servers and resolvers; then an outbreak of Mirai, an amplification attack, carpet bombing and a flood from inside.",
			Ja: "加入者3,500とサーバー、リゾルバー。続いてMiraiの感染拡大、増幅攻撃、絨毯爆撃、内部からのフラッド。",
		},
		Acts: []Act{
			act(0, "ordinary traffic of 3,500 subscribers, servers and resolvers", "加入者3,500、サーバー、リゾルバーの平常時のトラフィック"),
			act(4*time.Second, fmt.Sprintf("%d homes are infected with Mirai and scan", bots), fmt.Sprintf("家庭%d軒がMiraiに感染しスキャンを開始", bots)),
			act(10*time.Second, fmt.Sprintf("4,000 open DNS servers answer %v, which asked none of them: 120,000 packets/s", server), fmt.Sprintf("開放DNSサーバー4,000台の応答が%vへ毎秒12万パケット", server)),
			act(20*time.Second, fmt.Sprintf("carpet bombing of %v/22: 200,000 packets/s, 195 for each address", blanket), fmt.Sprintf("%v/22への絨毯爆撃: 毎秒20万パケット、1アドレス当たり195", blanket)),
			act(28*time.Second, fmt.Sprintf("500 homes flood %v with 100 packets/s each", victim), fmt.Sprintf("家庭500軒が%vへ毎秒100パケットずつフラッド", victim)),
			act(42*time.Second, "all attacks are over", "すべての攻撃が終了"),
		},
		play: func(w *world) {
			w.ordinaryLife(ordinary{homes: 2000, mobile: 1200, offices: 100, behindNAT: 300, servers: true, unasked: true})
			k := mirai(40)
			k.lines = nil
			w.infect(k, w.botsAt(w.someHosts(homes, bots, 2000), 4*time.Second, 4*time.Second))
			w.flood(attack{target: server, vectors: amplified(&intel.Amplifiers()[0]), pps: 120_000, from: 10 * time.Second, to: 30 * time.Second})
			u := vectorOf("udp")
			w.flood(attack{target: blanket, bits: 22, vectors: []vector{u}, pps: 200_000, from: 20 * time.Second, to: 36 * time.Second})
			u.dport = 443
			w.floodFrom(outbound{victim: victim, senders: w.someHosts(homes, 500, 2000), vector: u, pps: 100, from: 28 * time.Second, to: 42 * time.Second, spread: time.Second})
		},
	}
}
