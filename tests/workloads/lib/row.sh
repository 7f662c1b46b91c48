# Sourced by rows. Sets: dir (an empty folder on the file system under test), scratch (a local folder), lib.
set -euo pipefail
lib=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=$1
scratch=$WORKLOAD_SCRATCH

fail() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# same WHAT WANTED-FILE GOT-FILE
same() { diff -u "$2" "$3" >"$scratch/diff" || { head -40 "$scratch/diff" >&2; fail "$1: they differ"; }; }

# Exit status of a row that cannot be run here, as automake's tests have it.
CANNOT_RUN=77
cannot_run() { printf '%s\n' "$*"; exit $CANNOT_RUN; }
