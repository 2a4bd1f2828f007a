"""MAC addresses: which are in use and by whom, new ones that are not, and the odds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from kvmnet.errors import InvalidInput, Refused
from kvmnet.model.state import State
from kvmnet.model.values import Mac
from kvmnet.model.virt import NetworkConfig

QEMU_PREFIX = "52:54:00"
"""The prefix that QEMU and libvirt use: locally administered, so no vendor's NIC has it."""

MAX_AT_ONCE = 1_000_000


class MacUse(Struct, frozen=True, kw_only=True):
    """One place where an address is in use."""

    mac: Mac
    kind: str
    """guest, network, reservation, lease, link, neighbour, forwarding, lan."""
    where: str
    """For people: `guest web on qemu:///system (running)`."""


def uses_in(state: State) -> tuple[MacUse, ...]:
    """Every MAC address in use that the State shows, in the order guests … forwarding database.

    Groups (multicast, broadcast) and the null address are not NICs' addresses and are left out.
    """
    found = dict.fromkeys(
        [*_guest_uses(state), *_network_uses(state), *_host_uses(state)]
    )  # a guest's NIC is mostly in its live and its saved definition alike: said once
    return tuple(use for use in found if _is_nic_address(use.mac))


def _is_nic_address(mac: Mac) -> bool:
    return not int(mac[:2], 16) & 1 and mac != "00:00:00:00:00:00"


def _guest_uses(state: State) -> Iterator[MacUse]:
    for guest in state.guests:
        for nic in (*guest.live_nics, *guest.saved_nics):
            if nic.mac is not None:
                where = f"guest {guest.name} on {guest.connection} ({guest.state})"
                yield MacUse(mac=nic.mac, kind="guest", where=where)
        for reported in guest.agent_addresses:
            where = f"NIC {reported.nic} inside guest {guest.name}"
            yield MacUse(mac=reported.mac, kind="guest", where=where)


def _network_uses(state: State) -> Iterator[MacUse]:
    for network in state.networks:
        for config in (network.live, network.saved):
            if config is not None:
                yield from _config_uses(f"network {network.name} on {network.connection}", config)
    for lease in state.leases:
        if lease.mac is not None:
            where = f"lease of {lease.ip} on network {lease.network}"
            yield MacUse(mac=lease.mac, kind="lease", where=where)


def _config_uses(where: str, config: NetworkConfig) -> Iterator[MacUse]:
    if config.bridge_mac is not None:
        yield MacUse(mac=config.bridge_mac, kind="network", where=f"bridge of {where}")
    for ip in config.ips:
        for reservation in ip.reservations:
            if reservation.mac is not None:
                yield MacUse(
                    mac=reservation.mac,
                    kind="reservation",
                    where=f"reservation of {reservation.ip} in {where}",
                )


def _host_uses(state: State) -> Iterator[MacUse]:
    for link in state.links:
        if link.mac is not None:
            yield MacUse(mac=link.mac, kind="link", where=f"NIC {link.name} of this host")
    for neighbour in state.neighbours:
        if neighbour.mac is not None:
            where = f"neighbour {neighbour.ip} on {neighbour.link}"
            yield MacUse(mac=neighbour.mac, kind="neighbour", where=where)
    for entry in state.forwarding:
        where = f"seen behind port {entry.port} of bridge {entry.bridge or '(none)'}"
        yield MacUse(mac=entry.mac, kind="forwarding", where=where)


def generate(
    prefix: str, count: int, taken: Iterable[Mac], random_bytes: Callable[[int], bytes]
) -> tuple[Mac, ...]:
    """`count` distinct addresses under `prefix`, none of them in `taken`.

    `prefix` is canonical (`parse_mac_prefix`); `random_bytes` is the system's source.
    Raises `InvalidInput` for a senseless count, `Refused` where the prefix has no room.
    """
    if not 1 <= count <= MAX_AT_ONCE:
        raise InvalidInput(
            f"{count} addresses can not be made at once", why=f"1 to {MAX_AT_ONCE:,} are allowed"
        )
    octets = 6 - len(prefix.split(":"))
    used = {mac for mac in taken if mac.startswith(prefix + ":")}
    room = 256**octets - len(used)
    if count > room:
        raise Refused(
            f"{prefix} has no room for {count} more addresses",
            why=f"{len(used)} of its {256**octets} are in use",
            hint="use a shorter prefix: kvmnet mac --prefix 52:54:00",
        )
    chosen: dict[Mac, None] = {}
    while len(chosen) < count:
        missing = count - len(chosen)
        block = random_bytes(octets * missing).hex(":", 1)
        width = 3 * octets
        for start in range(0, width * missing, width):
            mac = Mac(f"{prefix}:{block[start : start + width - 1]}")
            if mac not in used:
                chosen[mac] = None
    return tuple(chosen)


def chance_among(others: int, octets: int) -> float:
    """Chance that one random address equals one of `others` unseen ones: n in 256^octets."""
    return min(1.0, others / float(256**octets))


def birthday_chance(count: int, octets: int) -> float:
    """Chance that `count` addresses, each drawn at random by somebody, are not all distinct.

    1 - exp(-n(n-1)/2N), the usual approximation of the birthday problem.
    """
    return -math.expm1(-count * (count - 1) / 2 / float(256**octets))
