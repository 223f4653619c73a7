package all_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"noroshi/detect/all"
	"noroshi/finding"
	"noroshi/pipeline"
	"noroshi/source/recording"
)

// Real captures, with their labels: what must be found, and nothing else. The
// labels are those of the corpus; where it asks for what a later detector will
// find (services' dialogs, RADIUS, DHCP, SMB), nothing may be found today.
func TestPackets(t *testing.T) {
	dir := os.Getenv("NOROSHI_CORPUS")
	if dir == "" {
		dir = "../../../shared/corpus"
	}
	dir = filepath.Join(dir, "packets")
	files, _ := filepath.Glob(filepath.Join(dir, "*.pcap*"))
	if len(files) == 0 {
		t.Skip("SKIPPED: the corpus is not here; set NOROSHI_CORPUS")
	}
	want := map[string][]string{
		"mirai-syn-2020.pcap":            {"iotbot.scan 116.90.231.16 mirai marks=2"},
		"mirai-syn-2017-anonymised.pcap": {"iotbot.scan 125.27.226.209 mirai marks=0 quotes=6"},
		"scan-445.pcap":                  {"scan.horizontal 176.192.150.3 targets=9"},
		"scan-ports-one-host.pcap":       {"scan.vertical 192.168.2.154"},
		"scan-telnet-zero-window.pcap":   {"scan.horizontal 10.0.0.1"},
		"backscatter-24h.pcap":           {"scan.backscatter 202.229.120.98"},
		"amp-snmp.pcapng":                {"flood.inbound 10.10.10.10 snmp-amplification"},
		"amp-isakmp.pcap":                {"flood.inbound 10.10.10.10 isakmp-amplification"},
		"amp-bacnet-dvr.pcapng":          {"flood.inbound 10.10.10.1 bacnet-amplification", "flood.inbound 10.10.10.1 dvr-amplification"},
	}
	for _, path := range files {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			last := map[finding.ID]*finding.Finding{}
			p := &pipeline.Pipeline{Report: func(f *finding.Finding) { last[f.ID] = f }}
			for _, s := range all.Specs {
				p.Detectors = append(p.Detectors, pipeline.Detector{Spec: s})
			}
			if err := p.Run(context.Background(), recording.New([]string{path}, recording.Config{})); err != nil && !strings.Contains(name, "malformed") {
				t.Fatal(err)
			}
			var got []string
			for _, f := range last {
				got = append(got, describe(f))
			}
			slices.Sort(got)
			if !slices.Equal(got, want[name]) {
				t.Errorf("found %q, want %q", got, want[name])
			}
		})
	}
	for name := range want {
		if !slices.ContainsFunc(files, func(p string) bool { return filepath.Base(p) == name }) {
			t.Errorf("the corpus has no %s", name)
		}
	}
}

func describe(f *finding.Finding) string {
	s := fmt.Sprint(f.Rule, " ", f.Subject)
	if f.Family != "" {
		s += " " + f.Family
	}
	for _, m := range f.Measured {
		switch {
		case strings.HasPrefix(m.What, "SYNs with Mirai's mark"):
			s += fmt.Sprintf(" marks=%v", m.Value)
		case strings.HasPrefix(m.What, "ICMP errors that quote"):
			s += fmt.Sprintf(" quotes=%v", m.Value)
		case f.Rule == "scan.horizontal" && f.Subject.String() != "10.0.0.1" && m.What == "distinct addresses tried":
			s += fmt.Sprintf(" targets=%v", m.Value)
		}
	}
	return s
}
