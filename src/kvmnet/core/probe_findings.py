"""From what stand-in guests went through to findings.

A step that failed is first held against what the State shows: a finding that explains it takes the
step as evidence. Where none does, the step has a name of its own (`core/probe_symptoms.py`); the
last one is `unexplained-loss`, which says where the packets were seen last.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kvmnet.core.causes import explains, folded, united, with_evidence
from kvmnet.core.finding import Finding
from kvmnet.core.findings import SYMPTOM_NAMES, is_explained
from kvmnet.core.guest_symptoms import guest_symptoms
from kvmnet.core.probe_symptoms import symptoms
from kvmnet.core.probed import Probed, Symptom
from kvmnet.core.scope import Concern, Scope, concern_of, way_out
from kvmnet.core.symptoms_beyond import WAY_OUT
from kvmnet.model.state import State


def merge(
    state: State,
    found: tuple[Finding, ...],
    probes: tuple[Probed, ...],
    by_design: tuple[Finding, ...] = (),
) -> tuple[Finding, ...]:
    """All findings, the worst first: those of the State, and of probes what they do not explain.

    `by_design` is what is no fault in itself; where a probe fails for it, it tells the way out.
    """
    disproved = {x for y in probes for x in _disproved(y)}
    findings = [x for x in found if (x.name, x.subject) not in disproved]
    for probed in probes:
        if probed.report is None:
            continue
        place = probed.place
        concern = concern_of(state, Scope(kind=place.kind, name=place.name)) or Concern()
        for symptom in symptoms(state, probed):
            symptom = _as_designed(symptom, by_design)
            about = way_out(state) if symptom.step == WAY_OUT else concern
            _take_in(findings, symptom, about, f"the probe of {place} shows it")
        if place.guest:
            about = concern_of(state, Scope(kind="guest", name=place.guest)) or Concern()
            for symptom in guest_symptoms(probed):
                _take_in(findings, symptom, about, f"the probe of guest {place.guest} shows it")
    return folded(_without_explained(state, findings))


def _as_designed(symptom: Symptom, by_design: tuple[Finding, ...]) -> Symptom:
    new = symptom.finding
    for design in by_design:
        if (design.name, design.subject) == (new.name, new.subject):
            more = united(new, design)
            fixed = msgspec.structs.replace(more, fix=design.fix or more.fix)
            return msgspec.structs.replace(symptom, finding=fixed)
    return symptom


def _disproved(probed: Probed) -> Iterator[tuple[str, str]]:
    """What the State only made likely, and a lease that a stand-in got shows to be otherwise."""
    report = probed.report
    if report is not None and report.lease is not None:
        yield ("mac-locked-uplink", f"bridge {probed.place.bridge}")


def _without_explained(state: State, found: list[Finding]) -> list[Finding]:
    """Without symptoms that the State shows, where a probe has shown their cause since."""
    causes = [x for x in found if x.severity != "note" and x.name not in SYMPTOM_NAMES]
    return [
        x for x in found
        if x.name not in SYMPTOM_NAMES or x.severity == "problem"
        or not is_explained(state, x, causes)
    ]  # fmt: skip


def _take_in(findings: list[Finding], symptom: Symptom, concern: Concern, where: str) -> None:
    """Add what a probe showed, or make it evidence of what is known already."""
    new = symptom.finding
    for number, known in enumerate(findings):
        if (known.name, known.subject) == (new.name, new.subject):
            findings[number] = united(known, new)
            return
        if not symptom.certain and explains(known, symptom.step, concern):
            findings[number] = with_evidence(known, f"{where}: {new.what}")
            return
    findings.append(new)
