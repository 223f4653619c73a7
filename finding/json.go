package finding

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"noroshi/event"
)

// subject is the JSON form of a Subject: "address" for one host, "prefix" for
// several, neither for a whole network.
type subject struct {
	Address netip.Addr   `json:"address,omitzero"`
	Prefix  netip.Prefix `json:"prefix,omitzero"`
	Port    uint16       `json:"port,omitempty"`
	Network string       `json:"network,omitempty"`
	Role    string       `json:"role"`
	Share   float64      `json:"share,omitempty"`
}

// IsHost reports whether s is one address.
func (s Subject) IsHost() bool {
	return s.Addr != event.Addr{} && (s.Bits == 128 || s.Bits == 32 && s.Addr.Is4())
}

// MarshalJSON writes the address of a host as "address", of several hosts as
// "prefix".
func (s Subject) MarshalJSON() ([]byte, error) {
	j := subject{Port: s.Port, Network: s.Network, Role: s.Role, Share: s.Share}
	switch {
	case s.IsHost():
		j.Address = s.Addr.Std()
	case s.Addr != event.Addr{}:
		j.Prefix = netip.PrefixFrom(s.Addr.Std(), int(s.Bits))
	}
	return json.Marshal(j)
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (s *Subject) UnmarshalJSON(p []byte) error {
	var j subject
	if err := json.Unmarshal(p, &j); err != nil {
		return fmt.Errorf("finding: subject: %w", err)
	}
	*s = Subject{Port: j.Port, Network: j.Network, Role: j.Role, Share: j.Share}
	switch {
	case j.Address.IsValid():
		*s = Host(event.AddrOf(j.Address), j.Role, j.Network)
		s.Port, s.Share = j.Port, j.Share
	case j.Prefix.IsValid():
		s.Addr, s.Bits = event.AddrOf(j.Prefix.Addr()), uint8(j.Prefix.Bits())
	}
	return nil
}

// cause is the JSON form of a Cause.
type cause struct {
	Kind   string       `json:"kind"`
	Key    string       `json:"key,omitempty"`
	Target netip.Prefix `json:"target,omitzero"`
}

// MarshalJSON writes the target as a prefix.
func (c Cause) MarshalJSON() ([]byte, error) {
	j := cause{Kind: c.Kind, Key: c.Key}
	if c.Target != (event.Addr{}) {
		j.Target = netip.PrefixFrom(c.Target.Std(), int(c.Bits))
	}
	return json.Marshal(j)
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (c *Cause) UnmarshalJSON(p []byte) error {
	var j cause
	if err := json.Unmarshal(p, &j); err != nil {
		return fmt.Errorf("finding: cause: %w", err)
	}
	*c = Cause{Kind: j.Kind, Key: j.Key}
	if j.Target.IsValid() {
		c.Target, c.Bits = event.AddrOf(j.Target.Addr()), uint8(j.Target.Bits())
	}
	return nil
}
