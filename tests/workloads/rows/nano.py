#!/usr/bin/env python3
# What: typed text saved from a terminal, with and without backups and lock files; the old text is in the backup
# Needs: nano=nano python3=python3
# Version: nano --version
import os
import pty
import select
import sys
import time

DEADLINE_S = 30


def type_into_nano(arguments, keys, cwd):
    """Runs nano on a terminal; `keys` are sent once it has painted its screen. Returns its exit status."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.environ["TERM"] = "xterm"
        os.execvp("nano", ["nano", "--ignorercfiles", *arguments])
    end = time.monotonic() + DEADLINE_S
    painted = b""
    sent = False
    while time.monotonic() < end:
        if not select.select([terminal], [], [], 0.2)[0]:
            # Quiet: the screen is complete.
            if painted and not sent:
                os.write(terminal, keys)
                sent = True
            continue
        try:
            painted += os.read(terminal, 65536)
        except OSError:  # the terminal is closed when nano has ended
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.kill(pid, 9)
    sys.exit(f"nano does not end; its screen: {painted[-500:]!r}")


top = sys.argv[1]
SAVE_AND_LEAVE = b"\x0f\r\x18"
path = f"{top}/text"
with open(path, "w") as file:
    file.write("old line\n" * 5000)
os.chmod(path, 0o600)
status = type_into_nano(["--backup", "--locking", "text"], b"new text " + SAVE_AND_LEAVE, top)
contents = open(path).read()
assert status == 0, f"nano ends with status {status}"
assert contents == "new text " + "old line\n" * 5000, f"the file begins with {contents[:40]!r}, {len(contents)} characters"
assert os.stat(path).st_mode & 0o777 == 0o600, "the mode changed"
assert open(f"{path}~").read() == "old line\n" * 5000, "the backup is not the old text"
status = type_into_nano(["fresh"], b"hello" + SAVE_AND_LEAVE, top)
assert status == 0 and open(f"{top}/fresh").read() == "hello\n", "a new file was not saved"
left = sorted(os.listdir(top))
assert left == ["fresh", "text", "text~"], f"left behind: {left}"
