#!/usr/bin/env python3
# What: shared mappings written and seen by read and by another process, mapping of a grown file, a shadow copy of 4,000 random reads, writes and truncations, pickled shelves, zip, tempfile, atomic replacement
# Needs: python3=python3
# Version: python3 --version
import dbm
import mmap
import multiprocessing
import os
import random
import shelve
import shutil
import sys
import tempfile
import zipfile

top = sys.argv[1]
SIZE = 3_000_000


def mapped():
    """Bytes written through a mapping are what read(2) and other processes see, and the other way round."""
    path = f"{top}/mapped"
    with open(path, "w+b") as file:
        file.truncate(SIZE)
        with mmap.mmap(file.fileno(), SIZE) as view:
            view[0:5] = b"begin"
            view[SIZE - 3 : SIZE] = b"end"
            assert os.pread(file.fileno(), 5, 0) == b"begin"
            os.pwrite(file.fileno(), b"written", 1_000_000)
            assert view[1_000_000:1_000_007] == b"written"
            child = multiprocessing.get_context("spawn").Process(target=change_mapped, args=(path,))
            child.start()
            child.join()
            assert child.exitcode == 0
            assert view[2_000_000:2_000_005] == b"child"
            view.flush()
            file.truncate(2 * SIZE)
            view.resize(2 * SIZE)
            view[2 * SIZE - 5 :] = b"grown"
    with open(path, "rb") as file:
        contents = file.read()
    assert len(contents) == 2 * SIZE and contents.endswith(b"grown") and contents.startswith(b"begin\0")
    assert contents[SIZE - 3 : SIZE] == b"end" and contents[2_000_000:2_000_005] == b"child"


def change_mapped(path):
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        assert view[0:5] == b"begin", view[0:5]
        view[2_000_000:2_000_005] = b"child"


def shadow():
    """Random operations on a file and on bytes in memory leave the same."""
    rng = random.Random(7)
    model = bytearray()
    file = os.open(f"{top}/shadow", os.O_RDWR | os.O_CREAT)
    for step in range(4000):
        offset, length = rng.randrange(400_000), rng.randrange(1, 20_000)
        action = rng.random()
        if action < 0.5:
            data = rng.randbytes(length)
            assert os.pwrite(file, data, offset) == length
            model.extend(bytes(max(0, offset + length - len(model))))
            model[offset : offset + length] = data
        elif action < 0.95:
            assert os.pread(file, length, offset) == bytes(model[offset : offset + length]), f"step {step}"
        elif action < 0.98:
            os.ftruncate(file, offset)
            model = model[:offset] + bytes(max(0, offset - len(model)))
        else:
            os.fsync(file)
        assert os.fstat(file).st_size == len(model), f"step {step}"
    os.close(file)
    with open(f"{top}/shadow", "rb") as again:
        assert again.read() == model, "what was closed is not what was written"


def library():
    """Modules of the standard library that lean on the file system."""
    with shelve.open(f"{top}/shelf") as shelf:
        shelf.update({str(i): list(range(i)) for i in range(200)})
    with shelve.open(f"{top}/shelf") as shelf:
        assert sum(len(value) for value in shelf.values()) == 199 * 200 // 2, dbm.whichdb(f"{top}/shelf")
    with zipfile.ZipFile(f"{top}/archive.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(50):
            archive.writestr(f"member-{i}", f"{i}" * 1000)
    with zipfile.ZipFile(f"{top}/archive.zip", "a") as archive:
        archive.write(f"{top}/shadow", "shadow")
        assert archive.testzip() is None
    shutil.copytree(top, f"{top}/copied", ignore=shutil.ignore_patterns("copied"))
    assert sorted(os.listdir(f"{top}/copied")) == sorted(set(os.listdir(top)) - {"copied"})
    with tempfile.TemporaryFile(dir=top) as nameless:
        nameless.write(b"x" * 100_000)
        nameless.seek(0)
        assert len(nameless.read()) == 100_000
    for i in range(50):
        with tempfile.NamedTemporaryFile("w", dir=top, delete=False) as new:
            new.write(f"version {i}")
        os.replace(new.name, f"{top}/replaced")
        with open(f"{top}/replaced") as current:
            assert current.read() == f"version {i}"
    shutil.rmtree(f"{top}/copied")


if __name__ == "__main__":
    mapped()
    shadow()
    library()
