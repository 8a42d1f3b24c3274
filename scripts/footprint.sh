#!/usr/bin/env bash
# Measures what an installed server takes: the table "footprint" of README.md, as Markdown.
#
#   scripts/footprint.sh [BUNDLE.tar.gz]   packages the release without one
#
# Start time is from exec to the line that says where it listens, the best of ten; memory is what the kernel counts for
# the process when it has answered once and is idle: all of it (VmRSS), and what is its own (RssAnon); the rest are pages
# of the program file, which the kernel can drop and shares with every other process of that file. Exit status: 0 measured, 1 not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

archive=${1:-}
folder=$(mktemp -d)
server=''
trap '[ -z "$server" ] || kill -INT "$server" 2>/dev/null; rm -rf "$folder"' EXIT
if [ -z "$archive" ]; then
    scripts/package-release.sh --output "$folder/dist"
    archive=$(echo "$folder"/dist/*.tar.gz)
fi
tar -C "$folder" -xzf "$archive"
bundle=$(echo "$folder"/gg-runtime-*-*/)
export HOME=$folder

mib() { awk -v bytes="$1" 'BEGIN { printf "%.1f MB", bytes / 1e6 }'; }
size() { wc -c <"$1"; }

mkfifo "$folder/stdout"
best=999999999
for round in $(seq 10); do
    begun=$(date +%s%N)
    "$bundle/bin/gg-runtime-server" --bind 127.0.0.1:0 --data-dir "$folder/data" >"$folder/stdout" 2>/dev/null &
    server=$!
    read -r line <"$folder/stdout"
    took=$(($(date +%s%N) - begun))
    [ "$took" -ge "$best" ] || best=$took
    if [ "$round" = 10 ]; then
        curl -fsS "${line#listening on }/ready" >/dev/null
        idle=$(awk '/^VmRSS/ { print $2 * 1024 }' "/proc/$server/status")
        own=$(awk '/^RssAnon/ { print $2 * 1024 }' "/proc/$server/status")
        threads=$(awk '/^Threads/ { print $2 }' "/proc/$server/status")
    fi
    kill -TERM "$server"
    wait "$server"
    server=''
done

echo "| What | Size |"
echo "|---|---|"
echo "| bundle, compressed | $(mib "$(size "$archive")") |"
echo "| \`gg-runtime-server\`, static | $(mib "$(size "$bundle/bin/gg-runtime-server")") |"
for sidecar in "$bundle"/sidecars/*/; do
    name=$(basename "$sidecar")
    echo "| \`$name\`, static | $(mib "$(size "$sidecar/$name")") |"
done
echo "| idle server: memory, of that its own, threads | $(mib "$idle"), $(mib "$own"), $threads |"
echo "| start to listening | $(awk -v ns="$best" 'BEGIN { printf "%.0f ms", ns / 1e6 }') |"
