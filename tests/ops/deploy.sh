# shellcheck shell=bash
# Part of run.sh: deploy-vps.sh with a stand-in for systemctl that writes down what it was told.
# shellcheck disable=SC2154 # folder and the rest are those of run.sh

scene "deploy under a service manager that is a stand-in"
cat >"$folder/path/systemctl" <<SYSTEMCTL
#!/bin/sh
echo "\$*" >>"$folder/systemctl.txt"
case "\$*" in *is-active*) [ -e "$folder/active" ] ;; *restart* | *start*) : >"$folder/active" ;; esac
SYSTEMCTL
chmod +x "$folder/path/systemctl"
deploy_home=$folder/deploy
mkdir "$deploy_home"
deploy() { env -u GG_RUNTIME_SERVICE_COMMAND HOME="$deploy_home" scripts/deploy-vps.sh "$@"; }
must "a first deployment" deploy --version v6
unit=$deploy_home/.config/systemd/user/gg-runtime.service
must "the unit names the program of the release" \
    grep -q "^ExecStart=$deploy_home/.local/share/gg-runtime/current/bin/gg-runtime-server --config " "$unit"
must_not "nothing is left to be filled in" grep '@[A-Z]*@' "$unit"
for word in 'daemon-reload' 'enable gg-runtime.service' 'restart gg-runtime.service'; do
    grep -q -- "--user $word" "$folder/systemctl.txt" || bad "systemctl was not told $word"
done
ok "the manager was told"
[ "$(stat -c %a "$deploy_home/.config/gg-runtime/runtime-server.toml")" = 600 ] || bad "the configuration is open"
echo '# a person was here' >>"$deploy_home/.config/gg-runtime/runtime-server.toml"
echo '# a person was here' >>"$unit"
must "again" deploy --skip-upgrade
grep -q 'a person' "$unit" || bad "the unit was replaced unasked"
must "again, with the unit of the release" deploy --skip-upgrade --refresh-unit-files
must_not "the unit is new" grep 'a person' "$unit"
grep -q 'a person' "$deploy_home/.config/gg-runtime/runtime-server.toml" || bad "the configuration was replaced"
must_not "a scope that is none" deploy --scope galaxy
if command -v systemd-analyze >/dev/null; then
    for scope in user system; do
        sed -e "s|@ROOT@|$HOME/.local/share/gg-runtime|; s|@CONFIG@|/etc/c.toml|; s|@SETTINGS@|/etc/gg-runtime|" \
            "docs/deploy/systemd/gg-runtime.$scope.service.example" >"$folder/gg-runtime-$scope.service"
        must "systemd understands the $scope unit" systemd-analyze verify "$folder/gg-runtime-$scope.service"
        [ ! -s "$folder/must.log" ] || bad "it has something to say about it"
    done
else
    echo "!!!! SKIPPED: there is no systemd-analyze to check the units with"
fi
