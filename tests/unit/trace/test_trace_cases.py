"""Golden folders: what was seen of packets, and what is told about them.

A case is a folder `cases/NAME` with `facts.json` (what the kernel told, from a real run) and
`expected.txt`: the stations and the verdict. Running this file writes the expected texts anew: read
them before they are committed.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from kvmnet.core.trace import report
from kvmnet.core.trace_facts import Facts
from kvmnet.model.host import Neighbour
from kvmnet.model.state import State
from kvmnet.model.trace import Flow, Observed, Origin, RouteChoice, TraceReport, TraceRequest

CASES = Path(__file__).parent / "cases"
FOLDERS = sorted(x.parent for x in CASES.glob("*/facts.json"))


class Case(Struct, frozen=True, kw_only=True):
    request: TraceRequest
    flow: Flow
    origin: Origin
    observed: Observed
    state: State
    route: RouteChoice | None = None
    neighbours: tuple[Neighbour, ...] = ()


def told(folder: Path) -> str:
    case = msgspec.json.decode((folder / "facts.json").read_bytes(), type=Case)
    facts = Facts(case.request, case.flow, case.origin, case.observed, case.state,
                  route=case.route, neighbours=case.neighbours)  # fmt: skip
    return text(report(facts))


def text(found: TraceReport) -> str:
    lines = []
    for hop in found.hops:
        time = "" if hop.at_ms is None else f"{hop.at_ms:.2f}"
        lines.append(f"{hop.way} {hop.kind} {time:>6} {hop.where}: {hop.what}".replace("  ", " "))
        lines += [f"    {x}" for x in hop.evidence]
    lines += [f"{found.ending}: {found.verdict}", f"try: {found.hint}"]
    lines.append(f"last seen: {found.last_seen}; expected next: {found.expected_next}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda x: x.name)
def test_case(folder: Path) -> None:
    assert told(folder) == (folder / "expected.txt").read_text()


if __name__ == "__main__":
    for one in FOLDERS:
        (one / "expected.txt").write_text(told(one))
