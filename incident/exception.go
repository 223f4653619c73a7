package incident

import (
	"net/netip"

	"noroshi/event"
	"noroshi/finding"
)

// An Exception keeps findings that somebody has judged from coming back. All
// fields that are set must match. Whoever makes one says so, why, and until
// when: an exception for ever is a blind spot nobody remembers.
type Exception struct {
	ID      int64        `json:"id"`
	Rule    string       `json:"rule,omitempty"`    // "iotbot.scan"; empty = any
	Subject netip.Prefix `json:"subject,omitzero"`  // contains the subject; zero = any
	Key     string       `json:"key,omitempty"`     // equals Cause.Key; empty = any
	Owner   string       `json:"owner"`             // who answers for it
	Note    string       `json:"note"`              // why
	Expires event.Time   `json:"expires"`           // event time from which it no longer holds
	Hits    uint64       `json:"hits,omitempty"`    // findings it covered since the start
	Last    event.Time   `json:"last_hit,omitzero"` // the latest of them
}

// Check reports what is missing.
func (e *Exception) Check() error {
	switch {
	case e.Rule == "" && !e.Subject.IsValid() && e.Key == "":
		return &ExceptionError{"it would cover everything; name a rule, a subject or a key"}
	case e.Owner == "":
		return &ExceptionError{"the owner is missing"}
	case e.Note == "":
		return &ExceptionError{"the note that says why is missing"}
	case e.Expires == 0:
		return &ExceptionError{"the expiry is missing"}
	}
	return nil
}

// ExceptionError says what an exception lacks.
type ExceptionError struct{ Why string }

func (e *ExceptionError) Error() string { return "incident: exception refused: " + e.Why }

// covers reports whether e holds for f.
func (e *Exception) covers(f *finding.Finding) bool {
	if f.Said >= e.Expires || e.Rule != "" && e.Rule != f.Rule || e.Key != "" && e.Key != f.Cause.Key {
		return false
	}
	return !e.Subject.IsValid() ||
		f.Subject.Addr != event.Addr{} && int(f.Subject.Bits) >= e.Subject.Bits() && e.Subject.Contains(f.Subject.Addr.Std())
}

// Except replaces the exceptions.
func (c *Correlator) Except(list []Exception) { c.exceptions = list }

// Exceptions returns the exceptions with what they have covered.
func (c *Correlator) Exceptions() []Exception { return c.exceptions }

func (c *Correlator) excepted(f *finding.Finding) bool {
	for i := range c.exceptions {
		if e := &c.exceptions[i]; e.covers(f) {
			e.Hits++
			e.Last = max(e.Last, f.Said)
			return true
		}
	}
	return false
}
