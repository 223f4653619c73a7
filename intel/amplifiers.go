package intel

import (
	"fmt"
	"sync"
)

// Amplifier is a UDP service that answers with more than it was asked.
type Amplifier struct {
	Port   uint16 `yaml:"port"`
	Vector string `yaml:"vector"` // "dns-amplification": the family of a finding
	Name   string `yaml:"name"`
	Factor string `yaml:"factor"` // bytes answered per byte asked, a number or a range
	// MinSize is the mean length of IP packets, in octets, from which answers
	// are larger than the service's ordinary ones.
	MinSize int `yaml:"min_size"`
	Origin  `yaml:",inline"`
}

// Amplifiers returns the known amplifiers in the order of the file. The list is
// shared: do not change it.
var Amplifiers = sync.OnceValue(func() (list []Amplifier) {
	load("amplifiers.yaml", &list)
	for _, a := range list {
		if err := a.Check(); err != nil {
			panic(fmt.Sprintf("%s: %v", a.Vector, err))
		}
	}
	return list
})
