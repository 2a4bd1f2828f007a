"""`kvmnet doctor --json`."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.cli.finding_view import FindingView, finding_views
from kvmnet.core.probed import Probed
from kvmnet.flow.doctor import Examination
from kvmnet.model.plan import Plan
from kvmnet.model.probe import ProbeReport
from kvmnet.model.state import Unread


class ProbedView(Struct, frozen=True, kw_only=True):
    """One place that was tried, or was to be."""

    place: str
    """`network:default`, `bridge:br0`."""
    ok: bool | None
    """None: it was not tried."""
    skipped: str
    """Why it was not."""
    report: ProbeReport | None


class DoctorDocument(Struct, frozen=True, kw_only=True):
    """`kvmnet doctor --json`."""

    format: Literal["kvmnet.doctor"] = "kvmnet.doctor"
    version: int = 1
    hostname: str
    scope: str
    """`this host`, `guest:web`, `network:default`, `bridge:br0`."""
    saved_state: bool
    """A saved State was looked at: nothing was read or tried."""
    healthy: bool | None
    """Nothing but notes; null: so it seems, but the links, the firewall or libvirt could not be
    read (`unread`)."""
    findings: tuple[FindingView, ...]
    """The worst first; after --fix those that are left."""
    checks: int
    """How many checks looked at the State."""
    probes: tuple[ProbedView, ...]
    unread: tuple[Unread, ...]
    plan: Plan | None
    """With --fix: what was done, or with --dry-run would be."""
    applied: bool


def document(
    examined: Examination, plan: Plan | None, *, applied: bool, from_file: bool
) -> DoctorDocument:
    return DoctorDocument(
        hostname=examined.state.hostname,
        scope=str(examined.scope),
        saved_state=from_file,
        healthy=examined.healthy,
        findings=finding_views(examined.findings),
        checks=examined.checks,
        probes=tuple(map(_view, examined.probes)),
        unread=examined.state.unread,
        plan=plan,
        applied=applied,
    )


def _view(probed: Probed) -> ProbedView:
    report = probed.report
    return ProbedView(
        place=str(probed.place),
        ok=None if report is None else report.ok,
        skipped=probed.skipped,
        report=report,
    )
