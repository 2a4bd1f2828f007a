"""One plan out of the steps that mend single findings."""

from __future__ import annotations

from collections.abc import Iterable

from kvmnet.core.finding import Finding
from kvmnet.model.link_steps import PlugTap, RemoveAddress, SetLink
from kvmnet.model.plan import Plan, PlannedStep, StartNetwork


def note_of(finding: Finding) -> str:
    """What the plan says of a finding that it mends."""
    return f"{finding.name}, {finding.subject}: {finding.what}"


def mending_plan(findings: Iterable[Finding], what: str) -> Plan:
    """The plan that mends all of them that can be; no steps if none can.

    What the host is comes first, then the networks that need it, then taps that go into their
    bridges, then addresses that ports have no use for. A step that two findings ask for is taken
    once.
    """
    mended = [x for x in findings if x.mend]
    steps: list[PlannedStep] = []
    for finding in mended:
        steps += [x for x in finding.mend if not any(_same(x, y) for y in steps)]
    count = len(mended)
    plugged = {x.step.tap for x in steps if isinstance(x.step, PlugTap)}
    return Plan(
        title=f"mend {what}: " + ", ".join(dict.fromkeys(x.name for x in mended)),
        steps=tuple(sorted(steps, key=lambda x: _rank(x, plugged))),
        notes=tuple(map(note_of, mended)),
    ) if count else Plan(title=f"mend {what}")  # fmt: skip


def _rank(planned: PlannedStep, plugged: set[str]) -> int:
    if isinstance(planned.step, StartNetwork):
        return 1
    if isinstance(planned.step, SetLink) and planned.step.link in plugged:
        return 3  # once it is a port: on its own it would take an address from a router
    if isinstance(planned.step, RemoveAddress):  # a NIC that is no port yet would make it again
        return 3
    return 2 if isinstance(planned.step, PlugTap) else 0


def _same(one: PlannedStep, other: PlannedStep) -> bool:
    if isinstance(one.step, StartNetwork) and isinstance(other.step, StartNetwork):
        return one.step.name == other.step.name
    return one.step == other.step
