#!/usr/bin/env bash
# Runs tests with ThreadSanitizer, which tells of memory that threads use without an order between them:
# scripts/tsan.sh [filter of tests/it]…
#
# Needs a nightly toolchain with its sources (`rustup toolchain install nightly --component rust-src`): the standard
# library is built with it too, or its locks would not be seen. SQLite is C and is not looked into; its locks are seen.
# First the tests of the library, then those of tests/it that the filter names, whose servers and keepers are built with
# it. They take ten times as long as without, so a test that a deadline ends fails; what counts is what the sanitizer told.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-target}/tsan
rm -rf "$target/told"
mkdir -p "$target/told"
# The allocator of the server would stand in the place of the sanitizer's own.
export RUSTFLAGS="-Zsanitizer=thread --cfg tsan" RUST_BACKTRACE=0
TSAN_OPTIONS="exitcode=0 report_thread_leaks=0 log_path=$(realpath "$target/told")/told"
export TSAN_OPTIONS
cargo=(cargo +nightly)
options=(-Zbuild-std --target "$host" --target-dir "$target")

"${cargo[@]}" build "${options[@]}" --workspace
# By itself: tests that do not compile are no tests that failed.
"${cargo[@]}" test "${options[@]}" -p gooselake --lib --test it --no-run
"${cargo[@]}" test "${options[@]}" -p gooselake --lib -- --skip openapi || echo "some tests failed: see above"
if [ $# -gt 0 ]; then
    "${cargo[@]}" test "${options[@]}" -p gooselake --test it -- --test-threads 2 "$@" \
        || echo "some tests failed: see above"
fi

if grep -h "^WARNING: ThreadSanitizer\|^SUMMARY" "$target/told"/* 2>/dev/null; then
    echo "ThreadSanitizer told of something: $target/told" >&2
    exit 1
fi
echo "ThreadSanitizer told of nothing"
