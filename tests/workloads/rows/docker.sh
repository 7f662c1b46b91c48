#!/usr/bin/env bash
# What: a container with a volume on the mount reads, writes, renames and changes owners there; what it wrote is seen outside
# Version: docker --version
. "$(dirname "$0")/../lib/row.sh"
. "$lib/../../../scripts/lib/docker.sh"
# Rows run at the same time; one daemon is enough for all.
start_docker >"$scratch/docker" 2>&1 || cannot_run "$(tail -1 "$scratch/docker")"
trap 'docker rmi -f dfs-workload >/dev/null 2>&1 || true; stop_docker' EXIT
# An image of what is here: nothing has to be pulled.
mkdir -p "$scratch/root"
for program in /bin/sh /bin/ls /bin/cat /bin/mv /bin/chown /bin/mkdir /usr/bin/id; do
    for file in "$program" $(ldd "$program" | grep -o '/[^ )]*'); do
        [ -e "$scratch/root$file" ] || install -D "$file" "$scratch/root$file"
    done
done
tar -C "$scratch/root" -c . | docker import - dfs-workload >/dev/null
mkdir "$dir/volume"
echo outside >"$dir/volume/given"
docker run --rm --network none -v "$dir/volume:/volume" dfs-workload /bin/sh -c '
    set -e
    [ "$(cat /volume/given)" = outside ]
    cd /volume
    mkdir made && echo inside >made/file && mv made/file made/renamed && chown 1234:4321 made/renamed
' >"$scratch/run" 2>&1 || {
    grep -qE 'OCI runtime|cgroup|failed to create' "$scratch/run" && cannot_run "containers cannot be started here: $(tail -1 "$scratch/run" | cut -c1-160)"
    cat "$scratch/run" >&2
    fail "the container fails"
}
[ "$(cat "$dir/volume/made/renamed") $(stat -c %u:%g "$dir/volume/made/renamed")" = 'inside 1234:4321' ] || fail "what the container wrote is not there"
docker run --rm --network none -v "$dir/volume:/volume:ro" dfs-workload /bin/sh -c '! echo x >/volume/refused 2>/dev/null' ||
    fail "a read-only volume lets files be made"
