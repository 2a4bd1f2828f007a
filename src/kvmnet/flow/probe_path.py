"""What was measured about ways and rivals: path MTU, latency, several DHCP servers or routers."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kvmnet.flow.probe_place import Place
from kvmnet.model.probe import Advertiser, DhcpServer, Latency, PathMtu, ProbeStep, StepName

FAR_GATEWAY_MS = 50.0
"""A gateway next door answers in less, but for a link that is slow or full."""


def path_mtu(name: StepName, found: PathMtu, ms: float) -> ProbeStep:
    """Whether large packets pass, or are at least refused aloud."""
    ip = found.ip
    if found.mtu is None:
        return ProbeStep(name=name, verdict="skipped", reason=f"{ip} answers no echo requests")
    evidence = (f"MTU of the guest's own NIC: {found.first_hop}",)
    if not found.black_hole:
        narrow = " (a router on the way says so)" if found.reported else ""
        return ProbeStep(
            name=name, verdict="ok", ms=ms, evidence=evidence,
            detail=f"{found.mtu} bytes to {ip}{narrow}",
        )  # fmt: skip
    said = "packet too big" if ":" in ip else "fragmentation needed"
    return ProbeStep(
        name=name, verdict="failed", ms=ms, evidence=evidence,
        detail=f"black hole: packets over {found.mtu} bytes to {ip} vanish",
        reason=f'no router says "{said}": large transfers hang',
        hint=f"give the network this MTU: {found.mtu}, or let ICMP{'v6' if ':' in ip else ''} "
        "through on the way",
    )  # fmt: skip


def latency(found: Sequence[Latency], ms: float) -> ProbeStep:
    """The first of `found` is the gateway, if there is one that answers."""
    shown = [_latency(x) for x in found]
    lost = [x for x in found if 0 < x.received < x.sent]
    far = [x for x in found[:1] if x.avg_ms is not None and x.avg_ms > FAR_GATEWAY_MS]
    reasons = [f"{x.lost} of {x.sent} echo requests to {x.ip} were lost" for x in lost]
    reasons += [f"{x.ip} is next door, but answers after {x.avg_ms:.0f} ms" for x in far]
    return ProbeStep(
        name="latency", verdict="warn" if reasons else "ok", ms=ms, detail="; ".join(shown),
        reason="; ".join(reasons),
        hint="a link on the way is full or slow, or drops: look at ip -s link, tc -s qdisc"
        if reasons else "",
    )  # fmt: skip


def _latency(found: Latency) -> str:
    if found.min_ms is None:
        return f"{found.ip} lost all {found.sent}"
    times = f"{found.min_ms:.1f}/{found.avg_ms:.1f}/{found.max_ms:.1f} ms"
    return f"{found.ip} {times}, {found.lost} of {found.sent} lost"


def marked_servers(place: Place, found: Sequence[DhcpServer]) -> tuple[DhcpServer, ...]:
    """The same, each with whether it is the one that should answer."""
    return tuple(
        msgspec.structs.replace(x, expected=_server_expected(place, x, found)) for x in found
    )


def _server_expected(place: Place, server: DhcpServer, found: Sequence[DhcpServer]) -> bool | None:
    if place.dhcp_ip is not None:
        # Not by its address: a network of several subnets answers from any of them.
        return server.mac == place.bridge_mac
    if any(x.mac == place.bridge_mac for x in found):
        return server.mac == place.bridge_mac
    if any(x.ip == place.gateway for x in found):
        return server.ip == place.gateway
    return None


def dhcp_servers(place: Place, found: Sequence[DhcpServer], ms: float) -> ProbeStep:
    """One server, and the right one."""
    if not found:
        return ProbeStep(name="dhcp-servers", verdict="skipped", reason="no server made an offer")
    shown = [f"{x.ip} ({x.mac})" for x in found]
    evidence = tuple(
        f"{x.ip} ({x.mac}) offered {x.offered} after {x.ms:.0f} ms, "
        f"router {x.router or 'none'}{_role(x.expected)}"
        for x in found
    )
    strange = [x for x in found if x.expected is False]
    if not strange and len(found) == 1:
        return ProbeStep(name="dhcp-servers", verdict="ok", ms=ms, evidence=evidence,
                         detail=f"only {shown[0]}")  # fmt: skip
    reason = "a guest takes whichever offer comes first, with its router and DNS server"
    if strange:
        reason = f"{', '.join(x.ip for x in strange)} should not be here: {reason}"
    port = f"find it: bridge fdb show br {place.bridge} | grep {(strange or found)[0].mac}"
    return ProbeStep(
        name="dhcp-servers", verdict="failed" if strange and place.dhcp_ip else "warn", ms=ms,
        evidence=evidence, detail=f"{len(found)} DHCP servers: {', '.join(shown)}"
        if len(found) > 1 else f"the only one is {shown[0]}", reason=reason, hint=port,
    )  # fmt: skip


def _role(expected: bool | None) -> str:
    return {True: ", expected here", False: ", not expected here", None: ""}[expected]


def marked_routers(place: Place, found: Sequence[Advertiser]) -> tuple[Advertiser, ...]:
    """The same, each with whether it is the one that should advertise itself."""
    return tuple(
        msgspec.structs.replace(x, expected=_router_expected(place, x, found)) for x in found
    )


def _router_expected(place: Place, router: Advertiser, found: Sequence[Advertiser]) -> bool | None:
    if place.ipv6 == "none":
        return False
    if place.ipv6 == "host" or any(x.mac == place.bridge_mac for x in found):
        return router.mac == place.bridge_mac
    if any(x.ip == place.gateway6 for x in found):
        return router.ip == place.gateway6
    return None


def routers6(place: Place, found: Sequence[Advertiser], ms: float) -> ProbeStep:
    """One default router, and the right one. Called only if one advertised itself at all."""
    shown = [f"{x.ip} ({x.mac})" for x in found]
    evidence = tuple(
        f"{x.ip} ({x.mac}), {'a' if x.default else 'no'} default router, "
        f"prefixes {', '.join(x.prefixes) or 'none'}{_role(x.expected)}"
        for x in found
    )
    strange = [x for x in found if x.expected is False]
    defaults = [x for x in found if x.default]
    if not strange and len(defaults) <= 1:
        return ProbeStep(name="ipv6-routers", verdict="ok", ms=ms, evidence=evidence,
                         detail=f"only {', '.join(shown)}")  # fmt: skip
    reason = "guests take addresses and default routes from every router that advertises itself"
    if strange:
        reason = f"{', '.join(x.ip for x in strange)} should not be here: {reason}"
    certain = bool(strange) and place.ipv6 != "unknown"
    return ProbeStep(
        name="ipv6-routers", verdict="failed" if certain else "warn", ms=ms, evidence=evidence,
        detail=f"{len(found)} IPv6 router{'s' if len(found) > 1 else ''}: {', '.join(shown)}",
        reason=reason,
        hint=f"find it: bridge fdb show br {place.bridge} | grep {(strange or found)[0].mac}",
    )  # fmt: skip
