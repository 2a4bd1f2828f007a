"""`kvmnet doctor` on a healthy host with 50 guests and 1,000 rules, probes included.

The whole command as a shell sees it, with its probes of a network and of a bridge on the LAN; and
its pure part alone: the checks over a State that was read before. Nobody else does it.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path

from kvmnet.core.scope import Scope
from kvmnet.flow.doctor import examine_state
from kvmnet.formats import state_json
from kvmnet.lab.lab import Lab

HERE = Path(__file__).parent
GUESTS = 50
RULES = 1000
RUNS = 11
WHOLE_S = 3.0
PURE_S = 0.2


def main() -> int:
    with Lab.up(f"bench{os.getpid()}") as lab:
        prepare(lab)
        whole = [timed(lab) for _ in range(RUNS)]
        document = json.loads(lab.kvmnet("doctor", "--json").stdout)
        saved = state_json.parse(lab.kvmnet("state", "save", "-").stdout)
        pure = []
        for _ in range(RUNS):
            begin = time.perf_counter()
            examine_state(saved, Scope())
            pure.append(time.perf_counter() - begin)
    rules = sum(len(x.rules) for x in saved.firewall.chains)
    slowest = {x["place"]: round(x["report"]["ms"]) for x in document["probes"]}
    print(f"{len(saved.guests)} guests, {rules} rules, {document['checks']} checks, healthy: "
          f"{document['healthy']}; probes in ms: {slowest}\n")  # fmt: skip
    print("| what | median | slowest | limit | holds |\n| --- | --- | --- | --- | --- |")
    print(line("`kvmnet doctor`, probes included", whole, WHOLE_S))
    print(line("its pure part", pure, PURE_S))
    holds = statistics.median(whole) < WHOLE_S and statistics.median(pure) < PURE_S
    return 0 if holds and document["healthy"] else 1


def prepare(lab: Lab) -> None:
    """A NAT network that works at once, a bridge on the LAN, guests on both, many rules."""
    lab.kvmnet("up", "--yes")
    lab.kvmnet("bridge", "create", "br0", "--port", "eth1", "--yes")
    lab.run("host", [sys.executable, str(HERE / "fill.py"), str(GUESTS), "0"], timeout=120)
    lab.kvmnet("guest", "move", "guest000", "--to", "bridge:br0", "--yes")
    ports = "\n".join(
        f"ip saddr 203.0.113.{x % 250} tcp dport {1024 + x} counter accept" for x in range(RULES)
    )
    table = (
        "table inet site { chain input { type filter hook input priority 10; policy accept;\n"
        f"{ports}\n}}\n}}"
    )
    lab.run("host", ["nft", "-f", "-"], stdin=table)


def timed(lab: Lab) -> float:
    """Seconds of one whole command inside the lab's host."""
    kvmnet = str(Path(sys.executable).with_name("kvmnet"))
    words = [sys.executable, "-c",
             "import subprocess,sys,time; b=time.perf_counter(); "
             "r=subprocess.run(sys.argv[1:], stdout=2, check=False).returncode; "
             "print(time.perf_counter()-b); sys.exit(r)", kvmnet, "doctor"]  # fmt: skip
    return float(lab.run("host", words, timeout=60).stdout)


def line(what: str, times: list[float], limit_s: float) -> str:
    median = statistics.median(times)
    verdict = "yes" if median < limit_s else "NO"
    return (
        f"| {what} | {median * 1000:,.0f} ms | {max(times) * 1000:,.0f} ms | "
        f"{limit_s * 1000:,.0f} ms | {verdict} |"
    )


if __name__ == "__main__":
    sys.exit(main())
