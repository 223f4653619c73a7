package incident

import "encoding/json"

// plain has the fields of an Incident without the method.
type plain Incident

// MarshalJSON writes the stable form documented in docs/incidents.md.
func (in *Incident) MarshalJSON() ([]byte, error) {
	p := plain(*in)
	// An empty list is a statement, and null is a trap for whoever reads it.
	p.Subjects, p.Peers = some(p.Subjects), some(p.Peers)
	p.Measured, p.Evidence = some(p.Measured), some(p.Evidence)
	p.Attack, p.Requirements = some(p.Attack), some(p.Requirements)
	return json.Marshal(p)
}

func some[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
