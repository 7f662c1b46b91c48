#!/usr/bin/env bash
# What: written, synced and read again with checksums: in order and at random, by read/write, asynchronously, direct, through mappings, from several jobs
# Needs: fio=fio
# Version: fio --version
# Timeout: 600
. "$(dirname "$0")/../lib/row.sh"
cd "$scratch"
check() { # NAME OPTIONS...
    local name=$1
    shift
    if timeout -k 5 120 fio --name="$name" --directory="$dir" --size=24m --verify=crc32c --verify_fatal=1 --do_verify=1 \
        --verify_backlog=512 --output-format=terse "$@" >"$scratch/log" 2>&1; then
        echo "CASE $name pass"
    else
        echo "CASE $name fail"
        sed 's/^/    /' "$scratch/log"
    fi
    rm -f "$dir/$name".*
}
check sequential-64k --rw=write --bs=64k --ioengine=psync --end_fsync=1
check sequential-odd --rw=write --bs=9000 --ioengine=psync --verify_interval=9000
check random-4k --rw=randwrite --bs=4k --ioengine=psync
check random-4k-fsync --rw=randwrite --bs=4k --ioengine=psync --fsync=64 --size=4m
check random-mixed --rw=randrw --bsrange=512-64k --ioengine=psync --verify=md5
check vectors --rw=randwrite --bs=16k --ioengine=pvsync
check asynchronous --rw=randwrite --bs=8k --ioengine=libaio --iodepth=16
check direct --rw=randwrite --bs=4k --ioengine=libaio --iodepth=8 --direct=1 --size=8m
check direct-sequential --rw=write --bs=1m --ioengine=psync --direct=1
check mapped --rw=write --bs=4k --ioengine=mmap
check mapped-random --rw=randwrite --bs=4k --ioengine=mmap
check four-jobs --rw=randwrite --bs=4k --ioengine=psync --numjobs=4 --size=6m
check preallocated --rw=randwrite --bs=64k --ioengine=psync --fallocate=native
