package history

import (
	"cmp"
	"maps"
	"slices"
)

// heaviest returns the n groups with the most of m, and one more with the sums
// of all others if there are others.
func heaviest(groups map[string]*Group, n int, m Measure) []Group {
	names := slices.SortedFunc(maps.Keys(groups), func(a, b string) int {
		return cmp.Or(cmp.Compare(m.Of(groups[b].Total), m.Of(groups[a].Total)), cmp.Compare(a, b))
	})
	var list []Group
	for i, name := range names {
		g := groups[name]
		switch {
		case i < n:
			list = append(list, *g)
			continue
		case i == n:
			list = append(list, Group{Sums: make([]*Sums, len(g.Sums))})
		}
		others := &list[n]
		others.Total.add(g.Total)
		for j, s := range g.Sums {
			if s == nil {
				continue
			}
			if others.Sums[j] == nil {
				others.Sums[j] = &Sums{}
			}
			others.Sums[j].add(*s)
		}
	}
	return list
}
