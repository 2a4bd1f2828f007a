"""What goes through given NICs, and so has to work after they were changed as it did before."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from kvmnet.model.check import AddressThere, Check, GatewayAnswers, RouteLeads
from kvmnet.model.host import Route
from kvmnet.model.state import State
from kvmnet.model.values import Cidr, Ip

_FAR = {4: Ip("198.51.100.1"), 6: Ip("2001:db8::1")}
"""Addresses that nobody has (RFC 5737, RFC 3849): what leads to them is the default route."""
_PASSING = frozenset({"tentative", "dadfailed", "deprecated", "temporary"})


def ways_out(state: State) -> tuple[str, ...]:
    """The links that a default route leads out by, whatever their number."""
    return tuple(
        dict.fromkeys(
            x.link
            for x in state.routes
            if x.link is not None and x.type == "unicast" and x.destination.endswith("/0")
        )
    )


def default_gateway(state: State, family: int) -> Ip | None:
    """The gateway of the host's best default route."""
    route = default_route(state, family)
    return None if route is None else route.gateway


def default_route(state: State, family: int) -> Route | None:
    """The host's best default route by a gateway."""
    routes = [
        x for x in state.routes
        if x.family == family and x.destination in {"0.0.0.0/0", "::/0"} and x.table == "main"
        and x.gateway is not None
    ]  # fmt: skip
    return min(routes, key=lambda x: x.metric, default=None)


def of_links(state: State, nics: tuple[str, ...]) -> tuple[Check, ...]:
    """Addresses and gateways of these NICs, each once.

    Link-local addresses follow from the MAC, and temporary ones come and go by themselves.
    """
    addresses = [
        AddressThere(address=Cidr(f"{x.ip}/{x.prefix_len}"))
        for x in state.addresses
        if x.link in nics and x.scope == "global" and not _PASSING & set(x.flags)
    ]
    gateways = [
        GatewayAnswers(ip=x.gateway)
        for x in state.routes
        if x.link in nics and x.gateway is not None and x.type == "unicast"
    ]
    return tuple(dict.fromkeys([*gateways, *addresses]))


def destinations(state: State, nics: tuple[str, ...]) -> tuple[Ip, ...]:
    """An address behind each route of the main table by a gateway through these NICs."""
    found = []
    for route in state.routes:
        if route.link in nics and route.gateway is not None and route.table == "main":
            network = ip_network(route.destination, strict=False)
            size = network.max_prefixlen - network.prefixlen
            ip = str(network[1]) if size else str(network[0])
            found.append(_FAR[route.family] if not network.prefixlen else Ip(ip))
    return tuple(dict.fromkeys(found))


def route(destination: Ip, gateway: Ip | None) -> RouteLeads:
    """The check that the way stays as it is."""
    return RouteLeads(destination=destination, gateway=gateway)


def name_servers(text: str) -> tuple[Ip, ...]:
    """The servers of a resolv.conf(5) that are not on this host itself."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            ip = ip_address(words[1].partition("%")[0])
        except ValueError:
            continue
        if not ip.is_loopback and not ip.is_unspecified:
            found.append(Ip(str(ip)))
    return tuple(dict.fromkeys(found))
