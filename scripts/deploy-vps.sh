#!/usr/bin/env bash
# Puts a server on this machine under systemd, or brings the one that is there up to date.
#
#   deploy-vps.sh [--version V] [--config FILE] [--service NAME] [--scope user|system] [--base-url URL] [--token T]
#                 [--refresh-unit-files] [--skip-upgrade]
#
#   --config              ~/.config/gg-runtime/runtime-server.toml; made from the example when it is not there
#   --service             gg-runtime.service
#   --scope               user (default): the unit of this user; system: needs root, runs as the user gg-runtime
#   --base-url            ask the server there in the end; without it only the doctor looks
#   --refresh-unit-files  replace the unit file by that of the release
#   --skip-upgrade        keep the current release
#
# Steps: 1 upgrade, 2 configuration, unit and environment file, 3 preflight, 4 enable, 5 start or restart, 6 preflight
# with HTTP. Run again it changes only what differs. Exit status: 0 done, 1 a step failed, 2 wrong use.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { printf 'deploy: %s\n' "$1"; }
fail() { printf 'deploy: %s\n' "$1" >&2; exit "${2:-1}"; }

version=latest config='' service=gg-runtime.service scope=user url='' token='' refresh='' upgrade=yes
while [ $# -gt 0 ]; do
    case $1 in
    --version | --config | --service | --scope | --base-url | --token)
        [ $# -ge 2 ] || fail "$1 needs a value" 2
        case $1 in
        --version) version=$2 ;;
        --config) config=$2 ;;
        --service) service=$2 ;;
        --scope) scope=$2 ;;
        --base-url) url=$2 ;;
        --token) token=$2 ;;
        esac
        shift 2
        ;;
    --refresh-unit-files) refresh=yes && shift ;;
    --skip-upgrade) upgrade='' && shift ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" && exit 0 ;;
    *) fail "there is no option $1" 2 ;;
    esac
done
case $scope in
user)
    root=${GG_RUNTIME_RELEASES_ROOT:-$HOME/.local/share/gg-runtime}
    settings=$HOME/.config/gg-runtime
    units=${GG_RUNTIME_UNIT_DIR:-$HOME/.config/systemd/user}
    ;;
system)
    [ "$(id -u)" = 0 ] || fail "--scope system needs root"
    root=${GG_RUNTIME_RELEASES_ROOT:-/opt/gg-runtime}
    settings=${GG_RUNTIME_SETTINGS_DIR:-/etc/gg-runtime}
    units=${GG_RUNTIME_UNIT_DIR:-/etc/systemd/system}
    ;;
*) fail "--scope is $scope; it can be user or system" 2 ;;
esac
config=${config:-$settings/runtime-server.toml}
control() { systemctl "--$scope" "$@"; }
is_installed() { [ -e "$units/$service" ]; }

say "1. release"
if [ -n "$upgrade" ]; then
    # A unit that is there is stopped and started by the upgrade, with the way back if the new release fails.
    unit=''
    if is_installed && control is-active --quiet "$service"; then unit=$service; fi
    options=()
    [ ! -e "$config" ] || options+=(--config "$config")
    GG_RUNTIME_RELEASES_ROOT=$root GG_RUNTIME_SYSTEMD_SERVICE=$unit GG_RUNTIME_SYSTEMD_SCOPE=$scope \
        "$here/upgrade-runtime.sh" "${options[@]}" "$version" || fail "the upgrade failed"
else
    say "left out"
fi
[ -x "$root/current/bin/gg-runtime-server" ] || fail "there is no release in $root"

say "2. configuration and unit"
mkdir -p "$settings" "$units"
if [ ! -e "$config" ]; then
    (umask 077 && mkdir -p "$(dirname "$config")" && cp "$root/current/runtime-server.toml.example" "$config")
    say "made $config from the example"
fi
if [ ! -e "$settings/runtime.env" ]; then
    (umask 077 && cp "$root/current/deploy/systemd/gg-runtime.env.example" "$settings/runtime.env")
    say "made $settings/runtime.env"
fi
if [ "$scope" = system ] && ! id gg-runtime >/dev/null 2>&1; then
    useradd --system --create-home --home-dir /var/lib/gg-runtime --shell /bin/sh gg-runtime
    say "made the user gg-runtime"
fi
if [ "$scope" = system ]; then chown -R root:gg-runtime "$settings" && chmod -R u=rwX,g=rX,o= "$settings"; fi
if ! is_installed || [ -n "$refresh" ]; then
    sed -e "s|@ROOT@|$root|g" -e "s|@CONFIG@|$config|g" -e "s|@SETTINGS@|$settings|g" \
        "$root/current/deploy/systemd/gg-runtime.$scope.service.example" >"$units/$service.new"
    mv "$units/$service.new" "$units/$service"
    say "wrote $units/$service"
fi

say "3. preflight"
if [ "$scope" = system ]; then
    runuser -u gg-runtime -- env HOME=/var/lib/gg-runtime \
        "$root/current/scripts/preflight-runtime.sh" --skip-http --config "$config" \
        --runtime-bin "$root/current/bin/gg-runtime-server"
else
    "$here/preflight-runtime.sh" --skip-http --config "$config" --runtime-bin "$root/current/bin/gg-runtime-server"
fi

say "4. enable"
control daemon-reload
control enable "$service"
say "5. start"
control restart "$service"

say "6. what runs"
if [ -n "$url" ]; then
    GG_RUNTIME_TOKEN=$token "$here/preflight-runtime.sh" --config "$config" --base-url "$url" \
        --runtime-bin "$root/current/bin/gg-runtime-server"
else
    control is-active "$service"
fi
say "done"
