#!/usr/bin/env bash
# The whole document against a running server with the demo agent: schemathesis makes requests from it, good ones and
# bad ones, alone and along the links, and holds each answer to it.
#
# usage: run.sh [FOLDER [OPTION …]]   FOLDER holds the built programs (target/debug), options go to schemathesis
#
# Needs python3 with venv; schemathesis is installed (pinned) into a folder of the user's cache. SEED is the seed of the
# run (1), EXAMPLES how many requests of each operation it makes up (40), MINUTES its bound (5). The server has a home, a
# data folder and a repository that go away, and hooks.py lets it start harmless commands alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
programs=$(realpath "${1:-target/debug}")
tools=${GOOSELAKE_TOOLS:-$HOME/.cache/gooselake}/openapi
seed=${SEED:-1}
examples=${EXAMPLES:-40}
seconds=$((${MINUTES:-5} * 60))
folder=$(mktemp -d)
server=

finish() {
    status=$?
    trap - EXIT
    if [ -n "$server" ]; then
        # SIGINT ends the agents too.
        kill -INT "$server" 2>/dev/null || :
        wait "$server" || status=1
    fi
    if [ "$status" -ne 0 ]; then
        echo "openapi: it failed ($status); SEED=$seed repeats it. The end of the server's log:" >&2
        tail -n 50 "$folder/server.log" >&2 || :
    fi
    rm -rf "$folder"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# What is installed is what the list says, or it is installed anew.
install() {
    local list=tests/openapi/requirements.txt
    if cmp -s "$list" "$tools/requirements.txt"; then return 0; fi
    rm -rf "$tools"
    mkdir -p "$tools"
    python3 -m venv "$tools/venv"
    "$tools/venv/bin/pip" install --quiet --disable-pip-version-check --require-virtualenv -r "$list"
    cp "$list" "$tools/requirements.txt"
}

start() {
    local line
    mkdir -p "$folder/home" "$folder/cwd" "$folder/repository"
    git -C "$folder/repository" -c init.defaultBranch=main init -q
    git -C "$folder/repository" -c user.name=a -c user.email=a@b.invalid commit -q --allow-empty -m first
    cat >"$folder/config.toml" <<'EOF'
[providers.demo]
enabled = true
# Questions that nobody answers end with their turns: their agents do not fill the places for others.
turn_timeout_secs = 2
[providers.codex]
enabled = false
[providers.claude]
enabled = false
[processes]
max_concurrent = 8
default_timeout_ms = 3000
max_output_bytes_per_process = 100000
EOF
    mkfifo "$folder/stdout"
    (
        cd "$folder/cwd"
        ulimit -f 2000000
        exec env -i PATH="$PATH" HOME="$folder/home" LANG=C.UTF-8 "$programs/gg-runtime-server" \
            --config "$folder/config.toml" --bind 127.0.0.1:0 --data-dir "$folder/data"
    ) >"$folder/stdout" 2>"$folder/server.log" &
    server=$!
    exec 6<"$folder/stdout"
    read -r -t 60 line <&6 || { echo "openapi: the server does not listen" >&2; exit 1; }
    url=${line#listening on }
    token=$(cat "$folder/data/auth/api-token")
}

install
start
echo "openapi: SEED=$seed, EXAMPLES=$examples, at most $seconds s"
cp tests/openapi/schemathesis.toml tests/openapi/hooks.py "$folder/"
cp docs/openapi/runtime-server-openapi.yaml "$folder/document.yaml"
cd "$folder"
# Requests that are worked out from the document, then such as are made up, then the links; each has a third of the time.
# Whether a request is good or bad is judged of the first alone: a schema can not tell all that a server must know, so
# of those at random one in ten thousand is judged wrongly.
for phases in examples,coverage fuzzing stateful; do
    unjudged="positive_data_acceptance,negative_data_rejection"
    [ "$phases" != examples,coverage ] || unjudged=use_after_free
    TRIED_FOLDER=$folder/cwd TRIED_REPOSITORY=$folder/repository SCHEMATHESIS_HOOKS=hooks PYTHONPATH=$folder \
        "$tools/venv/bin/schemathesis" --no-color run "$folder/document.yaml" --url "$url" \
        --header "Authorization: Bearer $token" --phases "$phases" --seed "$seed" --max-time $((seconds / 3)) \
        --max-examples "$examples" --no-shrink --exclude-checks "$unjudged" "${@:2}"
done
echo "openapi: done"
