"""Carries out checks: sends real packets and looks whether they come back.

How a destination is reached is asked of the kernel in each round: what was a NIC a moment ago may
be a bridge by now.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from functools import partial
from ipaddress import ip_address

from kvmnet.adapters import kernel, neighbours, reach, tcp
from kvmnet.adapters.at_once import at_once
from kvmnet.adapters.ways import Seen, look
from kvmnet.errors import Failed, KvmnetError
from kvmnet.formats.route_get import Way
from kvmnet.formats.sockets import Established
from kvmnet.model.check import (
    AddressThere,
    Check,
    ConnectionLives,
    DnsAnswers,
    GatewayAnswers,
    LinkAddressed,
    PingAnswers,
    RouteLeads,
    TcpConnects,
)
from kvmnet.model.values import Ip

ROUND_S = 1.5
"""How long one check may take: a lost packet is sent again in that time."""
_BETWEEN_S = 0.1
_NAMED = 5


def prove(checks: tuple[Check, ...], *, within_s: float) -> None:
    """Return once all checks pass at the same time. Raises `Failed`, naming those that do not."""
    end = time.monotonic() + within_s
    while True:
        failed = [
            (check, why)
            for check, why in zip(checks, measure(checks), strict=True)
            if why is not None
        ]
        if not failed:
            return
        if time.monotonic() >= end:
            break
        time.sleep(_BETWEEN_S)
    named = [f"{check}: {why}" for check, why in failed[:_NAMED]]
    if len(failed) > _NAMED:
        named.append(f"and {len(failed) - _NAMED} more")
    raise Failed(
        f"not true after {within_s:g} seconds ({len(failed)} of {len(checks)} checks)",
        why="; ".join(named),
    )


def measure(
    checks: Sequence[Check], *, wait_s: float = ROUND_S, seen: Seen | None = None
) -> tuple[str | None, ...]:
    """Make all checks at once: None for each that passes, else the evidence against it.

    `seen` is the kernel of a moment ago; where it does not tell enough the kernel is asked again.
    """
    connections = [x for x in checks if isinstance(x, ConnectionLives)]
    others = [x for x in checks if not isinstance(x, ConnectionLives)]
    found: dict[Check, str | None] = {}

    def ask_others() -> None:
        try:
            now = _look(others, seen)
        except KvmnetError as error:
            found.update(dict.fromkeys(others, str(error)))
            return
        at_once([partial(ask, x, now) for x in others])

    def ask(check: Check, now: Seen) -> None:
        found[check] = _evidence(check, now, wait_s)

    def ask_connections() -> None:
        found.update(zip(connections, _connections(connections, wait_s), strict=True))

    at_once([ask_connections, ask_others] if connections else [ask_others])
    return tuple(found[x] for x in checks)


def _look(checks: Sequence[Check], seen: Seen | None) -> Seen:
    asked = [x.destination for x in checks if isinstance(x, RouteLeads)]
    asked += [x.ip for x in checks if isinstance(x, GatewayAnswers) and not _is_link_local(x.ip)]
    if seen is not None and seen.ways.keys() >= set(asked):
        return seen
    kernels = any(isinstance(x, AddressThere | LinkAddressed) for x in checks)
    return look(asked) if asked or kernels else Seen(addresses=(), ways={})


def _evidence(check: Check, seen: Seen, wait_s: float) -> str | None:
    """None if the check passes, else what was seen instead."""
    try:
        match check:
            case AddressThere():
                return _address(check, seen)
            case LinkAddressed():
                return _addressed(check, seen)
            case GatewayAnswers():
                return _gateway(check, seen, wait_s)
            case RouteLeads():
                return _route(check, seen)
            case ConnectionLives():
                return _connections([check], wait_s)[0]
            case DnsAnswers():
                return _dns(check, wait_s)
            case PingAnswers():
                return _ping(check, wait_s)
            case TcpConnects():
                return _connects(check, wait_s)
    except KvmnetError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)


def _address(check: AddressThere, seen: Seen) -> str | None:
    found = [x for x in seen.addresses if f"{x.ip}/{x.prefix_len}" == check.address]
    if not found:
        return "no link has it"
    for flag in ("dadfailed", "tentative"):  # the one comes with the other
        if all(flag in x.flags for x in found):
            return f"it is {flag} on {found[0].link}"
    return None


def _addressed(check: LinkAddressed, seen: Seen) -> str | None:
    there = (x for x in seen.addresses if x.link == check.link)
    if any(x.family == 4 and x.scope == "global" for x in there):
        return None
    return "nobody has given it one"


def _gateway(check: GatewayAnswers, seen: Seen, wait_s: float) -> str | None:
    if _is_link_local(check.ip):
        ways = _links_to(check.ip)
    else:
        way = seen.ways[check.ip]
        ways = [way] if way is not None else []
    if not ways:
        return "no route leads to it"
    for way in ways:
        evidence = _neighbour(way, check.ip, wait_s)
        if evidence is not None:
            return evidence
    return None


def _is_link_local(ip: Ip) -> bool:
    return ip_address(ip).is_link_local


def _links_to(ip: Ip) -> list[Way]:
    """The links that a link-local address may be on: a gateway is asked on each."""
    links = {x.link for x in kernel.read_routes() if x.gateway == ip and x.link is not None}
    own = {x.link: x.ip for x in kernel.read_links()[1] if x.family == 6 and x.scope == "link"}
    return [Way(link=link, source=own.get(link)) for link in sorted(links)]


def _neighbour(way: Way, ip: Ip, wait_s: float) -> str | None:
    if way.gateway is not None:
        return f"it is not next door: the way to it leads by {way.gateway}"
    if way.source is None:
        return f"{way.link} has no address to ask from"
    if ":" in ip:
        mac = neighbours.find_mac6(way.link, ip, way.source, wait_s).mac
        kind = "neighbour solicitations"
    else:
        mac = neighbours.find_mac(way.link, None, ip, way.source, wait_s).mac
        kind = "ARP requests"
    return None if mac is not None else f"{wait_s:g} s of {kind} through {way.link}, no answer"


def _route(check: RouteLeads, seen: Seen) -> str | None:
    way = seen.ways[check.destination]
    if way is None:
        return "the kernel knows no way"
    if way.gateway != check.gateway:
        by = f"by {way.gateway}" if way.gateway is not None else "directly"
        return f"it leads {by}, through {way.link}"
    return None


def _connections(checks: Sequence[ConnectionLives], wait_s: float) -> list[str | None]:
    """One that was closed meanwhile is nobody's fault: a dead path does not close connections."""
    if not checks:
        return []
    try:
        there = {_ends(x): x for x in tcp.established()}
        present = [x for x in checks if _ends(x) in there]
        silent = tcp.silent([there[_ends(x)] for x in present], wait_s)
        gone = set()
        if any(silent):
            gone = {_ends(x) for x in present} - {_ends(x) for x in tcp.established()}
    except KvmnetError as error:
        return [str(error)] * len(checks)
    seen = dict(zip(map(_ends, present), silent, strict=True))
    return [None if _ends(x) in gone else seen.get(_ends(x)) for x in checks]


def _ends(one: ConnectionLives | Established) -> tuple[Ip, int, Ip, int]:
    return one.local, one.local_port, one.remote, one.remote_port


def _dns(check: DnsAnswers, wait_s: float) -> str | None:
    result = reach.ask_name(check.server, ".", _scope(check.server), None, wait_s)
    if result.alive_ms is not None:
        return None
    return result.error or f"no answer on UDP port 53 within {wait_s:g} s"


def _scope(ip: Ip) -> str:
    """The link of a link-local address, as far as a route tells it."""
    ways = _links_to(ip) if ip.startswith("fe80:") else []
    return ways[0].link if ways else "lo"


def _ping(check: PingAnswers, wait_s: float) -> str | None:
    begin = time.monotonic()
    ips = resolve(check.host, wait_s)
    for ip in ips:
        left = max(0.3, wait_s - (time.monotonic() - begin))
        result = reach.ping(ip, _scope(ip), None, left / len(ips))
        if result.ms is not None:
            return None
    return result.error or f"{ips[-1]}: no answer to {result.sent} echo requests"


def _connects(check: TcpConnects, wait_s: float) -> str | None:
    begin = time.monotonic()
    ips = resolve(check.host, wait_s)
    for ip in ips:
        left = max(0.3, wait_s - (time.monotonic() - begin))
        result = reach.connect(ip, check.port, _scope(ip), None, left / len(ips))
        if result.ms is not None:
            return None
    return f"{ips[-1]}: {result.error}"


def resolve(host: str, wait_s: float) -> tuple[Ip, ...]:
    """The addresses of a name, at most three. Raises `Failed` if there is none in time.

    The C library's resolver knows no time limit, so it runs in a thread that may be left behind.
    """
    found: list[Ip] = []
    trouble: list[str] = []

    def ask() -> None:
        try:
            for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM):
                found.append(Ip(str(address[0]).partition("%")[0]))
        except OSError as error:
            trouble.append(error.strerror or str(error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(wait_s)
    if thread.is_alive() or not found:
        why = trouble[0] if trouble else f"no answer within {wait_s:g} s"
        raise Failed(f"{host} could not be resolved", why=why)
    return tuple(dict.fromkeys(found))[:3]
