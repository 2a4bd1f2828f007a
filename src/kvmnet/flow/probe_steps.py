"""What the results of a probe mean: each function turns what was measured into one step."""

from __future__ import annotations

from ipaddress import IPv4Address

from kvmnet.core.subnets import is_beyond
from kvmnet.flow.probe_place import Place
from kvmnet.model.probe import Endpoint, ProbeLease, ProbeStep
from kvmnet.model.reached import ConnectResult, MacResult, NameResult, PingResult
from kvmnet.model.standin import LeaseResult
from kvmnet.model.values import Ip

SLOW_MS = 1000.0
"""From here on a wait is worth a word: people notice it."""
_ISOLATED = "The network is isolated, by design: guests reach each other and this host only"
DNSMASQ_PING_MS = 2900.0
"""dnsmasq pings a dynamic address for three seconds before it offers it."""


def link(place: Place, ms: float, state: str) -> ProbeStep:
    """How long the bridge's port took until it forwarded; `state` is its last one."""
    if place.beside is not None:
        return _beside(place, ms, state)
    spanning = f"STP {'on' if place.stp else 'off'}, forward delay {place.forward_delay_s:g} s"
    mirrored = (
        (f"like the guest's own port: {', '.join(place.mirrored)}",) if place.mirrored else ()
    )
    evidence = (f"bridge {place.bridge}: {spanning}", f"port state: {state or 'none'}", *mirrored)
    if not place.up:
        return ProbeStep(
            name="link", verdict="failed", ms=ms, evidence=evidence,
            detail=f"the bridge {place.bridge} is down", reason="nothing passes a bridge that is "
            "switched off", hint=f"ip link set {place.bridge} up",
        )  # fmt: skip
    if state != "forwarding":
        return ProbeStep(
            name="link", verdict="failed", ms=ms, evidence=evidence,
            detail=f"the port of {place.bridge} does not forward: {state or 'it is gone'}",
            reason="spanning tree blocks it" if place.stp else "the kernel keeps it closed",
            hint=f"look: bridge -d link show master {place.bridge}",
        )  # fmt: skip
    slow = ms >= SLOW_MS
    return ProbeStep(
        name="link", verdict="warn" if slow else "ok", ms=ms, evidence=evidence,
        detail=f"plugged into {place.bridge}, forwards after {ms / 1000:.2f} s",
        reason=f"spanning tree listens and learns for {place.forward_delay_s:g} s each before a "
        "new port forwards" if slow and place.stp else "",
        hint=f"ip link set {place.bridge} type bridge stp_state 0" if slow and place.stp else "",
    )  # fmt: skip


def _beside(place: Place, ms: float, state: str) -> ProbeStep:
    there = state == "forwarding"
    return ProbeStep(
        name="link", verdict="ok" if there else "failed", ms=ms,
        detail=f"a macvlan in mode {place.beside} on {place.bridge}" if there
        else f"{place.bridge} has no carrier",
        evidence=("a macvlan and the host do not see each other, all others on the LAN do",),
        hint="" if there else f"look: ip link show {place.bridge}",
    )  # fmt: skip


def dhcp(place: Place, result: LeaseResult, ms: float) -> ProbeStep:
    """The lease, or what kept the stand-in from getting one."""
    if result.outcome == "bound" and result.lease is not None:
        return _bound(result, result.lease, ms)
    if result.outcome == "silent":
        return _silent(place, result, ms)
    servers = ", ".join(dict.fromkeys(x.ip for x in result.servers))
    offered = result.lease.address if result.lease is not None else "an address"
    if result.outcome == "refused":
        return ProbeStep(
            name="dhcp", verdict="failed", ms=ms, detail=f"{servers} offered {offered}, then "
            "refused it (NAK)", reason=result.message or "the server gave no reason",
            evidence=(f"{result.requests} REQUEST sent, NAK received",),
            hint="look at the DHCP server's log; two servers with different ideas of the subnet "
            "do this",
        )  # fmt: skip
    return ProbeStep(
        name="dhcp", verdict="failed", ms=ms,
        detail=f"{servers} offered {offered} but never confirmed it",
        evidence=(f"{result.requests} REQUEST sent, neither ACK nor NAK received",),
        reason="the server stopped in the middle, or its answer is filtered on the way",
        hint="look at the DHCP server's log",
    )  # fmt: skip


def _bound(result: LeaseResult, lease: ProbeLease, ms: float) -> ProbeStep:
    offer_ms = result.offer_ms or 0.0
    doubts = []
    if lease.bad_checksum:
        doubts.append("bad-checksum: the server's UDP checksums are wrong, some guests drop them")
    if offer_ms >= DNSMASQ_PING_MS:
        doubts.append("the server waits before it offers: dnsmasq pings a dynamic address for 3 s")
    elif offer_ms >= SLOW_MS:
        doubts.append("the server is slow to offer")
    evidence = (
        f"server {lease.server} ({lease.server_mac})", f"router {lease.router or 'none'}",
        f"DNS {', '.join(lease.dns) or 'none'}", f"domain {lease.domain or 'none'}",
        f"MTU {lease.mtu or 'not offered'}", f"lease time {lease.lease_s or 'unknown'} s",
        f"offer after {offer_ms:.0f} ms, {result.discovers} DISCOVER, {result.requests} REQUEST",
        f"UDP checksum {'wrong' if lease.bad_checksum else 'right, or left to the hardware'}",
    )  # fmt: skip
    return ProbeStep(
        name="dhcp", verdict="warn" if doubts else "ok", ms=ms, evidence=evidence,
        detail=f"{lease.address}/{lease.prefix_len} from {lease.server}", reason="; ".join(doubts),
    )  # fmt: skip


def _silent(place: Place, result: LeaseResult, ms: float) -> ProbeStep:
    evidence = [f"{result.discovers} DISCOVER sent, no OFFER; the bridge's port forwards"]
    config = place.config
    reason, hint = "nobody on this bridge answers DHCP", "is there a DHCP server on that LAN?"
    if config is not None and config.mode != "bridge" and place.network is not None:
        room = _room(place)
        evidence.append(
            f"network {place.network.name}: {place.leases} leases, room for {room} dynamic ones"
        )
        if room == 0 and not any(x.reservations for x in config.ips):
            reason = "the network gives out no addresses: it has no DHCP range"
            hint = f"look at its definition: virsh net-dumpxml {place.network.name}"
        elif room <= place.leases:
            reason = "the range is full: dnsmasq is silent when it has no address available"
            hint = f"widen the DHCP range: virsh net-edit {place.network.name}"
        else:
            reason = "its dnsmasq is not running, or a firewall drops UDP port 67 to the host"
            hint = f"look: ss -lunp sport = :67; nft list ruleset | grep {place.bridge}"
    return ProbeStep(
        name="dhcp", verdict="failed", ms=ms, detail="no DHCP server answered",
        evidence=tuple(evidence), reason=reason, hint=hint,
    )  # fmt: skip


def _room(place: Place) -> int:
    config = place.config
    ranges = [y for x in config.ips if x.family == 4 for y in x.ranges] if config else []
    return sum(int(IPv4Address(x.end)) - int(IPv4Address(x.start)) + 1 for x in ranges)


def address(lease: ProbeLease, result: MacResult, ms: float) -> ProbeStep:
    """Whether somebody else has the leased address."""
    if result.mac is None:
        return ProbeStep(name="address", verdict="ok", ms=ms, detail="nobody else uses it")
    return ProbeStep(
        name="address", verdict="failed", ms=ms,
        detail=f"{lease.address} is already used by {result.mac}",
        evidence=(f"ARP probe for {lease.address} answered by {result.mac}",),
        reason="that machine has the address without the DHCP server knowing",
        hint="take the address out of the DHCP range, or off that machine",
    )  # fmt: skip


def gateway(ip: Ip, result: MacResult, ms: float) -> ProbeStep:
    if result.mac is not None:
        return ProbeStep(name="gateway", verdict="ok", ms=ms, detail=f"{ip} is {result.mac}")
    return ProbeStep(
        name="gateway", verdict="failed", ms=ms, detail=f"{ip} does not answer ARP",
        reason="the router that the DHCP server names is not on this network",
        hint="compare the network's router option with the addresses of the host or LAN router",
    )  # fmt: skip


def host(ip: Ip, result: PingResult, neighbour: MacResult, ms: float) -> ProbeStep:
    if result.ms is not None:
        return ProbeStep(
            name="host", verdict="ok", ms=ms, detail=f"{ip} answered in {result.ms:.1f} ms"
        )
    seen = neighbour.mac is not None
    return ProbeStep(
        name="host", verdict="warn" if seen else "failed", ms=ms,
        detail=f"{ip} does not answer echo requests", evidence=_ping_evidence(result),
        reason=f"it is there ({neighbour.mac}), but its firewall drops them" if seen else
        "it does not even answer ARP",
        hint="look: nft list ruleset" if seen else "look: ip -br address",
    )  # fmt: skip


def _ping_evidence(result: PingResult) -> tuple[str, ...]:
    said = f", the network says: {result.error}" if result.error else ""
    return (f"{result.sent} echo requests sent{said}",)


def dns(place: Place, server: Ip, name: str, result: NameResult, ms: float) -> ProbeStep:
    asked = "the root" if name == "." else name
    if result.code in ("NOERROR", "NXDOMAIN") and (name == "." or result.addresses):
        found = f": {', '.join(result.addresses[:3])}" if result.addresses else ""
        return ProbeStep(
            name="dns", verdict="ok", ms=ms, detail=f"{server} answered {result.code}{found}",
            evidence=(f"asked for {asked}, answer after {result.ms or 0:.1f} ms",),
        )  # fmt: skip
    if result.alive_ms is None:
        return ProbeStep(
            name="dns", verdict="failed", ms=ms, detail=f"{server} does not answer",
            reason=result.error or "nothing came back from UDP port 53",
            hint="is the DNS server running, and does the firewall let UDP port 53 through?",
        )  # fmt: skip
    if not place.leads_out:
        return ProbeStep(  # libvirt's dnsmasq asks nobody else there
            name="dns", verdict="ok", ms=ms, detail=f"{server} answers, for names of guests only",
            evidence=(f"it says {result.code or 'nothing yet'} about {asked}",),
        )  # fmt: skip
    if result.code in ("NOERROR", "NXDOMAIN"):  # a name without an address is no fault of it
        return ProbeStep(
            name="dns", verdict="ok", ms=ms,
            detail=f"{server} answered {result.code}: {_no_address(name, result)}",
            evidence=(f"asked for {asked}, answer after {result.ms or 0:.1f} ms",),
        )  # fmt: skip
    said = result.code or "nothing yet"
    return ProbeStep(
        name="dns", verdict="failed" if name != "." else "warn", ms=ms,
        detail=f"{server} is alive but says {said} about {asked}",
        evidence=(f"first answer after {result.alive_ms:.1f} ms",),
        reason="it can not resolve names: the DNS servers that it asks itself do not answer or "
        "refuse",
        hint="look at /etc/resolv.conf where the DNS server runs",
    )  # fmt: skip


def _no_address(name: str, result: NameResult) -> str:
    return f"there is no name {name}" if result.code == "NXDOMAIN" else f"{name} has no address"


def unresolved(place: Place, to: Endpoint, server: Ip | None, result: NameResult) -> ProbeStep:
    """The step `target` where the DNS server told no address of it."""
    detail, reason = f"{to.host} could not be resolved", "the DNS step shows why"
    if not place.leads_out and result.alive_ms is not None:
        reason = f"{server} knows names of guests only. {_ISOLATED}"
    elif result.code in ("NOERROR", "NXDOMAIN"):
        detail, reason = _no_address(to.host, result), f"{server} says so ({result.code})"
    return ProbeStep(name="target", verdict="failed", detail=detail, reason=reason)


def target(
    place: Place, to: Endpoint, ip: Ip, result: PingResult | ConnectResult, ms: float, forwards: str
) -> ProbeStep:
    """`forwards` is the host's net.ipv4.ip_forward."""
    shown = str(to) if to.host == ip else f"{to} ({ip})"
    if result.ms is not None:
        what = "connected" if isinstance(result, ConnectResult) else "answered"
        return ProbeStep(
            name="target", verdict="ok", ms=ms, detail=f"{shown} {what} in {result.ms:.1f} ms"
        )
    reason = f"the network says: {result.error}" if result.error else "nothing came back"
    hint = "a firewall on the host or beyond it may drop them: nft list ruleset"
    config = place.config
    if result.error == "Connection refused":
        reason = "it is there, but nothing listens on that port, or a firewall refuses"
        hint = f"look on {to.host}: ss -ltn"
    elif config is not None and is_beyond(config, ip):
        reason, hint = _ISOLATED, "kvmnet guest move GUEST --to network:default"
    elif config is not None and config.mode != "bridge" and forwards == "0":
        hint = "the host forwards nothing: sysctl -w net.ipv4.ip_forward=1"
    elif config is not None and config.mode in {"route", "open"}:
        hint = "without NAT it needs a route back: add one for its subnet to the LAN's router"
    tried = "no connection to" if isinstance(result, ConnectResult) else "no answer from"
    return ProbeStep(
        name="target", verdict="failed", ms=ms, detail=f"{tried} {shown}", reason=reason,
        hint=hint, evidence=(f"host: net.ipv4.ip_forward = {forwards or 'unknown'}",),
    )  # fmt: skip
