"""Runs a program and kills it (SIGKILL) at a chosen moment: `killer.py MOMENT PROGRAM…`.

MOMENT is `step:N`, as soon as kvmnet's journal says that step N was begun, or `ms:N`, so many
milliseconds after the start, or `link:NAME`, as soon as there is such a link, or `path:FILE+N`, so
many milliseconds after there is such a file. Prints `killed` or, if it ended before,
`ended STATUS`, then everything that the program printed.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

JOURNAL = Path("/var/lib/kvmnet/transactions")
LIMIT_S = 180.0


def begun(old: set[str]) -> int:
    steps = 0
    for path in JOURNAL.glob("*.json"):
        if path.name in old:
            continue
        try:
            steps = max(steps, json.loads(path.read_text())["begun"])
        except (OSError, ValueError, KeyError):
            continue
    return steps


def is_there_for(path: str, milliseconds: str) -> bool:
    if not os.path.exists(path):
        return False
    time.sleep(int(milliseconds) / 1000)
    return True


def main() -> None:
    kind, _, value = sys.argv[1].partition(":")
    old = {path.name for path in JOURNAL.glob("*.json")}
    log = open("/run/killer.log", "w+b")  # noqa: SIM115 (it is read after the program is dead)
    start = time.monotonic()
    child = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    reached = {
        "step": lambda: begun(old) >= int(value),
        "ms": lambda: (time.monotonic() - start) * 1000 >= int(value),
        "path": lambda: is_there_for(*value.rsplit("+", 1)),
        "link": lambda: os.path.exists(f"/sys/class/net/{value}"),
    }[kind]
    while child.poll() is None and not reached() and time.monotonic() - start < LIMIT_S:
        time.sleep(0.002)
    if child.poll() is None:
        child.kill()
        child.wait()
        print("killed")
    else:
        print("ended", child.returncode)
    log.seek(0)
    sys.stdout.write(log.read().decode(errors="replace"))


main()
