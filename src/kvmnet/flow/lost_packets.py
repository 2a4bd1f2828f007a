"""Follows what a stand-in guest sent in vain, where nothing that is known explains it."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from kvmnet.core.dhcp_way import Way
from kvmnet.core.finding import Finding
from kvmnet.core.probed import Probed
from kvmnet.core.proofs import default_gateway
from kvmnet.core.vlans import of_port
from kvmnet.errors import KvmnetError
from kvmnet.model.probe import Endpoint, ProbeReport
from kvmnet.model.state import State
from kvmnet.model.trace import Protocol, TraceReport, TraceRequest, TraceSource

MOST = 3
"""Traces of one diagnosis: each takes one to two seconds."""
TRACE_S = 10.0
"""One trace at the most, on a host that is slow."""
UNEXPLAINED = frozenset({"unexplained-loss", "dns-silent", "router-absent"})
_MOST_HOPS = 12


class _Sent(NamedTuple):
    """What to send once more."""

    to: Endpoint
    protocol: Protocol


def followed(
    state: State, probes: tuple[Probed, ...], findings: tuple[Finding, ...]
) -> tuple[Probed, ...]:
    """The probes, those that ended unexplained with the way of a packet that was followed."""
    names = {x.subject for x in findings if x.name in UNEXPLAINED}
    left = MOST
    done = []
    for probed in probes:
        sent = _lost(state, probed)
        subject = f"{probed.place.kind} {probed.place.name}"
        here = not _in_other_vlan(state, probed)  # a trace's stand-in is where a new port would be
        if here and sent is not None and left and subject in names and not probed.way.last_seen:
            left -= 1
            probed = msgspec.structs.replace(probed, way=_follow(probed, sent))
        done.append(probed)
    return tuple(done)


def _in_other_vlan(state: State, probed: Probed) -> bool:
    place = probed.place
    guest = state.guest(place.guest) if place.guest else None
    link = state.link(place.bridge)
    if guest is None or link is None or link.bridge is None or not link.bridge.vlan_filtering:
        return False
    there = of_port(state, guest.live_nics[place.nic - 1].target or "")
    return there is not None and there.pvid != link.bridge.default_pvid


def _lost(state: State, probed: Probed) -> _Sent | None:
    """The first that got no answer, of what can be sent again."""
    report = probed.report
    if report is None:
        return None
    failed = {x.name for x in report.steps if x.verdict == "failed"}
    if "host" in failed:
        own = [x.ip for x in state.addresses if x.link == probed.place.bridge and x.family == 4]
        return _Sent(Endpoint(host=own[0]), "icmp") if own else None
    if "dns" in failed and report.lease is not None and report.lease.dns:
        return _Sent(Endpoint(host=report.lease.dns[0], port=53), "udp")
    for name, family in (("target", 4), ("target6", 6)):
        if name in failed:
            return _beyond(state, report, family)
    return None


def _beyond(state: State, report: ProbeReport, family: int) -> _Sent | None:
    to = report.target.to
    if to is None:
        gateway = default_gateway(state, family)
        to = Endpoint(host=gateway) if gateway is not None else None
    return None if to is None else _Sent(to, "tcp" if to.port is not None else "icmp")


def _follow(probed: Probed, sent: _Sent) -> Way:
    from kvmnet.flow.trace import trace  # late: it is rarely needed, and not small

    place = probed.place
    request = TraceRequest(
        source=TraceSource(kind=place.kind, name=place.name), to=sent.to, protocol=sent.protocol,
        reply=True, connection=place.connection,
    )  # fmt: skip
    try:
        report = trace(request)
    except KvmnetError as error:
        return Way(lines=(f"it could not be followed: {error}",))
    return _way(report)


def _way(report: TraceReport) -> Way:
    hops = tuple(f"{x.where}: {x.what}" if x.where else x.what for x in report.hops[:_MOST_HOPS])
    lines = (f"a packet that was followed ({report.flow}): {report.verdict}", *hops)
    if report.ok:
        more = "one packet that was followed got its answer: only some are lost, or only others"
        return Way(lines=(more, *lines))
    return Way(
        lines=lines,
        last_seen=report.last_seen,
        verdict=report.verdict,
        hint=report.hint,
        by_rule=report.rule is not None,
    )
