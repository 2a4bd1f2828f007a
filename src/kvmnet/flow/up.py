"""`kvmnet up`: a working NAT network for guests, proven by a stand-in guest."""

from __future__ import annotations

import os
from collections.abc import Callable

from msgspec import Struct

from kvmnet.core.up_plan import UpPlan, plan_up
from kvmnet.errors import Failed
from kvmnet.flow.apply import Watcher, apply, changing
from kvmnet.flow.networks import PLANNING_PARTS, look, read_saved, verify_networks
from kvmnet.flow.observe import Part
from kvmnet.flow.probe import probe
from kvmnet.model.probe import ProbeReport, ProbeStep, ProbeTarget

PARTS = PLANNING_PARTS | {Part.FIREWALL}

ESSENTIAL = frozenset({"link", "dhcp", "address", "gateway", "host"})
"""Steps of the probe that depend on this host alone: if one fails, the change did not work."""


class UpResult(Struct, frozen=True, kw_only=True):
    """What was wrong, what was done about it, and what a guest experiences now."""

    up: UpPlan
    report: ProbeReport


def propose(name: str, uri: str | None, watcher: Watcher) -> UpPlan:
    """What is wrong with network `name` now, and the plan against it; nothing is touched."""
    return plan_up(look(uri, PARTS, watcher), name, read_saved(uri, name), os.urandom)


def bring_up(
    name: str,
    *,
    uri: str | None,
    command: str,
    consent: Callable[[UpPlan], None],
    watcher: Watcher,
    on_step: Callable[[ProbeStep], None],
) -> UpResult:
    """Make network `name` work and prove it.

    `consent` shows the plan and raises unless it may be carried out. Raises `Undone` when a guest
    would still get no address, or could not reach the host: then everything is as it was.
    """
    reports: list[ProbeReport] = []

    def prove() -> None:
        reports.append(_prove(name, uri, on_step))

    with changing(command, watcher):
        up = propose(name, uri, watcher)
        consent(up)
        if up.plan.steps:

            def verify() -> None:
                verify_networks(up.plan, uri)
                prove()

            apply(up.plan, uri=uri, command=command, verify=verify, watcher=watcher)
        else:
            prove()
    return UpResult(up=up, report=reports[-1])


def _prove(name: str, uri: str | None, on_step: Callable[[ProbeStep], None]) -> ProbeReport:
    """Have a stand-in guest try it. Raises `Failed` if what depends on this host fails."""
    report = probe(ProbeTarget(kind="network", name=name, connection=uri), on_step=on_step)
    for step in report.steps:
        if step.verdict == "failed" and step.name in ESSENTIAL:
            raise Failed(
                f"a guest on network {name} would not be online: {step.name}",
                why=step.reason or step.detail, hint=step.hint,
            )  # fmt: skip
    return report
