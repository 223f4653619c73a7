#!/bin/sh
# Runs every fuzz target of the house, one after the other, for the given time
# (20s) or number of inputs (10000x).
#
# Inputs that are merely new are made small for a second at most: the default of
# a minute would take the whole time. When the time is up while a worker is busy,
# go test may call that a failure ("context deadline exceeded") though no input
# failed; an input that fails is always written down and named, and that alone
# fails here.
set -eu
time=${1:-20s}
out=$(mktemp)
trap 'rm -f "$out"' EXIT
grep -rlE '^func Fuzz' --include='*_test.go' . | sort | while read -r file; do
	dir=$(dirname "$file")
	sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$file" | while read -r target; do
		echo "== $dir $target $time"
		if go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 1s "$dir" >"$out" 2>&1; then
			tail -n 3 "$out"
		elif grep -qE '^ +context deadline exceeded$' "$out" && ! grep -qE 'Failing input|panic|hung or terminated' "$out"; then
			echo "no input failed: the time was up while a worker was busy"
		else
			cat "$out"
			exit 1
		fi
	done
done
