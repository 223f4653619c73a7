// Package state remembers what was decided: incidents with their members and
// history, notes, exceptions, approvals, consent, and how many hosts were
// infected on which day. Events have a store of their own; this one is small,
// transactional, and must lose nothing it has acknowledged.
//
// Whatever a person or the program decided is a row of the audit chain, each
// with the hash of the one before: docs/state.md says what that proves.
//
// [Store] is the contract, [DB] the implementation on SQLite and PostgreSQL, and
// package statetest the test every implementation passes.
package state

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
)

// Store keeps state. Its methods may be called from several goroutines. What a
// method has returned without error survives a crash of the program and of the
// machine.
type Store interface {
	// Save writes incidents and their NewMembers, all or nothing. Saving the
	// same again changes nothing.
	Save(ctx context.Context, list []*incident.Incident) error
	// Incident returns one incident, or ErrNone.
	Incident(ctx context.Context, id finding.ID) (*incident.Incident, error)
	// Incidents returns the incidents that f selects, the latest first.
	Incidents(ctx context.Context, f Filter) ([]*incident.Incident, error)
	// Members returns at most limit members of an incident in the order of
	// their addresses, beginning after the given one; a zero after begins with
	// the first.
	Members(ctx context.Context, id finding.ID, after incident.Member, limit int) ([]incident.Member, error)
	// Move takes a step in the life of an incident: see [incident.Incident.Move].
	Move(ctx context.Context, id finding.ID, from incident.State, s incident.Step) (*incident.Incident, error)

	// AddException keeps e, whose owner is who adds it, and returns its ID;
	// RemoveException ends one, or returns ErrNone.
	AddException(ctx context.Context, e incident.Exception) (int64, error)
	RemoveException(ctx context.Context, id int64, by string) error
	Exceptions(ctx context.Context) ([]incident.Exception, error)

	// AddNote adds a note to an incident, or returns ErrNone; Notes returns them,
	// the oldest first.
	AddNote(ctx context.Context, n Note) (int64, error)
	Notes(ctx context.Context, id finding.ID) ([]Note, error)

	// Propose asks for an approval and returns its ID. Decide adds a decision; by
	// the wrong person or too late it is a *RefusedError. Approvals lists at most
	// limit, the latest first, those below the ID before if that isn't 0.
	Propose(ctx context.Context, p Proposal) (int64, error)
	Decide(ctx context.Context, id int64, x Decision) (Approval, error)
	Approval(ctx context.Context, id int64) (Approval, error)
	Approvals(ctx context.Context, before int64, limit int) ([]Approval, error)

	// Record writes down a subscriber's word. Consent returns the last one about a
	// purpose, or ErrNone; Consents all about a line, the oldest first.
	Record(ctx context.Context, c Consent) (int64, error)
	Consent(ctx context.Context, line, purpose string) (Consent, error)
	Consents(ctx context.Context, line string) ([]Consent, error)

	// Append adds to the audit chain what changes nothing here and is still to be
	// known: that somebody looked up an identity. Every other method that changes
	// something appends by itself, in the same transaction.
	Append(ctx context.Context, actor, action, object string, body any) error
	// Audit returns at most limit rows of the chain, the latest first: those about
	// an object if that isn't empty, those below before if that isn't 0.
	Audit(ctx context.Context, object string, before int64, limit int) ([]Entry, error)
	// Verify walks the chain and says where it is broken first, also against
	// heads that were kept elsewhere. An error means that it could not be read.
	Verify(ctx context.Context, kept ...Head) (Report, error)
	// Prune forgets the members and the evidence of incidents that are closed, are
	// over and had their last evidence before a time. Titles, numbers, histories and
	// the chain stay. It returns how many incidents that were.
	Prune(ctx context.Context, before event.Time) (int, error)

	// Observed notes that the program was watching at t, so that a day without
	// infected hosts can be told from a day without observation.
	Observed(ctx context.Context, t event.Time) error
	// Infected returns the number of distinct infected hosts on each UTC day
	// that from and to touch, by family and network.
	Infected(ctx context.Context, from, to event.Time) ([]Day, error)

	Close() error
}

// ErrNone is the error for what the store doesn't have.
var ErrNone = errors.New("state: there is none such")

// Filter selects incidents. Zero fields select all.
type Filter struct {
	State  incident.State
	Kind   string     // "iotbot.scan"; with a dot at the end all of a detector: "iotbot."
	Active bool       // only those that have not ended and were not merged
	Since  event.Time // whose Last is not before it
	// Before continues a list: only incidents said before this, and at the same
	// time those with a lower ID.
	Before   event.Time
	BeforeID finding.ID
	Limit    int // 0 means 1,000
}

// Matches reports whether f selects in, its Limit aside.
func (f *Filter) Matches(in *incident.Incident) bool {
	switch {
	case f.State != "" && f.State != in.State,
		strings.HasSuffix(f.Kind, ".") && !strings.HasPrefix(in.Kind, f.Kind),
		f.Kind != "" && !strings.HasSuffix(f.Kind, ".") && f.Kind != in.Kind,
		f.Active && (in.Ended || in.Merged != nil),
		f.Since != 0 && in.Last < f.Since:
		return false
	}
	return f.Before == 0 || in.Said < f.Before || in.Said == f.Before && bytes.Compare(in.ID[:], f.BeforeID[:]) < 0
}

// Day is what was seen on one UTC day.
type Day struct {
	Day time.Time `json:"day"`
	// Observed is false when the program did not run that day: then there is no
	// number, and Hosts is empty.
	Observed bool    `json:"observed"`
	Hosts    []Hosts `json:"hosts"` // sorted by family and network
}

// Hosts is a number of distinct addresses.
type Hosts struct {
	Family  string `json:"family"`
	Network string `json:"network"`
	Count   uint64 `json:"count"`
}
