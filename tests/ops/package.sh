#!/usr/bin/env bash
# The bundle that people get: made twice, in two folders, it is the same bytes; and its programs run where there is
# nothing but themselves.
#
#   tests/ops/package.sh [BUNDLE.tar.gz]   only looks whether that one runs
#
# Two optimised builds of everything take minutes, so the gate leaves this out; `make test-package`, and the release
# workflow for its second half. Exit status: 0 all is as it should be, 1 something is not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
archive=${1:-}

ok() { printf 'ok   %s\n' "$1"; }
bad() { printf 'BAD  %s\n' "$1" >&2; exit 1; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

if [ -z "$archive" ]; then
    # Two clones whose paths have not even the length in common, another time zone and another umask.
    one=$folder/one
    two=$folder/some/where/else
    for clone in "$one" "$two"; do
        git clone -q . "$clone"
        # What is changed and not yet committed belongs to it.
        git diff HEAD --binary | (cd "$clone" && git apply --allow-empty)
    done
    unset CARGO_TARGET_DIR
    (umask 022 && cd "$one" && TZ=UTC scripts/package-release.sh --output "$folder/first")
    rm -rf "$one"
    (umask 077 && cd "$two" && TZ=Asia/Tokyo LC_ALL=C scripts/package-release.sh --output "$folder/second")
    rm -rf "$two"
    archive=$(echo "$folder"/first/*.tar.gz)
    cmp "$archive" "$folder"/second/*.tar.gz || bad "two builds of the same sources differ"
    ok "two builds in two folders are the same bytes: $(sha256sum "$archive" | cut -c 1-16)…"
fi

if [ "$(id -u)" = 0 ] && unshare --mount --pid --fork --net true 2>/dev/null; then
    root=$folder/root
    mkdir -p "$root/proc" "$root/dev" "$root/data" "$root/gg"
    tar -C "$root/gg" --strip-components=1 -xzf "$archive"
    for program in "$root"/gg/bin/* "$root"/gg/sidecars/*/*; do
        env -i "$(command -v chroot)" "$root" "${program#"$root"}" --version >/dev/null ||
            bad "${program##*/} does not run in a folder without a libc"
    done
    ok "every program runs in a folder without a libc"
    # shellcheck disable=SC2016 # the inner shell expands it
    unshare --mount --pid --fork --net --kill-child sh -euc '
        root=$1
        mount -t proc proc "$root/proc"
        : >"$root/dev/null"
        mount --bind /dev/null "$root/dev/null"
        ip link set lo up
        mkfifo "$root/said"
        env -i HOME=/data "$(command -v chroot)" "$root" /gg/bin/gg-runtime-server --bind 127.0.0.1:0 >"$root/said" &
        exec 5<"$root/said"
        read -r _ _ url <&5
        ask() {
            curl -fsS --max-time 30 "$url$1" -d "$2" -H "Content-Type: application/json" \
                -H "Authorization: Bearer $(cat "$root/data/.gg-runtime/auth/api-token")"
        }
        session=$(ask /v1/sessions "{\"provider\":\"demo\",\"cwd\":\"/data\"}" | grep -o "sess_[0-9a-f]*" | head -n 1)
        ask "/v1/sessions/$session/turns?wait=true" "{\"input\":[\"say Nothing else is here.\"]}"
    ' sh "$root" >"$folder/said" || bad "the server does not work there: $(cat "$folder/said")"
    grep -q '"assistant_text":"Nothing else is here."' "$folder/said" || bad "the agent says: $(cat "$folder/said")"
    ok "a server there has a first turn, with nothing but /proc and /dev/null beside the bundle"
else
    echo "!!!! SKIPPED: only root can put the bundle into a folder without a libc"
fi
