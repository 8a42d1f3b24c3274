#!/bin/sh
# The first session that `make run` prints, run by itself: a server on a free port, in a folder that goes away.
#
# usage: demo.sh [FOLDER]   FOLDER holds the built programs (target/debug)
#
# What is run are the very lines that the server prints with --hints, so they can not rot. Exits 0 when the session did
# what it should, 1 when not.
set -eu
cd "$(dirname "$0")/.."
programs=${1:-target/debug}
folder=$(mktemp -d)
server=

finish() {
    status=$?
    trap - EXIT
    if [ -n "$server" ]; then
        # SIGINT ends the agents too; the server is given its grace by itself.
        kill -INT "$server" 2>/dev/null || :
        wait "$server" || status=1
    fi
    if [ "$status" -ne 0 ] && [ -s "$folder/log" ]; then
        echo "demo: it failed ($status); the server's log:" >&2
        cat "$folder/log" >&2
    fi
    rm -rf "$folder"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkfifo "$folder/stdout"
"$programs/gg-runtime-server" --bind 127.0.0.1:0 --data-dir "$folder/data" --hints \
    >"$folder/stdout" 2>"$folder/log" &
server=$!
exec 3<"$folder/stdout"

# Up to the empty line behind the commands; a server that ends early closes the pipe.
: >"$folder/session"
seen=
while read -r line <&3; do
    case $line in
    '#'*) seen=yes && printf '%s\n' "$line" >>"$folder/session" ;;
    '') [ -z "$seen" ] || break ;;
    'listening on '*|'token in '*) printf '%s\n' "$line" ;;
    *) printf '%s\n' "$line" >>"$folder/session" ;;
    esac
done
[ -n "$seen" ] || { echo "demo: the server printed no session" >&2; exit 1; }

# In this shell, since each line uses what the ones before it have set; shown as it is run.
while IFS= read -r line <&4; do
    case $line in
    '#'*) printf '\n%s\n' "$line" ;;
    *)
        printf '$ %s\n' "$line"
        eval "$line" >"$folder/answer"
        cat "$folder/answer"
        cat "$folder/answer" >>"$folder/answers"
        ;;
    esac
done 4<"$folder/session"

# The session did what it should: an answer, the live end of a turn, both turns in the conversation.
for expected in 'Hello!' 'event: item.delta' 'event: turn.completed' '"type":"user_message"'; do
    grep -qF "$expected" "$folder/answers" || {
        echo "demo: there is no $expected in what came back" >&2
        exit 1
    }
done
echo
echo "demo: done"
