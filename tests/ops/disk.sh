# shellcheck shell=bash
# Part of run.sh: a server on a disk that becomes full, and has room again.
# shellcheck disable=SC2154 # folder and the rest are those of run.sh

scene "a full disk"
mkdir "$folder/data-disk"
if mount -t tmpfs -o size=6m,mode=700 tmpfs "$folder/data-disk" 2>/dev/null; then
    mounted=$folder/data-disk
    data=$mounted/runtime
    sed "s|^root_dir = .*|root_dir = \"$data\"|" "$folder/toml" >"$HOME/.config/gg-runtime/runtime-server.toml"
    must "the server starts on a small disk" "$folder/service" start
    must "it is ready" is_ready
    session=$(call POST /v1/sessions '{"provider":"demo","mode":"auto"}' | field id)
    call POST "/v1/sessions/$session/turns?wait=true" '{"input":["say before"]}' >/dev/null
    call GET "/v1/sessions/$session/transcript" >"$folder/transcript"
    # An agent is at work while the disk becomes full.
    turn=$(call POST "/v1/sessions/$session/turns" '{"input":["slow 40 100"]}' | field turn_id)
    dd if=/dev/zero of="$mounted/filler" bs=64k 2>/dev/null || :
    status=200
    for _ in $(seq 50); do
        body='{"provider":"demo","wait":false,"metadata":"'$(head -c 20000 /dev/zero | tr '\0' x)'"}'
        status=$(call POST /v1/sessions "$body" -o "$folder/must.log" -w '%{http_code}' 2>/dev/null || :)
        [ "$status" = 200 ] || break
    done
    [ "$status" = 503 ] || bad "new work was answered $status"
    told '"code":"capacity"'
    ok "new work is refused with what to do"
    call GET "/v1/sessions/$session/transcript" >"$folder/must.log"
    told before
    ok "what is there can be read"
    rm "$mounted/filler"
    call GET "/v1/sessions/$session/turns/$turn?wait_ms=60000" >"$folder/must.log"
    told '"status":"completed"'
    told "$(seq -s' ' 40) \""
    ok "with room again the turn that ran completes, whole"
    must "verify" "$server" verify "${config[@]}"
    "$folder/service" stop
    must "nobody is left" "$server" reap "${config[@]}"
else
    echo "!!!! SKIPPED: no small disk can be mounted here; a bounded database (tests/it/retention.rs) was tested"
fi
