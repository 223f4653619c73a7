// Package incident turns findings of one cause into one incident: what, who,
// since when, how sure, measured against what, and what to do.
//
// The rules by which findings come together, in the order they are tried:
//
//  1. A finding that was reported before (same ID) updates its incident. When
//     more evidence has shown it to be of another cause, it leaves for that
//     cause's incident. One that loses its last finding so is closed as a
//     duplicate, or goes on under the other cause if that has no incident.
//  2. A finding whose Cause equals an incident's joins it, unless the incident
//     has been silent for longer than [Config.Gap].
//  3. A flood joins an incident whose target contains its own. One whose target
//     contains those of other incidents takes them in: the oldest goes on, the
//     others are closed as its duplicates.
//  4. A server of a botnet (scan receiver, loader, C&C) joins the incident of
//     the bots it was seen with.
//  5. Anything else opens an incident.
//
// Different families or tenants have different causes and so stay apart. What
// is connected but not one cause is linked: a flood that was announced, a flood
// whose senders are known bots.
//
// A cap on new incidents keeps a misconfiguration from raising thousands: what
// exceeds it is counted in one incident that says so.
package incident

import (
	"fmt"
	"slices"

	"noroshi/event"
	"noroshi/finding"
)

// State is where an incident stands in its life.
type State string

// States. An incident begins as New.
const (
	New          State = "new"
	Acknowledged State = "acknowledged"
	Assigned     State = "assigned"
	Closed       State = "closed"
)

// Reason is the verdict with which an incident is closed.
type Reason string

// Reasons, with OCSF's verdict_id.
const (
	True      Reason = "true"      // 2: it was what noroshi said
	Benign    Reason = "benign"    // 5: it happened and was meant to
	False     Reason = "false"     // 1: it did not happen
	Duplicate Reason = "duplicate" // 10: another incident has it
	Drill     Reason = "drill"     // 6: somebody practised
)

// Reasons lists the reasons for closing.
var Reasons = []Reason{True, Benign, False, Duplicate, Drill}

// Bounds of the lists in an Incident.
const (
	MaxSubjects = 64
	MaxHistory  = 256
	MaxRelated  = 32
	MaxVectors  = 32
)

// Incident is one cause as it stands: what an analyst sees, stores and moves.
// It is a copy; the [Correlator] keeps the working state.
type Incident struct {
	ID     finding.ID `json:"id"`
	Kind   string     `json:"kind"`   // the rule of the leading finding: "iotbot.scan"
	Family string     `json:"family"` // "mirai"; for floods the vector that weighs most
	// Vectors are the families of all findings, sorted, where there are several.
	Vectors    []string         `json:"vectors,omitempty"`
	Severity   finding.Severity `json:"severity"`   // the highest of its findings
	Confidence float64          `json:"confidence"` // 0 to 1: the highest of its findings

	State  State       `json:"state"`
	Reason Reason      `json:"reason,omitempty"`
	Owner  string      `json:"owner,omitempty"`
	Merged *finding.ID `json:"merged_into,omitempty"` // the incident that goes on with it

	Subjects     []finding.Subject `json:"subjects"` // whom it is about, at most MaxSubjects
	SubjectCount uint64            `json:"subject_count"`
	Peers        []finding.Subject `json:"peers"` // the other side, at most finding.MaxPeers
	PeerCount    uint64            `json:"peer_count,omitempty"`
	// Members is how many distinct hosts take part: the bots of a fleet, the
	// senders of a flood. Active is the most that took part at one time, which
	// is the better count of devices whose addresses change.
	Members uint64 `json:"members"`
	Active  uint64 `json:"active"`

	First event.Time `json:"first"` // the evidence, first to last
	Last  event.Time `json:"last"`
	Said  event.Time `json:"said"` // event time at which the incident was opened
	Ended bool       `json:"ended"`

	Title        finding.Text      `json:"title"`
	Why          finding.Text      `json:"why"`
	Next         finding.Text      `json:"next"`
	Measured     []finding.Measure `json:"measured"`
	Evidence     []string          `json:"evidence"`
	Attack       []string          `json:"attack"`
	Requirements []string          `json:"requirements"`

	Findings uint64       `json:"findings"` // how many
	Related  []finding.ID `json:"related,omitempty"`
	History  []Step       `json:"history,omitempty"` // oldest first, at most MaxHistory

	Cause finding.Cause `json:"cause"`
	// NewMembers are those who joined or changed since the last copy: what a
	// store has yet to write.
	NewMembers []Member `json:"-"`
}

// Member is one host that takes part in an incident.
type Member struct {
	Addr event.Addr
	// Port separates devices behind one address; 0 = the whole address.
	Port        uint16
	Role        string // "bot", "sender", ...
	Network     string
	First, Last event.Time
	Ended       bool
	// Gone: more evidence showed that it is of another cause. A store forgets it.
	Gone bool

	new  bool // not yet in a copy
	held int  // findings about it
}

// Step is one entry of an incident's history.
type Step struct {
	At     event.Time `json:"at"`
	By     string     `json:"by"` // who; "noroshi" for the program
	To     State      `json:"to"`
	Reason Reason     `json:"reason,omitempty"`
	Owner  string     `json:"owner,omitempty"` // of a step to Assigned
	Note   string     `json:"note,omitempty"`
}

// MoveError says why a step isn't possible.
type MoveError struct {
	From, To State
	Why      string
}

func (e *MoveError) Error() string {
	return fmt.Sprintf("incident: can't go from %s to %s: %s", e.From, e.To, e.Why)
}

// mayGo is the life cycle.
var mayGo = map[State][]State{
	New:          {Acknowledged, Assigned, Closed},
	Acknowledged: {Assigned, Closed},
	Assigned:     {Acknowledged, Assigned, Closed},
	Closed:       {Acknowledged},
}

// Move takes the step s and writes it into the history. from is the state the
// person saw when deciding: when somebody else was faster, the incident is left
// as it is and the error says so.
func (in *Incident) Move(from State, s Step) error {
	refuse := func(why string) error { return &MoveError{in.State, s.To, why} }
	if _, known := mayGo[s.To]; !known {
		return refuse("no such state; want acknowledged, assigned or closed")
	}
	switch {
	case in.State != from:
		return refuse(fmt.Sprintf("somebody was faster: it is no longer %s", from))
	case !slices.Contains(mayGo[in.State], s.To):
		return refuse("the life of an incident has no such step")
	case s.By == "":
		return refuse("who does it is missing")
	case s.To == Assigned && s.Owner == "":
		return refuse("the owner is missing")
	case s.To == Closed && !slices.Contains(Reasons, s.Reason):
		return refuse("the reason is missing; want true, benign, false, duplicate or drill")
	case s.To == Closed && s.Note == "":
		return refuse("the note is missing")
	}
	if s.To != Closed {
		s.Reason = ""
	}
	if s.To != Assigned {
		s.Owner = ""
	}
	in.State, in.Reason = s.To, s.Reason
	if s.To == Assigned {
		in.Owner = s.Owner
	}
	if len(in.History) >= MaxHistory { // keep how it began
		in.History = slices.Delete(in.History, 1, 2)
	}
	in.History = append(in.History, s)
	return nil
}
