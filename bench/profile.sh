#!/bin/sh
# Writes the CPU profile by which the compiler orders noroshi's hot paths
# (profile-guided optimization) to FILE: receiving, decoding and detecting at 1.5
# million IPFIX flows/s for 15 s, the generator on another core.
#
#	bench/profile.sh FILE
set -eu
file=$1
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export CGO_ENABLED=0
go build -pgo=off -o "$dir" ./bench/load ./bench/receive
taskset -c 1 "$dir/receive" -profile "$dir/cpu" >"$dir/out" &
pid=$!
sleep 1
taskset -c 0 "$dir/load" -rate 1500000 -for 15s
sleep 1
kill -INT $pid
wait $pid
cat "$dir/out"
go tool pprof -proto "$dir/cpu" >"$file"
