#!/usr/bin/env bash
# Install, upgrade, roll back, back up and restore, as a person does it: with the scripts, in a home of its own, against
# a folder that stands in for the release server.
#
#   tests/ops/run.sh [DIR]   DIR holds the built programs (target/debug)
#
# Tells what it looks at; the first thing that is not as it should be ends it. Ends every process that it has started.
# Exit status: 0 all is as it should be, 1 something is not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
repository=$PWD
programs=$(cd "${1:-target/debug}" && pwd)

scene() { printf '\n-- %s\n' "$1"; }
ok() { printf 'ok   %s\n' "$1"; }
bad() {
    printf 'BAD  %s\n' "$1" >&2
    for log in "$folder"/*.log; do
        [ ! -s "$log" ] || { printf -- '---- %s\n' "${log##*/}" >&2 && tail -n 40 "$log" >&2; }
    done
    exit 1
}
# must WHAT COMMAND…: the command succeeds. must_not: it fails. What it said is in must.log, and kept for documented.
must() {
    local what=$1
    shift
    "$@" >"$folder/must.log" 2>&1 || bad "$what"
    keep
    ok "$what"
}
must_not() {
    local what=$1
    shift
    ! "$@" >"$folder/must.log" 2>&1 || bad "$what"
    keep
    ok "$what"
}
keep() { cat "$folder/must.log" >>"$folder/said"; }
told() { grep -q -- "$1" "$folder/must.log" || bad "it does not say: $1"; }

folder=$(mktemp -d)
mounted='' machine=''
finish() {
    status=$?
    trap - EXIT
    [ -z "$machine" ] || machine_stop || status=1
    [ ! -x "$folder/service" ] || "$folder/service" stop || status=1
    for data in "$HOME/.gg-runtime" "$folder"/data-*; do
        [ ! -d "$data" ] || "$programs/gg-runtime-server" reap --data-dir "$data" >/dev/null || status=1
    done
    [ -z "$mounted" ] || umount "$mounted" || status=1
    rm -rf "$folder"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

export HOME=$folder/home
mkdir "$HOME"
unset GG_RUNTIME_RELEASES_ROOT GG_RUNTIME_INSTALL_ROOT GG_RUNTIME_SYSTEMD_SERVICE XDG_CONFIG_HOME XDG_STATE_HOME
# An agent that is installed here is none of our business.
PATH=$folder/path:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mkdir "$folder/path"
export PATH GG_RUNTIME_RELEASE_URL=$folder/releases
current=$HOME/.local/share/gg-runtime/current
server=$HOME/.local/bin/gg-runtime-server
data=$HOME/.gg-runtime
mkdir -p "$HOME/.config/gg-runtime"
cat >"$HOME/.config/gg-runtime/runtime-server.toml" <<TOML
[server]
bind_address = "127.0.0.1:0"
[data]
root_dir = "$data"
[providers.demo]
enabled = true
[providers.codex]
enabled = false
[providers.claude]
enabled = false
TOML
config=(--config "$HOME/.config/gg-runtime/runtime-server.toml")

# --- releases
name=gg-runtime-linux-$(uname -m | sed 's/aarch64/arm64/')
package() { "$repository/scripts/package-release.sh" --bin-dir "$1" --output "$2" --version "$3" 2>"$folder/package.log"; }
# release VERSION DIR: a release with the programs in DIR, which is also the latest.
release() {
    mkdir -p "$folder/releases/download/$1" "$folder/releases/latest"
    package "$2" "$folder/releases/download/$1" "$1" || bad "release $1"
    rm -rf "$folder/releases/latest/download"
    ln -s "../download/$1" "$folder/releases/latest/download"
}
# Programs of a size that a test can pack.
mkdir "$folder/good" "$folder/broken" "$folder/migrates"
for program in gg-runtime-server $(basename -a "$repository"/sidecars/*/); do
    cp "$programs/$program" "$folder/good/"
    strip "$folder/good/$program" 2>/dev/null || :
done
cp "$folder/good/"* "$folder/broken/"
cp "$folder/good/"* "$folder/migrates/"
# Good at every question, and never ready: what only the start can show.
# shellcheck disable=SC2016 # it is the wrapper that expands them
broken() {
    rm "$folder/$1/gg-runtime-server"
    {
        echo '#!/bin/sh'
        echo "real=$folder/good/gg-runtime-server"
        echo 'case "$*" in *doctor* | *--check-config* | *--version* | *verify*) exec "$real" "$@" ;; esac'
        echo "$2"
        echo 'echo "this release does not start" >&2; exit 1'
    } >"$folder/$1/gg-runtime-server"
    chmod +x "$folder/$1/gg-runtime-server"
}
broken broken ':'

# --- the server as a service: this script is what systemd is elsewhere
cat >"$folder/service" <<SERVICE
#!/usr/bin/env bash
set -eu
pid=\$(cat "$folder/pid" 2>/dev/null || :)
case \$1 in
start)
    setsid "$current/bin/gg-runtime-server" ${config[@]} >>"$folder/server.log" 2>&1 </dev/null &
    echo \$! >"$folder/pid"
    ;;
stop)
    [ -n "\$pid" ] || exit 0
    kill -TERM -- "-\$pid" 2>/dev/null || :
    timeout 30 tail --pid="\$pid" -f /dev/null >/dev/null
    rm -f "$folder/pid"
    [ ! -e "$folder/hang-up" ] || { rm "$folder/hang-up" && kill -HUP "\$PPID"; }
    ;;
esac
SERVICE
chmod +x "$folder/service"
export GG_RUNTIME_SERVICE_COMMAND=$folder/service GG_RUNTIME_HEALTH_SECS=20

# --- a client
# call METHOD PATH [BODY]
call() {
    local address
    address=$(sed -n 's/^address //p' "$data/lock")
    curl -sS --fail-with-body --max-time 60 -X "$1" "http://$address$2" -H 'Content-Type: application/json' \
        -H "Authorization: Bearer $("$server" token "${config[@]}")" ${3:+-d "$3"} "${@:4}"
}
field() { grep -o "\"$1\":\"[^\"]*\"" | head -n 1 | cut -d'"' -f4; }
is_ready() {
    local address
    for _ in $(seq 100); do
        address=$(sed -n 's/^address //p' "$data/lock" 2>/dev/null || :)
        [ -z "$address" ] || ! curl -fsS --max-time 5 "http://$address/ready" >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    return 1
}

scene "the bundle"
release v1 "$folder/good"
mkdir "$folder/again"
package "$folder/good" "$folder/again" v1
must "the same input makes the same bytes" \
    cmp "$folder/again/$name.tar.gz" "$folder/releases/download/v1/$name.tar.gz"
tar -tzf "$folder/again/$name.tar.gz" >"$folder/must.log"
for file in bin/gg-runtime-server sidecars/gg-keeper/gg-keeper sidecars/gg-demo-agent/gg-demo-agent VERSION SHA256SUMS \
    runtime-server.toml.example README.md docs/API.md deploy/systemd/gg-runtime.user.service.example; do
    told "^$name/$file\$"
done
ok "it has what it must"

scene "install in an empty home"
printf x >>"$folder/releases/download/v1/$name.tar.gz"
must_not "an archive that was changed is refused" scripts/install-runtime.sh
told "is not what was released"
[ ! -e "$HOME/.local/bin" ] || bad "something was installed"
release v1 "$folder/good"
GG_RUNTIME_SERVICE_COMMAND='' must "the latest release is installed" scripts/install-runtime.sh
GG_RUNTIME_SERVICE_COMMAND='' must "again it does nothing" scripts/install-runtime.sh
told "already the current release"
must_not "a version that is not there" scripts/install-runtime.sh v9
must "doctor" "$server" doctor "${config[@]}"
sed 's/^/     /' "$folder/must.log"

scene "run, and the first turn"
must "the server starts" "$folder/service" start
must "it is ready" is_ready
session=$(call POST /v1/sessions '{"provider":"demo","mode":"auto"}' | field id)
call POST "/v1/sessions/$session/turns?wait=true" '{"input":["say It works."]}' -H 'Accept: text/plain' >"$folder/must.log"
echo >>"$folder/must.log"
told '^It works.$'
keep
ok "the agent of the bundle answers"
must "doctor, beside the server" "$server" doctor "${config[@]}"
sed 's/^/     /' "$folder/must.log"
must "preflight" scripts/preflight-runtime.sh "${config[@]}" --base-url "http://$(sed -n 's/^address //p' "$data/lock")"

scene "upgrade while an agent works"
release v2 "$folder/good"
turn=$(call POST "/v1/sessions/$session/turns" '{"input":["slow 60 100"]}' | field turn_id)
keeper=$(pgrep -f "gg-keeper $data/keepers/" || bad "there is no keeper")
must "v2 becomes the current release" scripts/upgrade-runtime.sh
sed 's/^/     /' "$folder/must.log"
[ "$(cat "$current/VERSION")" = v2 ] || bad "the link does not lead to v2"
[ "$(pgrep -f "gg-keeper $data/keepers/")" = "$keeper" ] || bad "the agent has another keeper"
call GET "/v1/sessions/$session/turns/$turn?wait_ms=30000" >"$folder/must.log"
told '"status":"completed"'
told "$(seq -s' ' 60) \""
grep -o '"status":"[a-z]*"\|"assistant_text":"[^"]*"' "$folder/must.log" >>"$folder/said"
ok "the turn that ran completes under v2, whole"
must "verify" "$server" verify "${config[@]}"
must "again it does nothing" scripts/upgrade-runtime.sh v2

scene "an upgrade whose terminal goes away"
release v2.1 "$folder/good"
# Whoever runs this may ignore the signal, and a shell does not trap what it was started to ignore.
: >"$folder/hang-up"
must "v2.1 becomes the current release although it is told to hang up" \
    env --default-signal=HUP scripts/upgrade-runtime.sh
told "it finishes first"
[ ! -e "$folder/hang-up" ] || bad "nobody hung up"
must "it is ready" is_ready
release v2.2 "$folder/good"
{ scripts/upgrade-runtime.sh 2>&1 || echo "status $?" >"$folder/must.log"; } | sed '/stopping the server/q' >"$folder/heard.log"
[ "$(cat "$current/VERSION")" = v2.2 ] || bad "nobody listened, and v2.2 is not the current release"
must "v2.2 is ready although nobody listened" is_ready

scene "releases behind a link"
ln -s "$HOME/.local/share/gg-runtime" "$folder/linked"
release v2 "$folder/good"
must "v2 becomes the current release" env GG_RUNTIME_RELEASES_ROOT="$folder/linked" scripts/upgrade-runtime.sh
[ "$(cat "$current/VERSION")" = v2 ] || bad "the link does not lead to v2"
must "it is ready" is_ready

scene "a release that does not start"
release v3 "$folder/broken"
must_not "the upgrade fails" env GG_RUNTIME_HEALTH_SECS=3 scripts/upgrade-runtime.sh
told "serves again"
sed 's/^/     /' "$folder/must.log"
[ "$(cat "$current/VERSION")" = v2 ] || bad "the link does not lead back to v2"
must "v2 is ready" is_ready
call GET "/v1/sessions/$session/turns/$turn" >"$folder/must.log"
told '"status":"completed"'
[ "$(find "$HOME/.local/share/gg-runtime/releases" -mindepth 1 -maxdepth 1 | wc -l)" = 3 ] || bad "v3 was left behind"

scene "a release that changes the schema and does not start"
if command -v python3 >/dev/null; then
    broken migrates "python3 -c 'import sqlite3,sys; sqlite3.connect(sys.argv[1]).execute(\"PRAGMA user_version = 999\")' $data/runtime.sqlite3"
    release v4 "$folder/migrates"
    # Long enough for the schema to be changed before it is given up.
    must_not "the upgrade fails" env GG_RUNTIME_HEALTH_SECS=10 scripts/upgrade-runtime.sh
    told "the database is put back"
    told "serves again"
    call GET "/v1/sessions/$session/turns/$turn" >"$folder/must.log"
    told '"status":"completed"'
    ok "what was there is there"
else
    echo "!!!! SKIPPED: there is no python3 to change a schema with"
fi

scene "a release that does not take the configuration, or the machine"
cp "$HOME/.config/gg-runtime/runtime-server.toml" "$folder/toml"
release v5 "$folder/good"
echo 'colour = "blue"' >>"$HOME/.config/gg-runtime/runtime-server.toml"
must_not "the upgrade does not begin" scripts/upgrade-runtime.sh
told "does not take the configuration; nothing has changed"
cp "$folder/toml" "$HOME/.config/gg-runtime/runtime-server.toml"
chmod 644 "$data/auth/api-token"
must_not "the upgrade does not begin" scripts/upgrade-runtime.sh
told "api-token has mode 644"
chmod 600 "$data/auth/api-token"
[ "$(cat "$current/VERSION")" = v2 ] || bad "something has changed"
must "v2 was never stopped" is_ready

printf '[server]\nbind_adress = "127.0.0.1:8080"\nmax_streams = 0\n' >"$folder/runtime-server.toml"
(cd "$folder" && must_not "a configuration with two faults" "$server" --check-config --config runtime-server.toml)
sed 's/^/     /' "$folder/must.log"

scene "old releases go"
export GG_RUNTIME_KEEP=2
must "v5" scripts/upgrade-runtime.sh
release v6 "$folder/good"
must "v6" scripts/upgrade-runtime.sh
unset GG_RUNTIME_KEEP
find "$HOME/.local/share/gg-runtime/releases" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | tee "$folder/must.log" | sed 's/^/     /'
[ "$(wc -l <"$folder/must.log")" = 2 ] || bad "two of them stay"

scene "back up, lose everything, restore"
call GET "/v1/sessions/$session/transcript" >"$folder/transcript"
must "backup beside the server" "$server" backup "$folder/kept.sqlite3" "${config[@]}"
sed 's/^/     /' "$folder/must.log"
"$folder/service" stop
"$server" reap "${config[@]}" >/dev/null
rm -rf "$data"
must "restore" "$server" restore "$folder/kept.sqlite3" "${config[@]}"
must "verify" "$server" verify "${config[@]}"
sed 's/^/     /' "$folder/must.log"
must "the server starts" "$folder/service" start
must "it is ready" is_ready
call GET "/v1/sessions/$session/transcript" >"$folder/transcript.restored"
must "the transcript is the same" cmp "$folder/transcript" "$folder/transcript.restored"
"$folder/service" stop

scene "install from source"
GG_RUNTIME_SERVICE_COMMAND='' must "into another root" env GG_RUNTIME_BIN_DIR="$folder/good" \
    scripts/install-from-source.sh "$folder/elsewhere"
must "the server is there" "$folder/elsewhere/bin/gg-runtime-server" --version

. tests/ops/deploy.sh
. tests/ops/systemd.sh
. tests/ops/disk.sh
. tests/ops/documented.sh

echo
echo "ops: all is as it should be"
