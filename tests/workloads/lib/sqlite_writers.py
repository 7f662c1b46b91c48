"""Writers of one SQLite database as processes, and the check that nothing which they were promised is lost."""

import os
import signal
import sqlite3
import subprocess
import sys
import time

WRITERS = 4
# So long a writer waits for the others, s.
BUSY_S = 60
# So long it may take until enough is written, s.
DEADLINE_S = 60


def connect(path, journal):
    database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    mode = database.execute(f"PRAGMA journal_mode={journal}").fetchone()[0]
    assert mode.lower() == journal, f"journal mode is {mode} instead of {journal}"
    database.execute("PRAGMA synchronous=FULL")
    return database


def create(path, journal):
    database = connect(path, journal)
    database.execute("CREATE TABLE total (sum INTEGER NOT NULL)")
    database.execute("INSERT INTO total VALUES (0)")
    database.execute("CREATE TABLE entry (writer TEXT, number INTEGER, filler BLOB, PRIMARY KEY (writer, number))")
    database.close()


def write(path, journal, writer, count, promised):
    """Adds `count` entries (0: until it is killed or fails); after each commit its number goes to `promised`."""
    database = connect(path, journal)
    with open(promised, "a") as log:
        number = 0
        while number < count or count == 0:
            database.execute("BEGIN IMMEDIATE")
            # Read and written apart, so that an update is lost when two writers get in at once.
            total = database.execute("SELECT sum FROM total").fetchone()[0]
            database.execute("INSERT INTO entry VALUES (?, ?, ?)", (writer, number, os.urandom(3000)))
            database.execute("UPDATE total SET sum = ?", (total + 1,))
            database.execute("COMMIT")
            log.write(f"{number}\n")
            log.flush()
            number += 1
    database.close()


def start(path, journal, writer, count, promised):
    return subprocess.Popen([sys.executable, __file__, path, journal, writer, str(count), promised])


def promises(promised):
    with open(promised) as log:
        return [int(line) for line in log]


def wait_for_promises(files, at_least):
    end = time.monotonic() + DEADLINE_S
    while True:
        counts = [len(promises(each)) if os.path.exists(each) else 0 for each in files]
        if min(counts) >= at_least:
            return
        if time.monotonic() > end:
            sys.exit(f"within {DEADLINE_S} s the writers committed only {counts}")
        time.sleep(0.02)


def check(path, journal, promised):
    """`promised`: {writer: file with its promises}."""
    database = connect(path, journal)
    answer = database.execute("PRAGMA integrity_check").fetchall()
    if answer != [("ok",)]:
        sys.exit(f"integrity_check: {answer}")
    for writer, file in promised.items():
        stored = {row[0] for row in database.execute("SELECT number FROM entry WHERE writer = ?", (writer,))}
        lost = sorted(set(promises(file)) - stored)
        if lost:
            sys.exit(f"writer {writer} lost {len(lost)} commits, the first is number {lost[0]}")
    total = database.execute("SELECT sum FROM total").fetchone()[0]
    entries = database.execute("SELECT count(*) FROM entry").fetchone()[0]
    if total != entries:
        sys.exit(f"the total is {total}, and there are {entries} entries: updates were lost")
    database.close()
    return entries


def crash_and_recover(directory, journal):
    """Writers at work, kill -9 of the client (or, on a local file system, of the writers), recovery, more writers."""
    path = os.path.join(directory, "row.sqlite")
    scratch = os.environ["WORKLOAD_SCRATCH"]
    create(path, journal)
    promised = {f"first-{i}": f"{scratch}/first-{i}" for i in range(WRITERS)}
    running = [start(path, journal, writer, 0, file) for writer, file in promised.items()]
    wait_for_promises(promised.values(), at_least=3)
    if crash := os.environ.get("WORKLOAD_CRASH"):
        subprocess.run(crash, shell=True, check=True)
    for process in running:
        # On a mount its descriptors are dead; it may have ended with an error by itself.
        process.send_signal(signal.SIGKILL)
        process.wait()
    survived = check(path, journal, promised)

    more = {f"second-{i}": f"{scratch}/second-{i}" for i in range(WRITERS)}
    count = 15
    running = [start(path, journal, writer, count, file) for writer, file in more.items()]
    for process in running:
        if process.wait():
            sys.exit(f"a writer ended with status {process.returncode}")
    entries = check(path, journal, promised | more)
    if entries != survived + WRITERS * count:
        sys.exit(f"{entries} entries instead of {survived + WRITERS * count}")


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
