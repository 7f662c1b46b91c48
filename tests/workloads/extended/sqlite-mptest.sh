#!/usr/bin/env bash
# What: SQLite's own test of several processes on one database, built from Debian's source package; crash01 and multiwrite01 in each journal mode
# Needs: cc=build-essential dpkg-source=dpkg-dev
# Version: sqlite3 --version | cut -d ' ' -f 1
# Timeout: 7200
. "$(dirname "$0")/../lib/row.sh"
# Built once for both runs.
built=$WORKLOAD_CACHE/mptest
if [ ! -x "$built/mptester" ]; then
    mkdir -p "$built/lists/partial"
    cd "$built"
    sources=/etc/apt/sources.list.d/debian.sources
    if [ -e $sources ]; then
        key=$(sed -n 's/^Signed-By: //p' $sources | head -1)
        echo "deb-src ${key:+[signed-by=$key]} $(sed -n 's/^URIs: //p' $sources | head -1) bookworm main" >sources.list
    else
        sed -n 's/^deb \(.* bookworm main\)/deb-src \1/p' /etc/apt/sources.list >sources.list
    fi
    # Lists of its own: the machine's stay as they are.
    apt=(-q -o "Dir::Etc::sourcelist=$built/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$built/lists" -o APT::Sandbox::User=root)
    apt-get "${apt[@]}" update >apt.log 2>&1 && apt-get "${apt[@]}" source sqlite3 >>apt.log 2>&1 || { cat apt.log; fail "no source package"; }
    cd sqlite3-*/
    ./configure --disable-tcl --quiet >../configure.log 2>&1 || { tail ../configure.log; fail "configure"; }
    make -s sqlite3.c sqlite3.h >../make.log 2>&1 || { tail ../make.log; fail "make sqlite3.c"; }
    cc -O1 -w -I. -DSQLITE_THREADSAFE=0 mptest/mptest.c sqlite3.c -lm -ldl -o ../mptester.new
    cp mptest/*test ..
    mv ../mptester.new ../mptester
fi
cd "$built"
# The scripts config01 and config02 only repeat these with other settings, for hours.
for script in crash01.test multiwrite01.test; do
    for journal in delete truncate persist wal; do
        name=${script%.test}-$journal
        if timeout -k 5 900 ./mptester "$dir/$name.db" --journalmode "$journal" --timeout 100000 "$script" >"$scratch/log" 2>&1; then
            echo "CASE $name pass"
        else
            echo "CASE $name fail"
            tail -20 "$scratch/log"
        fi
    done
done
