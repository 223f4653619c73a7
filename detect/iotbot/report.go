package iotbot

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"noroshi/detect"

	"noroshi/finding"
)

const version = 2

// finding words what the books say.
func (d *Detector) finding(s *suspect, ended bool) *finding.Finding {
	v := &s.judged
	rule := detect.RuleNamed(rules, v.rule)
	f := &finding.Finding{
		ID: s.id, Rule: v.rule, Version: version, Family: v.family, Severity: v.severity, Confidence: v.confidence,
		Subject: finding.Host(s.addr, v.role, s.network.Name),
		First:   s.first, Last: s.upto, Said: s.reportedAt, Ended: ended,
		Cause:   finding.Cause{Kind: "scan", Key: v.rule + "/" + v.wave + "/" + d.tenant(s)},
		Samples: float64(s.probes + s.quotes), Evidence: slices.Clone(s.evidence),
		Attack: slices.Clone(rule.Attack), Next: rule.Next, Requirements: []string{"R24"},
	}
	if f.Said == 0 {
		f.Said = s.last
	}
	switch v.rule {
	case "iotbot.scan":
		f.Cause = finding.Cause{Kind: "iotbot", Key: v.family + "/" + v.wave + "/" + d.tenant(s)}
		f.Requirements = requirements(v)
		if s.exploit != nil {
			f.Attack = append(f.Attack, "T1190")
		}
		if !d.own(s) {
			f.Next = outside
		}
	case "scan.survey":
		f.Cause.Key = v.rule + "/" + v.survey
	case "scan.vertical":
		f.Cause.Key = v.rule + "/" + s.addr.String()
	case "scan.backscatter":
		f.Cause.Key, f.Cause.Target, f.Cause.Bits = v.rule, s.addr, f.Subject.Bits
	}
	f.Measured = d.measured(s)
	f.Title, f.Why = d.words(s)
	return f
}

// further is the finding of another device behind an address.
func (d *Detector) further(s *suspect, v *deviceBooks, ended bool) *finding.Finding {
	f := d.finding(s, ended)
	f.ID, f.Subject.Port = v.id, v.port
	f.First, f.Samples = min(v.first, v.last), float64(v.n)
	f.Last = max(v.last, f.First)
	if f.Said < v.last {
		f.Said = v.last
	}
	f.Measured = append(f.Measured, finding.Measure{What: fmt.Sprintf("SYNs from source port %d while another is in use", v.port), Ja: fmt.Sprintf("別のポートの使用中に送信元ポート%dから送られたSYN", v.port), Value: float64(v.n), Unit: "SYNs", Limit: separate})
	f.Why.En += fmt.Sprintf(" It is another device behind the same address: it keeps source port %d while the first keeps its own.", v.port)
	f.Why.Ja += fmt.Sprintf("同じアドレスの背後にある別の端末: 1台目とは別の送信元ポート%dを使い続けている。", v.port)
	return f
}

func requirements(v *verdict) []string {
	list := []string{"R24", "R35", "R46", "R57", "R120", "R122"}
	switch {
	case v.family == "satori":
		list = append(list, "R121")
	case v.family == "hajime":
		list = append(list, "R127")
	case v.likelihood.mirai():
		list = append(list, "R36", "R37")
	}
	slices.Sort(list)
	return list
}

func (d *Detector) measured(s *suspect) (m []finding.Measure) {
	v, c := &s.judged, d.cfg
	add := func(what, ja string, value float64, unit string, limit float64) {
		m = append(m, finding.Measure{What: what, Ja: ja, Value: value, Unit: unit, Limit: limit})
	}
	switch v.rule {
	case "scan.backscatter":
		add("addresses that got answers they had not asked for", "問い合わせていない応答を受けたアドレス数", float64(s.n()), "addresses", float64(c.MinEchoes))
		add("connection attempts seen to it", "観測した当該ホスト宛ての接続試行", float64(s.solicited), "SYNs", 0)
		return m
	case "scan.vertical":
		add("distinct ports tried on one or two addresses", "1〜2個のアドレスに対して試したポート数", float64(s.portsTried()), "ports", float64(c.MinPorts))
		return m
	}
	limit := float64(c.MinTargets)
	if s.marked+s.quotes > 0 {
		limit = 0 // marks are enough
		add("SYNs with Mirai's mark (sequence number = destination address)", "Miraiの特徴(シーケンス番号=宛先アドレス)を持つSYN", float64(s.marked), "SYNs", 1)
		if s.quotes > 0 {
			add("ICMP errors that quote the mark", "その特徴を引用するICMPエラー", float64(s.quotes), "packets", minQuotes)
		}
	}
	if s.probes > 0 {
		add("distinct addresses tried", "試行先アドレス数", float64(v.n), "addresses", limit)
		m[len(m)-1].Error = math.Round(0.05 * float64(v.n))
		add("share of them that did not answer", "応答しなかった割合", math.Round(1000*v.share)/1000, "share", c.FailShare)
	}
	if s.plain > 0 {
		add("share of SYNs without any option (40 octets)", "オプションのないSYN(40バイト)の割合", math.Round(1000*float64(s.plain)/float64(max(s.probes, 1)))/1000, "share", 0)
	}
	if l := v.likelihood; l.ports != 0 {
		add("mix of ports 23 and 2323: likelihood of Mirai's against other scanners'", "23番と2323番の比率: 他のスキャナに対するMiraiの尤度比", math.Round(10*l.ports/math.Ln10)/10, "powers of ten", 6)
	}
	if l := v.likelihood; l.ranges != 0 {
		add("no probe into ranges that Mirai leaves out: likelihood against a scanner of all addresses", "Miraiの除外範囲への試行がないこと: 全アドレスを調べるスキャナに対する尤度比", math.Round(10*l.ranges/math.Ln10)/10, "powers of ten", 6)
	}
	if s.reached > 0 && s.marked > 0 {
		add("probes into 100.127.0.0/16 and 169.254.0.0/16, which Mirai scans by mistake", "Miraiが誤って調べる100.127.0.0/16と169.254.0.0/16への試行", float64(s.reached), "addresses", 0)
	}
	if s.nth > 0 {
		add("devices at work at once behind the address", "同じアドレスの背後で同時に動作する端末数", float64(s.nth+1), "devices", 2)
	}
	if p := count256(&s.peers); p >= minPeers {
		add("peers by UDP from one port", "単一のUDPポートから通信したピア数", float64(p), "addresses", minPeers)
	}
	if s.dark > 0 {
		add("unused addresses tried", "未使用アドレスへの試行", float64(s.dark), "addresses", 0)
	}
	return m
}

// triedWords names the services and ports tried, such as "telnet (23, 2323)".
func (s *suspect) triedWords() finding.Text {
	list := strings.Split(s.services(), "+")
	ports := strings.ReplaceAll(portList(slices.DeleteFunc(s.mainPorts(), func(p uint16) bool {
		return !slices.Contains(list, watched[p].name) && !slices.Contains(list, strconv.Itoa(int(p)))
	})), ",", ", ")
	name := strings.Join(list, ", ")
	switch {
	case ports == "":
		return finding.Text{En: "TCP", Ja: "TCP"}
	case strings.Trim(name, "0123456789, ") == "":
		return finding.Text{En: "port " + ports, Ja: ports + "番ポート"}
	}
	name += " (" + ports + ")"
	return finding.Text{En: name, Ja: name}
}

func (d *Detector) words(s *suspect) (title, why finding.Text) {
	v, n := &s.judged, s.n()
	during := finding.Span(s.upto.Sub(s.first))
	ports := s.triedWords()
	lost := fmt.Sprintf("%.0f %%", 100*v.share)
	addr := s.addr.String()
	if v.n == 1 && v.share == 1 {
		why = finding.Text{
			En: fmt.Sprintf("It tried %s on one address, which did not answer.", ports.En),
			Ja: fmt.Sprintf("1個のアドレスの%sへ接続を試み、応答はなかった。", ports.Ja),
		}
	} else if s.probes > 0 {
		why = finding.Text{
			En: fmt.Sprintf("It tried %s on %s within %s; %s of them did not answer.", ports.En, finding.Count(v.n, "address", "addresses"), during.En, lost),
			Ja: fmt.Sprintf("%sの間に%s個のアドレスの%sへ接続を試み、%sから応答がなかった。", during.Ja, finding.Grouped(v.n), ports.Ja, lost),
		}
	}
	switch v.rule {
	case "scan.backscatter":
		port := s.ports[0].key
		title = finding.Text{En: fmt.Sprintf("%s answers forged connection attempts: it is under a SYN flood", addr), Ja: fmt.Sprintf("%sからの跳ね返りパケット: SYNフラッドを受けている模様", addr)}
		why = finding.Text{
			En: fmt.Sprintf("From port %d it answered %s that had asked nothing. Whoever floods it forges these as senders.", port, finding.Count(n, "address", "addresses")),
			Ja: fmt.Sprintf("%d番ポートから、接続を試みていない%d個のアドレスに応答した。攻撃者がこれらを送信元に詐称している。", port, n),
		}
		return title, why
	case "scan.survey":
		title = finding.Text{En: fmt.Sprintf("Survey scan by %s (%s)", addr, v.survey), Ja: fmt.Sprintf("%sによる調査目的のスキャン(%s)", addr, v.survey)}
		why.En += " Its address belongs to a known survey."
		why.Ja += "既知の調査機関のアドレスである。"
		return title, why
	case "scan.vertical":
		title = finding.Text{En: fmt.Sprintf("%s tries many ports of %s", addr, s.hosts[0]), Ja: fmt.Sprintf("%sが%sの多数のポートを試行", addr, s.hosts[0])}
		why = finding.Text{
			En: fmt.Sprintf("It tried %d ports of %s within %s.", s.portsTried(), s.hosts[0], during.En),
			Ja: fmt.Sprintf("%sの間に%sの%d個のポートへ接続を試みた。", during.Ja, s.hosts[0], s.portsTried()),
		}
		return title, why
	case "scan.horizontal":
		title = finding.Text{En: fmt.Sprintf("%s scans for %s", addr, ports.En), Ja: fmt.Sprintf("%sが%sをスキャン", addr, ports.Ja)}
		return title, why
	}
	name := "an IoT bot without Mirai's mark"
	nameJa := "IoTボット(Miraiの特徴なし)"
	if v.known != nil {
		name, nameJa = v.known.Name, v.known.NameJa
	}
	title = finding.Text{En: fmt.Sprintf("%s is infected: %s", addr, name), Ja: fmt.Sprintf("%sが感染: %s", addr, nameJa)}
	if v.hearsay {
		title = finding.Text{En: fmt.Sprintf("%s is perhaps infected: %s", addr, name), Ja: fmt.Sprintf("%sに感染の疑い: %s", addr, nameJa)}
	}
	say := func(en, ja string) { why.En, why.Ja = strings.TrimSpace(why.En+" "+en), why.Ja+ja }
	if s.marked > 0 {
		say(fmt.Sprintf("Mirai's mark is in %s of it: the sequence number is the destination address.", finding.Count(s.marked, "SYN", "SYNs")),
			fmt.Sprintf("送信したSYNのうち%s個にMiraiの特徴(シーケンス番号=宛先アドレス)がある。", finding.Grouped(s.marked)))
	}
	if s.quotes > 0 {
		say(fmt.Sprintf("SYNs of it with Mirai's mark are quoted by %s.", finding.Count(s.quotes, "ICMP error", "ICMP errors")), fmt.Sprintf("Miraiの特徴を持つSYNを引用したICMPエラーを%s個受信した。", finding.Grouped(s.quotes)))
	}
	if v.hearsay {
		say("Anybody can send these, and no such SYN was seen: look at the line before you believe it.", "ただしICMPエラーは誰でも送信でき、該当するSYN自体は観測していない。断定の前に回線の通信を確認すること。")
	}
	if l := v.likelihood; l.usual && l.ports >= certain {
		say("One in ten of its probes goes to 2323, as Mirai's do.", "試行の1割が2323番ポート宛てで、Miraiの比率と一致する。")
	}
	if v.likelihood.ranges >= certain {
		say("None went into the ranges that Mirai leaves out.", "Miraiが除外するアドレス範囲への試行は1件もない。")
	}
	if s.exploit != nil {
		say(fmt.Sprintf("It sent the exploit %s to port %d.", s.exploit.Variant, s.exploit.Port), fmt.Sprintf("%d番ポートへエクスプロイト%sを送信した。", s.exploit.Port, s.exploit.Variant))
	}
	if p := count256(&s.peers); p >= minPeers {
		say(fmt.Sprintf("It speaks to about %d peers by UDP from one port.", p), fmt.Sprintf("単一のUDPポートから約%d個のピアと通信している。", p))
	}
	if v.known != nil && !v.known.Floods {
		say("This family has not been seen to take part in floods.", "このファミリーがDDoS攻撃に加わった例は知られていない。")
	}
	return title, why
}

var outside = finding.Text{
	En: "It is not yours. Count it for the trend, and watch which of your addresses answered it: those are the next.",
	Ja: "自網の端末ではありません。動向として計上し、応答した自網アドレス(次に感染する可能性がある端末)を確認してください。",
}

// rules are what the detector reports.
var rules = []detect.Rule{
	{
		Name:   "iotbot.scan",
		Attack: []string{"T1046", "T1595.001"},
		Doc:    finding.Text{En: "An infected device that looks for others.", Ja: "他の機器を探索している感染端末。"},
		Next: finding.Text{
			En: "Find the subscriber by address, port and time, and send the infection notice: power the device off and on, change its password and update it before it is back online; a port that looks closed proves nothing. Until then limit outgoing telnet and the ports named here.",
			Ja: "アドレス・ポート・時刻から契約者を特定し、注意喚起を送ってください(電源の再投入、再接続前のパスワード変更とファームウェア更新)。ポートが閉じて見えても感染していない証拠にはなりません。それまでの間、外向きのtelnetと挙げたポートを制限します。",
		},
		FalsePositives: finding.Text{
			En: "A researcher or an administrator behind a subscriber line who scans on purpose; a monitoring system whose many targets are down. Make an exception with an owner and an end. A SYN from outside with a subscriber's address as its forged sender: filter your own addresses where they come in.",
			Ja: "加入者回線から意図的にスキャンする研究者や管理者、監視対象の多くが停止している監視システム。担当者と期限を付けて例外に登録してください。加入者アドレスを送信元に詐称した外部からのSYNでも検知されるため、自網アドレスを送信元とする外部からの流入は網の境界で遮断してください。",
		},
	},
	{
		Name:   "scan.horizontal",
		Attack: []string{"T1046", "T1595.001"},
		Doc:    finding.Text{En: "A host that tries a service on many addresses.", Ja: "多数のアドレスの同一サービスを試行するホスト。"},
		Next: finding.Text{
			En: "If it is a subscriber's, treat it as a compromised computer: find it and notify the subscriber. If it comes from outside, see which of your hosts answered, and whether the service should be reachable at all.",
			Ja: "加入者の端末であれば侵害された可能性があるものとして契約者に連絡してください。外部からであれば、応答した自網ホストと、そのサービスを公開する必要性を確認してください。",
		},
		FalsePositives: finding.Text{
			En: "Configuration management that logs in to many hosts of which most are down; crawlers on unusual ports.",
			Ja: "多数のホストへログインする構成管理ツール(大半が停止中の場合)、特殊なポートのクローラ。",
		},
	},
	{
		Name:   "scan.vertical",
		Attack: []string{"T1046", "T1595.001"},
		Doc:    finding.Text{En: "A host that tries many ports of one other.", Ja: "1台のホストの多数のポートを試行するホスト。"},
		Next: finding.Text{
			En: "Ask the target's owner whether it was ordered. If not, see which ports answered and what followed.",
			Ja: "対象の管理者に、依頼したスキャンかどうかを確認してください。そうでなければ、応答したポートとその後の通信を調べてください。",
		},
		FalsePositives: finding.Text{En: "Security audits; a client that falls back from port to port, such as a mail program that looks for its server's settings (about ten ports).", Ja: "セキュリティ診断、ポートを順に試すクライアント(設定を自動検出するメールソフトは10個ほど試行)。"},
	},
	{
		Name:           "scan.survey",
		Attack:         []string{"T1046", "T1595.001"},
		Doc:            finding.Text{En: "A known survey of the whole internet.", Ja: "インターネット全体を対象とする既知の調査スキャン。"},
		Next:           finding.Text{En: "Nothing. Leave it out of statistics about attacks.", Ja: "対応不要です。攻撃の統計から除外してください。"},
		FalsePositives: finding.Text{En: "An address that the survey has given up.", Ja: "調査機関が手放したアドレス。"},
	},
	{
		Name:   "scan.backscatter",
		Attack: []string{"T1498.001"},
		Doc:    finding.Text{En: "A host elsewhere answers your addresses because somebody floods it with forged sources.", Ja: "送信元を詐称した攻撃の被害者から、自網アドレスへ届く跳ね返りパケット。"},
		Next: finding.Text{
			En: "Your addresses are not the attackers; say so when somebody complains. The address named here is a victim: its network may want to know.",
			Ja: "自網のアドレスは攻撃元ではありません(苦情があればそう説明できます)。ここに挙げたアドレスは被害者であり、そのネットワークへの連絡を検討してください。",
		},
		FalsePositives: finding.Text{En: "A server whose clients' requests leave by a way that nobody watches.", Ja: "往路が観測されない経路を通るサーバ。"},
	},
}

// Spec describes the detector.
var Spec = detect.Spec{
	Name: "iotbot", Version: version,
	Rules:        rules,
	Memory:       "32 octets for each of at most max_hosts hosts that tried something, and an eighth of them for those that answered unasked; about 1.5 kB for each of at most max_suspects. At the bound the host touched longest ago goes, or the least suspicious that was not reported; both are counted.",
	Source:       "jgamblin/Mirai-Source-Code at 4889a6f; Antonakakis et al. 2017; Jung et al., Fast Portscan Detection Using Sequential Hypothesis Testing, 2004; Moore et al., Inferring Internet Denial-of-Service Activity, 2001; Whang et al. 1990",
	Requirements: []string{"R24", "R35", "R36", "R37", "R46", "R57", "R120", "R121", "R122", "R127"},
	Config:       defaults,
	New:          newDetector,
}
