"""A finding as JSON documents show it: without the steps that mend it, which may be long."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from kvmnet.core.finding import Finding, Severity
from kvmnet.core.looking import split


class FindingView(Struct, frozen=True, kw_only=True):
    """One thing that is wrong, or will be."""

    name: str
    """The problem's stable name, for example `network-inactive`."""
    severity: Severity
    """problem: something does not work now. warning: it will fail. note: good to know."""
    subject: str
    what: str
    breaks: str = ""
    """What does not work because of it, and for whom."""
    evidence: tuple[str, ...] = ()
    fix: tuple[str, ...] = ()
    """Commands that mend it, one after the other; empty where people have to decide."""
    lasts: str = ""
    """Where these do not outlast a boot: until when they hold, and what keeps it so."""
    look: tuple[str, ...] = ()
    """Commands that change nothing and tell more of it."""
    fixable: bool = False
    """Whether `kvmnet doctor --fix` mends it."""


def finding_views(findings: Iterable[Finding]) -> tuple[FindingView, ...]:
    return tuple(
        FindingView(
            name=x.name,
            severity=x.severity,
            subject=x.subject,
            what=x.what,
            breaks=x.breaks,
            evidence=x.evidence,
            fix=split(x.fix)[0],
            look=split(x.fix)[1],
            lasts=x.lasts,
            fixable=bool(x.mend),
        )
        for x in findings
    )
