"""What a diagnosis is about: the whole host, or one guest, network or bridge and what it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import msgspec
from msgspec import Struct

from kvmnet.core.finding import Finding
from kvmnet.core.missing import no_such
from kvmnet.core.proofs import ways_out
from kvmnet.errors import InvalidInput
from kvmnet.model.state import State
from kvmnet.model.values import parse_nic_name, parse_object_name
from kvmnet.model.virt import GuestNic, Network

ScopeKind = Literal["host", "guest", "network", "bridge"]

MOST_LETTERS = 200
_KINDS: dict[str, ScopeKind] = {"guest": "guest", "network": "network", "bridge": "bridge"}
NicTest = Callable[[GuestNic], bool]
CUTS_HOST_OFF = frozenset({"bridge-down", "port-blocked", "port-renamed", "uplink-down"})
"""Findings about a bridge that cut off the host as well, where its way out is by that bridge."""
_LINK_WORDS = frozenset({"NIC", "link", "port", "uplink"})


class Scope(Struct, frozen=True, kw_only=True):
    """What the user asked about; `name` is empty for the whole host."""

    kind: ScopeKind = "host"
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else "this host"


class Concern(Struct, frozen=True, kw_only=True):
    """All that a scope depends on, by name; what is named nowhere here is host-wide."""

    guests: frozenset[str] = frozenset()
    networks: frozenset[str] = frozenset()
    bridges: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()
    """The bridges' ports that lead out, what is below them, and the host's ways out."""


class Place(Struct, frozen=True, kw_only=True):
    """Where a stand-in guest can be plugged in."""

    kind: Literal["network", "bridge"]
    name: str
    bridge: str
    connection: str | None = None
    guests: tuple[str, ...] = ()
    """Guests that have a NIC there."""
    guest: str = ""
    """The one that is looked at, together with its NIC of that number; empty: the place alone."""
    nic: int = 0

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


def parse_scope(text: str | None) -> Scope:
    """`GUEST`, `guest:NAME`, `network:NAME` or `bridge:NAME`. Raises `InvalidInput`."""
    if text is None:
        return Scope()
    word, colon, name = text.partition(":")
    kind = _KINDS.get(word) if colon else "guest"
    if kind is None:
        raise InvalidInput(
            f"{text[:80]!a} is nothing that can be looked at",
            why="a guest's name, network:NAME or bridge:NAME is expected",
            hint="kvmnet doctor network:default",
        )
    name = name if colon else word
    return Scope(
        kind=kind,
        name=parse_nic_name(name) if kind == "bridge" else _any_name(name, kind),
    )


def _any_name(text: str, kind: str) -> str:
    """A name as libvirt may have it: others than kvmnet makes."""
    if not text.strip() or not text.isprintable() or len(text) > MOST_LETTERS:
        return parse_object_name(text, kind)  # which says what is wrong with it
    return text


def concern_of(state: State, scope: Scope) -> Concern | None:
    """All that the scope depends on; None: everything. Raises `NotFound`, `Unavailable`."""
    match scope.kind:
        case "host":
            return None
        case "guest":
            guest = state.guest(scope.name)
            if guest is None:
                raise no_such(state, "guest", scope.name)
            nics = (*guest.live_nics, *guest.saved_nics)
            networks = {x.source for x in nics if x.type == "network" and x.source is not None}
            bridges = {x for nic in nics for x in bridge_names(state, guest.connection, nic)}
            direct = {x.source for x in nics if x.type == "direct" and x.source is not None}
            return _concern(state, {guest.name}, networks, bridges, direct)
        case "network":
            network = state.network(scope.name)
            users = _users(state, lambda nic: nic.type == "network" and nic.source == scope.name)
            if network is None and not users:
                raise no_such(state, "network", scope.name)
            made = {x.bridge for x in (network.live, network.saved) if x} if network else set()
            return _concern(state, users, {scope.name}, {x for x in made if x})
        case "bridge":
            return _of_bridge(state, scope)


def _of_bridge(state: State, scope: Scope) -> Concern:
    networks = {
        x.name for x in state.networks
        if scope.name in {c.bridge for c in (x.live, x.saved) if c is not None}
    }  # fmt: skip
    users = _users(
        state,
        lambda nic: (
            scope.name in (nic.source if nic.type == "bridge" else None, nic.bridge)
            or (nic.type == "network" and nic.source in networks)
        ),
    )
    if state.link(scope.name) is None and not networks and not users:
        raise no_such(state, "bridge", scope.name)
    return _concern(state, users, networks, {scope.name})


def _users(state: State, uses: NicTest) -> set[str]:
    return {
        guest.name
        for guest in state.guests
        if any(uses(nic) for nic in (*guest.live_nics, *guest.saved_nics))
    }


def bridge_names(state: State, connection: str, nic: GuestNic) -> frozenset[str]:
    """The bridges that a guest's NIC is, or is to be, plugged into."""
    if nic.type == "bridge":
        return frozenset({nic.source} if nic.source else ())
    if nic.type != "network":
        return frozenset()
    found = {nic.bridge} if nic.bridge else set()
    for network in state.networks:
        if (network.connection, network.name) == (connection, nic.source):
            found |= {x.bridge for x in (network.live, network.saved) if x is not None and x.bridge}
    return frozenset(found)


def _concern(
    state: State,
    guests: set[str],
    networks: set[str],
    bridges: set[str],
    links: Iterable[str] = (),
) -> Concern:
    reached = {x.name for name in bridges for x in state.ports(name) if x.kind != "tap"}
    reached |= set(links) | set(ways_out(state))
    for _ in range(3):  # a VLAN on a bond on a NIC
        reached |= {x.parent for x in state.links if x.name in reached and x.parent is not None}
        reached |= {x.name for x in state.links if x.master in reached and x.kind != "tap"}
    taps = {
        nic.target for guest in state.guests if guest.name in guests
        for nic in guest.live_nics if nic.target is not None
    }  # fmt: skip
    return Concern(
        guests=frozenset(guests),
        networks=frozenset(networks),
        bridges=frozenset(bridges),
        links=frozenset(reached | taps | bridges),
    )


def way_out(state: State) -> Concern:
    """What the host itself needs to reach its gateways."""
    links = set(ways_out(state))
    links |= {x.master for x in state.links if x.name in links and x.master is not None}
    bridges = {x.name for x in state.links if x.name in links and x.bridge is not None}
    return _concern(state, set(), set(), bridges, links)


def concerns(concern: Concern | None, finding: Finding) -> bool:
    """Whether the finding is about something that the scope depends on, or about the host."""
    if concern is None:
        return True
    word, _, name = finding.subject.partition(" ")
    name = name.split(",")[0]
    if word == "guest":
        return name in concern.guests
    if word == "network":
        return name in concern.networks
    if word == "bridge":
        cut_off = finding.name in CUTS_HOST_OFF and name in concern.links
        return cut_off or name in concern.bridges
    return name in concern.links if word in _LINK_WORDS else True


def places(state: State, concern: Concern | None) -> tuple[Place, ...]:
    """Every place in use (of the scope) that a stand-in can be plugged into, each bridge once.

    In use is an active network, and a bridge that a guest's NIC or such a network names.
    """
    found: dict[str, Place] = {}
    for network in state.networks:
        place = _of_network(state, network)
        if place is not None and (concern is None or network.name in concern.networks):
            found.setdefault(place.bridge, place)
    for link in state.links:
        users = _users(state, _is_on(link.name))
        asked = concern is not None and link.name in concern.bridges
        if link.bridge is not None and link.name not in found and (asked or (
            concern is None and users
        )):  # fmt: skip
            found[link.name] = Place(
                kind="bridge", name=link.name, bridge=link.name, guests=tuple(sorted(users))
            )
    return tuple(found.values())


def with_guest(state: State, name: str, found: tuple[Place, ...]) -> tuple[Place, ...]:
    """The places once for each NIC that a running guest has there; as they are if it is off."""
    guest = state.guest(name)
    if guest is None or not guest.active:
        return found
    done = [
        msgspec.structs.replace(place, guest=guest.name, nic=number)
        for number, nic in enumerate(guest.live_nics, start=1)
        for place in found
        if place.bridge in bridge_names(state, guest.connection, nic)
    ]
    return tuple(done) or found


def _is_on(bridge: str) -> NicTest:
    return lambda nic: nic.type == "bridge" and nic.source == bridge and nic.virtualport is None


def _of_network(state: State, network: Network) -> Place | None:
    config = network.live
    if not network.active or config is None or config.bridge is None or config.virtualport:
        return None
    link = state.link(config.bridge)
    if link is None or link.bridge is None:
        return None
    users = _users(state, lambda nic: nic.type == "network" and nic.source == network.name)
    return Place(
        kind="network", name=network.name, bridge=config.bridge,
        connection=network.connection, guests=tuple(sorted(users)),
    )  # fmt: skip
