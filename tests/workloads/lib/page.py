"""docs/WORKLOADS.md: an introduction and one generated table per folder of rows."""

import os
import re
import subprocess

from row import CANNOT_RUN

INTRODUCTION = """# Workloads

Programs that nobody here wrote, on a mount (`--collision replace`; master, three storage nodes and replicator on the
same machine, two copies of each file). Each row is a script in `tests/workloads`; it runs on a local directory first,
then on the mount, and has to pass on both. `scripts/test` runs the matrix and compares its rows with this page;
`tests/workloads/run --update` writes it, `tests/workloads/run --extended --update` the second table. Times are of one
run on a busy small machine, two rows at a time: they are no benchmark ([PERFORMANCE.md](PERFORMANCE.md) is).

"""

SECTIONS = {"rows": "The matrix", "extended": "Long suites"}
# A reader can compare a suite's results on the mount with those beside it.
COLUMNS = {
    "rows": "| row | what it does | program | on the mount | local, s | mount, s |\n|---|---|---|---|---|---|\n",
    "extended": "| suite | what it does | program | locally | on the mount | local, s | mount, s |\n|---|---|---|---|---|---|---|\n",
}


def kernel():
    release = os.uname().release
    return re.match(r"\d+\.\d+", release).group()


def local_file_system(folder):
    if folder == "extended":
        return "ext4 (a loop device)"
    done = subprocess.run(["findmnt", "-no", "FSTYPE", "-T", "/var/tmp"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def cell(text):
    return " ".join(text.replace("|", "\\|").split())


def table_line(folder, row, result):
    seconds = [f"{result.local.seconds:.1f}", f"{result.mounted.seconds:.1f}"]
    word = result.word()
    said = result.mounted.reported()
    if folder == "rows":
        outcome = [f"{word}: {said}" if said else word]
    else:
        said = "; ".join(filter(None, [result.mounted.counts(), said, result.explanations]))
        outcome = ["; ".join(filter(None, [result.local.counts(), result.local.reported()])), f"{word}: {said}" if said else word]
    if result.status == CANNOT_RUN:
        seconds = ["", ""]
    return "| " + " | ".join(map(cell, [row.name, row.what, row.version(), *outcome, *seconds])) + " |\n"


def section(folder, rows, results, within):
    """The table; rows without a result keep the line that they have."""
    kept = {line.split("|")[1].strip(): line + "\n" for line in within.splitlines() if line.startswith("| ")}
    lines = [table_line(folder, row, results[row.name]) if row.name in results else kept.get(row.name, "") for row in rows]
    text = f"Linux {kernel()}; the local directory is on {local_file_system(folder)}.\n\n" + COLUMNS[folder]
    return text + "".join(lines)


def markers(folder):
    return f"<!-- {folder}: generated -->\n", f"<!-- {folder}: end -->\n"


def skeleton():
    return INTRODUCTION + "\n".join(f"## {title}\n\n{''.join(markers(folder))}" for folder, title in SECTIONS.items())


def split(text, folder):
    """The text before, within and after a generated section."""
    begin, end = markers(folder)
    before, _, rest = text.partition(begin)
    within, _, after = rest.partition(end)
    return before + begin, within, end + after


def with_section(path, folder, rows, results):
    """The page of `path` with one section written anew; the rest, which people write, stays."""
    text = path.read_text() if path.exists() else skeleton()
    before, within, after = split(text, folder)
    return before + section(folder, rows, results, within) + after


def disagreements(path, folder, rows):
    """What the committed page says otherwise than the scripts: rows, their descriptions, results that are no pass."""
    if not path.exists():
        return [f"{path} is missing: tests/workloads/run --update"]
    _, within, _ = split(path.read_text(), folder)
    listed = [line for line in within.splitlines() if line.startswith("| ")][1:]
    listed = {parts[1].strip(): parts for parts in (re.split(r"(?<!\\)\|", line) for line in listed)}
    found = [f"{path}: {name} is listed and there is no such row" for name in listed.keys() - {row.name for row in rows}]
    for row in rows:
        if row.name not in listed:
            found.append(f"{path}: the row {row.name} is not listed")
        elif listed[row.name][2].strip() != cell(row.what):
            found.append(f"{path}: the row {row.name} is described otherwise")
        elif "fails" in "".join(listed[row.name]):
            found.append(f"{path}: the row {row.name} is listed as failing")
    return [each + "; tests/workloads/run --update writes it anew" for each in found]
