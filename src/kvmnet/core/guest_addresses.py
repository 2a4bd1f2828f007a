"""A guest's addresses from every source at once, each with its source and age.

Sources: the lease that libvirt's dnsmasq gave out, the guest agent, the host's neighbour caches
(by MAC), and the forwarding databases, which tell no address but that the MAC was heard behind the
guest's tap, and when. They agree, or the disagreement is said.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Literal

from msgspec import Struct

from kvmnet.model.host import Family, ForwardingEntry, Neighbour
from kvmnet.model.state import State
from kvmnet.model.values import Ip, Mac
from kvmnet.model.virt import Guest, GuestNic, Lease

Source = Literal["lease", "agent", "neighbour"]

DEFAULT_LEASE_S = 3600
"""dnsmasq's lease time where the network sets none."""
FRESH_S = 60
"""A neighbour entry confirmed within so many seconds is believed."""
_ALIVE = frozenset({"REACHABLE", "DELAY", "PROBE"})


class Sighting(Struct, frozen=True, kw_only=True):
    """One source that knows an address."""

    source: Source
    age_s: int | None = None
    """Seconds since the source learnt or confirmed it; None: it does not tell."""
    detail: str = ""
    """The network of a lease, the link and state of a neighbour, the guest's own NIC."""


class GuestAddress(Struct, frozen=True, kw_only=True):
    """One address of one guest NIC, with all sources that know it."""

    ip: Ip
    family: Family
    prefix_len: int | None = None
    sources: tuple[Sighting, ...]


class Presence(Struct, frozen=True, kw_only=True):
    """Where the NIC's MAC was last heard, by a bridge's forwarding database."""

    bridge: str | None
    port: str
    age_s: int | None = None


class NicAddresses(Struct, frozen=True, kw_only=True):
    """What is known about one guest NIC."""

    mac: Mac | None
    bridge: str | None = None
    """The host's bridge that it is on, where there is one."""
    addresses: tuple[GuestAddress, ...] = ()
    present: Presence | None = None
    disagreements: tuple[str, ...] = ()


class GuestAddresses(Struct, frozen=True, kw_only=True):
    """What is known about one guest, NIC by NIC in their order."""

    connection: str
    name: str
    nics: tuple[NicAddresses, ...]


class _Index:
    """All sources by MAC, made once: the host may have thousands of entries."""

    def __init__(self, state: State) -> None:
        self.now = state.taken_at
        self.leases: defaultdict[Mac, list[Lease]] = defaultdict(list)
        self.neighbours: defaultdict[Mac, list[Neighbour]] = defaultdict(list)
        self.heard: defaultdict[Mac, list[ForwardingEntry]] = defaultdict(list)
        self.guests: defaultdict[Mac, list[str]] = defaultdict(list)
        self.holders: defaultdict[tuple[str, Ip], set[Mac]] = defaultdict(set)
        self.master = {x.name: x.master for x in state.links}
        self.network_bridge: dict[tuple[str, str], str] = {}
        self.lease_s: dict[tuple[str, str, Family], int | None] = {}
        self._read_networks(state)
        self._read_sources(state)

    def _read_networks(self, state: State) -> None:
        for network in state.networks:
            if network.config is None:
                continue
            if network.config.bridge:
                self.network_bridge[network.connection, network.name] = network.config.bridge
            for ip in network.config.ips:
                self.lease_s[network.connection, network.name, ip.family] = ip.lease_s

    def _read_sources(self, state: State) -> None:
        for lease in state.leases:
            if lease.mac is not None:
                self.leases[lease.mac].append(lease)
                bridge = self.network_bridge.get((lease.connection, lease.network))
                if bridge is not None:
                    self.holders[bridge, lease.ip].add(lease.mac)
        for entry in state.neighbours:
            if entry.mac is not None and not entry.proxy:
                self.neighbours[entry.mac].append(entry)
                self.holders[entry.link, entry.ip].add(entry.mac)
        for seen in state.forwarding:
            if seen.kind == "learned":
                self.heard[seen.mac].append(seen)
        for guest in state.guests:
            for mac in {x.mac for x in guest.nics if x.mac is not None}:
                self.guests[mac].append(guest.name)
            for address in guest.agent_addresses:
                for nic in guest.nics:
                    bridge = self.bridge(guest, nic) if nic.mac == address.mac else None
                    if bridge is not None:
                        self.holders[bridge, address.ip].add(address.mac)

    def bridge(self, guest: Guest, nic: GuestNic) -> str | None:
        if nic.target is not None and (master := self.master.get(nic.target)) is not None:
            return master
        if nic.type == "bridge":
            return nic.source
        if nic.type == "network" and nic.source is not None:
            return nic.bridge or self.network_bridge.get((guest.connection, nic.source))
        return None

    def lease_age(self, lease: Lease) -> int | None:
        """Seconds since the lease was given or renewed, from its end and the lease time."""
        key = (lease.connection, lease.network, lease.family)
        length = self.lease_s.get(key, DEFAULT_LEASE_S)
        length = DEFAULT_LEASE_S if length is None else length
        if lease.expires_at is None or length == 0:
            return None
        return max(0, self.now - (lease.expires_at - length))


def guest_addresses(state: State) -> tuple[GuestAddresses, ...]:
    """All guests of the State, in its order, with everything known about their addresses."""
    index = _Index(state)
    return tuple(
        GuestAddresses(
            connection=guest.connection,
            name=guest.name,
            nics=tuple(_nic(index, guest, nic) for nic in guest.nics),
        )
        for guest in state.guests
    )


def _nic(index: _Index, guest: Guest, nic: GuestNic) -> NicAddresses:
    if nic.mac is None:
        return NicAddresses(mac=None, bridge=index.bridge(guest, nic))
    bridge = index.bridge(guest, nic)
    addresses = _addresses(index, guest, nic.mac, bridge)
    return NicAddresses(
        mac=nic.mac,
        bridge=bridge,
        addresses=addresses,
        present=_presence(index, nic, bridge),
        disagreements=(
            *_by_sources(guest, addresses),
            *_by_others(index, guest, nic, bridge, addresses),
        ),
    )


def _addresses(
    index: _Index, guest: Guest, mac: Mac, bridge: str | None
) -> tuple[GuestAddress, ...]:
    seen: defaultdict[tuple[Ip, Family], list[Sighting]] = defaultdict(list)
    lengths: dict[Ip, int | None] = {}
    for told in guest.agent_addresses:
        if told.mac == mac:
            seen[told.ip, told.family].append(Sighting(source="agent", age_s=0, detail=told.nic))
            lengths[told.ip] = told.prefix_len
    for lease in index.leases.get(mac, ()):
        age = index.lease_age(lease)
        sighting = Sighting(source="lease", age_s=age, detail=lease.network)
        seen[lease.ip, lease.family].append(sighting)
        lengths.setdefault(lease.ip, lease.prefix_len)
    for entry in index.neighbours.get(mac, ()):
        detail = f"{entry.link} {entry.state}".strip()
        sighting = Sighting(source="neighbour", age_s=entry.age_s, detail=detail)
        seen[entry.ip, entry.family].append(sighting)
    found = [
        GuestAddress(ip=ip, family=family, prefix_len=lengths.get(ip), sources=tuple(sources))
        for (ip, family), sources in seen.items()
    ]
    elsewhere = {
        x.ip for x in index.leases.get(mac, ())
        if index.network_bridge.get((x.connection, x.network), bridge) != bridge
    }  # fmt: skip

    def order(address: GuestAddress) -> tuple[bool, int, int]:
        """Those that people use come first: IPv4, then IPv6, link-local last.

        A guest that was moved may have the lease of its former network beside what it has now.
        """
        kinds = {x.source for x in address.sources}
        left = 0 if "agent" in kinds else 2 if address.ip in elsewhere else 1
        return address.ip.startswith("fe80:"), address.family, left

    return tuple(sorted(found, key=order))


def _presence(index: _Index, nic: GuestNic, bridge: str | None) -> Presence | None:
    entries = index.heard.get(nic.mac, ()) if nic.mac is not None else ()
    # Behind its own tap first, then on its own bridge, then the freshest.
    ordered = sorted(
        entries, key=lambda x: (x.port != nic.target, x.bridge != bridge, x.age_s or 0)
    )
    if not ordered:
        return None
    return Presence(bridge=ordered[0].bridge, port=ordered[0].port, age_s=ordered[0].age_s)


def _by_sources(guest: Guest, addresses: tuple[GuestAddress, ...]) -> list[str]:
    """What one source says and another one denies."""
    by_family: defaultdict[Family, list[GuestAddress]] = defaultdict(list)
    for address in addresses:
        if not address.ip.startswith("fe80:"):
            by_family[address.family].append(address)
    said: list[str] = []
    for found in by_family.values():
        inside = [x.ip for x in found if any(s.source == "agent" for s in x.sources)]
        for address in found:
            kinds = {x.source for x in address.sources}
            if inside and kinds == {"lease"}:
                said.append(
                    f"the lease says {address.ip}, the guest's agent says {', '.join(inside)}"
                )
            elif inside and "agent" not in kinds:
                fresh = [s for s in address.sources if _fresh(s)]
                if fresh and guest.agent == "connected":
                    said.append(
                        f"the host sees {address.ip} on {fresh[0].detail}, "
                        f"the guest's agent says {', '.join(inside)}"
                    )
        leased = [x.ip for x in found if any(s.source == "lease" for s in x.sources)]
        if leased and not inside:
            said.extend(
                f"the lease says {', '.join(leased)}, the host sees {address.ip} ({s.detail})"
                for address in found
                if address.ip not in leased
                for s in address.sources
                if _fresh(s)
            )
    return said


def _fresh(sighting: Sighting) -> bool:
    return sighting.source == "neighbour" and (
        sighting.detail.rpartition(" ")[2] in _ALIVE
        or (sighting.age_s is not None and sighting.age_s <= FRESH_S)
    )


def _by_others(
    index: _Index,
    guest: Guest,
    nic: GuestNic,
    bridge: str | None,
    addresses: tuple[GuestAddress, ...],
) -> list[str]:
    """What somebody else claims too: the address, or the MAC itself."""
    said: list[str] = []
    if nic.mac is None:
        return said
    for address in addresses:
        others = index.holders.get((bridge or "", address.ip), set()) - {nic.mac}
        if others:
            said.append(f"{address.ip} is also used by {', '.join(sorted(others))}")
    sharing = sorted(x for x in index.guests[nic.mac] if x != guest.name)
    if sharing:
        said.append(f"its MAC is also that of {', '.join(sharing)}")
    present = _presence(index, nic, bridge)
    elsewhere = present is not None and guest.active and nic.target is not None
    if present is not None and elsewhere and present.port != nic.target:
        said.append(f"its MAC was heard behind {present.port}, not behind its tap {nic.target}")
    return said
