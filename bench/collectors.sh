#!/bin/sh
# Puts the same load of IPFIX on noroshi and on other collectors of this machine,
# one after the other, each on one core and the generator on another, and prints
# for each a line: flows sent and lost, CPU time per flow taken, most memory.
#
#	bench/collectors.sh [seconds [flows/s ...]]
#
# Debian's nfdump and fastnetmon are measured if they are installed (apt install
# nfdump fastnetmon; stop their services first). All traffic is on loopback. What is lost is
# asked of the kernel (last column of /proc/net/udp) for every collector alike.
# What differs: nfcapd decodes and writes files; fastnetmon decodes, counts per
# host and compares with thresholds; noroshi decodes and detects.
set -eu
cd "$(dirname "$0")/.."
ulimit -c 0 # fastnetmon 1.2.4 aborts when it is asked to end
seconds=${1:-5}
[ $# -gt 0 ] && shift
rates=${*:-300000 1000000 1500000}
port=4739
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export CGO_ENABLED=0
go build -pgo=cmd/noroshi/default.pgo -o "$dir" ./bench/load ./bench/receive
tick=$(getconf CLK_TCK)

# cpu prints the ticks of user and system time that process $1 has used.
cpu() { awk '{ sub(/^.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"; }
# dropped prints how many datagrams the kernel dropped for our port.
dropped() { awk -v p="$(printf ':%04X' $port)" 'index($2, p) { n += $NF } END { print n + 0 }' /proc/net/udp; }

# measure NAME RATE COMMAND... runs a collector under load.
measure() {
	name=$1 rate=$2
	shift 2
	taskset -c 1 "$@" >"$dir/out" 2>"$dir/err" &
	pid=$!
	n=0
	until grep -q "$(printf ':%04X' $port)" /proc/net/udp; do
		n=$((n + 1))
		if [ $n -gt 200 ] || ! kill -0 $pid 2>/dev/null; then
			echo "$name doesn't listen on port $port:" >&2
			tail -n 5 "$dir/out" "$dir/err" >&2
			kill $pid 2>/dev/null || true
			return 0
		fi
		sleep 0.1
	done
	sleep 1
	before=$(cpu $pid)
	taskset -c 0 "$dir/load" -dst 127.0.0.1:$port -rate "$rate" -for "${seconds}s" >"$dir/sent"
	sleep 1
	after=$(cpu $pid) lost=$(dropped)
	rss=$(awk '/VmHWM/ { print $2 }' "/proc/$pid/status")
	kill -INT $pid
	wait $pid 2>/dev/null || true
	awk -v name="$name" -v cpu=$((after - before)) -v tick="$tick" -v lost="$lost" -v rss="$rss" '
		{ gsub(/[{}":,]/, " "); for (i = 1; i < NF; i++) v[$i] = $(i + 1) }
		END {
			taken = v["flows"] * (1 - lost / v["datagrams"])
			printf "%-28s sent %4.2f M/s  lost %6.2f %%  taken %4.2f M/s  %6.0f ns CPU/flow  %5.0f MB\n", name,
				v["flows"] / v["seconds"] / 1e6, 100 * lost / v["datagrams"], taken / v["seconds"] / 1e6, taken ? cpu / tick * 1e9 / taken : 0, rss / 1024
		}' "$dir/sent"
}

mkdir "$dir/flows"
printf '10.0.0.0/15\n' >"$dir/networks" # the 131,072 hosts of bench/load
: >"$dir/nobody"
cat >"$dir/fastnetmon.conf" <<EOF
disable_usage_report = on
enable_ban = on
networks_list_path = $dir/networks
white_list_path = $dir/nobody
enable_connection_tracking = off
ban_for_pps = on
threshold_pps = 1000000000
netflow = on
netflow_port = $port
netflow_host = 127.0.0.1
notify_script_path = /bin/true
pid_path = $dir/fastnetmon.pid
cli_stats_file_path = $dir/fastnetmon.dat
EOF

uname -sr
awk -F': ' '/model name/ { print $2; exit }' /proc/cpuinfo
go version
git rev-parse --short HEAD
for rate in $rates; do
	measure "noroshi, all detectors" "$rate" env GOMAXPROCS=1 "$dir/receive" -listen 127.0.0.1:$port
	measure "noroshi, decoding only" "$rate" env GOMAXPROCS=1 "$dir/receive" -listen 127.0.0.1:$port -detectors none
	if command -v nfcapd >/dev/null; then
		measure nfcapd "$rate" nfcapd -b 127.0.0.1 -p $port -l "$dir/flows" -B 4000000
		rm -f "$dir"/flows/*
	fi
	if command -v fastnetmon >/dev/null; then
		measure fastnetmon "$rate" fastnetmon --configuration_file "$dir/fastnetmon.conf" --log_file "$dir/fastnetmon.log" --disable_pid_logic
	fi
done
