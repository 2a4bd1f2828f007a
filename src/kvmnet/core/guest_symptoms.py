"""What a probe of one guest shows of that guest: what its own steps are called if they fail."""

from __future__ import annotations

from collections.abc import Iterator

from kvmnet.core.finding import Finding, Severity
from kvmnet.core.guest_steps import STEPS
from kvmnet.core.probed import Probed, Symptom
from kvmnet.model.probe import ProbeStep


def guest_symptoms(probed: Probed) -> Iterator[Symptom]:
    """What did not go well with the guest, in the order of the steps."""
    report = probed.report
    if report is None or not probed.place.guest:
        return
    bad = {x.name for x in report.steps if x.verdict == "failed"}
    for step in report.steps:
        if step.name not in STEPS or step.verdict not in {"failed", "warn"}:
            continue
        if step.name == "inside-target" and bad & {"target", "dhcp", "address", "link"}:
            continue  # the stand-in beside it fares no better: that is not the guest's fault
        finding = _named(probed, step)
        if finding is not None:
            yield Symptom(step=step.name, finding=finding)


def _named(probed: Probed, step: ProbeStep) -> Finding | None:
    match step.name, step.verdict:
        case "guest", "failed":
            return _finding("guest-not-running", probed, step, "it has no network while it stands")
        case (("cable" | "tap" | "port"), "failed"):
            return _finding("guest-unplugged", probed, step, "it has no network by this NIC")
        case "answers", "failed":
            return _finding("guest-silent", probed, step, "nobody reaches it at this address")
        case "inside-address", "failed":
            return _finding("guest-no-address", probed, step, "it reaches nobody by this NIC")
        case "inside-routes", "failed":
            return _finding("guest-no-route", probed, step, "it reaches its own subnet alone")
        case "inside-dns", "warn":
            return _finding("guest-no-dns", probed, step, "it can not resolve names", "warning")
        case "inside-target", "failed":
            return _finding("guest-blocks", probed, step, "a stand-in beside it gets there: it is "
                            "the guest's own firewall, route or address")  # fmt: skip
        case _:
            return None


def _finding(
    name: str, probed: Probed, step: ProbeStep, breaks: str, severity: Severity = "problem"
) -> Finding:
    place = probed.place
    reason = (step.reason,) if step.reason else ()
    return Finding(
        name=name,
        severity=severity,
        subject=f"guest {place.guest}",
        what=f"NIC {place.nic}: {step.detail}",
        breaks=breaks,
        evidence=(f"probe of guest:{place.guest}, step {step.name}", *reason, *step.evidence),
        fix=(step.hint,) if step.hint else (),
    )
