"""Who is plugged into what: taps of running guests, users and uplinks of bridges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from kvmnet.core.subnets import bridges_of
from kvmnet.model.host import Link
from kvmnet.model.state import State
from kvmnet.model.virt import Guest, GuestNic, Network

WIRES = frozenset({"ethernet", "wireless", "bond", "team", "vlan"})
"""Kinds of links that lead out of the host."""


class Plug(NamedTuple):
    """One NIC of one guest."""

    guest: Guest
    nic: GuestNic


def nics(state: State) -> Iterator[Plug]:
    """All NICs in force."""
    return (Plug(guest, nic) for guest in state.guests for nic in guest.nics)


def taps(state: State) -> dict[str, Plug]:
    """The running guests' NICs by the host's end of their cable."""
    return {
        nic.target: Plug(guest, nic)
        for guest in state.guests
        for nic in guest.live_nics
        if nic.target is not None
    }


def by_bridge(state: State) -> dict[str, list[Plug]]:
    """The NICs in force by the Linux bridge that they belong on, by their definition."""
    made = {
        (x.connection, x.name): x.config.bridge
        for x in state.networks
        if x.config is not None and x.config.virtualport is None
    }
    found: defaultdict[str, list[Plug]] = defaultdict(list)
    for plug in nics(state):
        nic = plug.nic
        bridge = nic.source if nic.type == "bridge" else None
        if nic.type == "network":
            bridge = nic.bridge or made.get((plug.guest.connection, nic.source or ""))
        if bridge is not None and nic.virtualport is None:
            found[bridge].append(plug)
    return found


def ports(state: State) -> dict[str, list[Link]]:
    """The ports of each bridge."""
    found: defaultdict[str, list[Link]] = defaultdict(list)
    for link in state.links:
        if link.master is not None:
            found[link.master].append(link)
    return found


def uplinks(every: list[Link]) -> list[Link]:
    """Those of a bridge's ports that lead out of the host.

    A veth may lead to a container as well: it counts only where it is the one that could.
    """
    wires = [x for x in every if x.kind in WIRES]
    cables = [x for x in every if x.kind == "veth"]
    return wires or (cables if len(cables) == 1 else [])


def libvirts_bridges(state: State) -> set[str]:
    """Bridges that libvirt makes and takes away by itself."""
    return {
        bridge
        for network in state.networks
        if network.config is not None and network.config.mode != "bridge"
        for bridge in bridges_of(network)
    }


def guests_of(plugs: list[Plug]) -> list[str]:
    """The names of the guests, each once."""
    return list(dict.fromkeys(x.guest.name for x in plugs))


def libvirts_network(state: State, bridge: str) -> Network | None:
    """The active network that libvirt made the bridge for."""
    return next(
        (x for x in state.networks
         if x.active and x.live is not None and x.live.bridge == bridge
         and x.live.mode in {"nat", "route", "open", "isolated"}),
        None,
    )  # fmt: skip
