#!/usr/bin/env bash
# Installs a release of gg-runtime for this user. Stands alone: it can be downloaded and run without anything else.
#
#   install-runtime.sh [VERSION]              VERSION is a tag such as v0.1.0; latest without one
#   install-runtime.sh --fetch DIR [VERSION]  only download, check and unpack into DIR; prints the folder
#
#   GG_RUNTIME_INSTALL_ROOT  where to (~/.local): share/gg-runtime/ holds releases, bin/ a link to the current one
#   GG_RUNTIME_RELEASE_URL   a folder or URL with latest/download/ and download/VERSION/, as the releases of a
#                            repository on GitHub have them
#   GG_RUNTIME_REPO          that repository (amxv/gooselake), when no URL is given
#
# The archive is held against its checksum, and every file in it against the list that it carries. Nothing is changed
# before both are good. Run again it does nothing when that release is already the current one.
# Exit status: 0 installed, 1 it could not be, 2 wrong use.
set -euo pipefail

say() { printf 'install: %s\n' "$1" >&2; }
fail() { say "$1"; exit "${2:-1}"; }

stage='' version=''
while [ $# -gt 0 ]; do
    case $1 in
    --fetch)
        [ $# -ge 2 ] || fail "--fetch needs a folder" 2
        stage=$2
        shift 2
        ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" && exit 0 ;;
    -*) fail "there is no option $1" 2 ;;
    *)
        [ -z "$version" ] || fail "one version is enough, not also $1" 2
        version=$1
        shift
        ;;
    esac
done
version=${version:-latest}

[ "$(uname -s)" = Linux ] || fail "there are releases for Linux only: the keeper needs /proc and pidfd"
case $(uname -m) in
x86_64 | amd64) arch=x86_64 ;;
aarch64 | arm64) arch=arm64 ;;
*) fail "there is no release for $(uname -m)" ;;
esac
name=gg-runtime-linux-$arch
base=${GG_RUNTIME_RELEASE_URL:-https://github.com/${GG_RUNTIME_REPO:-amxv/gooselake}/releases}
case $version in
latest) from=$base/latest/download ;;
*) from=$base/download/$version ;;
esac

# get FILE: takes it from the release into the current folder.
get() {
    case $from in
    http://* | https://*)
        curl -fsSL --retry 2 --connect-timeout 20 --max-time 600 -o "$1" "$from/$1" ||
            fail "$from/$1 can not be downloaded"
        ;;
    *) cp "${from#file://}/$1" "$1" || fail "there is no ${from#file://}/$1" ;;
    esac
}

scratch=''
if [ -z "$stage" ]; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    stage=$scratch
fi
mkdir -p "$stage"
(
    cd "$stage"
    get "$name.tar.gz"
    get "$name.tar.gz.sha256"
    grep -q "  $name.tar.gz\$" "$name.tar.gz.sha256" || fail "$name.tar.gz.sha256 is not its checksum"
    sha256sum -c --quiet "$name.tar.gz.sha256" >&2 || fail "$name.tar.gz is not what was released"
    rm -rf "$name"
    tar -xzf "$name.tar.gz"
    rm "$name.tar.gz" "$name.tar.gz.sha256"
    cd "$name"
    sha256sum -c --quiet SHA256SUMS >&2 || fail "the bundle is not whole"
)
if [ -z "$scratch" ]; then
    printf '%s\n' "$stage/$name"
    exit 0
fi

root=${GG_RUNTIME_INSTALL_ROOT:-$HOME/.local}
GG_RUNTIME_RELEASES_ROOT=${GG_RUNTIME_RELEASES_ROOT:-$root/share/gg-runtime} \
    "$stage/$name/scripts/upgrade-runtime.sh" --bundle "$stage/$name"
releases=${GG_RUNTIME_RELEASES_ROOT:-$root/share/gg-runtime}
mkdir -p "$root/bin"
ln -sfn "$releases/current/bin/gg-runtime-server" "$root/bin/gg-runtime-server"
say "the server is $root/bin/gg-runtime-server"
say "an example configuration is $releases/current/runtime-server.toml.example"
case :$PATH: in
*":$root/bin:"*) ;;
*) say "$root/bin is not on PATH" ;;
esac
