#!/usr/bin/env bash
# Real agents through the real server: installs them (pinned), runs agent × scenario, keeps the matrix.
#
#   scripts/test-real.sh            all installed agents; the matrix goes to docs/REAL_AGENTS.md
#   scripts/test-real.sh NAME …     only these ("team": three agents in one team); the matrix is only printed
#
# Needs npm for the install and Linux on x86_64 for the pinned packages; says so when it cannot.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/real-agents.sh
cargo build --workspace
if [ $# -gt 0 ]; then
  exec target/debug/real-agents "$@"
fi
exec target/debug/real-agents --write docs/REAL_AGENTS.md
