#!/usr/bin/env bash
# Makes another release the current one, and goes back by itself when that one does not serve.
#
#   upgrade-runtime.sh [VERSION]      download it (see install-runtime.sh); latest without one
#   upgrade-runtime.sh --bundle DIR   take the unpacked bundle in DIR
#     --config FILE    the configuration of the server (~/.config/gg-runtime/runtime-server.toml where that is)
#     --data-dir DIR   its data folder, when it is started with that option
#
#   GG_RUNTIME_RELEASES_ROOT      holds releases/ and the link current (~/.local/share/gg-runtime)
#   GG_RUNTIME_SYSTEMD_SERVICE    the unit that runs the server; without it and the next nothing is restarted
#   GG_RUNTIME_SYSTEMD_SCOPE      user (default) or system
#   GG_RUNTIME_SERVICE_COMMAND    instead of systemd: a command that takes stop or start as its argument
#   GG_RUNTIME_USER               who runs the server, when root upgrades it (gg-runtime for the scope system)
#   GG_RUNTIME_HEALTH_SECS        how long the new release may take until it is ready (60)
#   GG_RUNTIME_KEEP               how many releases stay (3); the current one and the one before always do
#
# Order: unpack beside the others and check it; have the new release check the configuration and the machine; stop the
# server (its agents go on working); back its database up, as before-upgrade.sqlite3 beside it; switch the link by one
# rename; start; wait until it is ready. If it is not: switch back, put the database back if the new release has changed
# its schema, start the old one. From the stop on, signals and a terminal that goes away wait for the end of that. Run
# again with the release that is current, it does nothing.
# Exit status: 0 done, 1 nothing has changed or all is as before, 2 wrong use, 3 the old release does not serve either.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Nobody need listen: that is no reason to stop half-way.
say() { printf 'upgrade: %s\n' "$1" >&2 || :; }
fail() { say "$1"; exit "${2:-1}"; }

bundle='' version='' data_dir='' config=''
while [ $# -gt 0 ]; do
    case $1 in
    --bundle | --config | --data-dir)
        [ $# -ge 2 ] || fail "$1 needs a value" 2
        case $1 in
        --bundle) bundle=$2 ;;
        --config) config=$2 ;;
        --data-dir) data_dir=$2 ;;
        esac
        shift 2
        ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" && exit 0 ;;
    -*) fail "there is no option $1" 2 ;;
    *)
        version=$1
        shift
        ;;
    esac
done
root=${GG_RUNTIME_RELEASES_ROOT:-$HOME/.local/share/gg-runtime}
service=${GG_RUNTIME_SYSTEMD_SERVICE:-}
scope=${GG_RUNTIME_SYSTEMD_SCOPE:-user}
command=${GG_RUNTIME_SERVICE_COMMAND:-}
health_secs=${GG_RUNTIME_HEALTH_SECS:-60}
keep=${GG_RUNTIME_KEEP:-3}
if [ -z "$config" ] && [ -f "$HOME/.config/gg-runtime/runtime-server.toml" ]; then
    config=$HOME/.config/gg-runtime/runtime-server.toml
fi
options=()
[ -z "$config" ] || options+=(--config "$config")
[ -z "$data_dir" ] || options+=(--data-dir "$data_dir")

umask 077
mkdir -p "$root/releases"
# The path that the kernel tells of a program in it, whatever links lead here.
root=$(readlink -f "$root")
exec 9>"$root/.upgrade.lock"
flock -n 9 || fail "another upgrade is at work in $root"
# What is staged by an upgrade that was killed belongs to nobody: we have the lock.
rm -rf "$root"/.stage-*
stage=$root/.stage-$$
trap 'rm -rf "$stage"' EXIT
mkdir "$stage"

# --- the new release, whole and checked, beside the others
if [ -z "$bundle" ]; then
    bundle=$("$here/install-runtime.sh" --fetch "$stage/fetched" "${version:-latest}")
fi
(cd "$bundle" && sha256sum -c --quiet SHA256SUMS >&2) || fail "the bundle in $bundle is not whole"
number=$(cat "$bundle/VERSION")
old=''
if [ -L "$root/current" ]; then
    old=$(readlink -f "$root/current")
    if cmp -s "$bundle/SHA256SUMS" "$old/SHA256SUMS"; then
        say "$number is already the current release"
        exit 0
    fi
fi
cp -R "$bundle" "$stage/release"
chmod -R u=rwX,go=rX "$stage/release"
chmod 755 "$root" "$root/releases" "$stage"
new=$root/releases/$number-$(date -u +%Y%m%d%H%M%S)
[ ! -e "$new" ] || new=$new-$$

# --- what the new release says about this machine, before anything is changed
user=${GG_RUNTIME_USER:-}
if [ -z "$user" ] && [ "$scope" = system ] && [ "$(id -u)" = 0 ] && id gg-runtime >/dev/null 2>&1; then
    user=gg-runtime
fi
# run RELEASE ARGUMENT…: the server's program as the user that runs the server.
run() {
    local program=$1/bin/gg-runtime-server
    shift
    if [ -n "$user" ]; then
        runuser -u "$user" -- env HOME="$(getent passwd "$user" | cut -d: -f6)" "$program" "$@" "${options[@]}"
    else
        "$program" "$@" "${options[@]}"
    fi
}
told=$(run "$stage/release" --check-config) ||
    fail "the new release does not take the configuration; nothing has changed"
data=$(printf '%s\n' "$told" | sed -n 's/^the configuration is good; data folder //p')
if ! run "$stage/release" doctor >"$stage/doctor" 2>&1; then
    grep '^fail' "$stage/doctor" >&2 || cat "$stage/doctor" >&2
    fail "the doctor of the new release says no; nothing has changed"
fi

# --- helpers of the switch
stop_server() {
    if [ -n "$command" ]; then
        "$command" stop 9>&-
    elif [ -n "$service" ]; then
        systemctl "--$scope" stop "$service"
    fi
}
start_server() {
    # A server that had our lock would keep it.
    if [ -n "$command" ]; then
        "$command" start 9>&-
    elif [ -n "$service" ]; then
        systemctl "--$scope" daemon-reload
        systemctl "--$scope" reset-failed "$service" 2>/dev/null || :
        systemctl "--$scope" start "$service"
    fi
}
# The link is replaced by a rename: at every moment it leads to a whole release.
point_to() {
    ln -s "releases/$(basename "$1")" "$root/.current-$$"
    mv -T "$root/.current-$$" "$root/current"
}
# is_ready RELEASE: waits until the server that has signed the lock of the data folder is of this release and ready.
is_ready() {
    local end=$(($(date +%s) + health_secs)) pid address
    while :; do
        pid=$(sed -n 's/^pid //p' "$data/lock" 2>/dev/null || :)
        address=$(sed -n 's/^address //p' "$data/lock" 2>/dev/null || :)
        if [ -n "$address" ] && [ "$(readlink "/proc/$pid/exe" 2>/dev/null)" = "$1/bin/gg-runtime-server" ] &&
            curl -fsS --max-time 5 "http://$address/ready" >/dev/null 2>&1; then
            return 0
        fi
        [ "$(date +%s)" -lt "$end" ] || return 1
        sleep 0.2
    done
}
has_service() { [ -n "$command$service" ]; }
# The newest few stay, and always the current one and the one before.
prune() {
    find "$root/releases" -mindepth 1 -maxdepth 1 -printf '%T@ %f\n' | sort -rn | tail -n "+$((keep + 1))" |
        while read -r _ release; do
            case $root/releases/$release in
            "$new" | "$old") ;;
            *) rm -rf "$root/releases/$release" && say "removed $release" ;;
            esac
        done
}

mv "$stage/release" "$new"
if ! has_service || [ -z "$old" ]; then
    point_to "$new"
    say "$number is the current release"
    if ! has_service; then
        say "nothing was restarted: no service is named"
    elif start_server && is_ready "$new"; then
        say "it is ready"
    else
        stop_server || :
        fail "it does not become ready, and there is no older one; see its log" 3
    fi
    prune
    exit 0
fi

# --- the switch
backup=$data/before-upgrade.sqlite3
# From here on there is a way forward and a way back, and no other: a terminal that goes away ends neither.
trap 'say "it finishes first"' HUP INT TERM
trap : PIPE
say "stopping the server; its agents go on"
stop_server || { start_server || :; fail "the server can not be stopped; nothing has changed"; }
has_backup=''
if run "$old" backup "$backup" --force >&2; then
    has_backup=yes
elif ls "$data"/*.sqlite3 >/dev/null 2>&1; then
    start_server || :
    rm -rf "$new"
    fail "the database can not be backed up; nothing has changed"
fi
point_to "$new"
say "starting $number"
if start_server && is_ready "$new"; then
    say "$number is the current release and ready"
    prune
    exit 0
fi

say "$number does not become ready within $health_secs s; going back to $(basename "$old")"
stop_server || :
point_to "$old"
# The old release can not use a database whose schema the new one has changed; it says so.
faults=$(run "$old" verify 2>/dev/null || :)
if [ -n "$has_backup" ] && printf '%s\n' "$faults" | grep -q '^fail schema '; then
    say "the new release has changed the schema: the database is put back, running turns fail"
    run "$old" restore "$backup" --force >&2 || say "it can not be put back"
fi
if start_server && is_ready "$old"; then
    rm -rf "$new"
    fail "$(basename "$old") serves again"
fi
fail "$(basename "$old") does not become ready either; see its log" 3
