// Package sampling finds exporters that say they look at one packet in many and
// look at each. What they report is multiplied by the rate they announce, so all
// their volumes are wrong by one factor, and floods are seen where none are.
//
// Who looks at one packet in N of each flow sees both its first and its last
// packet, SYN and FIN, about once in N times the number of its packets. An
// exporter most of whose records have both has looked at them all.
package sampling

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"noroshi/detect"
	"noroshi/event"
	"noroshi/finding"
)

// Config are the knobs.
type Config struct {
	// MinRate is the announced sampling rate, one packet in so many, from which
	// an exporter is examined.
	MinRate uint32 `yaml:"min_rate"`
	// MaxWhole is the share of TCP records with both SYN and FIN that sampling
	// can't explain.
	MaxWhole float64 `yaml:"max_whole"`
	// MinRecords is how many TCP records a judgement rests on.
	MinRecords int `yaml:"min_records"`
	// MaxExporters bounds memory.
	MaxExporters int `yaml:"max_exporters"`
}

func defaults() any {
	return &Config{MinRate: lowest, MaxWhole: 0.05, MinRecords: 1000, MaxExporters: 4096}
}

// lowest is the least rate at which the two cases differ enough.
const lowest = 32

func (c *Config) check() error {
	switch {
	case c.MinRate < lowest:
		return fmt.Errorf("min_rate must be at least %d", lowest)
	case c.MaxWhole <= 0 || c.MaxWhole >= 1:
		return errors.New("max_whole must be between 0 and 1")
	case c.MinRecords < 16*every || c.MaxExporters < 1:
		return fmt.Errorf("min_records must be at least %d and max_exporters above 0", 16*every)
	}
	return nil
}

// every is how many records stand behind each that is looked at.
const every = 16

const whole = event.SYN | event.FIN

// wanted selects TCP records of sampling exporters: one in sixteen, by the hash
// of the flow.
func wanted(_ *event.Batch, f *event.Flow) bool {
	return f.Proto == event.TCP && f.Sampling >= lowest && f.Marks&event.OnePacket == 0 && f.TCPFlags != 0 &&
		(f.Src.Hash(4)^event.Mix(uint64(f.SrcPort)<<16|uint64(f.DstPort)))%every == 0
}

// Detector judges exporters.
type Detector struct {
	cfg       *Config
	exporters map[source]*exporter
	refused   uint64
}

// source is an exporter and a rate that it announces: each of its interfaces may
// have another.
type source struct {
	addr event.Addr
	rate uint32
}

// forget is how long an exporter must be silent to be forgotten.
const forget = time.Hour

type exporter struct {
	first, last    event.Time
	records, whole int // since first; halved now and then
	evidence       []string
	id             finding.ID
	said           event.Time
	share          float64
}

// Detect examines the records of b.
func (d *Detector) Detect(b *event.Batch, report func(*finding.Finding)) {
	for i := range b.Flows {
		f := &b.Flows[i]
		if f.Sampling < d.cfg.MinRate {
			continue
		}
		from := source{f.Exporter, f.Sampling}
		x := d.exporters[from]
		if x != nil && f.Seen.Sub(x.last) > forget {
			d.end(from, x, report)
			*x = exporter{first: f.Seen}
		}
		if x == nil {
			if len(d.exporters) >= d.cfg.MaxExporters {
				d.refused++
				continue
			}
			x = &exporter{first: f.Seen}
			d.exporters[from] = x
		}
		x.last = max(x.last, f.Seen)
		x.records++
		if f.TCPFlags&whole == whole {
			if x.whole++; x.whole&(x.whole-1) == 0 && len(x.evidence) < 4 {
				x.evidence = append(x.evidence, b.Line(f))
			}
		}
		if x.records*every >= d.cfg.MinRecords {
			d.judge(from, x, report)
		}
	}
}

// judge decides when enough records have come, and begins to count anew.
func (d *Detector) judge(from source, x *exporter, report func(*finding.Finding)) {
	share := float64(x.whole) / float64(x.records)
	switch wrong := share > d.cfg.MaxWhole; {
	case wrong && x.id == finding.ID{}:
		x.share = share
		x.id = finding.NewID("sampling.suspect", from.addr, fmt.Sprint(from.rate), x.first)
		x.said = x.last
		report(d.finding(from, x, false))
	case !wrong:
		d.end(from, x, report)
	}
	x.records, x.whole = 0, 0
}

func (d *Detector) end(from source, x *exporter, report func(*finding.Finding)) {
	if x.id != (finding.ID{}) {
		report(d.finding(from, x, true))
		x.id, x.first = finding.ID{}, x.last
	}
}

// Advance forgets exporters that are silent.
func (d *Detector) Advance(now event.Time, report func(*finding.Finding)) {
	for from, x := range d.exporters {
		if now.Sub(x.last) > forget {
			d.end(from, x, report)
			delete(d.exporters, from)
		}
	}
}

// Finish has nothing to add.
func (d *Detector) Finish(func(*finding.Finding)) {}

// Usage returns the state held.
func (d *Detector) Usage() detect.Usage {
	return detect.Usage{Entries: len(d.exporters), Bytes: 300 * len(d.exporters), Evicted: d.refused}
}

func (d *Detector) finding(from source, x *exporter, ended bool) *finding.Finding {
	a := from.addr
	rule := Spec.Rules[0]
	percent := fmt.Sprintf("%.0f %%", 100*x.share)
	return &finding.Finding{
		ID: x.id, Rule: rule.Name, Version: version, Severity: finding.Medium, Confidence: 0.95,
		Subject: finding.Host(a, "exporter", ""), First: x.first, Last: max(x.last, x.first), Said: x.said, Ended: ended,
		Cause:    finding.Cause{Kind: "sampling", Key: a.String()},
		Samples:  float64(d.cfg.MinRecords / every),
		Measured: []finding.Measure{{What: "TCP records that have both the first and the last packet of their flow", Ja: "フローの最初と最後のパケットを共に含むTCPレコード", Value: math.Round(1000*x.share) / 1000, Unit: "share", Limit: d.cfg.MaxWhole}},
		Evidence: slices.Clone(x.evidence), Attack: []string{}, Next: rule.Next, Requirements: []string{"R25"},
		Title: finding.Text{
			En: fmt.Sprintf("%s says it samples 1:%d and seems to look at every packet", a, from.rate),
			Ja: fmt.Sprintf("%sは1:%dのサンプリングを通知しているが、全パケットを数えている疑い", a, from.rate),
		},
		Why: finding.Text{
			En: fmt.Sprintf("%s of its TCP records have both SYN and FIN. Who looks at one packet in %d sees both of hardly any flow. All volumes of this exporter may be too high by that factor.", percent, from.rate),
			Ja: fmt.Sprintf("TCPレコードの%sがSYNとFINの両方を含む。%dパケットに1つの抽出ではまず起こらない。このエクスポータの通信量はその倍率で過大になっている可能性がある。", percent, from.rate),
		},
	}
}

const version = 2

// Spec describes the detector.
var Spec = detect.Spec{
	Name: "sampling", Version: version,
	Rules: []detect.Rule{{
		Name: "sampling.suspect",
		Doc:  finding.Text{En: "An exporter whose announced sampling rate can't be true.", Ja: "通知しているサンプリングレートが事実と合わないエクスポータ。"},
		Next: finding.Text{
			En: "Compare the sampling rate in the router's configuration with the one it announces, and override it for this exporter if the router can't be mended. Until then believe no flood that rests on this exporter alone.",
			Ja: "ルータ設定のサンプリングレートと通知値を照合し、ルータ側で直せない場合はこのエクスポータのレートを設定で上書きしてください。それまで、このエクスポータのみに基づくフラッド検知は信用しないでください。",
		},
		FalsePositives: finding.Text{
			En: "An exporter that samples whole flows and not packets (ipt_NETFLOW): its volumes are right. Make an exception.",
			Ja: "パケットではなくフロー単位で抽出するエクスポータ(ipt_NETFLOWなど)。通信量は正しいので例外に登録してください。",
		},
	}},
	Memory:       "About 300 octets for each of at most max_exporters exporters and rates; more are not examined, and counted.",
	Source:       "Arithmetic of independent sampling: of a flow of m packets both given ones are seen with probability 1/N², any with m/N.",
	Requirements: []string{"R25"},
	Config:       defaults,
	Select:       wanted,
	New: func(env detect.Env) (detect.Detector, error) {
		cfg := env.Config.(*Config)
		if err := cfg.check(); err != nil {
			return nil, err
		}
		return &Detector{cfg: cfg, exporters: map[source]*exporter{}}, nil
	},
}
