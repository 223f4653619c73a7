package main

import "testing"

func TestScenariosNamed(t *testing.T) {
	count := func(want int, names ...string) {
		t.Helper()
		list, err := scenariosNamed(names)
		if (err != nil) != (want < 0) || err == nil && len(list) != want {
			t.Errorf("%q: %d scenarios, %v", names, len(list), err)
		}
	}
	count(1, "carpet-bombing")
	count(1, "carpet-bombing", "carpet*")
	count(8, "flood-*")
	count(-1, "flood-")
	count(-1, "carpet-bombing", "nothing*")
	if all, _ := scenariosNamed(nil); len(all) < 40 {
		t.Errorf("%d scenarios", len(all))
	}
}
