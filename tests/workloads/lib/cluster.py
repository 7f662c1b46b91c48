"""A cluster in one process (`dfs up`) under a folder of its own, on a free port."""

import re
import subprocess
import time

STARTS_WITHIN_S = 60
ENDS_WITHIN_S = 60
NODES = 3


class Cluster:
    """Started by `with`, ended (SIGTERM) at its end. `master` is HOST:PORT; `programs` is the folder of dfs."""

    def __init__(self, programs, work):
        self.programs = programs
        self.state = work / "logs"
        self.data = work / "cluster"
        self.master = ""

    def __enter__(self):
        self.state.mkdir(exist_ok=True)
        log = self.state / "cluster.log"
        command = [self.programs / "dfs", "up", "--listen", "127.0.0.1:0", "--data", self.data, "--nodes", str(NODES)]
        with open(log, "wb") as output:
            # In a session of its own: Ctrl-C is for the runner, which ends the mounts first.
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        end = time.monotonic() + STARTS_WITHIN_S
        while not (found := re.search(r"^  master +http://(\S+)$", log.read_text(), re.MULTILINE)):
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                raise SystemExit(f"the cluster does not come up:\n{log.read_text()}")
            time.sleep(0.05)
        self.master = found.group(1)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise SystemExit(f"the cluster does not end within {ENDS_WITHIN_S} s of SIGTERM") from None
