package botnet

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"noroshi/detect"
	"noroshi/event"
	"noroshi/finding"
)

const version = 2

// finding words what is known of a server.
func (d *Detector) finding(s *server, confidence float64, ended bool) *finding.Finding {
	rule := "iotbot." + s.role
	n := len(s.clients)
	severity := finding.High
	if confidence <= oneWay {
		severity = finding.Medium
	}
	f := &finding.Finding{
		ID: s.id, Rule: rule, Version: version, Family: "mirai", Severity: severity, Confidence: confidence,
		Subject: finding.Host(s.addr, s.role, d.net.At(s.net).Name), PeerCount: uint64(n),
		First: s.first, Last: max(s.last, s.first), Said: max(s.reportedAt, s.said), Ended: ended,
		Cause:   finding.Cause{Kind: "iotbot", Key: "mirai/" + s.role + "/" + s.addr.String()},
		Samples: float64(max(s.handshakes+s.reports, n)), Evidence: slices.Clone(s.evidence),
		Next: detect.RuleNamed(rules, rule).Next, Attack: detect.RuleNamed(rules, rule).Attack, Requirements: []string{"R24", "R38", "R40"},
	}
	for _, a := range s.list {
		f.Peers = append(f.Peers, finding.Host(a, "bot", d.net.At(d.net.Lookup(a)).Name))
	}
	bots, hosts, hostsJa := finding.Count(n, "bot", "bots"), finding.Count(n, "host", "hosts"), finding.Grouped(n)+"台"
	if s.overflow {
		bots, hostsJa = "at least "+bots, hostsJa+"以上"
	}
	add := func(what, ja string, v, limit float64, unit string) {
		f.Measured = append(f.Measured, finding.Measure{What: what, Ja: ja, Value: v, Limit: limit, Unit: unit})
	}
	switch s.role {
	case "c2":
		add("hosts that opened a bot's session with it", "ボットのセッションを開始したホスト数", float64(n), 2, "hosts")
		add("keep-alives from both sides", "双方向のキープアライブ", float64(min(s.pulses, s.answers)), 0, "packets")
		f.Title = finding.Text{
			En: fmt.Sprintf("%s controls %s", s.endpoint, bots),
			Ja: fmt.Sprintf("%sは%sのボットを操るC&Cサーバー", s.endpoint, hostsJa),
		}
		f.Why = finding.Text{
			En: fmt.Sprintf("A Mirai bot's first words (00 00 00 01) came from %s to port %d; %s and %s followed.", hosts, s.port, finding.Count(s.pulses, "keep-alive", "keep-alives"), finding.Count(s.answers, "answer", "answers")),
			Ja: fmt.Sprintf("%sが%d番ポートへMiraiボットの接続開始を示す4バイト(00 00 00 01)を送信した。その後のキープアライブは%d回、応答は%d回。", hostsJa, s.port, s.pulses, s.answers),
		}
		if s.named != "" {
			f.Why.En += fmt.Sprintf(" One calls itself %q.", s.named)
			f.Why.Ja += fmt.Sprintf("ボットは識別名として%qを送信した。", s.named)
		}
		if s.orders > 0 {
			add("attack commands given", "発した攻撃命令", float64(s.orders), 0, "commands")
		}
	case "receiver":
		add("hosts that reported to it", "報告を送ったホスト数", float64(n), float64(d.cfg.MinReporters), "hosts")
		add("reports read: address, port, user and password of a device", "解読した報告(機器のアドレス、ポート、ユーザー名、パスワード)", float64(s.reports), 0, "reports")
		f.Title = finding.Text{
			En: fmt.Sprintf("%s gathers what %s found", s.endpoint, bots),
			Ja: fmt.Sprintf("%sは%sのボットからスキャン結果を集めるサーバー", s.endpoint, hostsJa),
		}
		f.Why = finding.Text{
			En: fmt.Sprintf("A few octets came from %s to port %d; %s could be read.", hosts, s.port, finding.Count(s.reports, "scan report", "scan reports")),
			Ja: fmt.Sprintf("%sが%d番ポートへ数十バイトを送信し、%d件をスキャン結果の報告として解読した。", hostsJa, s.port, s.reports),
		}
	default:
		add("devices it logged in to after another host had guessed the password", "他のホストがパスワードを推測した後にログインした機器数", float64(n), float64(d.cfg.MinDevices), "devices")
		f.Title = finding.Text{
			En: fmt.Sprintf("%s infects devices that others found (%d so far)", s.addr, n),
			Ja: fmt.Sprintf("%sは他のボットが見つけた機器を感染させるローダー(これまで%d台)", s.addr, n),
		}
		f.Why = finding.Text{
			En: fmt.Sprintf("It logged in to %s shortly after another host had guessed the password; that this was reported was seen %s.", finding.Count(n, "device", "devices"), finding.Count(s.behind, "time", "times")),
			Ja: fmt.Sprintf("他のホストがパスワードを推測した直後に、%d台の機器へログインした(うち%d台では推測結果の報告も観測)。", n, s.behind),
		}
		if s.token != "" {
			f.Why.En += fmt.Sprintf(" There it asked busybox for %q, which is how it tells that a shell answers.", s.token)
			f.Why.Ja += fmt.Sprintf("そこでシェルの応答を確かめるためbusyboxに%qを要求した。", s.token)
		}
		if s.download != "" {
			f.Why.En += fmt.Sprintf(" The program comes from %s.", s.download)
			f.Why.Ja += fmt.Sprintf("本体の配布元は%s。", s.download)
		}
	}
	if !s.heardBack() {
		f.Why.En += " Nothing that it sent was seen: forged packets could say as much."
		f.Why.Ja += "このサーバーからの通信は未観測であり、送信元を詐称したパケットの可能性も残る。"
	}
	return f
}

func (e endpoint) String() string { return netip.AddrPortFrom(e.addr.Std(), e.port).String() }

// announce reports the attacks that an order is for.
func (d *Detector) announce(o *order, report func(*finding.Finding)) {
	vector := vectorOf(o.Vector)
	severity := finding.Critical
	if o.sure <= oneWay {
		severity = finding.High
	}
	for i, t := range o.Targets {
		if i == maxAnnounced {
			break
		}
		target := t.Addr.Masked(int(t.Bits))
		victim := finding.Subject{Addr: target, Bits: t.Bits, Role: "victim", Network: d.net.At(d.net.Lookup(t.Addr)).Name}
		f := &finding.Finding{
			ID:   finding.NewID("iotbot.announced", target, fmt.Sprint(o.server, vector.ID, t.Bits), o.first),
			Rule: "iotbot.announced", Version: version, Family: "mirai", Severity: severity, Confidence: o.sure,
			Subject: victim, PeerCount: uint64(len(o.bots)) + 1,
			First: o.first, Last: max(o.last, o.first), Said: o.last, Ended: o.ended,
			Cause:   finding.Cause{Kind: "iotbot", Key: "announced/" + vector.Flood, Target: target, Bits: t.Bits},
			Samples: float64(len(o.bots)), Evidence: slices.Clone(o.evidence),
			Next: detect.RuleNamed(rules, "iotbot.announced").Next, Attack: detect.RuleNamed(rules, "iotbot.announced").Attack, Requirements: []string{"R24", "R40"},
			Measured: []finding.Measure{
				{What: "hosts that got the order", Ja: "命令を受けたホスト数", Value: float64(len(o.bots)), Unit: "hosts", Limit: 1},
				{What: "how long the attack is to last", Ja: "攻撃の予定時間", Value: float64(o.Seconds), Unit: "s"},
			},
		}
		f.Peers = []finding.Subject{finding.Host(o.server.addr, "c2", d.net.At(d.net.Lookup(o.server.addr)).Name)}
		for _, a := range o.told() {
			f.Peers = append(f.Peers, finding.Host(a, "bot", d.net.At(d.net.Lookup(a)).Name))
		}
		end := o.first.Add(time.Duration(o.Seconds) * time.Second).Std().Format("15:04:05 UTC")
		f.Title = finding.Text{
			En: fmt.Sprintf("Attack announced: %s on %s until %s", vector.Name, victim, end),
			Ja: fmt.Sprintf("攻撃命令を検知: %s宛ての%s(%sまで)", victim, vector.Name, end),
		}
		detail, detailJa := "", ""
		if p := o.option(optionPort); p != "" {
			detail, detailJa = ", port "+p, "、ポート"+p
		}
		if name := o.option(optionDomain); name != "" {
			detail, detailJa = detail+", domain "+name, detailJa+"、ドメイン"+name
		}
		f.Why = finding.Text{
			En: fmt.Sprintf("The control server %s told %s to send a %s for %d s (%s%s).", o.server.addr, finding.Count(len(o.bots), "bot", "bots"), vector.Name, o.Seconds, finding.Count(len(o.Targets), "target", "targets"), detail),
			Ja: fmt.Sprintf("C&Cサーバー%sが%d台のボットに%sを%d秒間送るよう命令した(対象%d件%s)。", o.server.addr, len(o.bots), vector.Name, o.Seconds, len(o.Targets), detailJa),
		}
		report(f)
	}
}

// maxAnnounced bounds the incidents that one order opens.
const maxAnnounced = 16

// told returns some of the bots that got the order, sorted.
func (o *order) told() []event.Addr {
	list := make([]event.Addr, 0, len(o.bots))
	for a := range o.bots {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b event.Addr) int { return slices.Compare(a[:], b[:]) })
	return list[:min(len(list), finding.MaxPeers-1)]
}

// rules are what the detector reports.
var rules = []detect.Rule{
	{
		Name:   "iotbot.receiver",
		Doc:    finding.Text{En: "A host to which bots report the devices they can log in to.", Ja: "ボットがログイン可能な機器を報告する先のサーバー。"},
		Attack: []string{"T1041", "T1583.003"},
		Next: finding.Text{
			En: "List everybody who talks to it: they are infected. Tell the network it is in. Devices it was told of will be infected within minutes: warn those subscribers first.",
			Ja: "このサーバーと通信する端末はすべて感染しているとみなし、一覧を作成してください。設置先のネットワークへ連絡し、報告された機器(数分以内に感染する)の契約者へ優先して注意喚起してください。",
		},
		FalsePositives: finding.Text{En: "A service of its own on the same port with small messages; the reports read decide.", Ja: "同じポートで短いメッセージを扱う別のサービス(解読できた報告の有無で判断)。"},
	},
	{
		Name:   "iotbot.loader",
		Doc:    finding.Text{En: "A host that logs in to devices whose password another has guessed, and installs the bot.", Ja: "他のホストが推測したパスワードで機器にログインし、ボットを導入するサーバー。"},
		Attack: []string{"T1078", "T1105"},
		Next: finding.Text{
			En: "Filter it towards the subscribers' telnet ports where your rules allow, tell its network, and treat each device it logged in to as infected.",
			Ja: "規程で認められる範囲で、このサーバーから加入者のtelnetポート宛ての通信を遮断し、設置先のネットワークへ連絡してください。ログインされた機器は感染したものとして扱います。",
		},
		FalsePositives: finding.Text{En: "An administrator who logs in after colleagues; two or more devices and the order of events decide.", Ja: "同僚の後からログインする管理者(台数と時系列で判断)。"},
	},
	{
		Name:   "iotbot.c2",
		Doc:    finding.Text{En: "A server that controls bots.", Ja: "ボットを制御するC&Cサーバー。"},
		Attack: []string{"T1071", "T1095"},
		Next: finding.Text{
			En: "Everybody connected to it is infected: list and notify them. Where your rules allow, block the address for a limited time; it moves by DNS within days. Tell its network and JPCERT/CC.",
			Ja: "接続中の端末はすべて感染しています。一覧を作成し契約者へ連絡してください。規程で認められる範囲で期限付きで遮断します(数日でDNSにより移転します)。設置先のネットワークとJPCERT/CCにも連絡してください。",
		},
		FalsePositives: finding.Text{En: "None seen in 9,163 public client flows; another protocol may begin with the same four octets, so two clients or a keep-alive are needed.", Ja: "公開された9,163フローでは誤検知なし。同じ4オクテットで始まる別プロトコルに備え、2台以上またはキープアライブを条件とする。"},
	},
	{
		Name:   "iotbot.announced",
		Doc:    finding.Text{En: "A control server has ordered an attack.", Ja: "C&Cサーバーが攻撃を命令した。"},
		Attack: []string{"T1498.001"},
		Next: finding.Text{
			En: "If the victim is yours, prepare the filter for this vector now and warn its owner; if it is not, warn its network, and limit the vector where your own bots enter.",
			Ja: "被害者が自網であれば、このベクタのフィルタを直ちに準備し利用者へ連絡してください。他網であればそのネットワークへ連絡し、自網ボットの収容側で該当ベクタを帯域制限してください。",
		},
		FalsePositives: finding.Text{En: "An order that the bots don't follow.", Ja: "ボットが実行しなかった命令。"},
	},
}

// Spec describes the detector.
var Spec = detect.Spec{
	Name: "botnet", Version: version,
	Rules:        rules,
	Memory:       "At most max_servers servers and as many loaders, each with at most max_clients clients of 40 octets; max_devices guessed devices and reporters of 100 octets; 1,024 orders; 1,048,576 clients of all servers. The one that came first goes, one that was reported last, and is counted.",
	Source:       "jgamblin/Mirai-Source-Code at 4889a6f (bot/scanner.c, bot/main.c, bot/attack.c, loader, cnc/attack.go)",
	Requirements: []string{"R24", "R35", "R38", "R40"},
	Config:       defaults,
	Select:       wanted,
	New:          newDetector,
}
