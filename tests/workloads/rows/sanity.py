#!/usr/bin/env python3
# What: find, du, df, stat agree with what was made: sizes, blocks of sparse files, link counts of directories, times; df shows the cluster's capacity divided by the copies
# Needs: find=findutils python3=python3
# Version: stat --version
import json
import os
import subprocess
import sys
import time

top = sys.argv[1]
MIB = 1 << 20


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def expect(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: {got!r} instead of {wanted!r}")


def sparse():
    """A file of 1 GiB with 2 MiB in it takes about 2 MiB."""
    with open(f"{top}/sparse", "wb") as file:
        file.truncate(1 << 30)
        for place in (100 * MIB, 700 * MIB):
            file.seek(place)
            file.write(os.urandom(MIB))
    info = os.stat(f"{top}/sparse")
    expect("size of the sparse file", info.st_size, 1 << 30)
    if not 2 * MIB <= info.st_blocks * 512 <= 2 * MIB + 128 * 1024:
        sys.exit(f"the sparse file takes {info.st_blocks * 512} bytes instead of about {2 * MIB}")
    expect("du --apparent-size", run("du", "--apparent-size", "-m", f"{top}/sparse").split()[0], "1024")
    used = int(run("du", "-k", f"{top}/sparse").split()[0])
    expect("du of the sparse file, MiB", round(used / 1024), 2)
    run("cp", "--sparse=always", f"{top}/sparse", f"{top}/sparse-copy")
    expect("du of its copy, MiB", round(int(run("du", "-k", f"{top}/sparse-copy").split()[0]) / 1024), 2)
    run("cmp", f"{top}/sparse", f"{top}/sparse-copy")


def trees():
    began = time.time()
    for i in range(20):
        os.makedirs(f"{top}/tree/{i}/inner")
        for j in range(10):
            with open(f"{top}/tree/{i}/{j}", "wb") as file:
                file.write(b"x" * (1000 * j))
    expect("find: files", run("find", f"{top}/tree", "-type", "f").count("\n") + 1, 200)
    expect("find: directories", run("find", f"{top}/tree", "-type", "d").count("\n") + 1, 41)
    expect("find -size", run("find", f"{top}/tree", "-size", "+8999c", "-type", "f").count("\n") + 1, 20)
    expect("find -empty", run("find", f"{top}/tree", "-type", "f", "-empty").count("\n") + 1, 20)
    expect("find -newermt", run("find", f"{top}/tree", "-newermt", f"@{began - 10:.0f}", "-type", "f").count("\n") + 1, 200)
    expect("links of a directory with 20 inside", os.stat(f"{top}/tree").st_nlink, 22)
    apparent = int(run("du", "-sb", "--apparent-size", f"{top}/tree/3").split()[0])
    folders = sum(os.stat(path).st_size for path in (f"{top}/tree/3", f"{top}/tree/3/inner"))
    expect("du -b less the directories", apparent - folders, 45_000)
    used = sum(os.stat(f"{top}/tree/{i}/{j}").st_blocks for i in range(20) for j in range(10)) * 512
    if not 900_000 <= used <= 900_000 + 200 * 4096:
        sys.exit(f"200 files with 900,000 bytes take {used}")
    os.rename(f"{top}/tree/0", f"{top}/moved")
    expect("links after a directory moved away", os.stat(f"{top}/tree").st_nlink, 21)
    run("find", f"{top}/tree", "-type", "f", "-name", "5", "-delete")
    expect("find -delete", run("find", f"{top}/tree", "-type", "f").count("\n") + 1, 171)


def capacity():
    """`df` against what the cluster says of itself."""
    info = os.statvfs(top)
    expect("longest name", info.f_namemax, 255)
    if not 0 < info.f_bavail <= info.f_bfree <= info.f_blocks:
        sys.exit(f"df: blocks {info.f_blocks}, free {info.f_bfree}, available {info.f_bavail}")
    size, free = (int(field) for field in run("df", "-B1", "--output=size,avail", top).split("\n")[1].split())
    expect("df and statvfs", size, info.f_blocks * info.f_frsize)
    if not os.environ["WORKLOAD_BIN"]:
        return
    command = [f"{os.environ['WORKLOAD_BIN']}/dfs", "--master", os.environ["WORKLOAD_MASTER"], "--json", "status"]
    status = json.loads(run(*command))
    wanted = sum(node["capacity_bytes"] for node in status["nodes"]) / status["replicas"]
    if abs(size - wanted) > wanted / 100:
        sys.exit(f"df says {size} bytes; the nodes have {wanted:.0f} when each file is kept {status['replicas']} times")
    if free > wanted:
        sys.exit(f"df says {free} bytes are free of {wanted:.0f}")


sparse()
trees()
capacity()
