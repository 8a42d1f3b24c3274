# shellcheck shell=bash
# Part of run.sh: what INSTALL.md and DEPLOYMENT.md show as output of the commands was said by them in this run, but for
# numbers, versions, places and what is this machine's own.
# shellcheck disable=SC2154 # folder and the rest are those of run.sh

scene "what the documents show"
cat "$folder/server.log" >>"$folder/said"
# mask: numbers are N, versions V, everything before a folder of the runtime goes.
mask() {
    sed -E -e 's#^(ok +(kernel|git|files|disk) +).*#\1(this machine)#' \
        -e 's#[^ ]*/(\.gg-runtime|\.local|kept\.sqlite3)#\1#g' \
        -e 's#\bv[0-9]+(\.[0-9]+)*(-[0-9]+)?#V#g' -e 's#[0-9]+#N#g' -e 's#(N )+#N #g' -e 's# +$##'
}
mask <"$folder/said" | sort -u >"$folder/said.masked"
count=0
for document in docs/INSTALL.md docs/DEPLOYMENT.md; do
    # The lines of console blocks that are no commands.
    awk '/^```console$/ { inside = 1; next } /^```$/ { inside = 0 } inside && !/^\$ / && NF' "$document" |
        mask >"$folder/shown"
    while IFS= read -r line; do
        # An ellipsis stands for what is left out.
        pattern=$(sed -e 's/[][\.*^$|]/\\&/g' -e 's/…/.*/g' <<<"$line")
        grep -qx -- "$pattern" "$folder/said.masked" || bad "$document shows what nothing has said: $line"
        count=$((count + 1))
    done <"$folder/shown"
done
[ "$count" -gt 30 ] || bad "only $count lines were found in the documents"
ok "$count lines of output in the documents are what was said"
