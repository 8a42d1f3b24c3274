#!/usr/bin/env bash
# The clients of docs/clients against the server, which is killed with -9 in the middle of a turn and started again; and
# a page of an origin that the server does not know, which tries in a browser whatever a page can.
#
# usage: run.sh [FOLDER]   FOLDER holds the built programs (target/debug)
#
# Needs node (20 or newer) and python3. The browser is chromium, when it is there; that it is not is said. With npm there
# is one client more, which is generated from the API document (typed): its generator and the compiler are installed
# (pinned) into a folder of the user's cache. Each part has a folder, a server and a time limit of its own, and leaves
# nothing behind.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
programs=$(realpath "${1:-target/debug}")
folder=$(mktemp -d)
server=
others=()

finish() {
    status=$?
    trap - EXIT
    for pid in ${others[@]+"${others[@]}"}; do
        kill "$pid" 2>/dev/null || :
        wait "$pid" 2>/dev/null || :
    done
    if [ -n "$server" ]; then
        # SIGINT ends the agents too.
        kill -INT "$server" 2>/dev/null || :
        wait "$server" || :
    fi
    if [ "$status" -ne 0 ]; then
        echo "clients: it failed ($status); the logs:" >&2
        cat "$folder"/*.log >&2 || :
    fi
    rm -rf "$folder"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkfifo "$folder/words"
exec 5<>"$folder/words"
cp docs/clients/client.mjs docs/clients/client.py tests/clients/*.* "$folder/"

# Starts the server at the address (port 0: any), and sets server, url and token.
start() {
    local line
    rm -f "$folder/stdout"
    mkfifo "$folder/stdout"
    "$programs/gg-runtime-server" --config "$folder/config.toml" --bind "$1" --data-dir "$folder/data" \
        >"$folder/stdout" 2>>"$folder/server.log" 5>&- &
    server=$!
    exec 6<"$folder/stdout"
    read -r -t 60 line <&6 || { echo "clients: the server does not listen" >&2; exit 1; }
    url=${line#listening on }
    token=$(cat "$folder/data/auth/api-token")
}

# Waits for a word of a client. A client that failed says nothing: the time limit is for that.
word() {
    local said
    IFS= read -r -t 90 said <&5 || { echo "clients: $1 was awaited in vain" >&2; exit 1; }
    case $said in
    "$1"*) printf '%s\n' "$said" ;;
    *) echo "clients: $1 was awaited, and came: $said" >&2; exit 1 ;;
    esac
}

kill_and_start_again() {
    word middle
    kill -9 "$server"
    wait "$server" 2>/dev/null || :
    start "${url#http://}"
}

# Runs a client in its own process beside the kill.
run() {
    local name=$1 client
    shift
    echo "== $name"
    "$@" "$url" "$token" "$folder/words" >"$folder/$name.log" 2>&1 5>&- &
    client=$!
    others+=("$client")
    kill_and_start_again
    wait "$client"
    others=("$page")
    cat "$folder/$name.log"
}

# Generates the types, compiles the typed client and leaves it in the folder.
compile_typed() {
    local tools=${GOOSELAKE_TOOLS:-$HOME/.cache/gooselake}/typed
    # What is installed is what the list says, or it is installed anew.
    if ! cmp -s tests/clients/typed/package-lock.json "$tools/installed.json"; then
        rm -rf "$tools"
        mkdir -p "$tools"
        cp tests/clients/typed/package.json tests/clients/typed/package-lock.json "$tools/"
        npm ci --prefix "$tools" --ignore-scripts --no-audit --no-fund --loglevel=error
        cp "$tools/package-lock.json" "$tools/installed.json"
    fi
    cp -r tests/clients/typed "$folder/typed"
    rm -rf "$folder/typed/node_modules"
    ln -s "$tools/node_modules" "$folder/typed/node_modules"
    "$tools/node_modules/.bin/openapi-typescript" docs/openapi/runtime-server-openapi.yaml \
        --default-non-nullable=false -o "$folder/typed/api.ts" >"$folder/typed.log" 2>&1
    "$tools/node_modules/.bin/tsc" -p "$folder/typed"
}

# Serves the pages on a port of their own, and sets page and port.
serve() {
    rm -f "$folder/port"
    mkfifo "$folder/port"
    python3 "$folder/page.py" "$folder" "$folder/words" >"$folder/port" 2>>"$folder/page.log" 5>&- &
    page=$!
    others+=("$page")
    read -r -t 60 port <"$folder/port" || { echo "clients: the page is not served" >&2; exit 1; }
}

# Opens a page in a browser with a fresh profile, and sets shown.
browse() {
    local flags
    flags=(--headless --disable-gpu --disable-quic --no-first-run --disable-background-networking
        --disable-component-update --disable-sync --user-data-dir="$folder/$1" --remote-debugging-port=0
        # A name that leads to this machine, as a page of elsewhere has its own lead here.
        --host-resolver-rules="MAP evil.example 127.0.0.1")
    # Chromium has no sandbox for root.
    [ "$(id -u)" != 0 ] || flags+=(--no-sandbox)
    "$browser" "${flags[@]}" "http://127.0.0.1:$port/$1.html" >"$folder/$1.log" 2>&1 5>&- &
    shown=$!
    others+=("$shown")
}

# What the operator is told.
ask() {
    curl -sS --fail -H "Authorization: Bearer $token" "$url$1"
}

serve
printf '[server]\ncors_origins = ["http://127.0.0.1:%s"]\n' "$port" >"$folder/config.toml"

start 127.0.0.1:0
run node node "$folder/node.mjs"
run python python3 "$folder/drive.py"
if command -v npm >/dev/null; then
    compile_typed
    run typed node "$folder/typed/session.js"
else
    echo "!!!! SKIPPED: there is no npm; the client that is generated from the API document was NOT tested"
fi

browser=$(command -v chromium || command -v chromium-browser || :)
if [ -n "$browser" ]; then
    echo "== browser"
    printf '{"baseUrl":"%s","token":"%s"}' "$url" "$token" >"$folder/settings.json"
    browse page
    kill_and_start_again
    word passed
    kill "$shown"
    wait "$shown" 2>/dev/null || :
    others=("$page")

    echo "== foreign page"
    # The same pages from another port: an origin that is not on the list.
    serve
    printf '{"baseUrl":"%s","token":"%s"}' "$url" "$token" >"$folder/settings.json"
    before=$(ask '/v1/events?order=desc&limit=1')
    browse foreign
    word harmless
    after=$(ask '/v1/events?order=desc&limit=1')
    [ "$before" = "$after" ] || { echo "clients: the page has done something: $after" >&2; exit 1; }
    # That each kind of refusal was met tells that the requests did arrive.
    figures=$(ask /metrics)
    for code in unauthorized host_not_allowed origin_not_allowed; do
        count=$(sed -n "s/^gooselake_requests_refused_total{code=\"$code\"} //p" <<<"$figures")
        echo "$code: $count"
        [ "$count" -gt 5 ] || { echo "clients: the page did not reach the server" >&2; exit 1; }
    done
else
    echo "!!!! SKIPPED: there is no chromium; the JavaScript client was NOT tested in a browser, nor what a foreign page can do"
fi
echo "clients: done"
