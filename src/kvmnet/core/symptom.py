"""What names of symptoms have in common: the step as evidence, whom it hits, the last word."""

from __future__ import annotations

import msgspec

from kvmnet.core.causes import with_evidence
from kvmnet.core.finding import Finding, some
from kvmnet.core.probed import Probed, Symptom
from kvmnet.core.scope import Place
from kvmnet.model.probe import ProbeStep


def finding_of(name: str, probed: Probed, step: ProbeStep, what: str, breaks: str = "") -> Finding:
    """A problem, with what the step saw as evidence and its hint as the way out."""
    place = probed.place
    reason = (step.reason,) if step.reason else ()
    return Finding(
        name=name,
        severity="problem",
        subject=f"{place.kind} {place.name}",
        what=what,
        breaks=breaks or f"{users(place)}: {step.name}",
        evidence=(f"probe of {place}, step {step.name}: {step.detail}", *reason, *step.evidence),
        fix=(f"kvmnet probe {place} --evidence",),
    )


def users(place: Place) -> str:
    """Whom it hits, for a sentence."""
    if not place.guests:
        return f"guests on {place}"
    return f"guests on {place} ({some(place.guests)})"


def unexplained(probed: Probed, step: ProbeStep, what: str) -> Symptom:
    """The last word where nothing explains it: where the packets were seen last."""
    place, way = probed.place, probed.way
    seen = f"; its packets were last seen at {way.last_seen}" if way.last_seen else ""
    finding = finding_of(
        "firewall-drop" if way.by_rule else "unexplained-loss", probed, step,
        f"{what}: {way.verdict}" if way.verdict else f"{what}{seen}",
        f"{users(place)} can not do this: {step.detail}",
    )  # fmt: skip
    if way.hint:
        finding = msgspec.structs.replace(finding, fix=(way.hint,))
    return Symptom(step=step.name, finding=with_evidence(finding, *way.lines))
