"""Which finding explains what: one cause is one finding, and its consequences are its evidence."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from kvmnet.core.finding import Finding
from kvmnet.core.guest_steps import STEPS
from kvmnet.core.scope import Concern, concerns

NO_LOSS = frozenset(
    {"nic-not-saved", "address-unknown", "macvtap-host", "bridge-mac-differs", "no-dhcp",
     "gateway-silent", "bridge-helper-acl", "guests-before-bridge", "resolver-blocked",
     "filter-address", "guest-link-down", "tap-down", "vlan-missing", "publish-incomplete",
     "target-silent", "name-unknown"}
)  # fmt: skip
"""Findings that keep no packet of a stand-in guest from its goal."""

ONLY: dict[str, frozenset[str]] = {
    "stp-delay": frozenset({"link", "dhcp", "way-out"}),
    "accept-ra": frozenset({"ipv6", "gateway6", "dns6", "target6", "path-mtu6"}),
    "multicast-snooping": frozenset({"ipv6", "address6", "gateway6", "ipv6-routers"}),
    "publish-rejected": frozenset({"way-in", "way-in-by-host"}),
    "bad-checksum": frozenset({"dhcp"}),
    "rogue-dhcp": frozenset({"dhcp", "gateway", "dns", "target"}),
    "address-conflict": frozenset({"address"}),
    "duplicate-identity": frozenset({"address", "dhcp"}),
    "dns-port-taken": frozenset({"dns", "dhcp"}),
    "input-drop-dhcp": frozenset({"dhcp", "dns", "host"}),
    "mtu-black-hole": frozenset({"path-mtu"}),
    "mtu-mismatch": frozenset({"path-mtu", "path-mtu6"}),
    "lro-on-port": frozenset({"target", "target6", "path-mtu", "path-mtu6"}),
    "lan-not-answered": frozenset({"target", "target6"}),
    "ip-forward-off": frozenset({"target", "target6"}),
}
"""The steps of a probe that a finding can break; a finding that is not named here: any of them."""

MAKES: dict[str, frozenset[str]] = {
    "network-inactive": frozenset(
        {"stale-bridge", "subnet-overlap", "dns-port-taken", "firewall-backend", "accept-ra"}
    ),
    "bridge-missing": frozenset({"wireless-uplink"}),
}
"""A finding, and what of the same subject is the cause of it."""

ORDER = ("problem", "warning", "note")


def explains(finding: Finding, step: str, concern: Concern) -> bool:
    """Whether the finding tells why that step of a probe of a place failed.

    `concern` is what the place depends on.
    """
    if finding.severity == "note":
        return False
    if step in STEPS and finding.subject.startswith("guest "):
        return concerns(concern, finding)
    if finding.name in NO_LOSS:
        return False
    if finding.subject.startswith("guest ") or not concerns(concern, finding):
        return False
    return step in ONLY.get(finding.name, frozenset({step}))


def with_evidence(finding: Finding, *lines: str) -> Finding:
    new = tuple(x for x in lines if x not in finding.evidence)
    return msgspec.structs.replace(finding, evidence=(*finding.evidence, *new))


def united(one: Finding, other: Finding) -> Finding:
    """Two findings of one name about one thing as one: the worse, with all that shows it."""
    worse, milder = sorted((one, other), key=lambda x: ORDER.index(x.severity))
    also = (f"also: {milder.what}",) if milder.what != worse.what else ()
    return with_evidence(
        msgspec.structs.replace(
            worse,
            breaks=worse.breaks or milder.breaks,
            lasts=worse.lasts or milder.lasts,
            fix=tuple(dict.fromkeys((*worse.fix, *milder.fix))),
            mend=(*worse.mend, *(x for x in milder.mend if x not in worse.mend)),
        ),
        *also,
        *milder.evidence,
    )


def _united(found: Iterable[Finding]) -> list[Finding]:
    every: dict[tuple[str, str], Finding] = {}
    for finding in found:
        key = (finding.name, finding.subject)
        every[key] = united(every[key], finding) if key in every else finding
    return list(every.values())


def folded(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings, worst first, those of one name and subject as one, and without those
    that another one of the same subject, or of the host as a whole, makes.
    """
    every = _united(found)
    kept = []
    for finding in every:
        about = {finding.subject, "the host"}
        causes = [x for x in every if x.name in MAKES.get(finding.name, ())
                  and x.subject in about and x.severity != "note"]  # fmt: skip
        if not causes:
            kept.append(finding)
            continue
        cause = causes[0]
        at = next(i for i, x in enumerate(every) if x is cause)
        more = with_evidence(cause, f"because of it: {finding.what}")
        worse = min(cause.severity, finding.severity, key=ORDER.index)
        more = msgspec.structs.replace(more, severity=worse)
        every[at] = more
        kept = [more if x is cause else x for x in kept]
    return tuple(sorted(kept, key=lambda x: (ORDER.index(x.severity), x.name, x.subject)))
