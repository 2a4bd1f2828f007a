"""Subnets: what is in use on a host and elsewhere it reaches, and what is still free."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

from msgspec import Struct

from kvmnet.errors import InvalidInput, Refused
from kvmnet.model.host import Family
from kvmnet.model.state import State
from kvmnet.model.values import Cidr, Ip
from kvmnet.model.virt import Network, NetworkConfig

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network

_ROUTED = frozenset({"unicast", "blackhole", "unreachable", "prohibit"})

DEFAULT_LIKE_BITS = {4: 7, 6: 7}
"""Routes with so short a prefix lead "everywhere" (VPNs use 0.0.0.0/1), they occupy nothing."""

MAX_ATTEMPTS_V6 = 1000
"""Random subnets that are tried: where all of these overlap something, a route covers the range."""


class Occupied(Struct, frozen=True, kw_only=True):
    """A subnet in use, and by what."""

    subnet: Cidr
    by: str
    """For people: `address 192.0.2.7 of eth0`, `libvirt network lab1 (not active)`."""
    link: str | None = None
    """The link that it is on, if it is there now."""
    network: str | None = None
    """The libvirt network that it belongs to, active or not."""


def occupied(state: State, *, except_network: str | None = None) -> tuple[Occupied, ...]:
    """All subnets that the host has or reaches other than by its default route.

    Each comes once, with the first of its holders: libvirt's and Docker's networks, the host's
    addresses, its routes. `except_network` leaves out one libvirt network and its bridge.
    """
    own = state.network(except_network) if except_network is not None else None
    bridges = set() if own is None else bridges_of(own)
    found: dict[Cidr, Occupied] = {}
    for item in _all_occupied(state):
        is_own = own is not None and (item.network == own.name or item.link in bridges)
        if not is_own:
            found.setdefault(item.subnet, item)
    return tuple(found.values())


def bridges_of(network: Network) -> set[str]:
    """The bridges that the network's live and saved definition name."""
    configs = (network.live, network.saved)
    return {c.bridge for c in configs if c is not None and c.bridge is not None}


def _all_occupied(state: State) -> Iterator[Occupied]:
    yield from _networks(state)
    yield from _docker(state)
    yield from _kernel(state)


class Clash(Struct, frozen=True, kw_only=True):
    """A libvirt network's subnet that overlaps something else."""

    network: Network
    subnet: Cidr
    other: Occupied


def clashes(state: State) -> tuple[Clash, ...]:
    """Each libvirt network's subnets that overlap something else; a pair of networks comes once."""
    everything = tuple(_all_occupied(state))
    taken = [(item, ipaddress.ip_network(item.subnet)) for item in everything]
    found: dict[tuple[str, Cidr, Cidr, str | None, str | None], Clash] = {}
    before: set[str] = set()
    for network in state.networks:
        before.add(network.name)
        own_links = bridges_of(network)
        for mine, wanted in taken:
            if mine.network != network.name:
                continue
            for item, other in taken:
                is_own = item.network == network.name or item.link in own_links
                later = item.network is not None and item.network not in before
                if is_own or later or _is_part_of_lan(network, wanted, item, other):
                    continue
                if wanted.overlaps(other):
                    key = (network.name, mine.subnet, item.subnet, item.link, item.network)
                    found.setdefault(key, Clash(network=network, subnet=mine.subnet, other=item))
    return tuple(found.values())


def _is_part_of_lan(network: Network, wanted: Subnet, item: Occupied, other: Subnet) -> bool:
    """Whether the overlap is meant: a routed network that is a part of its uplink's LAN."""
    config = network.config
    return (
        config is not None
        and config.mode == "route"
        and item.link in config.uplinks
        and wanted.prefixlen > other.prefixlen
    )


def _networks(state: State) -> Iterator[Occupied]:
    for network in state.networks:
        standing = "active" if network.active else "not active"
        for config in (network.live, network.saved):
            for ip in config.ips if config is not None else ():
                subnet = _subnet(f"{ip.address}/{ip.prefix_len}")
                if subnet is not None:
                    by = f"libvirt network {network.name} ({standing})"
                    yield Occupied(subnet=subnet, by=by, network=network.name)


def _docker(state: State) -> Iterator[Occupied]:
    for network in state.docker_networks:
        for subnet in network.subnets:
            yield Occupied(subnet=subnet, by=f"Docker network {network.name}")


def _kernel(state: State) -> Iterator[Occupied]:
    for address in state.addresses:
        if address.scope in {"host", "link"}:
            continue
        subnet = _subnet(f"{address.ip}/{address.prefix_len}")
        if subnet is not None:
            by = f"address {address.ip} of {address.link}"
            yield Occupied(subnet=subnet, by=by, link=address.link)
    for route in state.routes:
        if route.table == "local" or route.type not in _ROUTED:
            continue
        subnet = _subnet(route.destination)
        if subnet is None or _is_default_like(subnet):
            continue
        way = f" through {route.link}" if route.link else ""
        by = f"route to {subnet}{way} (table {route.table})"
        yield Occupied(subnet=subnet, by=by, link=route.link)


def _subnet(text: str) -> Cidr | None:
    """The prefix in canonical form; None for what guests could never share (link-local, groups)."""
    subnet = ipaddress.ip_interface(text).network
    if subnet.is_multicast or subnet.is_loopback or (subnet.is_link_local and subnet.version == 6):
        return None
    return Cidr(str(subnet))


def _is_default_like(subnet: Cidr) -> bool:
    network = ipaddress.ip_network(subnet)
    return network.prefixlen <= DEFAULT_LIKE_BITS[network.version]


def overlap(subnet: Cidr, taken: tuple[Occupied, ...]) -> Occupied | None:
    """The first of the subnets in use that shares an address with `subnet`."""
    wanted = ipaddress.ip_network(subnet)
    return next((x for x in taken if wanted.overlaps(ipaddress.ip_network(x.subnet))), None)


def is_beyond(config: NetworkConfig, address: Ip) -> bool:
    """Whether the network is isolated, and the address none of its own subnets."""
    own = [ipaddress.ip_interface(f"{x.address}/{x.prefix_len}").network for x in config.ips]
    return config.mode == "isolated" and not any(ipaddress.ip_address(address) in x for x in own)


def candidates_v4() -> Iterator[Cidr]:
    """Private /24 subnets (RFC 1918), libvirt's own default first, then the least likely in use."""
    thirds = [122, *range(123, 255), *range(100, 122), *range(2, 100)]
    yield from (Cidr(f"192.168.{third}.0/24") for third in thirds)
    for second in (*range(100, 255), *range(1, 100)):
        yield from (Cidr(f"10.{second}.{third}.0/24") for third in range(0, 255, 16))
    for second in range(31, 15, -1):
        yield from (Cidr(f"172.{second}.{third}.0/24") for third in range(0, 255, 16))


def free_subnet(
    family: Family, taken: tuple[Occupied, ...], random_bytes: Callable[[int], bytes]
) -> Cidr:
    """A subnet that overlaps nothing: a private /24, or a random unique local /64 (RFC 4193).

    Raises `Refused` where there is none.
    """
    if family == 4:
        networks = [n for x in taken if (n := ipaddress.ip_network(x.subnet)).version == 4]
        for candidate in candidates_v4():
            wanted = ipaddress.ip_network(candidate)
            if not any(wanted.overlaps(network) for network in networks):
                return candidate
        raise Refused(
            "no private IPv4 subnet is free",
            why="routes, addresses and networks of this host cover all of RFC 1918",
            hint="name one yourself: --subnet CIDR",
        )
    for _attempt in range(MAX_ATTEMPTS_V6):
        # 0xfd, forty random bits, subnet zero: RFC 4193, section 3.1
        prefix = (b"\xfd" + random_bytes(5)).ljust(16, b"\0")
        candidate = Cidr(f"{ipaddress.IPv6Address(prefix)}/64")
        if overlap(candidate, taken) is None:
            return candidate
    raise Refused(
        "no private IPv6 subnet is free",
        why="routes, addresses and networks of this host cover fd00::/8 (RFC 4193), or most of it",
        hint="look at the routes: ip -6 route; or do without IPv6: --ipv6 off",
    )


def check_subnet(subnet: Cidr, family: Family) -> Subnet:
    """The subnet as a network that guests can live in. Raises `InvalidInput` with the reason."""
    network = ipaddress.ip_network(subnet)
    if network.version != family:
        raise InvalidInput(f"{subnet} is not an IPv{family} subnet")
    reason = _unusable(network)
    if reason:
        example = "192.168.122.0/24" if family == 4 else "fd12:3456:789a::/64"
        raise InvalidInput(
            f"{subnet} can not be a guest network's subnet", why=reason,
            hint=f"an example: {example}, or leave the choice to kvmnet: auto",
        )  # fmt: skip
    return network


def _unusable(network: Subnet) -> str:
    """Why guests can't live there, or nothing. Ranges are IANA's special-purpose registries."""
    if network.is_multicast:
        return "it is for multicast groups"
    if network.is_loopback:
        return "it is for the host itself (loopback)"
    if network.is_link_local:
        return "it is link-local: every link has it already"
    if network.is_unspecified or (network.version == 4 and network.network_address in _THIS):
        return "addresses in 0.0.0.0/8 mean `this network`"
    if network.version == 4 and network.network_address in _RESERVED:
        return "it is reserved (240.0.0.0/4)"
    if network.version == 4 and network.prefixlen > 30:
        return "it has no room: the host takes one address, a /30 has one more for a guest"
    if network.version == 4 and network.prefixlen < 8:
        return "it is larger than any private range"
    if network.version == 6 and network.prefixlen != 64:
        return "guests configure themselves only in a /64 (RFC 4862)"
    return ""


_THIS = ipaddress.ip_network("0.0.0.0/8")
_RESERVED = ipaddress.ip_network("240.0.0.0/4")
