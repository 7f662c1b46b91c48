"""One row: a script with its header, run locally and on a mount.

Header lines (`# Key: value`) of a script:
    What:     for the table (required)
    Needs:    COMMAND=PACKAGE ..., Debian's packages that have to be there (a path instead of a command works)
    Version:  a shell command whose first line is the program's version
    Mounts:   2 when the row needs a second mount of the same cluster
    Timeout:  seconds, for one run

A script is started with one argument, an empty directory, and these variables:
    WORKLOAD_SCRATCH   a local folder of its own
    WORKLOAD_OTHER     the same directory through the second mount (locally: itself)
    WORKLOAD_CRASH     a command that kills the mount's process and mounts again (locally: empty)
    WORKLOAD_MASTER, WORKLOAD_BIN   the cluster and its programs (locally: empty)
    WORKLOAD_CACHE     a local folder for what both runs and later ones use
Lines on standard output: `RESULT TEXT` goes into the table; `CASE NAME pass|fail|skip` is the outcome of one of many
cases, and each that passes locally has to pass on the mount, or to be explained in the header:
    Explained: NAME: why
"""

import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import time

# Exit status of what cannot be run here, as automake's tests have it.
CANNOT_RUN = 77
TIMEOUT_S = 300
# So long after kill -9 at most.
ENDS_WITHIN_S = 30
CACHE = pathlib.Path("/var/tmp/dfs-workloads-cache")
LIB = pathlib.Path(__file__).resolve().parent


class Row:
    """A script and what its header says."""

    def __init__(self, path):
        self.path = path
        self.name = path.stem
        header = dict(re.findall(r"^# (\w+): (.*)$", path.read_text(), re.MULTILINE))
        self.what = header["What"]
        self.needs = header.get("Needs", "").split()
        self.version_command = header.get("Version")
        self.mounts = int(header.get("Mounts", 1))
        self.explained = dict(re.findall(r"^# Explained: (\S+): (.*)$", path.read_text(), re.MULTILINE))
        self.timeout_s = int(header.get("Timeout", TIMEOUT_S))

    def version(self):
        """The program's version as it names it, without the words around it."""
        if self.version_command is None:
            return ""
        done = subprocess.run(self.version_command, shell=True, capture_output=True, text=True)
        return (done.stdout + done.stderr).strip().split("\n")[0].strip()


@dataclasses.dataclass
class Run:
    """One run of a script: exit status, seconds, what it printed."""

    status: int
    seconds: float
    output: str

    def reported(self):
        """What it says for the table, or why it was not run."""
        if self.status == CANNOT_RUN:
            return (self.output.strip().split("\n") or [""])[-1]
        return "; ".join(re.findall(r"^RESULT (.*)$", self.output, re.MULTILINE))

    def cases(self):
        return dict(re.findall(r"^CASE (\S+) (pass|fail|skip)\b", self.output, re.MULTILINE))

    def counts(self):
        """How many of the cases passed, failed and were skipped."""
        outcomes = list(self.cases().values())
        return ", ".join(f"{outcomes.count(each)} {each}" for each in ("pass", "fail", "skip") if each in outcomes)

    def end(self):
        return "\n".join(self.output.rstrip().split("\n")[-25:])


@dataclasses.dataclass
class Result:
    """Both runs of a row, and what is wrong with it (empty: nothing)."""

    local: Run
    mounted: Run
    complaint: str
    explanations: str = ""

    @property
    def status(self):
        return self.mounted.status

    def word(self):
        if self.complaint:
            return "**fails**"
        return {0: "passes", CANNOT_RUN: "not run"}.get(self.status, "fails, as locally")

    def summary(self):
        seconds = f"local {self.local.seconds:.1f} s, mount {self.mounted.seconds:.1f} s"
        return f"{self.word()} ({seconds}) {self.mounted.reported()}"


def run_script(row, directory, log, **environment):
    """Runs a row's script in a process group of its own, which ends with it."""
    settings = {"WORKLOAD_OTHER": directory, "WORKLOAD_CRASH": "", "WORKLOAD_MASTER": "", "WORKLOAD_BIN": ""}
    scratch = log.with_suffix(".scratch")
    scratch.mkdir()
    CACHE.mkdir(exist_ok=True)
    settings |= {"WORKLOAD_SCRATCH": scratch, "WORKLOAD_CACHE": CACHE, "LC_ALL": "C.UTF-8"} | environment
    began = time.monotonic()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [row.path, directory], env=os.environ | {key: str(value) for key, value in settings.items()},
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=scratch, start_new_session=True,
        )
        try:
            status = process.wait(row.timeout_s)
        except subprocess.TimeoutExpired:
            status = -signal.SIGALRM
        seconds = time.monotonic() - began
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait(ENDS_WITHIN_S)
    text = log.read_text(errors="replace")
    if status == -signal.SIGALRM:
        text += f"\nit does not end within {row.timeout_s} s"
    subprocess.run(["rm", "-rf", scratch], check=False)
    return Run(status, seconds, text)


def client(action, mountpoint, environment):
    command = [str(LIB / "client"), action, str(mountpoint)]
    settings = os.environ | {key: str(value) for key, value in environment.items()}
    done = subprocess.run(command, env=settings, capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else ""


def run_mounted(row, cluster, work):
    """The row's script on mounts of its own. Returns the run and what is wrong with the mounts."""
    environment = {"WORKLOAD_MASTER": cluster.master, "WORKLOAD_BIN": cluster.programs, "WORKLOAD_STATE": cluster.state}
    # Paths stay short, since those of sockets may have 108 bytes.
    mountpoints = [work / f"{row.name}-{number}" for number in range(1, row.mounts + 1)]
    wrong = []
    try:
        for mountpoint in mountpoints:
            wrong += filter(None, [client("start", mountpoint, environment)])
        if wrong:
            return Run(1, 0.0, ""), wrong
        directory = mountpoints[0] / row.name
        directory.mkdir()
        run = run_script(
            row, directory, cluster.state / f"{row.name}-mounted.log", **environment,
            WORKLOAD_OTHER=mountpoints[-1] / row.name, WORKLOAD_CRASH=f"{LIB / 'client'} crash {mountpoints[0]}",
        )
        subprocess.run(["rm", "-rf", directory], check=False)
    finally:
        for mountpoint in mountpoints:
            problem = client("stop", mountpoint, environment)
            if problem:
                wrong.append(problem)
                client("abandon", mountpoint, environment)
    for mountpoint in mountpoints:
        log = (cluster.state / f"{mountpoint.name}.log").read_text(errors="replace")
        wrong += [f"log of the mount: {line}" for line in re.findall(r"^\[\S+ ERROR .*$|.*panicked at.*", log, re.MULTILINE)][:5]
    return run, wrong


def differences(row, local, mounted):
    """Cases that pass locally and not on the mount: those without an explanation, and the explanations of the others."""
    there = mounted.cases()
    worse = [name for name, outcome in local.cases().items() if outcome == "pass" and there.get(name) != "pass"]
    unexplained = [f"{name}: {there.get(name, 'not reached')} on the mount" for name in worse if name not in row.explained]
    return unexplained, "; ".join(f"{name}: {there.get(name)}, {row.explained[name]}" for name in worse if name in row.explained)


def run_row(row, cluster, work, local_folder):
    """Runs a row locally (under `local_folder`), then on the mount, and judges."""
    local_directory = local_folder / f"{row.name}-local"
    local_directory.mkdir()
    # Postgres and others run as somebody else.
    work.chmod(0o755)
    local = run_script(row, local_directory, cluster.state / f"{row.name}-local.log")
    subprocess.run(["rm", "-rf", local_directory], check=False)
    if local.status == CANNOT_RUN:
        return Result(local, local, "")
    mounted, wrong = run_mounted(row, cluster, work)
    if mounted.status != local.status:
        wrong.insert(0, f"exit status {mounted.status} on the mount, {local.status} locally\n{mounted.end()}")
    elif local.status != 0:
        wrong.insert(0, f"exit status {local.status} locally too: the row is of no use\n{local.end()}")
    unexplained, explanations = differences(row, local, mounted)
    return Result(local, mounted, "\n".join(unexplained + wrong), explanations)
