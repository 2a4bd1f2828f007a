"""Arrangements out of a State: links as they are, and a link in another one's place."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import msgspec

from kvmnet.core import vlans
from kvmnet.model.arrangement import Arrangement, LinkTarget
from kvmnet.model.host import Address, Link, Neighbour, PortAttributes, Route, Rule, Sysctl
from kvmnet.model.routes import connected_route, grouped, made_by_kernel
from kvmnet.model.state import State
from kvmnet.model.values import Ip

_KNOWN = frozenset({"REACHABLE", "STALE", "DELAY", "PROBE", "PERMANENT"})
_FLAGS = frozenset({"home", "mngtmpaddr", "noprefixroute", "autojoin", "nodad"})
"""Those that an address can be given; the kernel finds the others by itself."""
_FAMILIES = ("ipv4", "ipv6")
_USUAL_COSTS = frozenset({None, 1, 2, 3, 4, 5, 19, 100})
"""The kernel's, by speed (br_if.c, `port_cost`), and the managers' own."""


def as_is(state: State, names: Iterable[str], absent: tuple[str, ...] = ()) -> Arrangement:
    """The links of these names, and all that names them, as they are now."""
    links = [x for name in names if (x := state.link(name)) is not None]
    mine = {x.name for x in links}
    addresses = [x for x in state.addresses if x.link in mine]
    return Arrangement(
        links=_with_own_vlans(state, (_link_as_is(state, x) for x in links)),
        absent=absent,
        routes=tuple(
            hop
            for hops in grouped(state.routes)
            if any(x.link in mine for x in hops) and not made_by_kernel(hops[0], addresses)
            for hop in hops
        ),
        rules=tuple(x for x in state.rules if {x.iif, x.oif} & mine),
        neighbours=tuple(x for x in state.neighbours if x.link in mine and _is_known(x)),
    )


def _is_known(entry: Neighbour) -> bool:
    return entry.proxy or (entry.mac is not None and entry.state in _KNOWN)


def _link_as_is(state: State, link: Link) -> LinkTarget:
    return LinkTarget(
        name=link.name,
        bridge=link.bridge,
        mac=link.mac if link.kind == "bridge" else None,
        mtu=link.mtu,
        up=link.up,
        promisc=link.promisc,
        allmulti=link.allmulti,
        master=link.master,
        port=_port_as_set(link),
        vlans=vlans.carried(state, link),
        addresses=tuple(
            _address_as_is(x, link, state.routes) for x in state.addresses if x.link == link.name
        ),
        sysctls=sysctls_of(state, link.name),
    )


def _address_as_is(address: Address, link: Link, routes: tuple[Route, ...]) -> Address:
    """The address; where somebody took the route to its prefix away, it is not to come back."""
    flags = tuple(x for x in address.flags if x in _FLAGS)
    route = connected_route(address)
    if link.up and route is not None:
        key = (route.link, route.destination, route.table, route.metric)
        if not any((x.link, x.destination, x.table, x.metric) == key for x in routes):
            flags += ("noprefixroute",)
    return msgspec.structs.replace(address, flags=flags)


def sysctls_of(state: State, name: str) -> tuple[Sysctl, ...]:
    """The settings of one link. Its name may have dots, a setting's has none."""
    prefixes = [f"net.{family}.conf.{name}." for family in _FAMILIES]
    return tuple(
        x
        for x in state.sysctls
        for prefix in prefixes
        if x.name.startswith(prefix) and "." not in x.name.removeprefix(prefix)
    )


def with_ports_of(state: State, target: Arrangement) -> Arrangement:
    """An arrangement of before, its ports and bridges as they were set since: a port that is still
    one of the same bridge has its flags and VLANs of now, which are lost once it leaves.
    """
    links = _with_own_vlans(state, (_as_set(state, x) for x in target.links))
    return msgspec.structs.replace(target, links=links)


def _with_own_vlans(state: State, links: Iterable[LinkTarget]) -> tuple[LinkTarget, ...]:
    """A bridge that has to give its ports VLANs is told of its own too: then it comes to filter
    only once all have theirs.
    """
    found = tuple(links)
    tagged = {x.master for x in found if x.vlans is not None}
    return tuple(
        msgspec.structs.replace(x, vlans=vlans.of_port(state, x.name))
        if x.bridge is not None and x.vlans is None and x.name in tagged else x
        for x in found
    )  # fmt: skip


def _as_set(state: State, target: LinkTarget) -> LinkTarget:
    link = state.link(target.name)
    if link is None or link.master != target.master:
        return target
    if target.bridge is not None and link.bridge is None:
        return target
    return msgspec.structs.replace(
        target,
        bridge=link.bridge if target.bridge is not None else None,
        port=_port_as_set(link),
        vlans=vlans.carried(state, link),
    )


def _port_as_set(link: Link) -> PortAttributes | None:
    """What somebody has set of a port; None: all is as the kernel gives it to a new one."""
    port = link.port
    if port is None:
        return None
    cost = None if port.cost in _USUAL_COSTS else port.cost
    found = msgspec.structs.replace(port, cost=cost)
    return None if found == PortAttributes(state=port.state) else found


def freed(port: LinkTarget) -> LinkTarget:
    """A port that is none any more."""
    return msgspec.structs.replace(port, master=None, port=None, vlans=None)


def moved_sysctls(settings: tuple[Sysctl, ...], old: str, new: str) -> tuple[Sysctl, ...]:
    """The settings of one link as those of another."""
    found = []
    for setting in settings:
        key = setting.name.rpartition(".")[2]
        family = setting.name.split(".")[1]
        found.append(Sysctl(name=f"net.{family}.conf.{new}.{key}", value=setting.value))
        assert setting.name == f"net.{family}.conf.{old}.{key}"
    return tuple(found)


def moved_addresses(addresses: Iterable[Address], new: str) -> tuple[Address, ...]:
    """The addresses of one link as those of another; labels begin with the link's name."""
    return tuple(
        msgspec.structs.replace(
            x,
            link=new,
            label=f"{new}:{x.label.partition(':')[2]}" if x.label and ":" in x.label else None,
        )
        for x in addresses
    )


def moved_routes(routes: Iterable[Route], old: str, new: str) -> tuple[Route, ...]:
    """Routes (all of their hops) with one link in another one's place."""
    return tuple(msgspec.structs.replace(x, link=new) if x.link == old else x for x in routes)


def moved_rules(rules: Iterable[Rule], old: str, new: str) -> tuple[Rule, ...]:
    return tuple(
        msgspec.structs.replace(
            x, iif=new if x.iif == old else x.iif, oif=new if x.oif == old else x.oif
        )
        for x in rules
    )


def moved_neighbours(entries: Iterable[Neighbour], new: str) -> tuple[Neighbour, ...]:
    return tuple(msgspec.structs.replace(x, link=new) for x in entries)


def fitting_routes(
    routes: Iterable[Route], addresses: tuple[Address, ...], link: str
) -> tuple[Route, ...]:
    """Of these routes those that still can be with these addresses of the link."""
    own = {x.ip for x in addresses}
    networks = [
        ipaddress.ip_network(f"{x.peer or x.ip}/{x.prefix_len}", strict=False) for x in addresses
    ]
    kept = []
    for route in routes:
        if route.link == link and route.gateway is not None and not route.onlink:
            gateway = ipaddress.ip_address(route.gateway)
            if not any(gateway in x for x in networks if x.version == gateway.version):
                continue
        if route.source is not None and route.source not in own:
            route = msgspec.structs.replace(route, source=None)
        kept.append(route)
    return tuple(kept)


def global_addresses(state: State, name: str) -> tuple[Address, ...]:
    """Addresses of a link that others can reach."""
    return tuple(x for x in state.addresses if x.link == name and x.scope not in {"link", "host"})


def default_gateways(state: State, name: str) -> tuple[Ip | None, ...]:
    """The gateways of the default routes that lead out by the link."""
    return tuple(
        x.gateway
        for x in state.routes
        if x.link == name and x.destination in {"0.0.0.0/0", "::/0"} and x.type == "unicast"
    )
