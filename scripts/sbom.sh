#!/usr/bin/env bash
# What is in the programs of a bundle, as a CycloneDX document on stdout: each crate, its version and licence.
#
#   scripts/sbom.sh   needs cargo and jq; what only tests and builds use is not in it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(-p gooselake)
for manifest in sidecars/*/Cargo.toml; do
    packages+=(-p "$(basename "$(dirname "$manifest")")")
done
cargo tree --locked --edges normal --prefix none --no-dedupe --format '{p}|{l}' "${packages[@]}" |
    sed -E '/^$/d; s/ \(proc-macro\)//; s/ \([^)]*\)\|/|/' | LC_ALL=C sort -u |
    jq -Rn --arg version "$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)" '
        [inputs | capture("^(?<name>[^ ]+) v(?<version>[^|]+)\\|(?<license>.*)$")]
        | map({type: "library", name, version, purl: "pkg:cargo/\(.name)@\(.version)",
               licenses: (if .license == "" then [] else [{expression: (.license | gsub("/"; " OR "))}] end)})
        # The C library in the crate has a licence of its own: docs/licenses.
        | . + map(select(.name == "tikv-jemalloc-sys") | {type, name: "jemalloc",
               version: (.version | capture("[+](?<it>[0-9.]+)").it), licenses: [{expression: "BSD-2-Clause"}]})
        | {bomFormat: "CycloneDX", specVersion: "1.5", version: 1,
           metadata: {component: {type: "application", name: "gooselake", version: $version}},
           components: .}'
