#!/usr/bin/env bash
# Builds the bundle from this repository and installs it for this user.
#
#   scripts/install-from-source.sh [ROOT]   ROOT is ~/.local without one (see install-runtime.sh)
#
#   GG_RUNTIME_BIN_DIR  take the programs that were built there instead of building
#
# Needs what building needs: Rust, a C compiler, and binutils. Exit status: 0 installed, 1 it could not be.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

dist=$(mktemp -d)
trap 'rm -rf "$dist"' EXIT
mkdir -p "$dist/latest/download"
options=(--output "$dist/latest/download")
[ -z "${GG_RUNTIME_BIN_DIR:-}" ] || options+=(--bin-dir "$GG_RUNTIME_BIN_DIR")
scripts/package-release.sh "${options[@]}"
GG_RUNTIME_RELEASE_URL=$dist GG_RUNTIME_INSTALL_ROOT=${1:-${GG_RUNTIME_INSTALL_ROOT:-$HOME/.local}} \
    scripts/install-runtime.sh
