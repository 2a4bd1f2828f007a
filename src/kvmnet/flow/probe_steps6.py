"""What the results of a probe's IPv6 steps mean: each function turns them into one step."""

from __future__ import annotations

from kvmnet.flow.probe_place import Place
from kvmnet.model.probe import Advertiser, Endpoint, ProbeStep
from kvmnet.model.reached import ConnectResult, MacResult, PingResult
from kvmnet.model.standin import Lease6Result, RouterResult
from kvmnet.model.values import Ip


def ipv6(place: Place, found: RouterResult, asked: Lease6Result | None, ms: float) -> ProbeStep:
    """The router's advertisement, and the address by autoconfiguration or DHCPv6 as it says."""
    router = found.router
    if router is None:
        return _no_router(place, found.waited_ms, ms)
    evidence = (
        f"router {router.ip} ({router.mac}), advertised after {router.ms:.0f} ms",
        f"prefixes {', '.join(router.prefixes) or 'none'}; "
        f"{'a' if router.default else 'no'} default router; "
        f"addresses by {_ways(router)}; MTU {router.mtu or 'not told'}",
    )
    leased = asked.lease.address if asked is not None and asked.lease is not None else None
    got = [*found.addresses, *([leased] if leased is not None else [])]
    if router.managed and leased is None:
        return _no_lease(asked, got, evidence, ms)
    if router.prefixes and not got:
        return ProbeStep(
            name="ipv6", verdict="failed", ms=ms, evidence=evidence,
            detail="a prefix is advertised but gave no address",
            reason="the prefix is not a /64, or its lifetime is over",
        )  # fmt: skip
    if not router.default:
        return ProbeStep(
            name="ipv6", verdict="ok" if not place.leads_out else "warn", ms=ms,
            evidence=evidence, detail=", ".join(got) or "no address of its own",
            reason="the router offers no default route: guests reach only this network",
        )  # fmt: skip
    how = f"{', '.join(got)} from {router.ip}" if got else f"no address of its own from {router.ip}"
    return ProbeStep(name="ipv6", verdict="ok", ms=ms, evidence=evidence, detail=how)


def _ways(router: Advertiser) -> str:
    ways = ["DHCPv6"] if router.managed else []
    ways += ["autoconfiguration"] if router.prefixes else []
    return " and ".join(ways) or "neither autoconfiguration nor DHCPv6"


def _no_router(place: Place, waited_ms: float, ms: float) -> ProbeStep:
    if place.ipv6 == "host":
        return ProbeStep(
            name="ipv6", verdict="failed", ms=ms,
            detail=f"no router advertised itself within {waited_ms:.0f} ms",
            reason="the network has an IPv6 subnet, but its dnsmasq advertises nothing, or a "
            "firewall drops ICMPv6", hint=f"look: nft list ruleset | grep -e icmpv6 -e "
            f"{place.bridge}; sysctl net.ipv6.conf.{place.bridge}.disable_ipv6",
        )  # fmt: skip
    reason = f"no router advertised itself within {waited_ms:.0f} ms"
    if place.ipv6 == "none":
        reason = "the network has no IPv6 subnet, and no router advertised itself"
    return ProbeStep(name="ipv6", verdict="skipped", ms=ms, reason=reason)


def _no_lease(
    asked: Lease6Result | None, got: list[Ip], evidence: tuple[str, ...], ms: float
) -> ProbeStep:
    solicits = 0 if asked is None else asked.solicits
    refusal = "" if asked is None else asked.refusal
    also = f"; autoconfiguration gave {', '.join(got)}" if got else ""
    return ProbeStep(
        name="ipv6", verdict="warn" if got else "failed", ms=ms,
        evidence=(*evidence, f"{solicits} DHCPv6 SOLICIT sent"),
        detail=f"the router says that addresses come by DHCPv6, and none came{also}",
        reason=refusal or "no DHCPv6 server answered",
        hint="" if refusal else "is a DHCPv6 server running, and does the firewall let UDP port "
        "547 in?",
    )  # fmt: skip


def address6(ip: Ip, result: MacResult, ms: float) -> ProbeStep:
    """Whether somebody else has the address."""
    if result.mac is None:
        return ProbeStep(name="address6", verdict="ok", ms=ms, detail=f"nobody else uses {ip}")
    return ProbeStep(
        name="address6", verdict="failed", ms=ms,
        detail=f"{ip} is already used by {result.mac}",
        evidence=(f"neighbour solicitation for {ip} answered by {result.mac}",),
        reason="two machines have one address: packets go to either",
        hint="take it off that machine, or out of the DHCPv6 range",
    )  # fmt: skip


def gateway6(ip: Ip, answer: PingResult, neighbour: MacResult, ms: float) -> ProbeStep:
    if answer.ms is not None:
        return ProbeStep(
            name="gateway6", verdict="ok", ms=ms, detail=f"{ip} answered in {answer.ms:.1f} ms"
        )
    if neighbour.mac is not None:
        return ProbeStep(
            name="gateway6", verdict="warn", ms=ms,
            detail=f"{ip} is {neighbour.mac}, but answers no echo requests",
            reason=answer.error or "its firewall drops them",
        )  # fmt: skip
    return ProbeStep(
        name="gateway6", verdict="failed", ms=ms,
        detail=f"{ip} advertised itself, but answers no neighbour solicitation",
        reason="it went away, or multicast frames are lost: multicast snooping without a querier "
        "does this", hint="look: cat /sys/class/net/BRIDGE/bridge/multicast_snooping",
    )  # fmt: skip


def target6(
    place: Place, to: Endpoint, ip: Ip, result: PingResult | ConnectResult, ms: float
) -> ProbeStep:
    shown = str(to) if to.host == ip else f"{to} ({ip})"
    connects = isinstance(result, ConnectResult)
    if result.ms is not None:
        what = "connected" if connects else "answered"
        return ProbeStep(
            name="target6", verdict="ok", ms=ms, detail=f"{shown} {what} in {result.ms:.1f} ms"
        )
    reason = f"the network says: {result.error}" if result.error else "nothing came back"
    hint = "a firewall may drop them, or the way back is missing: nft list ruleset, ip -6 route"
    config = place.config
    if result.error == "Connection refused":
        reason = "it is there, but nothing listens on that port, or a firewall refuses"
        hint = f"look on {to.host}: ss -ltn"
    elif config is not None and config.mode in {"nat", "route", "open"}:
        hint = (
            "libvirt translates no IPv6 addresses unless told so (<nat ipv6='yes'>): the LAN's "
            "router needs a route to this prefix"
        )
    return ProbeStep(
        name="target6", verdict="failed", ms=ms,
        detail=f"{'no connection to' if connects else 'no answer from'} {shown}", reason=reason,
        hint=hint,
    )  # fmt: skip
