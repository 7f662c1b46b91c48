#!/usr/bin/env python3
"""Prints all there is to know of a tree, one line per entry, so that two trees can be compared with diff.

    manifest.py DIRECTORY [--blocks]

Kind, mode, owner, group, size, modification time in ns, device, link count, which names are one file, link
target, extended attributes (access control lists are among them), SHA-256 of the contents. `--blocks` adds
whether a file takes less room than it has bytes. Sizes and link counts of directories are left out: they
belong to the file system, not to the tree.
"""

import hashlib
import os
import stat
import sys

KINDS = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "character", stat.S_IFBLK: "block", stat.S_IFSOCK: "socket",
}
# The kernel adds this one by itself where a security module is on.
KERNELS_OWN = {"security.selinux"}


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def xattrs(path):
    names = sorted(set(os.listxattr(path, follow_symlinks=False)) - KERNELS_OWN)
    return [f"{name}={os.getxattr(path, name, follow_symlinks=False).hex()}" for name in names]


def line(path, shown, first_names, with_blocks):
    info = os.lstat(path)
    kind = KINDS[stat.S_IFMT(info.st_mode)]
    fields = [os.fsencode(shown).decode("utf-8", "backslashreplace"), kind, oct(stat.S_IMODE(info.st_mode))]
    fields += [f"{info.st_uid}:{info.st_gid}", f"mtime={info.st_mtime_ns}"]
    if kind != "directory":
        fields += [f"size={info.st_size}", f"links={info.st_nlink}"]
        # Hard links: each name tells the first name of its file.
        fields.append("same as " + first_names.setdefault(info.st_ino, shown) if info.st_nlink > 1 else "-")
    if kind in ("character", "block"):
        fields.append(f"device={os.major(info.st_rdev)}:{os.minor(info.st_rdev)}")
    if kind == "symlink":
        fields.append(f"-> {os.readlink(path)}")
    fields += xattrs(path)
    if kind == "file":
        fields.append(sha256(path))
        if with_blocks:
            fields.append("sparse" if info.st_blocks * 512 < info.st_size else "full")
    return " ".join(repr(field) if "\n" in field else field for field in fields)


def main():
    top = sys.argv[1]
    with_blocks = "--blocks" in sys.argv[2:]
    first_names = {}
    for folder, folders, files in os.walk(top):
        folders.sort()
        # Links to directories are among `folders`, and are not followed.
        for name in sorted(files + [each for each in folders if os.path.islink(os.path.join(folder, each))]):
            path = os.path.join(folder, name)
            print(line(path, os.path.relpath(path, top), first_names, with_blocks))
        print(line(folder, os.path.relpath(folder, top), first_names, with_blocks))


main()
