#!/usr/bin/env python3
# What: rollback journal, two writing processes on each of two mounts; no update is lost, integrity_check on both
# Needs: python3=python3
# Mounts: 2
# Version: python3 -c 'import sqlite3; print("SQLite", sqlite3.sqlite_version)'
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import sqlite_writers

COUNT = 40

here, there = sys.argv[1], os.environ["WORKLOAD_OTHER"]
scratch = os.environ["WORKLOAD_SCRATCH"]
sqlite_writers.create(f"{here}/row.sqlite", "delete")
promised = {f"{place}-{i}": f"{scratch}/{place}-{i}" for place in ("here", "there") for i in range(2)}
running = [
    sqlite_writers.start(f"{here if writer.startswith('here') else there}/row.sqlite", "delete", writer, COUNT, file)
    for writer, file in promised.items()
]
failed = [process.returncode for process in running if process.wait()]
if failed:
    sys.exit(f"writers ended with status {failed}")
for place in (here, there):
    entries = sqlite_writers.check(f"{place}/row.sqlite", "delete", promised)
    if entries != 4 * COUNT:
        sys.exit(f"{entries} entries instead of {4 * COUNT} seen at {place}")
