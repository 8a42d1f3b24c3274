#!/bin/sh
# What a change must pass before it is committed. The gate (.ci/run) runs the same and more.
set -eu
cd "$(dirname "$0")/.."

cargo fmt --all --check
cargo clippy --workspace --all-targets -- -D warnings
# The tests start the programs of the workspace, so those are built first.
cargo build --workspace
cargo test --workspace
