package flood_test

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"testing"

	"noroshi/detect/detecttest"
	"noroshi/detect/flood"
	"noroshi/finding"
	"noroshi/incident"
	"noroshi/pipeline"
	"noroshi/source/recording"
)

// corpus is where captures of others lie, outside of this repository.
func corpus(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("NOROSHI_CORPUS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "corpus")
	}
	path := filepath.Join(dir, "packets", name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("SKIPPED: no %s; set NOROSHI_CORPUS to the folder that holds packets/", path)
	}
	return path
}

// Real captures give what their labels say, and nothing else, with any number
// of shards.
func TestCorpus(t *testing.T) {
	type vector struct {
		family     string
		reflectors float64 // ± 6 %
		packets    float64 // all of them
	}
	tests := []struct {
		file    string
		target  string
		vectors []vector
	}{
		{"amp-snmp.pcapng", "10.10.10.10", []vector{{"snmp-amplification", 4028, 4079}}},
		{"amp-isakmp.pcap", "10.10.10.10", []vector{{"isakmp-amplification", 2767, 3984}}},
		{"amp-bacnet-dvr.pcapng", "10.10.10.1", []vector{{"bacnet-amplification", 3559, 6737}, {"dvr-amplification", 2254, 2377}}},
		{"backscatter-24h.pcap", "", nil},
		{"cldap.pcap", "", nil},
		{"ntp-mode6-7.pcap", "", nil},
		{"snmp-getbulk.pcap", "", nil},
		{"scan-445.pcap", "", nil},
		{"scan-telnet-zero-window.pcap", "", nil},
		{"telnet-login.pcap", "", nil},
	}
	for _, test := range tests {
		t.Run(test.file, func(t *testing.T) {
			path := corpus(t, test.file)
			for _, shards := range []int{1, 2, 8} {
				got, incidents := map[string]*finding.Finding{}, incident.NewCorrelator(incident.Config{})
				p := &pipeline.Pipeline{
					Detectors: []pipeline.Detector{{Spec: &flood.Spec}}, Shards: shards, Seed: uint64(shards),
					Report: func(f *finding.Finding) {
						detecttest.Explained(t, &flood.Spec, f)
						if was := got[f.Family]; was != nil && was.ID != f.ID || f.Subject.String() != test.target {
							t.Errorf("found too: %s on %v: %s", f.Family, f.Subject, f.Why.En)
						}
						got[f.Family] = f
						incidents.Add(f)
					},
				}
				if err := p.Run(context.Background(), recording.New([]string{path}, recording.Config{})); err != nil {
					t.Fatal(err)
				}
				for _, v := range test.vectors {
					f := got[v.family]
					if f == nil {
						t.Errorf("%d shards: no %s", shards, v.family)
						continue
					}
					if n := float64(f.PeerCount); math.Abs(n-v.reflectors) > 0.06*v.reflectors {
						t.Errorf("%d shards: %s by %v reflectors, want %v", shards, v.family, n, v.reflectors)
					}
					if f.Samples < 0.95*v.packets || f.Samples > v.packets {
						t.Errorf("%d shards: %s rests on %v packets, want nearly %v", shards, v.family, f.Samples, v.packets)
					}
				}
				if len(got) != len(test.vectors) || incidents.Stats().Open != min(len(test.vectors), 1) {
					t.Errorf("%d shards: %d vectors in %d incidents, want %d in one", shards, len(got), incidents.Stats().Open, len(test.vectors))
				}
			}
		})
	}
}
