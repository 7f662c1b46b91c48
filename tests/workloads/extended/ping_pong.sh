#!/usr/bin/env bash
# What: ctdb's ping_pong over two mounts: byte range locks alone, with reads and writes (-rw: each sees the other's increment), through mappings; with a file that both make at the same time
# Needs: ping_pong=ctdb
# Version: dpkg-query -W -f 'ctdb ${Version}' ctdb
# Mounts: 2
. "$(dirname "$0")/../lib/row.sh"
check() { # NAME OPTIONS
    local name=$1 options=${2:-} increments
    [ "$name" = made-by-both ] || : >"$dir/$name"
    timeout -k 2 12 stdbuf -o0 ping_pong $options "$dir/$name" 3 >"$scratch/one" 2>&1 &
    timeout -k 2 12 stdbuf -o0 ping_pong $options "$WORKLOAD_OTHER/$name" 3 >"$scratch/two" 2>&1 || true
    wait || true
    tr '\r' '\n' <"$scratch/one" | grep 'locks/sec' | tail -1 >"$scratch/last" || true
    # Told when it changes: 1 until the other has started and after it has ended, 2 in between.
    increments=$(tr '\r' '\n' <"$scratch/one" | sed -n 's/^data increment = //p' | sort -nu | tr '\n' ' ')
    if [ ! -s "$scratch/last" ] || grep -qi 'failed\|error' "$scratch/one" "$scratch/two"; then
        echo "CASE $name fail"
        tail -c 500 "$scratch/one" "$scratch/two"
    elif [[ $options == *rw* ]] && [[ " $increments" != *' 2 '* ]]; then
        echo "CASE $name fail"
        echo "data increments with two processes: ${increments:-none}"
    else
        echo "CASE $name pass"
        echo "RESULT $name $(grep -o '[0-9]* locks/sec' "$scratch/last")"
    fi
}
check locks
check reads-writes -rw
check mapped -rwm
check made-by-both -rw
