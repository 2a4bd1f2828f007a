"""What belongs together: the next hops of a route, and a route and the address it comes with.

Facts: `fib_add_ifaddr` (net/ipv4/fib_frontend.c) and `addrconf_prefix_route` (net/ipv6/addrconf.c).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from kvmnet.model.host import Address, Route
from kvmnet.model.values import Cidr

Hops = tuple[Route, ...]
"""One route: its next hops."""

_V6_METRIC = 256
"""IP6_RT_PRIO_ADDRCONF."""


def connected_route(address: Address) -> Route | None:
    """The route to the address's prefix that comes with it; None: there is none."""
    if "noprefixroute" in address.flags:
        return None
    far_end = address.peer or address.ip
    if address.family == 4 and address.prefix_len == 32 and address.peer is None:
        return None
    network = ipaddress.ip_network(f"{far_end}/{address.prefix_len}", strict=False)
    return Route(
        family=address.family,
        destination=Cidr(str(network)),
        link=address.link,
        source=address.ip if address.family == 4 else None,
        protocol="kernel",
        metric=address.metric or (_V6_METRIC if address.family == 6 else 0),
        scope="link" if address.family == 4 else "global",
        preference="medium" if address.family == 6 else None,
        expires_s=address.valid_s if address.family == 6 else None,
    )


def made_by_kernel(route: Route, addresses: Iterable[Address]) -> bool:
    """Whether the route is there only because one of these addresses is."""
    if route.protocol != "kernel" or route.gateway is not None:
        return False
    if route.table == "local":
        return True
    return any(
        other is not None
        and route.link == other.link
        and (route.family, route.destination, route.table, route.metric)
        == (other.family, other.destination, other.table, other.metric)
        for other in map(connected_route, addresses)
    )


def route_key(route: Route) -> tuple[object, ...]:
    """What the kernel finds a route by; several may share it."""
    return (route.family, route.destination, route.table, route.metric, route.tos)


def grouped(routes: Iterable[Route]) -> tuple[Hops, ...]:
    """Each route once, as the kernel counts: the hops of an IPv4 route belong together."""
    groups: dict[object, list[Route]] = {}
    for number, route in enumerate(routes):
        several = route.family == 4 and route.weight is not None
        key = (route_key(route), route.protocol) if several else number
        groups.setdefault(key, []).append(route)
    return tuple(map(tuple, groups.values()))
