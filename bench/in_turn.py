"""Times two programs in turn (A B A B …) as whole processes, from start to end.

Run inside the lab's host, so that the way into the lab is not part of any figure. Takes one JSON
argument, {"ours": argv, "peer": argv, "runs": N, "peer_runs": M}, and prints a list of milliseconds
for each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time


def once(argv: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (time.perf_counter() - begin) * 1000


def main() -> None:
    job = json.loads(sys.argv[1])
    once(job["ours"])
    once(job["peer"])
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for number in range(job["runs"]):
        times["ours"].append(once(job["ours"]))
        if number < job["peer_runs"]:
            times["peer"].append(once(job["peer"]))
    json.dump(times, sys.stdout)


main()
