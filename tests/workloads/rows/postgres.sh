#!/usr/bin/env bash
# What: initdb with checksums, pgbench with 4 clients, kill -9 of every server process, recovery, totals agree, VACUUM FULL, REINDEX, pg_amcheck, pg_checksums
# Needs: /usr/lib/postgresql=postgresql runuser=util-linux
# Version: "$(ls -d /usr/lib/postgresql/*/bin | tail -1)/postgres" --version
. "$(dirname "$0")/../lib/row.sh"
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
# The server does not run as root, and its socket has to be where others can reach it.
sockets=$(mktemp -d /tmp/pg.XXXXXX)
as() { runuser -u postgres -- env PATH="$bin:$PATH" PGHOST="$sockets" PGDATABASE=postgres LC_ALL=C.UTF-8 "$@"; }
trap 'as pg_ctl -D "$dir/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$sockets"' EXIT
chown postgres "$sockets"
mkdir "$dir/data" && chown postgres "$dir/data" && chmod 700 "$dir/data"
cd "$sockets"
pg_start() {
    as pg_ctl -D "$dir/data" -w -t 60 -l "$sockets/log" -o "-c listen_addresses= -c unix_socket_directories=$sockets" start \
        >/dev/null || { tail -20 "$sockets/log" >&2; fail "the server does not start"; }
}
ask() { as psql -qAtX -c "$1"; }

as initdb -D "$dir/data" --data-checksums -A trust >"$sockets/initdb" 2>&1 || { cat "$sockets/initdb" >&2; fail initdb; }
pg_start
as pgbench -q -i -s 2 >/dev/null 2>&1
as pgbench -n -c 4 -j 2 -t 30 >/dev/null 2>"$sockets/bench" || { cat "$sockets/bench" >&2; fail "pgbench"; }
[ "$(ask 'SELECT count(*) FROM pgbench_history')" = 120 ] || fail "pgbench left $(ask 'SELECT count(*) FROM pgbench_history') transactions"

# A crash in the middle of transactions.
as pgbench -n -c 4 -j 2 -T 60 >/dev/null 2>&1 &
until [ "$(ask 'SELECT count(*) FROM pgbench_history')" -gt 160 ]; do sleep 0.1; done
committed=$(ask 'SELECT count(*) FROM pgbench_history')
postmaster=$(head -1 "$dir/data/postmaster.pid")
kill -9 "$postmaster" $(cat "/proc/$postmaster/task/$postmaster/children")
wait
while kill -0 "$postmaster" 2>/dev/null; do sleep 0.1; done
rm -f "$dir/data/postmaster.pid"
pg_start
grep -q 'database system was not properly shut down' "$sockets/log" || fail "no recovery took place"
[ "$(ask 'SELECT count(*) FROM pgbench_history')" -ge "$committed" ] || fail "committed transactions are lost"
totals=$(ask 'SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)
    AND (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches)
    AND (SELECT sum(delta) FROM pgbench_history) = (SELECT sum(bbalance) FROM pgbench_branches)')
[ "$totals" = t ] || fail "the totals do not agree after recovery"
for statement in 'VACUUM FULL' 'REINDEX DATABASE postgres' CHECKPOINT; do ask "$statement"; done
as pg_amcheck --install-missing --heapallindexed postgres >"$sockets/amcheck" 2>&1 || { tail "$sockets/amcheck" >&2; fail "pg_amcheck"; }
as pg_ctl -D "$dir/data" -w -t 60 -m fast stop >/dev/null
as pg_checksums -D "$dir/data" --check >"$sockets/checksums" 2>&1 || { tail "$sockets/checksums" >&2; fail "pg_checksums"; }
