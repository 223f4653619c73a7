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

const version = 2

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

// report says what is known of a flood that goes on.
func (d *Detector) report(s *suspect, v *vector, report func(*finding.Finding)) {
	excess := max(v.peakPPS/s.limit.pps, v.peakBPS/s.limit.bps)
	v.confidence = max(v.confidence, confidence(v.samples, excess))
	v.reported, v.told = s.now, v.packets
	d.say(s, v, false, report)
}

func (d *Detector) say(s *suspect, v *vector, ended bool, report func(*finding.Finding)) {
	s.measure(v, s.limit) // it may have grown since the last test
	rule := d.rule(s, v)
	target := s.subject(d)
	f := &finding.Finding{
		ID: v.id, Rule: rule, Version: version, Family: v.class.String(),
		Severity: d.severity(s, v), Confidence: v.confidence,
		Subject: target, First: v.onset, Last: max(v.last, v.onset), Said: v.said, Ended: ended,
		Cause:   finding.Cause{Kind: "flood", Target: target.Addr, Bits: target.Bits},
		Samples: v.samples, Measured: d.measured(s, v), Evidence: slices.Clone(v.evidence),
		Attack: v.class.techniques(), Next: next[rule], Requirements: requirements(rule, s),
	}
	if s.side == whole {
		f.Cause.Key = "network " + target.Network
	}
	role := "source"
	switch {
	case rule == "flood.outbound":
		role = "sender"
	case v.class >= amplified || v.class == synACK:
		role = "reflector"
	}
	f.Peers = v.top(role)
	f.PeerCount = v.sources.count()
	if v.senders != nil {
		f.PeerCount = max(f.PeerCount, uint64(len(v.senders)))
		if v.missed == 0 {
			f.PeerCount = uint64(len(v.senders))
		}
		f.Members = members(v.senders)
		for i := range f.Peers {
			f.Peers[i].Network = d.net.At(d.net.Lookup(f.Peers[i].Addr)).Name
		}
	}
	f.Title, f.Why = words(v, target.String(), rule, f.PeerCount, s)
	report(f)
}

// members returns the addresses of senders in order. Most are IPv4 and are sorted
// as numbers, in a fraction of the time.
func members(senders map[event.Addr]float64) []event.Addr {
	four := make([]uint32, 0, len(senders))
	var other []event.Addr
	for a := range senders {
		if a.Is4() {
			four = append(four, a.Four())
		} else {
			other = append(other, a)
		}
	}
	slices.Sort(four)
	list := make([]event.Addr, 0, len(senders))
	for _, n := range four {
		list = append(list, event.AddrOf4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}))
	}
	if list = append(list, other...); len(other) > 0 {
		slices.SortFunc(list, compareAddr)
	}
	return list
}

// subject returns the target of the flood.
func (s *suspect) subject(d *Detector) finding.Subject {
	if s.side == whole {
		return finding.Subject{Network: d.net.At(s.net).Name, Role: "victim"}
	}
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
	case rule == "flood.inbound" && s.side != inbound:
		return []string{"R25", "R28", "R52"}
	case rule == "flood.inbound":
		return []string{"R25", "R28", "R30"}
	case rule == "flood.outbound":
		return []string{"R24", "R47"}
	}
	return []string{"R25", "R31"}
}

func (d *Detector) measured(s *suspect, v *vector) []finding.Measure {
	rateOf := func(what, ja, unit string, peak, limit float64, usual float32) finding.Measure {
		m := finding.Measure{What: what, Ja: ja, Value: math.Round(peak), Unit: unit, Error: math.Round(peak * halfWidth(v.samples))}
		if !math.IsInf(limit, 1) {
			m.Limit = math.Round(limit)
		}
		if s.learned {
			u := math.Round(float64(usual))
			m.Usual = &u
		}
		return m
	}
	m := []finding.Measure{
		rateOf("highest rate of packets, over a second or since it began", "最大パケットレート(1秒間、または開始以降)", "packets/s", v.peakPPS, s.limit.pps, s.usual.pps),
		rateOf("highest rate of bits, over a second or since it began", "最大ビットレート(1秒間、または開始以降)", "bits/s", v.peakBPS, s.limit.bps, s.usual.bps),
		{What: "distinct sources", Ja: "送信元アドレス数", Value: float64(v.sources.count()), Unit: "addresses", Limit: float64(d.cfg.MinSources), Error: math.Round(0.06 * float64(v.sources.count()))},
		{What: "mean packet", Ja: "平均パケット長", Value: math.Round(v.bytes / max(v.packets, 1)), Unit: "octets"},
	}
	if s.side != whole && v.class != icmp && v.class != total {
		t := v.class.talk()
		m = append(m, finding.Measure{What: "packets of strangers that conversations beginning now explain", Ja: "開始直後の正規の通信で説明できるパケットの割合", Value: math.Round(1000*min(s.excused[t]/max(s.unasked[t], 1), 1)) / 1000, Unit: "share"})
	}
	less := func(a, b uint16) int { return int(a) - int(b) }
	if top := v.dports.top(1, less); len(top) > 0 && top[0].sum > v.packets/4 && v.class != icmp {
		m = append(m, finding.Measure{What: fmt.Sprintf("share of destination port %d", top[0].key), Ja: fmt.Sprintf("宛先ポート%dの割合", top[0].key), Value: math.Round(100*top[0].sum/v.packets) / 100, Unit: "share"})
	}
	if top := v.sports.top(1, less); len(top) > 0 && top[0].sum > v.packets/4 && v.class != icmp {
		m = append(m, finding.Measure{What: fmt.Sprintf("share of source port %d", top[0].key), Ja: fmt.Sprintf("送信元ポート%dの割合", top[0].key), Value: math.Round(100*top[0].sum/v.packets) / 100, Unit: "share"})
	}
	if top := v.ttls.top(2, func(a, b uint8) int { return int(a) - int(b) }); len(top) > 0 && top[0].sum > 0.4*v.packets {
		m = append(m, finding.Measure{What: fmt.Sprintf("share of TTL %d", top[0].key), Ja: fmt.Sprintf("TTL %dの割合", top[0].key), Value: math.Round(100*top[0].sum/v.packets) / 100, Unit: "share"})
	}
	if v.unsampled {
		m = append(m, finding.Measure{What: "an exporter did not say its sampling rate: the true rates may be higher", Ja: "サンプリングレートを通知しないエクスポータがあり、実際の値はこれより大きい可能性がある", Value: 0, Unit: "sampling rate"})
	}
	return m
}

// words returns the title and the reason of a finding.
func words(v *vector, target, rule string, sources uint64, s *suspect) (title, why finding.Text) {
	en, ja := v.class.title()
	rate := fmt.Sprintf("%s packets/s, %sbit/s", si(v.peakPPS), si(v.peakBPS))
	rateJa := fmt.Sprintf("毎秒%sパケット、%sbps", si(v.peakPPS), si(v.peakBPS))
	limit, limitJa := s.limitWords(v)
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
		switch s.side {
		case prefix:
			en, ja = en+" over a prefix (carpet bombing)", ja+"(絨毯爆撃型)"
			what, whatJa = "prefix", "このプレフィックス"
		case whole:
			en, ja = en+" over a whole network", ja+"(ネットワーク全体)"
			what, whatJa = "network", "このネットワーク全体"
		}
		title = finding.Text{En: upper(en) + " on " + target, Ja: target + "宛ての" + ja}
		why = finding.Text{
			En: fmt.Sprintf("Up to %s from about %d sources; the limit for this %s is %s.", rate, sources, what, limit),
			Ja: fmt.Sprintf("約%d送信元から最大%s。%sのしきい値は%s。", sources, rateJa, whatJa, limitJa),
		}
		if v.class >= amplified && v.peakPPS < s.limit.pps && v.peakBPS < s.limit.bps {
			why = finding.Text{
				En: fmt.Sprintf("About %d amplifiers answer %s, which asked none of them, with up to %s.", sources, target, rate),
				Ja: fmt.Sprintf("問い合わせていない%s宛てに、約%d台の増幅器が最大%sで応答している。", target, sources, rateJa),
			}
		}
	}
	title.En = upper(title.En)
	return title, why
}

// limitWords returns the limit that v passed by more, and where it is from.
func (s *suspect) limitWords(v *vector) (en, ja string) {
	limit, static, usual := s.limit.pps, s.static.pps, float64(s.usual.pps)
	en, ja = "%s packets/s", "毎秒%sパケット"
	if v.class.ordinary() || v.peakBPS/s.limit.bps > v.peakPPS/s.limit.pps {
		limit, static, usual = s.limit.bps, s.static.bps, float64(s.usual.bps)
		en, ja = "%sbit/s", "%sbps"
	}
	usualEn, usualJa := fmt.Sprintf(en, si(usual)), fmt.Sprintf(ja, si(usual))
	en, ja = fmt.Sprintf(en, si(limit)), fmt.Sprintf(ja, si(limit))
	switch {
	case limit != static:
		en += ", learned from the usual " + usualEn + " at this hour of the week"
		ja += "(この曜日・時刻の平常値" + usualJa + "から学習)"
	case s.learned:
		en += ", and " + usualEn + " is usual at this hour of the week"
		ja += "(この曜日・時刻の平常値は" + usualJa + ")"
	}
	return en, ja
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

// crowd is too many floods at once, within ten minutes.
type crowd struct {
	slot, first, last event.Time
	most, count, told int
	examples          []finding.Subject
	evidence          []string
}

const crowdSlot = event.Time(600e9)

// crowded notes a flood that isn't reported; it was the n-th of a minute in its
// neighbourhood.
func (d *Detector) crowded(s *suspect, v *vector, n int) {
	slot := s.now - s.now%crowdSlot
	if d.crowd == nil || d.crowd.slot != slot {
		d.crowd = &crowd{slot: slot, first: v.onset}
	}
	c := d.crowd
	c.first, c.last = min(c.first, v.onset), max(c.last, s.now)
	c.count++
	c.most = max(c.most, n)
	if len(c.examples) < finding.MaxPeers {
		c.examples = append(c.examples, s.subject(d))
	}
	if len(c.evidence) < finding.MaxEvidence && len(v.evidence) > 0 {
		c.evidence = append(c.evidence, v.evidence[0])
	}
}

// tellCrowd reports the floods that were not reported one by one. Whatever the
// shard, it is the same finding for the same ten minutes.
func (d *Detector) tellCrowd(report func(*finding.Finding)) {
	c := d.crowd
	if c == nil || c.count == c.told {
		return
	}
	c.told = c.count
	report(&finding.Finding{
		ID: finding.NewID("flood.sampling-suspect", event.Addr{}, "", c.slot), Rule: "flood.sampling-suspect", Version: version,
		Severity: finding.High, Confidence: 0.9, Subject: finding.Subject{Role: "victim"}, Peers: slices.Clone(c.examples), PeerCount: uint64(c.count),
		First: c.first, Last: c.last, Said: c.last, Cause: finding.Cause{Kind: "flood", Key: "sampling-suspect"},
		Samples:  float64(c.count),
		Measured: []finding.Measure{{What: "floods beginning in one minute within one /16 (IPv6: /32)", Ja: "1分間に1つの/16(IPv6では/32)内で始まったフラッドの数", Value: float64(c.most), Unit: "floods", Limit: float64(d.cfg.MaxPerMinute)}},
		Evidence: slices.Clone(c.evidence), Attack: []string{}, Requirements: []string{"R25"}, Next: next["flood.sampling-suspect"],
		Title: finding.Text{
			En: "Floods on too many targets at once: a sampling rate is probably wrong",
			Ja: "同時多数の対象へのフラッド: サンプリングレート誤りの疑い",
		},
		Why: finding.Text{
			En: fmt.Sprintf("%d floods began in one minute within one /16, and %d beyond the %d a minute are not reported one by one: that is more often one exporter whose sampling rate is misread than so many attacks.", c.most, c.count, d.cfg.MaxPerMinute),
			Ja: fmt.Sprintf("1つの/16内で1分間に%d件のフラッドが始まり、毎分%d件を超えた%d件は個別に報告していない。実際の攻撃よりも、いずれかのエクスポータのサンプリングレートの取り違えであることが多い。", c.most, d.cfg.MaxPerMinute, c.count),
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
	Memory:       "32 octets for each of at most max_hosts own addresses, and at most an eighth as many entries each for prefixes, addresses outside and hosts that amplifiers answer, a quarter (24 octets) for conversations; tables are up to twice as large as their entries. 20 kB for each kind of packet, at most 8, of at most max_suspects suspects, of which an ordinary network has a few; 48 octets for each sender, at most 8 times max_senders in all; 2.5 kB for each of max_learned objects and each own network. At a bound the entry touched longest ago goes, or the new one is refused, and is counted.",
	Source:       "Page 1954 (quickest change, CUSUM); Flajolet et al. 2007 (HyperLogLog); CISA TA14-017A (amplifiers)",
	Requirements: []string{"R24", "R25", "R28", "R29", "R30", "R31", "R32", "R47", "R52"},
	Config:       defaults,
	New:          newDetector,
}
