// Package state remembers what was decided: incidents with their members and
// history, exceptions, and how many hosts were infected on which day. Events
// have a store of their own; this one is small, transactional, and must lose
// nothing it has acknowledged.
//
// [Store] is the contract, [Open] the implementation on SQLite, and package
// statetest the test every implementation passes.
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

	// AddException keeps e and returns its ID; RemoveException forgets one, or
	// returns ErrNone.
	AddException(ctx context.Context, e incident.Exception) (int64, error)
	RemoveException(ctx context.Context, id int64) error
	Exceptions(ctx context.Context) ([]incident.Exception, error)

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
