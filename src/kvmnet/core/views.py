"""What people ask about, put together from a State: uplinks, bridges, networks, guests.

Each view is one object of the JSON documents that the command line prints.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from msgspec import Struct

from kvmnet.core.guest_addresses import NicAddresses, guest_addresses
from kvmnet.core.nic_differences import NicDifference, nic_differences
from kvmnet.model.host import Address, BridgeAttributes, Link, PortAttributes
from kvmnet.model.state import State
from kvmnet.model.values import Ip, Mac
from kvmnet.model.virt import GuestNic, Lease, Network

_WIRES = frozenset({"ethernet", "wireless", "bond", "vlan", "veth"})


class UplinkView(Struct, frozen=True, kw_only=True):
    """A way out of the host: the link of a default route, or the bridge's port that leads there."""

    link: str
    kind: str
    mac: Mac | None
    up: bool
    carrier: bool | None
    speed_mbit: int | None
    bridge: str | None
    """The bridge that it is a port of."""
    addresses: tuple[str, ...]
    """The host's own, on the uplink or its bridge, with prefix lengths."""
    gateways: tuple[Ip, ...]
    manager: str
    """The host network manager that owns it; `unknown` where that was not read."""


class PortView(Struct, frozen=True, kw_only=True):
    """One port of a bridge."""

    link: str
    kind: str
    carrier: bool | None
    state: str
    """The bridge's word: disabled, listening, learning, forwarding, blocking."""
    attributes: PortAttributes | None
    guest: str | None
    """The running guest whose tap it is."""
    macs: int
    """How many addresses the bridge has learnt behind it."""


class BridgeView(Struct, frozen=True, kw_only=True):
    """One Linux bridge of the host."""

    name: str
    mac: Mac | None
    mtu: int
    up: bool
    carrier: bool | None
    attributes: BridgeAttributes | None
    addresses: tuple[str, ...]
    network: str | None
    """The libvirt network that made it or hands it to guests."""
    manager: str
    ports: tuple[PortView, ...]


class NetworkView(Struct, frozen=True, kw_only=True):
    """One libvirt network, with who is on it."""

    network: Network
    guests: tuple[str, ...]
    leases: tuple[Lease, ...]


class GuestNicView(Struct, frozen=True, kw_only=True):
    """One NIC of a guest: as it is in force, and what is known about its addresses."""

    nic: GuestNic
    known: NicAddresses


class GuestView(Struct, frozen=True, kw_only=True):
    """One guest."""

    connection: str
    name: str
    uuid: str
    state: str
    id: int | None
    autostart: bool
    persistent: bool
    agent: str
    nics: tuple[GuestNicView, ...]
    differences: tuple[NicDifference, ...]
    """Between what runs and what is saved."""


def _on_link(addresses: Iterable[Address]) -> dict[str, tuple[str, ...]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for address in addresses:
        found[address.link].append(f"{address.ip}/{address.prefix_len}")
    return {link: tuple(every) for link, every in found.items()}


def uplinks(state: State) -> tuple[UplinkView, ...]:
    """The links that lead out of the host, in the order of their routes' metrics."""
    links = {x.name: x for x in state.links}
    addresses, managers = _on_link(state.addresses), {x.link: x.manager for x in state.owners}
    taps = {x.target for g in state.guests for x in g.live_nics}
    gateways: dict[str, list[Ip]] = {}
    for route in sorted(state.routes, key=lambda x: x.metric):
        if route.destination.endswith("/0") and route.link and route.type == "unicast":
            known = gateways.setdefault(route.link, [])
            if route.gateway is not None and route.gateway not in known:
                known.append(route.gateway)
    found: list[UplinkView] = []
    for name, ways in gateways.items():
        top = links.get(name)
        if top is None:
            continue
        ports = [x for x in state.links if x.master == name]
        below = [x for x in ports if x.kind in _WIRES and x.name not in taps]
        for link in below if top.kind == "bridge" else [top]:
            found.append(_uplink(link, top, addresses, tuple(ways), managers))
    return tuple(found)


def _uplink(
    link: Link,
    top: Link,
    addresses: dict[str, tuple[str, ...]],
    gateways: tuple[Ip, ...],
    managers: Mapping[str, str],
) -> UplinkView:
    own = addresses.get(link.name, ())
    return UplinkView(
        link=link.name,
        kind=link.kind,
        mac=link.mac,
        up=link.up,
        carrier=link.carrier,
        speed_mbit=link.speed_mbit,
        bridge=top.name if top is not link else None,
        addresses=own if top is link else (*addresses.get(top.name, ()), *own),
        gateways=gateways,
        manager=managers.get(link.name, "unknown"),
    )


def bridges(state: State) -> tuple[BridgeView, ...]:
    """All Linux bridges with their ports."""
    addresses, managers = _on_link(state.addresses), {x.link: x.manager for x in state.owners}
    guests = {x.target: g.name for g in state.guests for x in g.live_nics if x.target}
    ports: defaultdict[str, list[Link]] = defaultdict(list)
    learnt: defaultdict[str, int] = defaultdict(int)
    for link in state.links:
        if link.master is not None:
            ports[link.master].append(link)
    for entry in state.forwarding:
        learnt[entry.port] += entry.kind == "learned"
    networks = {
        config.bridge: network.name
        for network in state.networks
        if (config := network.config) is not None and config.bridge
    }
    return tuple(
        BridgeView(
            name=link.name,
            mac=link.mac,
            mtu=link.mtu,
            up=link.up,
            carrier=link.carrier,
            attributes=link.bridge,
            addresses=addresses.get(link.name, ()),
            network=networks.get(link.name),
            manager=managers.get(link.name, "unknown"),
            ports=tuple(
                PortView(
                    link=port.name,
                    kind=port.kind,
                    carrier=port.carrier,
                    state=port.port.state if port.port is not None else "unknown",
                    attributes=port.port,
                    guest=guests.get(port.name),
                    macs=learnt[port.name],
                )
                for port in ports[link.name]
            ),
        )
        for link in state.links
        if link.kind == "bridge"
    )


def networks(state: State) -> tuple[NetworkView, ...]:
    """All libvirt networks with their guests and leases."""
    users: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for guest in state.guests:
        for nic in guest.nics:
            if nic.type == "network" and nic.source is not None:
                users[guest.connection, nic.source][guest.name] = None
    leases: defaultdict[tuple[str, str], list[Lease]] = defaultdict(list)
    for lease in state.leases:
        leases[lease.connection, lease.network].append(lease)
    return tuple(
        NetworkView(
            network=network,
            guests=tuple(users[network.connection, network.name]),
            leases=tuple(leases[network.connection, network.name]),
        )
        for network in state.networks
    )


def guests(state: State) -> tuple[GuestView, ...]:
    """All guests with their NICs, addresses, and differences between running and saved."""
    return tuple(
        GuestView(
            connection=guest.connection,
            name=guest.name,
            uuid=guest.uuid,
            state=guest.state,
            id=guest.id,
            autostart=guest.autostart,
            persistent=guest.persistent,
            agent=guest.agent,
            nics=tuple(
                GuestNicView(nic=nic, known=known)
                for nic, known in zip(guest.nics, addresses.nics, strict=True)
            ),
            differences=nic_differences(guest),
        )
        for guest, addresses in zip(state.guests, guest_addresses(state), strict=True)
    )
