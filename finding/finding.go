// Package finding defines what detectors report: one thing noticed about one
// subject, with the reason.
package finding

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"noroshi/event"
)

// ID identifies a finding. It is computed from what the finding is about, so
// that reading the same input twice yields the same IDs and a store keeps one
// row. A finding reported again with the same ID replaces the earlier one.
type ID [16]byte

// NewID returns the ID of what rule says about subject from start on; part
// separates several findings of one rule about one subject at one time.
func NewID(rule string, subject event.Addr, part string, start event.Time) (id ID) {
	h := sha256.New()
	h.Write([]byte(rule))
	h.Write([]byte{0})
	h.Write(subject[:])
	h.Write([]byte(part))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(start)))
	copy(id[:], h.Sum(nil))
	return id
}

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText returns id in hexadecimal.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (id *ID) UnmarshalText(p []byte) error {
	if len(p) != 2*len(id) {
		return fmt.Errorf("finding: id of %d characters, want %d", len(p), 2*len(id))
	}
	_, err := hex.Decode(id[:], p)
	return err
}

// Severity orders findings for a human: how soon somebody should look.
type Severity uint8

// Severities, from the Sigma specification's level field.
const (
	Informational Severity = iota
	Low
	Medium
	High
	Critical
)

var severities = [...]string{"informational", "low", "medium", "high", "critical"}

func (s Severity) String() string { return severities[s] }

// MarshalText returns the severity's name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (s *Severity) UnmarshalText(p []byte) error {
	for i, name := range severities {
		if name == string(p) {
			*s = Severity(i)
			return nil
		}
	}
	return fmt.Errorf("finding: unknown severity %q", p)
}

// Text is a sentence for a human in each language noroshi speaks.
type Text struct {
	En string `json:"en"`
	Ja string `json:"ja"`
}

// Finding is one thing a detector noticed about one subject. It explains
// itself: whoever reads it needs nothing else to judge it.
type Finding struct {
	ID       ID       `json:"id"`
	Rule     string   `json:"rule"`    // "iotbot.scan", "flood.inbound": one of the detector's Spec.Rules
	Version  int      `json:"version"` // Spec.Version of the detector
	Severity Severity `json:"severity"`
	// Confidence is the probability, 0 to 1, that the finding is right as far
	// as its evidence goes; how it is computed is in the detector's doc.
	Confidence float64 `json:"confidence"`
	Family     string  `json:"family,omitempty"` // key of intel: "mirai"; for floods the vector: "dns-amplification"

	Subject Subject   `json:"subject"`         // whom it is about
	Peers   []Subject `json:"peers,omitempty"` // the other side, at most MaxPeers, most important first
	// PeerCount is the number of distinct peers, which may exceed len(Peers)
	// and may be an estimate; 0 = unknown.
	PeerCount uint64 `json:"peer_count,omitempty"`

	First event.Time `json:"first"` // the evidence, first to last
	Last  event.Time `json:"last"`
	Said  event.Time `json:"said"`            // event time (Flow.Seen) at which the detector knew
	Ended bool       `json:"ended,omitempty"` // what was noticed has stopped

	// Members are all who take part on the subject's or the peers' side, where
	// the detector knows more of them than Peers holds: the senders of an
	// outbound flood. Sorted, without duplicates; the finding owns it. It may be
	// long and is not in the JSON form: ask the incident for its members.
	Members []event.Addr `json:"-"`

	// Cause names what findings of one incident have in common, apart from the
	// subject: see package incident.
	Cause Cause `json:"cause"`

	Samples  float64   `json:"samples"`  // observed packets or records the judgement rests on
	Measured []Measure `json:"measured"` // why: each number and what it was held against; never empty
	Evidence []string  `json:"evidence"` // a few sample events in the text notation of package event
	Attack   []string  `json:"attack"`   // MITRE ATT&CK technique IDs: "T1046"
	Title    Text      `json:"title"`    // what, in a few words with the names
	Why      Text      `json:"why"`      // one or two sentences with the numbers
	Next     Text      `json:"next"`     // what to do about it
	// Requirements are the rows of requirements.md that the rule serves.
	Requirements []string `json:"requirements"`
}

// MaxPeers and MaxEvidence bound the lists of a Finding.
const (
	MaxPeers    = 64
	MaxEvidence = 8
)

// Subject is a host, a prefix or a network.
type Subject struct {
	Addr event.Addr `json:"-"`
	// Bits is the prefix length in the address's own family; 32 or 128 is one
	// host. 0 with a zero Addr: the whole of Network.
	Bits    uint8   `json:"-"`
	Port    uint16  `json:"port,omitempty"` // source port that separates devices behind one address; 0 = not known
	Network string  `json:"network,omitempty"`
	Role    string  `json:"role"` // bot, victim, reflector, scanner, receiver, loader, c2
	Share   float64 `json:"share,omitempty"`
}

// Host returns the subject that is one address in a role.
func Host(a event.Addr, role, network string) Subject {
	s := Subject{Addr: a, Bits: 128, Role: role, Network: network}
	if a.Is4() {
		s.Bits = 32
	}
	return s
}

// String returns the address, the prefix, or the network's name.
func (s Subject) String() string {
	switch {
	case s.Addr == event.Addr{}:
		return s.Network
	case s.IsHost():
		return s.Addr.String()
	}
	return fmt.Sprintf("%v/%d", s.Addr, s.Bits)
}

// Cause is the key by which findings of one cause find each other. Findings
// with an equal Cause are one incident while it is open; what is more, a flood
// joins an open one whose Target contains its own.
type Cause struct {
	Kind   string     // "iotbot", "flood"
	Key    string     // family, behaviour signature, tenant: what the members share
	Target event.Addr // the victim, where there is one
	Bits   uint8      // its prefix length, in its own family
}

// Measure is a number a finding rests on.
type Measure struct {
	What  string   `json:"what"`            // "distinct addresses tried on one port"
	Ja    string   `json:"what_ja"`         // the same in Japanese
	Value float64  `json:"value"`           // what was seen
	Unit  string   `json:"unit"`            // "addresses", "packets/s"
	Limit float64  `json:"limit"`           // what it was held against; at or above it is reported
	Usual *float64 `json:"usual,omitempty"` // what is usual for this subject; nil when there is no baseline
	Error float64  `json:"error,omitempty"` // half-width of the 95 % interval, in Unit; 0 = exact
}
