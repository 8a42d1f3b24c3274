# shellcheck shell=bash
# Part of run.sh: the units under a systemd that really runs, in a machine of its own (machine.sh), deployed by
# deploy-vps.sh: the system unit, then the unit of a user.
# shellcheck disable=SC2154 # folder and the rest are those of run.sh

# why_no_machine: why no systemd can be started here, or nothing.
why_no_machine() {
    [ "$(id -u)" = 0 ] || { echo "only root can make the namespaces"; return; }
    [ -x /lib/systemd/systemd ] && command -v dbus-daemon >/dev/null || { echo "systemd or dbus-daemon is not here"; return; }
    cgroups=$(findmnt -nro TARGET -t cgroup2 | head -n 1)
    [ -n "$cgroups" ] && mkdir "$cgroups/gg-ops-$$" 2>/dev/null || { echo "there is no cgroup2 to write in"; return; }
    rmdir "$cgroups/gg-ops-$$"
    # shellcheck disable=SC2016 # the inner shell expands it
    unshare --mount --pid --fork --kill-child --cgroup --uts --ipc --net sh -ec '
        mount -t tmpfs tmpfs "$1" && mkdir "$1/u" "$1/w" "$1/m"
        mount -t overlay -o "lowerdir=/,upperdir=$1/u,workdir=$1/w" overlay "$1/m"
    ' sh "$folder/machine" 2>/dev/null || echo "namespaces or overlays are not allowed"
}

machine_start() {
    cgroups=$(findmnt -nro TARGET -t cgroup2 | head -n 1)
    mkdir -p "$cgroups/gg-ops-$$"
    (
        echo "$BASHPID" >"$cgroups/gg-ops-$$/cgroup.procs"
        exec setsid unshare --mount --pid --fork --kill-child --cgroup --uts --ipc --net \
            tests/ops/machine.sh "$folder/machine" "$folder/releases:/srv/releases" "$folder/good:/srv/good" \
            "$repository/scripts:/srv/scripts" >"$folder/machine.log" 2>&1 </dev/null
    ) &
    machine=$!
    for _ in $(seq 300); do
        # The first process of the machine is the child of unshare.
        first=$(pgrep -P "$machine" || :)
        if [ -n "$first" ] && [ "$(cat "/proc/$first/comm" 2>/dev/null)" = systemd ] &&
            inside systemctl is-active --quiet machine.target 2>/dev/null; then
            return 0
        fi
        sleep 0.1
    done
    return 1
}
machine_stop() {
    [ -n "$machine" ] || return 0
    kill -KILL "$first" 2>/dev/null || :
    wait "$machine" 2>/dev/null || :
    find "$cgroups/gg-ops-$$" -depth -type d -exec rmdir {} + 2>/dev/null || :
    machine=''
}
# inside COMMAND…: in the machine, as root. as_ops: as its user.
inside() {
    nsenter --target "$first" --mount --pid --net --uts --ipc --cgroup --root --wd -- \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
        GG_RUNTIME_RELEASE_URL=/srv/releases GG_RUNTIME_HEALTH_SECS=20 "$@"
}
as_ops() {
    local id
    id=$(inside id -u ops)
    inside runuser -u ops -- env HOME=/srv/ops XDG_RUNTIME_DIR="/run/user/$id" "$@"
}

# The scope that is looked at: how systemd is asked, who the server is, where it listens and keeps things.
select_scope() {
    scope=$1
    if [ "$scope" = system ]; then
        as=inside owner=gg-runtime home=/var/lib/gg-runtime root=/opt/gg-runtime port=8080
        config_file=/etc/gg-runtime/runtime-server.toml
    else
        as=as_ops owner=ops home=/srv/ops root=/srv/ops/.local/share/gg-runtime port=8081
        config_file=/srv/ops/.config/gg-runtime/runtime-server.toml
    fi
}
control() { "$as" systemctl "--$scope" "$@"; }
shown() { control show --value -p "$1" gg-runtime.service; }
owned() { inside runuser -u "$owner" -- env HOME="$home" "$@"; }
ask() {
    inside curl -sS --fail-with-body --max-time 60 -X "$1" "http://127.0.0.1:$port$2" \
        -H 'Content-Type: application/json' ${3:+-d "$3"} \
        -H "Authorization: Bearer $(owned "$root/current/bin/gg-runtime-server" token --config "$config_file")"
}
# agent_runs COMMAND: the agent runs it (no double quotes in it); what it wrote is in must.log.
agent_runs() {
    local turn
    turn=$(ask POST "/v1/sessions/$session/turns?wait=true" "{\"input\":[\"run $1\"]}" | field id)
    ask GET "/v1/sessions/$session/turns/$turn/items" | grep -o '"output":"[^"]*"' >"$folder/must.log" ||
        bad "the agent has run nothing"
}
keeper_of_session() { inside pgrep -u "$owner" -f "gg-keeper $home/.gg-runtime/keepers/" | head -n 1; }
# count_on COMMAND…: a turn that counts is whole although the command comes between.
count_on() {
    local turn keeper
    turn=$(ask POST "/v1/sessions/$session/turns" '{"input":["slow 50 100"]}' | field turn_id)
    keeper=$(keeper_of_session)
    "$@"
    [ "$(keeper_of_session)" = "$keeper" ] || bad "the agent has another keeper"
    ask GET "/v1/sessions/$session/turns/$turn?wait_ms=30000" >"$folder/must.log"
    told '"status":"completed"'
    told "\"$(seq -s' ' 50) \""
}
restart() { control restart gg-runtime.service; }
# The server is killed; systemd has another one ready within RestartSec and the time to start.
murder() {
    local killed
    killed=$(shown MainPID)
    inside kill -KILL "$killed"
    for _ in $(seq 200); do
        [ "$(shown ActiveState)" != active ] || [ "$(shown MainPID)" = "$killed" ] || return 0
        sleep 0.1
    done
    bad "systemd did not start it again"
}

story_of_the_unit() {
    scene "the $scope unit under a systemd that runs"
    # The example names no agent that works without an account; this one does.
    "$as" mkdir -p -m 700 "$(dirname "$config_file")"
    printf '[server]\nbind_address = "127.0.0.1:%s"\n[data]\nroot_dir = "%s/.gg-runtime"\n[providers.demo]\nenabled = true\n[providers.codex]\nenabled = false\n[providers.claude]\nenabled = false\n' \
        "$port" "$home" | "$as" tee "$config_file" >/dev/null
    must "it is deployed" "$as" "$deploy_script" --scope "$scope" --version v6 --base-url "http://127.0.0.1:$port"
    sed 's/^/     /' "$folder/must.log"
    [ "$(shown Type) $(shown ActiveState) $(shown SubState)" = "notify active running" ] || bad "it is not active"
    must "start returns when it is ready" inside curl -fsS "http://127.0.0.1:$port/ready"
    [ "$(inside ps -o user= -p "$(shown MainPID)" | cut -c 1-7)" = "$(printf %s "$owner" | cut -c 1-7)" ] ||
        bad "it runs as somebody else"

    session=$(ask POST /v1/sessions "{\"provider\":\"demo\",\"mode\":\"auto\",\"cwd\":\"$home\"}" | field id)
    before=$(shown MainPID)
    count_on restart
    [ "$(shown MainPID)" != "$before" ] || bad "it was not restarted"
    ok "a turn that runs goes on through systemctl restart, whole"
    count_on murder
    [ "$(shown NRestarts)" = 1 ] || bad "systemd counts $(shown NRestarts) restarts"
    ok "and through kill -9 of the server, which systemd starts again"

    # shellcheck disable=SC2016 # the agent's shell expands it
    agent_runs 'umask; git init -q -b main repo && cd repo && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m one && git worktree add -q ../tree && test -e ../tree/.git && echo tree is there'
    told '0077.*tree is there'
    # shellcheck disable=SC2016
    agent_runs 'd=$(mktemp -d) && echo in $d >$d/f && cat $d/f; (sleep 0.1; echo a child) & wait'
    told 'in /tmp/.*a child'
    ok "an agent there uses git, worktrees, /tmp and processes of its own"
    ask POST "/v1/worktrees" "{\"repo_root\":\"$home/repo\",\"worktree_name\":\"two\"}" >"$folder/must.log"
    told '"status":"ready"'
    ask POST /v1/processes '{"command":"echo from a process","cwd":"'"$home"'"}' >"$folder/must.log"
    process=$(field process_id <"$folder/must.log")
    ask GET "/v1/processes/$process?wait_ms=20000" >"$folder/must.log"
    told '"exit_code":0'
    ok "the server makes worktrees and runs processes"

    turn=$(ask POST "/v1/sessions/$session/turns" '{"input":["slow 600 100"]}' | field turn_id)
    control stop gg-runtime.service
    [ -n "$(keeper_of_session)" ] || bad "systemctl stop has ended the agent"
    must "reap ends what a stop leaves" owned "$root/current/bin/gg-runtime-server" reap --config "$config_file"
    [ -z "$(keeper_of_session)" ] || bad "the agent lives"
    control start gg-runtime.service
    ask GET "/v1/sessions/$session/turns/$turn?wait_ms=30000" >"$folder/must.log"
    told '"status":"\(failed\|interrupted\)"'
    ask POST "/v1/sessions/$session/turns?wait=true" '{"input":["say Again."]}' >"$folder/must.log"
    told '"assistant_text":"Again."'
    ok "its turn has ended then, and the session goes on after the next start"
}

hardening() {
    agent_runs "grep -E '^(NoNewPrivs|CapBnd|Seccomp):' /proc/self/status; touch /etc/x; touch /usr/x; ls /home; exit 0"
    for word in 'NoNewPrivs:.t1' 'CapBnd:.t0000000000000000' 'Seccomp:.t2' "'/etc/x': Read-only file system" \
        "'/usr/x': Read-only file system" "open directory '/home': Permission denied"; do
        told "$word"
    done
    ok "an agent there has no privileges and can write nothing of the machine"
    if command -v node >/dev/null; then
        agent_runs "node -e 'let n=0;for(let i=0;i<1e7;i++)n+=i%7;console.log(n)'"
        told 29999994
        ok "programs with a JIT run under it"
    fi
}

bad_upgrade() {
    mkdir -p "$folder/broken-there"
    cp "$folder/broken/"* "$folder/broken-there/"
    sed -i "s|$folder/good|/srv/good|" "$folder/broken-there/gg-runtime-server"
    release v7 "$folder/broken-there"
    before=$(shown MainPID)
    upgrade_fails() {
        must_not "an upgrade to a release that does not start fails" "$as" env \
            GG_RUNTIME_SYSTEMD_SERVICE=gg-runtime.service GG_RUNTIME_SYSTEMD_SCOPE="$scope" \
            GG_RUNTIME_RELEASES_ROOT="$root" "$root/current/scripts/upgrade-runtime.sh" --config "$config_file" v7
        sed 's/^/     /' "$folder/must.log"
        told 'serves again'
    }
    count_on upgrade_fails
    [ "$(shown ActiveState)" = active ] && [ "$(shown MainPID)" != "$before" ] || bad "the old one does not run"
    ok "the old release serves again by itself, and the turn that ran is whole"
}

mkdir "$folder/machine"
scene "a systemd of our own"
why=$(why_no_machine)
if [ -z "$why" ]; then
    machine_start || { tail -n 20 "$folder/machine.log" >&2; bad "systemd does not start in its machine"; }
    ok "$(inside systemctl --version | head -n 1) is the first process of a machine"
    select_scope system
    deploy_script=/srv/scripts/deploy-vps.sh
    story_of_the_unit
    hardening
    bad_upgrade
    select_scope user
    deploy_script=/opt/gg-runtime/current/scripts/deploy-vps.sh
    inside useradd --create-home --home-dir /srv/ops --shell /bin/bash ops
    must "the user lingers" inside loginctl enable-linger ops
    story_of_the_unit
    bad_upgrade
    machine_stop
else
    echo "!!!! SKIPPED: the units were NOT run under a systemd: $why"
fi
