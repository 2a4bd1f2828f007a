"""Checks of the way between guests' networks and the rest: reverse paths, tunnels, the way back."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import NamedTuple

from kvmnet.core import mending, plugged
from kvmnet.core.finding import Finding, command, some
from kvmnet.core.lan_range import is_lan_range
from kvmnet.model.host import Link, Route
from kvmnet.model.state import State

TUNNELS = frozenset({"wireguard", "tun", "ppp", "gre", "ipip", "sit", "xfrm", "vti", "vxlan"})
"""Kinds of links that wrap packets, so that less than usual fits."""
_STOCK_RULES = frozenset({0, 32766, 32767})
_STRICT = 1


class _Way(NamedTuple):
    """A route of the main table with its prefix, read once."""

    network: ipaddress.IPv4Network
    route: Route


def rp_filter(state: State) -> Iterator[Finding]:
    """Strict reverse path filtering on a link, and whoever sends in by it is reached by another."""
    settings = {x.name: x.value for x in state.sysctls}
    general = _level(settings, "all")
    links = {x.name: x for x in state.links}
    ways = _ways(state)
    chosen = [x for x in state.rules if x.family == 4 and x.priority not in _STOCK_RULES]
    for link in state.links:
        if link.master is not None:  # its addresses are the bridge's: another problem
            continue
        own = _level(settings, link.name)
        if max(own, general) != _STRICT or not link.up or link.kind == "loopback":
            continue
        if chosen:  # the way depends on more than the destination
            wrong = _led_past(state, link, ways, links)
        else:
            wrong = _led_away(state, link, ways, links)
        if wrong is None:
            continue
        key = link.name if own == _STRICT else "all"
        drops = state.rp_filter_drops or 0
        yield Finding(
            name="rp-filter", severity="problem" if drops else "warning",
            subject=f"NIC {link.name}",
            what=f"strict reverse path filtering drops what {wrong.who} sends in by {link.name}: "
            f"it is looked for at {wrong.way.link}",
            breaks=f"answers that come in by {link.name}, to this host and to guests",
            evidence=(f"net.ipv4.conf.{key}.rp_filter = 1{_said(state, key)}",
                      f"ip route: {wrong.way.destination} dev {wrong.way.link} "
                      f"metric {wrong.way.metric}",
                      *wrong.why,
                      *((f"nstat IPReversePathFilter: {drops} packets dropped",) if drops else ())),
            fix=(command("sysctl", "-w", f"net/ipv4/conf/{link.name}/rp_filter=2"),),
            mend=(mending.set_sysctl(f"net/ipv4/conf/{link.name}/rp_filter", "2", str(own)),),
        )  # fmt: skip


def _said(state: State, link: str) -> str:
    """The file that sets it so: for that link, for all of them (sysctl.d(5)), or for new ones."""
    words = ("all", "*") if link == "all" else (link, "*", "default")
    names = [f"net.ipv4.conf.{x}.rp_filter" for x in words]
    told = [x for x in state.sysctl_files if x.name in names]
    chosen = min(told, key=lambda x: names.index(x.name), default=None)
    if chosen is None or chosen.value != str(_STRICT):
        return ""
    return f" ({chosen.path} says {chosen.name} = {chosen.value})"


class _Wrong(NamedTuple):
    """Who is looked for elsewhere, the route that leads there, and why packets come in here."""

    who: str
    way: Route
    why: tuple[str, ...] = ()


def _level(settings: dict[str, str], link: str) -> int:
    text = settings.get(f"net.ipv4.conf.{link}.rp_filter", "")
    return int(text) if text.isdecimal() else 0


def _ways(state: State) -> list[_Way]:
    return [
        _Way(ipaddress.IPv4Network(x.destination, strict=False), x)
        for x in state.routes
        if x.family == 4 and x.table == "main" and x.type == "unicast" and x.link is not None
    ]


def _led_away(state: State, link: Link, ways: list[_Way], links: dict[str, Link]) -> _Wrong | None:
    """Somebody on the link who is reached by another one."""
    for address in state.addresses:
        if address.link != link.name or address.family != 4 or address.prefix_len >= 31:
            continue
        if address.scope != "global":
            continue
        subnet = ipaddress.IPv4Network(f"{address.ip}/{address.prefix_len}", strict=False)
        known = [
            x.ip
            for x in state.neighbours
            if x.link == link.name and x.family == 4 and x.mac is not None
        ]
        for host in (*known, *(str(subnet.network_address + x) for x in (1, 2))):
            if ipaddress.IPv4Address(host) not in subnet or host == address.ip:
                continue
            best = _best(ways, host)
            if _leads_away(best, link) and _is_up(links, best[0]):
                return _Wrong(host, best[0])
    return None


def _led_past(state: State, link: Link, ways: list[_Way], links: dict[str, Link]) -> _Wrong | None:
    """Packets that a rule sends out by the link past the main table, which leads elsewhere.

    The kernel looks for the sender of the answer without the mark (unless src_valid_mark is on)
    and as if it were to send itself, so that rule does not hold then
    (kernel: net/ipv4/fib_frontend.c).
    """
    settings = {x.name: x.value for x in state.sysctls}
    marked = "1" in {settings.get(f"net.ipv4.conf.{x}.src_valid_mark") for x in (link.name, "all")}
    for rule in state.rules:
        forgotten = (rule.fwmark is not None and not marked) or rule.iif not in {None, "lo"}
        if rule.family != 4 or rule.action != "lookup" or rule.inverted or not forgotten:
            continue
        for route in state.routes:
            if (route.table, route.link, route.family) != (rule.table, link.name, 4):
                continue
            if route.gateway is None or route.type != "unicast":
                continue
            subnet = ipaddress.IPv4Network(route.destination, strict=False)
            host = str(subnet.network_address + 1) if subnet.prefixlen else _FAR
            best = _best(ways, host)
            if _leads_away(best, link) and _is_up(links, best[0]):
                selector = f"fwmark {rule.fwmark}" if rule.fwmark else f"iif {rule.iif}"
                return _Wrong(
                    "the internet" if not subnet.prefixlen else str(subnet), best[0],
                    (f"ip rule: {selector} lookup {rule.table}",
                     f"ip route show table {rule.table}: {route.destination} via "
                     f"{route.gateway} dev {link.name}"),
                )  # fmt: skip
    return None


_FAR = "198.51.100.1"
"""An address that nobody has (RFC 5737): what leads to it leads to the internet."""


def _leads_away(best: list[Route], link: Link) -> bool:
    """Whether the kernel's choice, the first of them with all its next hops, is another link."""
    several = [x for x in best if x.weight is not None] if best and best[0].weight else best[:1]
    return bool(best) and all(x.link != link.name for x in several)


def _is_up(links: dict[str, Link], route: Route) -> bool:
    link = links.get(route.link or "")
    return link is not None and link.up


def _best(ways: list[_Way], host: str) -> list[Route]:
    """The routes that lead there, the kernel's order: longest prefix, smallest metric."""
    address = ipaddress.IPv4Address(host)
    fitting = [x for x in ways if address in x.network]
    if not fitting:
        return []
    longest = max(x.network.prefixlen for x in fitting)
    lowest = min(x.route.metric for x in fitting if x.network.prefixlen == longest)
    return [x.route for x in fitting if x.network.prefixlen == longest and x.route.metric == lowest]


def tunnel_mtu(state: State) -> Iterator[Finding]:
    """Guests' way out is a tunnel that takes less than they send, and nobody tells TCP.

    Nothing is wrong as long as all routers on the way report packets that are too big.
    """
    links = {x.name: x for x in state.links}
    ways = sorted(
        (x for x in state.routes if x.destination in _EVERYTHING and x.link in links),
        key=lambda x: (-len(x.destination.partition("/")[2]), x.metric),
    )
    way = links.get(ways[0].link or "") if ways else None
    if way is None or way.kind not in TUNNELS or _clamped(state):
        return
    for network in state.networks:
        config = network.live
        bridge = links.get(config.bridge or "") if config is not None else None
        if config is None or bridge is None or config.mode not in {"nat", "route", "open"}:
            continue
        if bridge.mtu > way.mtu:
            yield Finding(
                name="mtu-mismatch", severity="note", subject=f"network {network.name}",
                what=f"guests send up to {bridge.mtu} bytes, the way out by {way.name} takes "
                f"{way.mtu}",
                breaks="connections of guests may open and then stall, where a router on the way "
                "keeps to itself that packets are too big",
                evidence=(f"ip link show {bridge.name}: mtu {bridge.mtu}",
                          f"ip link show {way.name}: mtu {way.mtu} ({way.kind})",
                          "no rule of the firewall sets TCP's maximum segment size"),
                fix=("nft add table inet clamp",
                     "nft add chain inet clamp forward "
                     "'{ type filter hook forward priority mangle; }'",
                     command("nft", "add", "rule", "inet", "clamp", "forward", "oifname", way.name,
                             "tcp", "flags", "syn", "tcp", "option", "maxseg", "size", "set", "rt",
                             "mtu")),
            )  # fmt: skip


_EVERYTHING = frozenset({"0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1"})
"""A default route, or the two halves that VPNs take its place with."""


def _clamped(state: State) -> bool:
    words = ("maxseg", "tcpmss", "clamp-mss", "--set-mss")
    return any(
        word in rule.text.lower()
        for chain in state.firewall.chains
        for rule in chain.rules
        for word in words
    )


def missing_lan_route(state: State) -> Iterator[Finding]:
    """A routed network: the LAN's router has to know the way back, which only it can show."""
    for network in state.networks:
        config = network.live
        if config is None or config.mode != "route" or is_lan_range(state, config):
            continue
        subnets = [
            str(ipaddress.ip_network(f"{x.address}/{x.prefix_len}", strict=False))
            for x in config.ips
        ]
        own = _own_address(state, config.uplinks)
        guests = plugged.by_bridge(state).get(config.bridge or "", [])
        if subnets and guests:
            yield Finding(
                name="lan-route-missing", severity="note", subject=f"network {network.name}",
                what=f"the LAN's router needs a route to {some(subnets)} by this host ({own})",
                breaks=f"guests {some(plugged.guests_of(guests))} send to the LAN and get no "
                "answer, unless the router has it",
                evidence=(f"network {network.name}: mode route, {some(subnets)}",
                          "this host does not answer for these addresses on the LAN"),
                fix=tuple(f"on the router: ip route add {x} via {own}" for x in subnets),
            )  # fmt: skip


def _own_address(state: State, uplinks: tuple[str, ...]) -> str:
    ways = uplinks or tuple(
        x.link for x in state.routes if x.destination == "0.0.0.0/0" and x.link is not None
    )
    return next(
        (x.ip for x in state.addresses if x.link in ways and x.family == 4 and x.scope == "global"),
        "its address there",
    )
