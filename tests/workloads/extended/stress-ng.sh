#!/usr/bin/env bash
# What: each stressor of the file system class by itself, two workers, --verify
# Needs: stress-ng=stress-ng
# Version: stress-ng --version
# Explained: fiemap: the kernel does not pass FIEMAP on to FUSE file systems (FUSE inodes have no such operation)
# Timeout: 1500
. "$(dirname "$0")/../lib/row.sh"
SECONDS_EACH=2
# Some take away thousands of files at the end, which counts for nothing but has to be waited for.
ENDS_WITHIN_S=180
stressors=$(stress-ng --class filesystem? 2>&1 | sed -n 's/.*stressors: //p')
[ -n "$stressors" ] || fail "stress-ng does not list its stressors"
cd "$dir"
for stressor in $stressors; do
    status=0
    timeout -k 5 $ENDS_WITHIN_S stress-ng --verify --temp-path "$dir" --"$stressor" 2 -t $SECONDS_EACH >"$scratch/log" 2>&1 || status=$?
    case $status in
        0) grep -qE 'skipped: [1-9]|skipping|not implemented' "$scratch/log" && outcome=skip || outcome=pass ;;
        3 | 4) outcome=skip ;;
        124 | 137) outcome=fail; echo "no end within $ENDS_WITHIN_S s" >>"$scratch/log" ;;
        *) outcome=fail ;;
    esac
    echo "CASE $stressor $outcome"
    [ $outcome = pass ] || sed "s/^/    /" "$scratch/log"
done
