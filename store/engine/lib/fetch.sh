#!/bin/sh
# Fetches the library of the embedded engine and makes it bin/libchdb.so. npm
# checks it against the digest in package-lock.json.
set -eu
cd "$(dirname "$0")"
bin=../../../bin
# One placed by hand stays; one of an older lock file is fetched anew.
if [ -e "$bin/libchdb.so" ]; then
	if [ ! -L "$bin/libchdb.so" ] || [ node_modules/.package-lock.json -nt package-lock.json ]; then exit 0; fi
fi
command -v npm >/dev/null || { echo "engine: npm is not here; docs/engine.md says how to place libchdb.so by hand" >&2; exit 1; }
npm ci --no-progress >&2 || { echo "engine: npm could not fetch the library; docs/engine.md says how to place libchdb.so by hand" >&2; exit 1; }
library=$(find node_modules/@chdb -name libchdb.so 2>/dev/null | head -n 1)
[ -n "$library" ] || { echo "engine: no library is pinned for $(uname -sm); docs/engine.md says how to place libchdb.so by hand" >&2; exit 1; }
mkdir -p "$bin"
ln -sf "../store/engine/lib/$library" "$bin/libchdb.so"
