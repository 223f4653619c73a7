package flood

import "noroshi/finding"

// Finish reports the latest numbers of floods that go on.
func (d *Detector) Finish(report func(*finding.Finding)) {
	for _, s := range d.suspects {
		if s == nil {
			continue
		}
		for _, v := range s.vectors {
			if v.alarmed() && v.packets != v.told {
				d.report(s, v, report)
			}
		}
	}
}
