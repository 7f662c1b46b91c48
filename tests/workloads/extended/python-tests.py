#!/usr/bin/env python3
# What: CPython's own tests of files: os, shutil, tempfile, mmap, fcntl, posix, large files, pathlib, zipfile, tarfile, mailbox, io, glob, dbm, sqlite3 and others, case by case
# Needs: /usr/lib/python3.11/test/test_os.py=libpython3.11-testsuite python3=python3
# Version: python3.11 --version
# Timeout: 3600
import os
import subprocess
import sys
import xml.etree.ElementTree

MODULES = """test_os test_posix test_shutil test_tempfile test_mmap test_fcntl test_largefile test_pathlib test_zipfile
    test_tarfile test_mailbox test_file test_fileio test_io test_glob test_genericpath test_posixpath test_stat
    test_dbm test_dbm_dumb test_shelve test_fileinput test_filecmp test_gzip test_bz2 test_linecache
    test_sqlite3 test_py_compile test_compileall test_zipimport""".split()
# The interpreter that the tests belong to, whatever comes first on the PATH.
PYTHON = "/usr/bin/python3.11"
top = sys.argv[1]
report = os.path.join(os.environ["WORKLOAD_SCRATCH"], "report.xml")


def outcome_of(case):
    if case.findall("failure") or case.findall("error"):
        return "fail"
    return "skip" if case.findall("skipped") or case.get("result") == "skipped" else "pass"


for module in MODULES:
    command = [PYTHON, "-m", "test", "--tempdir", top, "--timeout", "600", "--junit-xml", report, module]
    if os.path.exists(report):
        os.unlink(report)
    done = subprocess.run(command, capture_output=True, text=True, cwd=top, env=os.environ | {"TMPDIR": top})
    cases = []
    if os.path.exists(report):
        cases = list(xml.etree.ElementTree.parse(report).iter("testcase"))
    for case in cases:
        name = case.get("name", "?").replace(" ", "_").removeprefix("test.")
        print(f"CASE {name if name.startswith(module) else module + '.' + name} {outcome_of(case)}")
        for each in case.findall("failure") + case.findall("error"):
            print("    " + (each.text or each.get("message", "")).strip().replace("\n", "\n    ")[-3000:])
    # Exit status 2 is that of failed tests, which are told one by one.
    if done.returncode not in (0, 2) or not cases:
        outcome = "skip" if "skipped" in done.stdout and done.returncode in (0, 4) else "fail"
        print(f"CASE {module} {outcome}")
        print("    " + (done.stdout + done.stderr)[-3000:].replace("\n", "\n    "))
    sys.stdout.flush()
