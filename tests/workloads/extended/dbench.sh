#!/usr/bin/env bash
# What: the operations of a file server's clients, 1 and 4 of them, 10 s each; with all writes synchronous
# Needs: dbench=dbench
# Version: dbench --version 2>&1 | grep -o 'version [0-9.]*'
. "$(dirname "$0")/../lib/row.sh"
load=/usr/share/dbench/client.txt
check() { # NAME OPTIONS...
    local name=$1
    shift
    mkdir "$dir/$name"
    if timeout -k 5 100 dbench -c "$load" -t 10 -D "$dir/$name" "$@" >"$scratch/log" 2>&1 && grep -q '^Throughput' "$scratch/log"; then
        echo "CASE $name pass"
        echo "RESULT $name $(sed -n 's/^Throughput \([0-9.]* MB.sec\).*/\1/p' "$scratch/log")"
    else
        echo "CASE $name fail"
        tail -20 "$scratch/log"
    fi
    rm -rf "${dir:?}/$name"
}
check one 1
check four 4
check synchronous -s 2
