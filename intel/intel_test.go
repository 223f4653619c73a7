package intel

import (
	"strings"
	"testing"
)

func TestAmplifiers(t *testing.T) {
	list := Amplifiers()
	ports := map[uint16]bool{}
	for _, a := range list {
		switch {
		case ports[a.Port]:
			t.Errorf("port %d is listed twice", a.Port)
		case a.Port == 0 || a.MinSize < 28 || a.MinSize > 1500 || a.Name == "" || a.Factor == "" || !strings.HasSuffix(a.Vector, "-amplification"):
			t.Errorf("%+v", a)
		}
		ports[a.Port] = true
	}
	if len(list) < 25 {
		t.Errorf("%d amplifiers", len(list))
	}
}

func TestBots(t *testing.T) {
	names := map[string]bool{}
	for _, f := range Families() {
		if names[f.Family] {
			t.Errorf("family %s stands twice", f.Family)
		}
		names[f.Family] = true
	}
	m := Families()[len(Families())-1]
	for ports, want := range map[[2]uint16]string{{23, 2323}: "telnet", {23, 23}: "telnet", {23, 5358}: "telnet-5358", {23, 80}: "", {7547, 5555}: "tr069"} {
		if got := m.Wave(ports[:]); got != want {
			t.Errorf("wave of %v is %q, want %q", ports, got, want)
		}
	}
	seen := map[uint16]string{}
	for _, s := range Services() {
		for _, p := range s.Ports {
			if seen[p] != "" {
				t.Errorf("port %d is %s and %s", p, seen[p], s.Service)
			}
			seen[p] = s.Service
		}
	}
	for _, f := range Families() {
		for _, w := range f.Waves {
			for _, p := range w.Ports {
				if seen[p] == "" {
					t.Errorf("%s: port %d is in no service", f.Family, p)
				}
			}
		}
	}
	for _, o := range Mirai().Telling {
		covered := false
		for _, p := range Mirai().Skipped {
			covered = covered || p.Bits() == 8 && p.Addr().As4()[0] == o
		}
		if !covered {
			t.Errorf("%d.0.0.0/8 tells something and isn't skipped", o)
		}
	}
	if len(Mirai().Telling) != 17 || len(Mirai().Vectors) != 10 || len(Surveys()) == 0 {
		t.Error("facts are missing")
	}
}
