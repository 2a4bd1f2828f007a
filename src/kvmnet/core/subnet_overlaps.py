"""Which libvirt networks' subnets the host already reaches by another way."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from kvmnet.core.subnets import DEFAULT_LIKE_BITS
from kvmnet.model.host import Family
from kvmnet.model.state import State
from kvmnet.model.values import Cidr
from kvmnet.model.virt import Network, NetworkIp

Range = tuple[int, int, str, str]
"""First and last address, the link it is on, and what it is, for people."""
_ROUTED = frozenset({"unicast", "blackhole", "unreachable", "prohibit"})
_OWN_TABLES = frozenset({"local"})


def overlaps(state: State) -> Iterator[tuple[Network, Cidr, str]]:
    """Each network and subnet of it that overlaps something else, and what that is.

    Each pair of networks comes once; a link-local prefix is everywhere and overlaps nothing.
    """
    taken: dict[Family, list[Range]] = {4: _taken(state, 4), 6: _taken(state, 6)}
    subnets = [
        (network, ip, *_bounds(_cidr(ip)))
        for network in state.networks
        if network.config is not None and network.config.mode != "bridge"
        for ip in network.config.ips
    ]
    for place, (network, ip, first, last) in enumerate(subnets):
        subnet = _cidr(ip)
        bridge = network.config.bridge if network.config is not None else None
        for low, high, link, what in taken[ip.family]:
            if low <= last and first <= high and not (link and link == bridge):
                yield network, subnet, what
        for other, other_ip, low, high in subnets[:place]:
            if other.name == network.name or other_ip.family != ip.family:
                continue
            if low <= last and first <= high:
                yield network, subnet, f"{_cidr(other_ip)} of the network {other.name}"


def _cidr(ip: NetworkIp) -> Cidr:
    return Cidr(str(ipaddress.ip_network(f"{ip.address}/{ip.prefix_len}", strict=False)))


def _bounds(cidr: str) -> tuple[int, int]:
    network = ipaddress.ip_network(cidr, strict=False)
    return int(network.network_address), int(network.broadcast_address)


def _taken(state: State, family: Family) -> list[Range]:
    """Addresses, routes but the default ones, and Docker's networks."""
    found: dict[tuple[str, str], Range] = {}
    for address in state.addresses:
        if address.family == family and address.scope == "global":
            cidr = f"{address.ip}/{address.prefix_len}"
            low, high = _bounds(cidr)
            found[cidr, address.link] = (low, high, address.link, f"{cidr} of {address.link}")
    covered = {(low, high, link) for low, high, link, _ in found.values()}
    for route in state.routes:
        if route.family != family or route.type not in _ROUTED or route.table in _OWN_TABLES:
            continue
        length = int(route.destination.partition("/")[2])
        if length <= DEFAULT_LIKE_BITS[family] or route.destination.startswith(("fe80:", "ff")):
            continue
        low, high = _bounds(route.destination)
        link = route.link or ""
        if (low, high, link) not in covered:
            where = f"over {link}" if link else f"({route.type})"
            what = f"the route to {route.destination} {where}"
            found[route.destination, link] = (low, high, link, what)
    for docker in state.docker_networks:
        for subnet in docker.subnets:
            if (":" in subnet) == (family == 6):
                found[subnet, docker.name] = (
                    *_bounds(subnet), "", f"{subnet} of Docker's network {docker.name}"
                )  # fmt: skip
    return list(found.values())
