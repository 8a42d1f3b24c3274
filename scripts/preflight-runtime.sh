#!/usr/bin/env bash
# Whether an installed server can work, and whether the one that runs does.
#
#   preflight-runtime.sh [--config FILE] [--data-dir DIR] [--runtime-bin FILE] [--base-url URL] [--token T]
#                        [--skip-http]
#
#   --runtime-bin  the program (the current release, else gg-runtime-server on PATH)
#   --base-url     where it listens (http://127.0.0.1:8080)
#   --token        the operator's token; the program is asked for it without this. GG_RUNTIME_TOKEN does the same
#   --skip-http    do not ask the server
#
# Four steps: the configuration, the machine (doctor), health and readiness, and what a client with the token sees.
# Exit status: 0 all good, 1 something is not, 2 wrong use.
set -euo pipefail

say() { printf 'preflight: %s\n' "$1"; }
fail() { printf 'preflight: %s\n' "$1" >&2; exit "${2:-1}"; }

options=() program='' url=http://127.0.0.1:8080 token=${GG_RUNTIME_TOKEN:-} with_http=yes
while [ $# -gt 0 ]; do
    case $1 in
    --config | --data-dir | --runtime-bin | --base-url | --token)
        [ $# -ge 2 ] || fail "$1 needs a value" 2
        case $1 in
        --config | --data-dir) options+=("$1" "$2") ;;
        --runtime-bin) program=$2 ;;
        --base-url) url=${2%/} ;;
        --token) token=$2 ;;
        esac
        shift 2
        ;;
    --skip-http) with_http='' && shift ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" && exit 0 ;;
    *) fail "there is no option $1" 2 ;;
    esac
done
if [ -z "$program" ]; then
    program=${GG_RUNTIME_RELEASES_ROOT:-$HOME/.local/share/gg-runtime}/current/bin/gg-runtime-server
    [ -x "$program" ] || program=$(command -v gg-runtime-server) ||
        fail "there is no gg-runtime-server on PATH; name it with --runtime-bin"
fi
[ -x "$program" ] || fail "$program is no program"

say "1. configuration"
"$program" --check-config "${options[@]}"

say "2. machine"
"$program" doctor "${options[@]}" || fail "the doctor has found something"

if [ -z "$with_http" ]; then
    say "3. and 4. are left out"
    exit 0
fi
# ask PATH: what the server answers; the token goes over stdin, where no list of processes shows it.
ask() {
    printf 'header = "Authorization: Bearer %s"\n' "$token" |
        curl -fsS --max-time 20 -K - "$url$1" || fail "$url$1 does not answer as it should"
}
say "3. health"
curl -fsS --max-time 20 "$url/health" >/dev/null || fail "$url/health does not answer"
curl -fsS --max-time 20 "$url/ready" >/dev/null || fail "$url/ready does not answer"
say "4. with the token"
[ -n "$token" ] || token=$("$program" token "${options[@]}")
for path in /v1/health /v1/version /v1/diagnostics/providers; do
    printf '%s %s\n' "$path" "$(ask "$path")"
done
say "all good"
