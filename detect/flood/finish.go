package flood

import "noroshi/finding"

// Finish reports the latest numbers of floods that go on.
func (d *Detector) Finish(report func(*finding.Finding)) {
	for _, s := range d.suspects {
		if s == nil {
			continue
		}
		for _, v := range s.vectors {
			if v.id != (finding.ID{}) && !v.ended && !v.muted {
				d.report(s, v, max(v.last, v.said), report)
			}
		}
	}
}
