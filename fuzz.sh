#!/bin/sh
# Runs every fuzz target of the house, one after the other, for the given time.
# Inputs that are merely new are made small for a second at most: the default of
# a minute would take the whole time.
set -eu
time=${1:-20s}
grep -rlE '^func Fuzz' --include='*_test.go' . | sort | while read -r file; do
	dir=$(dirname "$file")
	sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$file" | while read -r target; do
		echo "== $dir $target $time"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 1s "$dir"
	done
done
