package intel

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// Family is a kind of worm or bot that spreads by scanning. See families.yaml.
type Family struct {
	Family   string    `yaml:"family"` // key: "mirai"
	Name     string    `yaml:"name"`
	NameJa   string    `yaml:"name_ja"`
	Mark     string    `yaml:"mark"` // "yes", "no", "any": Mirai's mark in its SYNs
	Floods   bool      `yaml:"floods"`
	DHT      bool      `yaml:"dht"`
	Waves    []Wave    `yaml:"waves"`
	Exploits []Exploit `yaml:"exploits"`
	Origin   `yaml:",inline"`
}

// Wave is a set of ports tried together.
type Wave struct {
	Name  string   `yaml:"name"`
	Ports []uint16 `yaml:"ports"`
}

// Exploit is text that gives a family away in what it sends to a port.
type Exploit struct {
	Variant string `yaml:"variant"`
	Port    uint16 `yaml:"port"`
	Text    string `yaml:"text"`
}

// Has reports whether a wave of the family has the port.
func (f *Family) Has(port uint16) bool {
	return slices.ContainsFunc(f.Waves, func(w Wave) bool { return slices.Contains(w.Ports, port) })
}

// Wave returns the name of the smallest wave that has all the ports, or "".
func (f *Family) Wave(ports []uint16) string {
	best := -1
	for i, w := range f.Waves {
		missing := slices.ContainsFunc(ports, func(p uint16) bool { return !slices.Contains(w.Ports, p) })
		if !missing && (best < 0 || len(w.Ports) < len(f.Waves[best].Ports)) {
			best = i
		}
	}
	if best < 0 {
		return ""
	}
	return f.Waves[best].Name
}

// Families returns the known families in the order in which they are tried. The
// list is shared: do not change it.
var Families = sync.OnceValue(func() (list []Family) {
	load("families.yaml", &list)
	for i := range list {
		f := &list[i]
		if err := f.Check(); err != nil {
			panic(fmt.Sprintf("%s: %v", f.Family, err))
		}
		if f.Mark != "yes" && f.Mark != "no" && f.Mark != "any" || f.Name == "" || f.NameJa == "" || len(f.Waves) == 0 {
			panic("intel: family " + f.Family + " is incomplete")
		}
	}
	return list
})

// Service is a kind of service that worms and scanners look for.
type Service struct {
	Service string   `yaml:"service"`
	Ports   []uint16 `yaml:"ports"`
	Watch   string   `yaml:"watch"` // "device", "server" or "web": see services.yaml
	Origin  `yaml:",inline"`
}

// Services returns the services watched. The list is shared: do not change it.
var Services = sync.OnceValue(func() (list []Service) {
	load("services.yaml", &list)
	for _, s := range list {
		if err := s.Check(); err != nil {
			panic(fmt.Sprintf("%s: %v", s.Service, err))
		}
		if !slices.Contains([]string{"device", "server", "web"}, s.Watch) {
			panic("intel: service " + s.Service + " has no kind of watch")
		}
	}
	return list
})

// MiraiFacts is what is known of Mirai from its published source.
type MiraiFacts struct {
	Skipped []netip.Prefix `yaml:"skipped"` // ranges its scanner leaves out
	Telling []uint8        `yaml:"telling"` // those /8 of them that others would hit
	Mix     struct {
		First  uint16  `yaml:"first"`
		Second uint16  `yaml:"second"`
		Share  float64 `yaml:"share"` // of the second
	} `yaml:"mix"`
	ReportPort uint16   `yaml:"report_port"`
	Vectors    []Vector `yaml:"vectors"`
	Origin     `yaml:",inline"`
}

// Vector is a kind of flood that bots can be told to send.
type Vector struct {
	ID    uint8  `yaml:"id"`
	Name  string `yaml:"name"`
	Flood string `yaml:"flood"` // the class by which package flood sees it
}

// Mirai returns what is known of Mirai. It is shared: do not change it.
var Mirai = sync.OnceValue(func() *MiraiFacts {
	m := new(MiraiFacts)
	load("mirai.yaml", m)
	if err := m.Check(); err != nil {
		panic(err)
	}
	return m
})

// Survey is an organisation that scans everybody and says so.
type Survey struct {
	Name     string         `yaml:"name"`
	Prefixes []netip.Prefix `yaml:"prefixes"`
	Origin   `yaml:",inline"`
}

// Surveys returns the known survey scanners. The list is shared: do not change it.
var Surveys = sync.OnceValue(func() (list []Survey) {
	load("surveys.yaml", &list)
	for _, s := range list {
		if err := s.Check(); err != nil || len(s.Prefixes) == 0 || strings.TrimSpace(s.Name) == "" {
			panic(fmt.Sprintf("intel: survey %q: %v", s.Name, err))
		}
	}
	return list
})
