#!/usr/bin/env python3
"""Makes a tree with everything that a tree can have; the same one for the same arguments.

    make_tree.py DIRECTORY FILES
"""

import os
import random
import socket
import stat
import subprocess
import sys

PER_FOLDER = 50
# Whole seconds, ends of nanoseconds, before 1970 and after 2038.
TIMES_NS = [1_000_000_000_000_000_000, 1_234_567_890_123_456_789, -86_400_000_000_001, 4_102_444_800_999_999_999]
MODES = [0o644, 0o600, 0o755, 0o444, 0o4755, 0o2755, 0o1777, 0o000]
NAMES = ["plain-{}", "with space {}", "ünïcödé-{}", "quote'\"{}", "-dash{}", "new\nline{}", ".hidden{}"]


def contents(rng, number):
    if number % 500 == 0:
        return rng.randbytes(3_000_000)
    return rng.randbytes(rng.choice([0, 1, 17, 300, 4095, 4096, 4097, 9000]))


def dress(rng, path, number):
    """Owner, attributes, mode and times, in the order in which none undoes another."""
    if number % 7 == 0:
        os.chown(path, 1000 + number % 5, 2000 + number % 3)
    if number % 11 == 0:
        os.setxattr(path, "user.comment", rng.randbytes(40))
        os.setxattr(path, "user.empty", b"")
        os.setxattr(path, "trusted.note", b"for root only")
    os.chmod(path, MODES[number % len(MODES)] if number % 3 == 0 else 0o644)
    if number % 97 == 0:
        subprocess.run(["setfacl", "-m", "u:1234:rw,g:4321:r,m::rw", path], check=True)
    os.utime(path, ns=(TIMES_NS[0], TIMES_NS[number % len(TIMES_NS)] + number % 1000))


def specials(top):
    """One of each kind that is not a plain file."""
    os.mkfifo(f"{top}/a-fifo", 0o640)
    os.mknod(f"{top}/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(f"{top}/loop", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(top)  # the path of a socket may have 108 bytes only
        listener.bind("a-socket")
        os.chdir(here)
    with open(f"{top}/sparse", "wb") as file:
        file.seek(20 << 20)
        file.write(b"end")
        file.seek(10 << 20)
        file.write(b"middle")
    os.symlink("no/such/target", f"{top}/dangling")
    os.symlink(".", f"{top}/self")
    os.lchown(f"{top}/dangling", 1001, 1002)
    with open(f"{top}/" + "n" * 255, "w") as file:
        file.write("the longest name")
    with open(os.fsencode(top) + b"/not-utf8-\xff\xfe", "w") as file:
        file.write("not UTF-8")


def main():
    top, count = sys.argv[1], int(sys.argv[2])
    rng = random.Random(count)
    os.makedirs(top)
    folders = []
    for number in range(count):
        if number % PER_FOLDER == 0:
            folder = f"{top}/folder-{number // PER_FOLDER}" if number % 150 else f"{top}/deep-{number}/a/b/c"
            os.makedirs(folder)
            folders.append(folder)
        path = f"{folder}/" + NAMES[number % len(NAMES)].format(number)
        if number % 13 == 12:
            os.symlink(f"plain-{number - 1}", path)
        elif number % 17 == 16:
            os.link(previous, path)
        else:
            with open(path, "wb") as file:
                file.write(contents(rng, number))
            dress(rng, path, number)
            previous = path
    specials(top)
    for number, folder in enumerate(folders):
        os.chmod(folder, [0o755, 0o700, 0o2775, 0o1777][number % 4])
        if number % 9 == 0:
            subprocess.run(["setfacl", "-m", "u:1234:rx,d:u:1234:rwx,d:g::r", folder], check=True)
        os.utime(folder, ns=(TIMES_NS[0], TIMES_NS[number % 2] + number))


main()
