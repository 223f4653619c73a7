package flood

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"noroshi/detect"
	"noroshi/event"
	"noroshi/finding"
)

const version = 1

var next = map[string]finding.Text{
	"flood.inbound": {
		En: "Check that the service is suffering, then limit the vector to the target at the border (Flowspec rate limit on protocol, source port and, for amplification, fragments too); ask the upstream if the link itself is full. Drop everything to the address (RTBH) only as the last resort.",
		Ja: "サービスへの影響を確認し、境界ルータで対象宛ての該当ベクタ(プロトコル・送信元ポート、増幅攻撃ではフラグメントも)をFlowspecで帯域制限してください。回線自体が埋まる場合は上位ISPに依頼します。対象宛て全断(RTBH)は最後の手段です。",
	},
	"flood.outbound": {
		En: "Rate-limit the vector towards the victim where subscribers enter the network, notify the victim's network, and have the abuse desk contact the senders: they are most likely infected.",
		Ja: "加入者収容側で被害者宛ての該当ベクタを帯域制限し、被害者側ネットワークへ連絡してください。送信元の加入者は感染している可能性が高いため、注意喚起の対象にします。",
	},
	"flood.reflector": {
		En: "Close or restrict the service on the listed hosts (or filter its UDP port towards them), and look for the forged requests: their true origin lies behind the interface they come in by.",
		Ja: "挙げたホストの該当サービスを停止または制限する(あるいは当該UDPポート宛てをフィルタする)とともに、詐称された問い合わせの流入インタフェースを調べ、真の発信元を追跡してください。",
	},
	"flood.sampling-suspect": {
		En: "Compare the sampling rate each exporter announces with its router's configuration. Until they agree no automatic action is taken.",
		Ja: "各エクスポータが通知するサンプリングレートをルータの設定と照合してください。一致するまで自動対処は行いません。",
	},
}

// report says what is known of a vector.
func (d *Detector) report(s *suspect, v *vector, last event.Time, report func(*finding.Finding)) {
	rule := d.rule(s, v)
	target := s.subject(d)
	f := &finding.Finding{
		ID: v.id, Rule: rule, Version: version, Family: v.class.String(),
		Severity: d.severity(s, v), Confidence: v.confidence,
		Subject: target, First: v.onset, Last: max(min(last, max(v.last, v.onset)), v.onset), Said: v.said, Ended: v.ended,
		Cause:   finding.Cause{Kind: "flood", Target: target.Addr, Bits: target.Bits},
		Samples: v.samples, Measured: d.measured(s, v), Evidence: slices.Clone(v.evidence),
		Attack: v.class.techniques(), Next: next[rule], Requirements: requirements(rule, s),
	}
	role := "source"
	switch {
	case rule == "flood.outbound":
		role = "sender"
	case v.class >= amplified || v.class == synACK:
		role = "reflector"
	}
	f.Peers = v.top(s, role)
	f.PeerCount = v.sources.count()
	if v.senders != nil {
		f.PeerCount = uint64(len(v.senders)) + v.missed
		f.Members = make([]event.Addr, 0, len(v.senders))
		for a := range v.senders {
			f.Members = append(f.Members, a)
		}
		slices.SortFunc(f.Members, compareAddr)
		for i := range f.Peers {
			if n := d.net.At(d.net.Lookup(f.Peers[i].Addr)); n != nil {
				f.Peers[i].Network = n.Name
			}
		}
	}
	f.Title, f.Why = words(v, target.String(), rule, f.PeerCount, s)
	report(f)
}

// subject returns the target of the flood.
func (s *suspect) subject(d *Detector) finding.Subject {
	t := finding.Host(s.key, "victim", "")
	if s.bits != 0 {
		t.Bits = uint8(s.bits)
	} else if !s.key.Is4() {
		t.Bits = 64
	}
	if n := d.net.At(s.net); n != nil {
		t.Network = n.Name
	}
	return t
}

// severity: a flood at ten times its limit is critical, above it high; one that
// is only known by its reflectors is medium.
func (d *Detector) severity(s *suspect, v *vector) finding.Severity {
	excess := max(v.peakPPS/s.limit.pps, v.peakBPS/s.limit.bps)
	switch {
	case excess >= 10:
		return finding.Critical
	case excess >= 1:
		return finding.High
	}
	return finding.Medium
}

func requirements(rule string, s *suspect) []string {
	switch {
	case rule == "flood.inbound" && s.side == prefix:
		return []string{"R25", "R28", "R52"}
	case rule == "flood.inbound":
		return []string{"R25", "R28", "R30"}
	case rule == "flood.outbound":
		return []string{"R24", "R47"}
	}
	return []string{"R25", "R31"}
}

func (d *Detector) measured(s *suspect, v *vector) []finding.Measure {
	m := []finding.Measure{
		{What: "highest rate of packets over a second", Value: math.Round(v.peakPPS), Unit: "packets/s", Limit: s.limit.pps, Error: math.Round(v.peakPPS * halfWidth(v.samples))},
		{What: "highest rate of bits over a second", Value: math.Round(v.peakBPS), Unit: "bits/s", Limit: s.limit.bps, Error: math.Round(v.peakBPS * halfWidth(v.samples))},
		{What: "distinct sources", Value: float64(v.sources.count()), Unit: "addresses", Limit: float64(d.cfg.MinSources), Error: math.Round(0.06 * float64(v.sources.count()))},
		{What: "mean packet", Value: math.Round(v.bytes / max(v.packets, 1)), Unit: "octets"},
	}
	if s.side != prefix {
		m = append(m, finding.Measure{What: "packets answered by the target, of those it got", Value: math.Round(1000*min(s.outPackets/max(s.inPackets, 1), 1)) / 1000, Unit: "share"})
	}
	less := func(a, b uint16) int { return int(a) - int(b) }
	if top := v.dports.top(1, less); len(top) > 0 && top[0].sum > v.packets/4 && v.class != icmp {
		m = append(m, finding.Measure{What: fmt.Sprintf("share of destination port %d", top[0].key), Value: math.Round(100*top[0].sum/v.packets) / 100, Unit: "share"})
	}
	if top := v.sports.top(1, less); len(top) > 0 && top[0].sum > v.packets/4 && v.class != icmp {
		m = append(m, finding.Measure{What: fmt.Sprintf("share of source port %d", top[0].key), Value: math.Round(100*top[0].sum/v.packets) / 100, Unit: "share"})
	}
	if top := v.ttls.top(2, func(a, b uint8) int { return int(a) - int(b) }); len(top) > 0 && top[0].sum > 0.4*v.packets {
		m = append(m, finding.Measure{What: fmt.Sprintf("share of TTL %d", top[0].key), Value: math.Round(100*top[0].sum/v.packets) / 100, Unit: "share"})
	}
	if v.unsampled {
		m = append(m, finding.Measure{What: "an exporter did not say its sampling rate: the true rates may be higher", Value: 0, Unit: "sampling rate"})
	}
	return m
}

// words returns the title and the reason of a finding.
func words(v *vector, target, rule string, sources uint64, s *suspect) (title, why finding.Text) {
	en, ja := v.class.title()
	rate := fmt.Sprintf("%s packets/s, %sbit/s", si(v.peakPPS), si(v.peakBPS))
	rateJa := fmt.Sprintf("毎秒%sパケット、%sbps", si(v.peakPPS), si(v.peakBPS))
	limit, limitJa := fmt.Sprintf("%s packets/s", si(s.limit.pps)), fmt.Sprintf("毎秒%sパケット", si(s.limit.pps))
	switch rule {
	case "flood.outbound":
		title = finding.Text{En: fmt.Sprintf("%s from %d own hosts on %s", en, sources, target), Ja: fmt.Sprintf("自網%d台から%s宛ての%s", sources, target, ja)}
		why = finding.Text{
			En: fmt.Sprintf("%d own hosts send %s an unanswered %s at up to %s; the limit for one address is %s.", sources, target, en, rate, limit),
			Ja: fmt.Sprintf("自網の%d台が%s宛てに応答のない%sを最大%sで送信している。1アドレスのしきい値は%s。", sources, target, ja, rateJa, limitJa),
		}
	case "flood.reflector":
		title = finding.Text{En: fmt.Sprintf("%d own hosts are abused for a %s on %s", sources, en, target), Ja: fmt.Sprintf("自網%d台が踏み台となり%s宛ての%s", sources, target, ja)}
		why = finding.Text{
			En: fmt.Sprintf("%d own hosts answer %s from the service's port with %s, several times what they are asked.", sources, target, rate),
			Ja: fmt.Sprintf("自網の%d台が%s宛てに当該サービスのポートから、問い合わせの数倍にあたる%sを応答している。", sources, target, rateJa),
		}
	default:
		what, whatJa := "address", "1アドレス"
		if s.bits != 0 {
			en, ja = en+" over a prefix (carpet bombing)", ja+"(絨毯爆撃型)"
			what, whatJa = "prefix", "このプレフィックス"
		}
		title = finding.Text{En: upper(en) + " on " + target, Ja: target + "宛ての" + ja}
		why = finding.Text{
			En: fmt.Sprintf("Up to %s from about %d sources; the limit for this %s is %s.", rate, sources, what, limit),
			Ja: fmt.Sprintf("約%d送信元から最大%s。%sのしきい値は%s。", sources, rateJa, whatJa, limitJa),
		}
		if v.peakPPS < s.limit.pps && v.peakBPS < s.limit.bps {
			why = finding.Text{
				En: fmt.Sprintf("About %d amplifiers answer %s, which asked none of them, with up to %s.", sources, target, rate),
				Ja: fmt.Sprintf("問い合わせていない%s宛てに、約%d台の増幅器が最大%sで応答している。", target, sources, rateJa),
			}
		}
	}
	title.En = upper(title.En)
	return title, why
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// si writes a number with three digits and a decimal prefix.
func si(v float64) string {
	for _, p := range []struct {
		unit float64
		name string
	}{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if v >= p.unit {
			return fmt.Sprintf("%.3g %s", v/p.unit, p.name)
		}
	}
	return fmt.Sprintf("%.3g ", v)
}

// crowd is too many floods at once.
type crowd struct {
	first, last event.Time
	count       int
	examples    []finding.Subject
	told        int
}

func (d *Detector) crowded(s *suspect) {
	if d.crowd == nil || d.now.Sub(d.crowd.last).Minutes() > 10 {
		d.crowd = &crowd{first: d.now}
	}
	c := d.crowd
	c.last = d.now
	c.count++
	if len(c.examples) < finding.MaxPeers {
		c.examples = append(c.examples, s.subject(d))
	}
}

// tellCrowd reports the floods that were not reported one by one.
func (d *Detector) tellCrowd(now event.Time, report func(*finding.Finding)) {
	c := d.crowd
	if c == nil || c.count == c.told {
		return
	}
	c.told = c.count
	report(&finding.Finding{
		ID: finding.NewID("flood.sampling-suspect", event.Addr{}, "", c.first), Rule: "flood.sampling-suspect", Version: version,
		Severity: finding.High, Confidence: 0.9, Subject: finding.Subject{Role: "victim"}, Peers: c.examples, PeerCount: uint64(c.count),
		First: c.first, Last: c.last, Said: c.first, Cause: finding.Cause{Kind: "flood", Key: "sampling-suspect"},
		Samples:  float64(c.count),
		Measured: []finding.Measure{{What: "floods beginning within a minute", Value: float64(len(d.begun) + c.count), Unit: "floods", Limit: float64(d.cfg.MaxPerMinute)}},
		Evidence: []string{}, Attack: []string{}, Requirements: []string{"R25"}, Next: next["flood.sampling-suspect"],
		Title: finding.Text{
			En: fmt.Sprintf("%d more floods at once: a sampling rate is probably wrong", c.count),
			Ja: fmt.Sprintf("同時にさらに%d件のフラッド: サンプリングレート誤りの疑い", c.count),
		},
		Why: finding.Text{
			En: "So many floods on different targets within a minute are more often one exporter whose sampling rate is misread than so many attacks.",
			Ja: "1分以内にこれほど多くの対象へのフラッドが始まる場合、攻撃よりも、いずれかのエクスポータのサンプリングレートの取り違えであることが多い。",
		},
	})
}

// Spec describes the detector.
var Spec = detect.Spec{
	Name: "flood", Version: version,
	Rules: []detect.Rule{
		{
			Name: "flood.inbound", Attack: []string{"T1498.001", "T1498.002", "T1499.001"}, Next: next["flood.inbound"],
			Doc: finding.Text{En: "A flood on an own address or prefix, by vector.", Ja: "自網のアドレスまたはプレフィックスへのフラッド攻撃(ベクタ別)。"},
			FalsePositives: finding.Text{
				En: "A service that gets unanswered UDP from many sources by design (log collectors, one-way video); give its network a limit of its own.",
				Ja: "設計上、多数の送信元から応答不要のUDPを受けるサービス(ログ収集、片方向の映像配信など)。そのネットワークに個別のしきい値を設定してください。",
			},
		},
		{
			Name: "flood.outbound", Attack: []string{"T1498.001"}, Next: next["flood.outbound"],
			Doc: finding.Text{En: "Own hosts, each perhaps slowly, flooding one address outside.", Ja: "自網の多数ホスト(個々は低速でも)による外部1アドレスへのフラッド攻撃。"},
			FalsePositives: finding.Text{
				En: "Telemetry that many devices send to one collector without answer.",
				Ja: "多数の機器が1台の収集サーバへ応答なしで送るテレメトリ。",
			},
		},
		{
			Name: "flood.reflector", Attack: []string{"T1498.002"}, Next: next["flood.reflector"],
			Doc: finding.Text{En: "Own hosts abused as amplifiers against an address outside.", Ja: "自網のホストが増幅攻撃の踏み台にされている。"},
			FalsePositives: finding.Text{
				En: "A large authoritative DNS server answering one very busy resolver.",
				Ja: "大規模な権威DNSサーバが特定の大規模リゾルバへ応答している場合。",
			},
		},
		{
			Name: "flood.sampling-suspect", Next: next["flood.sampling-suspect"],
			Doc: finding.Text{En: "More floods at once than can be true.", Ja: "同時に検知されたフラッドが多すぎる。"},
			FalsePositives: finding.Text{
				En: "An attack on very many addresses that are in no common prefix.",
				Ja: "共通のプレフィックスに属さない極めて多数のアドレスへの攻撃。",
			},
		},
	},
	Memory:       "32 octets for each of at most max_hosts addresses, an eighth of that each for prefixes and addresses outside; about 20 kB for each of at most max_suspects. At a bound the entry touched longest ago goes, and is counted.",
	Source:       "Page 1954 (quickest change, CUSUM); Flajolet et al. 2007 (HyperLogLog); CISA TA14-017A (amplifiers)",
	Requirements: []string{"R24", "R25", "R28", "R29", "R30", "R31", "R32", "R47", "R52"},
	Config:       defaults,
	New:          newDetector,
}
