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
