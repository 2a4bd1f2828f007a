"""How long a trace takes to its verdict, and what it costs other traffic meanwhile.

In a lab: from the NAT network to the web server far away, answered, dropped by a rule, and not
answered. What it costs others is measured by `watching.py`, with and without in turn.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from kvmnet.lab.lab import Lab

HERE = Path(__file__).parent
WEB, NOBODY = "203.0.113.80", "203.0.113.99"
LIMIT_MS = 2000
RUNS = 9

DROP = ("FORWARD", "-p", "tcp", "--dport", "81", "-j", "DROP")
VERDICTS = (("answered", f"{WEB}:80"), ("dropped by a rule", f"{WEB}:81"),
            ("no answer", NOBODY))  # fmt: skip


def kvmnet(*words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("kvmnet")), *words]


def main() -> int:
    with Lab.up(f"bench{os.getpid()}") as lab:
        lab.kvmnet("up", "--yes", timeout=60)
        lab.run("host", ["iptables", "-I", *DROP])
        # Nobody refuses it, and nobody answers.
        lab.run("router", ["ip", "neigh", "replace", NOBODY, "lladdr", "02:00:00:00:00:99",
                           "dev", "wan0"])  # fmt: skip
        good = verdicts(lab)
    cost()
    return 0 if good else 1


def verdicts(lab: Lab) -> bool:
    print("| trace to a verdict | whole command | of it in the report | limit | holds |")
    print("| --- | --- | --- | --- | --- |")
    good = True
    for what, to in VERDICTS:
        whole, told = [], []
        for _ in range(RUNS):
            begin = time.monotonic()
            done = lab.run("host", kvmnet("trace", "network:default", to, "--json"),
                           accept=(0, 1))  # fmt: skip
            whole.append((time.monotonic() - begin) * 1000)
            told.append(json.loads(done.stdout)["report"]["ms"])
        median = statistics.median(whole)
        holds = median < LIMIT_MS
        good = good and holds
        print(f"| {what} | {median:,.0f} ms | {statistics.median(told):,.0f} ms | "
              f"{LIMIT_MS:,} ms | {'yes' if holds else 'NO'} |")  # fmt: skip
    return good


def cost() -> None:
    """Throughput of another connection while watching, side by side."""
    words = ["unshare", "-n", sys.executable, str(HERE / "watching.py")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    rates: dict[str, float] = json.loads(done.stdout)
    print("\n| watched | Gbit for each second of processor time | of that with nothing |")
    print("| --- | --- | --- |")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.1f} | {rate / rates['nothing']:.0%} |")


if __name__ == "__main__":
    sys.exit(main())
