#!/usr/bin/env bash
# Makes the bundle of a release: gg-runtime-<platform>-<arch>.tar.gz, and its checksum beside it.
#
#   scripts/package-release.sh [--platform linux] [--arch x86_64|arm64] [--output dist] [--version V]
#   scripts/package-release.sh --bin-dir DIR   package the programs in DIR, build nothing
#
# The same sources and the same toolchain make the same bytes: paths of this machine are not in the programs, and the
# archive has sorted names, no owners, and the time of the last commit (or SOURCE_DATE_EPOCH) on everything.
#
# The programs are linked statically against glibc, so they run on any Linux of that processor, whatever its libc; that
# nothing dynamic is left is checked, not assumed (programs of --bin-dir are taken as they are).
# Exit status: 0 made, 1 it could not be, 2 wrong use.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'package: %s\n' "$1" >&2; }
fail() { say "$1"; exit "${2:-1}"; }

platform=linux arch='' output=dist bins='' version=''
while [ $# -gt 0 ]; do
    case $1 in
    --platform | --arch | --output | --bin-dir | --version | --bun-target)
        [ $# -ge 2 ] || fail "$1 needs a value" 2
        case $1 in
        --platform) platform=$2 ;;
        --arch) arch=$2 ;;
        --output) output=$2 ;;
        --bin-dir) bins=$2 ;;
        --version) version=$2 ;;
        --bun-target) say "--bun-target does nothing: there is no bun in the bundle" ;;
        esac
        shift 2
        ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" && exit 0 ;;
    *) fail "there is no option $1" 2 ;;
    esac
done
[ -n "$arch" ] || arch=$(uname -m)
case $arch in
x86_64 | amd64) arch=x86_64 triple=x86_64-unknown-linux-gnu ;;
arm64 | aarch64) arch=arm64 triple=aarch64-unknown-linux-gnu ;;
*) fail "--arch is $arch; it can be x86_64 or arm64" 2 ;;
esac
# The keeper finds the processes of an agent through /proc and pidfd: there is no bundle for another system.
[ "$platform" = linux ] || fail "--platform is $platform; the keeper is for linux alone" 2
[ -n "$version" ] || version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}

# Each folder below sidecars/ is a package, and its program has the name of the folder.
sidecars=()
for manifest in sidecars/*/Cargo.toml; do
    sidecars+=("$(basename "$(dirname "$manifest")")")
done

if [ -z "$bins" ]; then
    # Asked first: without it the check below would find nothing, which is what it looks for.
    command -v objdump >/dev/null || fail "there is no objdump; install binutils"
    target=${CARGO_TARGET_DIR:-target}/bundle
    packages=(-p gooselake)
    for name in "${sidecars[@]}"; do packages+=(-p "$name"); done
    say "building ${sidecars[*]} and the server for $triple"
    remap="--remap-path-prefix=$PWD=. --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
    RUSTFLAGS="-C target-feature=+crt-static $remap" \
        cargo build --release --locked --target "$triple" --target-dir "$target" "${packages[@]}"
    bins=$target/$triple/release
    for program in gg-runtime-server "${sidecars[@]}"; do
        if objdump -p "$bins/$program" | grep -q NEEDED; then
            fail "$program needs libraries of the machine: it was not linked statically"
        fi
        if objdump -T "$bins/$program" 2>/dev/null | grep -q GLIBC_; then
            fail "$program wants symbols of a glibc"
        fi
    done
    say "no program needs a library of the machine"
fi

name=gg-runtime-$platform-$arch
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
bundle=$stage/$name
install -d "$bundle/bin"
install -m 755 "$bins/gg-runtime-server" "$bundle/bin/"
for program in "${sidecars[@]}"; do
    install -d "$bundle/sidecars/$program"
    install -m 755 "$bins/$program" "$bundle/sidecars/$program/"
done
install -m 644 docs/examples/runtime-server.toml "$bundle/runtime-server.toml.example"
[ ! -f docs/openapi/runtime-server-openapi.yaml ] ||
    install -m 644 docs/openapi/runtime-server-openapi.yaml "$bundle/openapi.yaml"
install -m 644 README.md LICENSE "$bundle/"
cp -R docs "$bundle/docs"
cp -R docs/deploy "$bundle/deploy"
install -d "$bundle/scripts"
install -m 755 scripts/install-runtime.sh scripts/upgrade-runtime.sh scripts/preflight-runtime.sh \
    scripts/deploy-vps.sh "$bundle/scripts/"
printf '%s\n' "$version" >"$bundle/VERSION"
find "$bundle" -type d -exec chmod 755 {} +
find "$bundle" -type f ! -perm -100 -exec chmod 644 {} +
(cd "$bundle" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) >"$stage/sums"
install -m 644 "$stage/sums" "$bundle/SHA256SUMS"

mkdir -p "$output"
archive=$output/$name.tar.gz
tar -C "$stage" --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner --format=gnu -cf - "$name" |
    gzip -n -9 >"$archive"
(cd "$output" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
say "$archive: version $version, $(wc -c <"$archive") bytes"
