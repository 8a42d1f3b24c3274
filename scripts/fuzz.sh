#!/usr/bin/env bash
# Lets libFuzzer look for inputs that break a rule of tests/fuzz: scripts/fuzz.sh [seconds for each target] [target]…
#
# Needs a stable toolchain and a C++ compiler, and nothing that is to be installed: the programs of fuzz/ are built
# with the compiler's own coverage. Two targets run at a time. What is found lies in fuzz/artifacts; `cargo run -p
# gooselake-fuzz -- play <target> <file>` repeats it, and what is mended goes to testdata/fuzz/<target>/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-20}
shift || true
host=$(rustc -vV | sed -n 's/^host: //p')
# As cargo-fuzz has it, but for the sanitizer: no code of ours is unsafe, so there is nothing that it would find.
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
coverage+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
coverage+=" -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"

cargo run --quiet -p gooselake-fuzz -- seeds fuzz/corpus
RUSTFLAGS=$coverage cargo build --release --manifest-path fuzz/Cargo.toml --target "$host"

# One target: its finds stay in fuzz/corpus, its words in fuzz/artifacts/<target>.log.
run() {
    local target=$1
    mkdir -p "fuzz/artifacts/$target"
    if "fuzz/target/$host/release/$target" "fuzz/corpus/$target" -max_total_time="$seconds" -timeout=60 \
        -rss_limit_mb=2048 -max_len=16384 -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$target/" \
        >"fuzz/artifacts/$target.log" 2>&1; then
        sed -n "s/^stat::number_of_executed_units: */$target: inputs tried: /p" "fuzz/artifacts/$target.log"
    else
        echo "$target: FOUND SOMETHING"
        grep -aE "panicked at|SUMMARY|Test unit written" -A 2 "fuzz/artifacts/$target.log" | head -n 30
        return 1
    fi
}
export -f run
export host seconds

targets=("$@")
if [ ${#targets[@]} = 0 ]; then
    mapfile -t targets < <(cargo run --quiet -p gooselake-fuzz -- list)
fi
printf '%s\n' "${targets[@]}" | xargs -P 2 -I TARGET bash -c 'run TARGET'
