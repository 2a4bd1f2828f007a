"""The running guests on a bridge, and where they can go before it does."""

from __future__ import annotations

from collections.abc import Iterator

from kvmnet.core.finding import command, some
from kvmnet.core.uplinks import guest_of
from kvmnet.errors import Refused
from kvmnet.model.host import Link
from kvmnet.model.state import State
from kvmnet.model.target import place
from kvmnet.model.virt import Guest, Network

_LEADS_OUT = ("nat", "route", "open")
"""Modes of networks that are some substitute for a bridge, the likeliest first."""


def check_guests(state: State, bridge: str) -> None:
    """Raise `Refused` while running guests are plugged into the bridge."""
    if not _taps(state, bridge):
        return
    known = _known(state, bridge)
    many = len(_taps(state, bridge)) > 1
    raise Refused(
        f"bridge {bridge} can not be deleted",
        why=f"{shown_guests(state, bridge)} {'are' if many else 'is'} plugged into it, and would "
        "be cut off",
        hint="; ".join(
            (
                *((_way_off(state, bridge, known),) if known else ()),
                *map(_owner, _unknown(state, bridge)[:1]),
                f"or cut {'them' if many else 'it'} off: "
                f"{command('kvmnet', 'bridge', 'delete', bridge, '--force')}",
            )
        ),
    )


def shown_guests(state: State, bridge: str) -> str:
    """For a sentence: `guests web, db and tap vnet7 (whose is not known)`; nobody: nothing."""
    names, taps = [x.name for x in _known(state, bridge)], _unknown(state, bridge)
    parts = [f"guest{'s' if len(names) > 1 else ''} {some(names)}"] if names else []
    if taps:
        parts.append(f"tap{'s' if len(taps) > 1 else ''} {some(taps)} (whose is not known)")
    return " and ".join(parts)


def _taps(state: State, bridge: str) -> tuple[Link, ...]:
    return tuple(x for x in state.ports(bridge) if x.kind == "tap")


def _known(state: State, bridge: str) -> tuple[Guest, ...]:
    found = [guest for x in _taps(state, bridge) if (guest := guest_of(state, x)) is not None]
    return tuple({x.uuid: x for x in found}.values())


def _unknown(state: State, bridge: str) -> tuple[str, ...]:
    """Taps that no guest of a libvirt that was read has."""
    return tuple(x.name for x in _taps(state, bridge) if guest_of(state, x) is None)


def _owner(tap: str) -> str:
    """Who holds a tap open has its name in what the kernel tells of the open file (tun.c)."""
    return (
        f"find who has {tap}, by the process that holds it open (/proc/PID): "
        f"{command('grep', '-lswF', tap)} /proc/[0-9]*/fdinfo/*"
    )


def _way_off(state: State, bridge: str, guests: tuple[Guest, ...]) -> str:
    network = another_network(state, bridge, guests[0].connection)
    to = "default" if network is None else network.name
    moves = [
        command("kvmnet", "guest", "move", "--all", "--from", x, "--to", f"network:{to}")
        for x in dict.fromkeys(_places(state, bridge, guests))
    ]
    made = "make one with kvmnet up, then " if network is None else ""
    whom = "them" if len(guests) > 1 else "it"
    return f"put {whom} on another network first: {made}{'; '.join(moves)}"


def _places(state: State, bridge: str, guests: tuple[Guest, ...]) -> Iterator[str]:
    """What they are on, as their definitions say: the bridge, or a network that leads to it."""
    taps = {x.name for x in _taps(state, bridge)}
    for guest in guests:
        yield from (place(x) for x in guest.live_nics if x.target in taps)


def another_network(state: State, bridge: str | None, connection: str) -> Network | None:
    """An active network that leads out otherwise than by this bridge, the likeliest one."""
    found = [
        x for x in state.networks
        if x.active and x.live is not None and x.live.mode in _LEADS_OUT
        and x.live.bridge != bridge and x.connection == connection
    ]  # fmt: skip
    found.sort(key=lambda x: (x.name != "default", _LEADS_OUT.index(x.live.mode) if x.live else 0))
    return next(iter(found), None)
