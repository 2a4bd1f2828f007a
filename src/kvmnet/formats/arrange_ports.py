"""Ports of an `Arrangement`: the flags and VLANs that the kernel forgets when a port leaves.

A port that joins has what the kernel gives a new one, so what it is to have is said along with it.
What can not be foreseen (a cost that the kernel takes from the NIC's speed) is a difference once it
has joined: who carries an arrangement out looks again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from kvmnet.formats import ip_batch, port_options
from kvmnet.model.arrangement import Arrangement, LinkTarget
from kvmnet.model.host import Link, PortAttributes
from kvmnet.model.setup import PortVlans
from kvmnet.model.state import State

_NEW = PortAttributes(state="forwarding")


class Member(Struct, frozen=True):
    """How a port takes part in one VLAN."""

    pvid: bool
    untagged: bool


_Members = dict[int, Member]


def joined(now: State, target: Arrangement) -> Arrangement:
    """Bridges that are there, as they are set, and ports that are some of theirs already."""
    there = {x.name: x for x in now.links}
    links = tuple(
        msgspec.structs.replace(x, bridge=there[x.name].bridge if x.bridge is not None else None)
        for x in target.links
        if x.name in there and (x.bridge is not None or x.master == there[x.name].master)
    )
    return msgspec.structs.replace(target, links=links)


def flags(now: State, target: Arrangement) -> Iterator[tuple[str, str]]:
    """Links, and what sets their flags. For after the ports have joined."""
    for link in target.links:
        has = now.link(link.name)
        if has is None or link.port is None or link.master is None:
            continue
        joined = has.port if has.master == link.master else None
        words = port_options.changes(joined or _NEW, _possible(now, link.port, link.master))
        # A cost that is set stays, whatever speed a NIC has: it is not, if the kernel's is the same
        if joined is not None and link.port.cost not in {None, joined.cost} and has.carrier:
            words += ["cost", str(link.port.cost)]
        if words:
            text = ("link", "set", "dev", link.name, "type", "bridge_slave", *words)
            yield link.name, ip_batch.line(*text)


def _possible(now: State, port: PortAttributes, bridge: str) -> PortAttributes:
    """Without a backup port that is none of the bridge's any more."""
    ports = {x.name for x in now.links if x.master == bridge}
    pairs = zip(port.options[::2], port.options[1::2], strict=False)
    kept = [x for x in pairs if x[0] != port_options.BACKUP or x[1] in ports]
    return PortAttributes(
        state=port.state, learning=port.learning, flood=port.flood, isolated=port.isolated,
        hairpin=port.hairpin, cost=port.cost, options=tuple(word for pair in kept for word in pair),
    )  # fmt: skip


def vlans(now: State, target: Arrangement, *, filtering: bool) -> Iterator[tuple[str, str]]:
    """Links, and what `bridge -batch` has to be told of their VLANs.

    Where a bridge is `filtering` by now, frames are dropped until that is done, and its default
    VLAN can not change: for directly after a port has joined. Else for after the default has
    changed, which changes the VLANs of ports.
    """
    for link in target.links:
        name = link.name if link.bridge is not None else link.master
        if link.vlans is None or name is None or _filters(now.link(name)) != filtering:
            continue
        if link.bridge is None and now.link(link.name) is None:
            continue
        has = _expected(now, target, link, name)
        for text in _differences(link, has, _members(link.vlans)):
            yield link.name, text


def _filters(link: Link | None) -> bool:
    return link is not None and link.bridge is not None and link.bridge.vlan_filtering


def _expected(now: State, target: Arrangement, link: LinkTarget, bridge: str) -> _Members:
    """The VLANs that the link has by the time that the commands for it come."""
    there = now.link(bridge)
    has = there.bridge if there is not None else None
    wanted = next((x.bridge for x in target.links if x.name == bridge), None)
    old = has.default_pvid if has is not None else 0
    new = old if wanted is None or (has and has.vlan_filtering) else wanted.default_pvid
    itself = now.link(link.name)
    if itself is not None and (link.bridge is not None or itself.master == bridge):
        found = _members(next((x for x in now.port_vlans if x.port == link.name), None))
    else:
        found = {old: Member(pvid=True, untagged=True)} if old and link.bridge is None else {}
    if new and new != old and new not in found:
        found = {x: Member(pvid=False, untagged=y.untagged) for x, y in found.items()}
        found[new] = Member(pvid=True, untagged=True)
    return found


def _members(vlans: PortVlans | None) -> _Members:
    if vlans is None:
        return {}
    return {
        number: Member(pvid=number == vlans.pvid, untagged=some.untagged)
        for some in vlans.ranges
        for number in range(some.first, some.last + 1)
    }


def _differences(link: LinkTarget, has: _Members, want: _Members) -> Iterator[str]:
    own = ("self",) if link.bridge is not None else ()
    for first, last, member in _ranges({x: y for x, y in want.items() if has.get(x) != y}):
        words = ["pvid"] if member.pvid else []
        words += ["untagged"] if member.untagged else []
        yield _line("add", link.name, first, last, *words, *own)
    gone = Member(pvid=False, untagged=False)
    for first, last, _ in _ranges({x: gone for x in has if x not in want}):
        yield _line("del", link.name, first, last, *own)


def _ranges(members: _Members) -> Iterable[tuple[int, int, Member]]:
    """As few as can be; the kernel takes no range with a PVID in it."""
    found: list[tuple[int, int, Member]] = []
    for number, member in sorted(members.items()):
        if found and not member.pvid and found[-1][1:] == (number - 1, member):
            found[-1] = (found[-1][0], number, member)
        else:
            found.append((number, number, member))
    return found


def _line(verb: str, link: str, first: int, last: int, *more: str) -> str:
    numbers = str(first) if first == last else f"{first}-{last}"
    return ip_batch.line("vlan", verb, "dev", link, "vid", numbers, *more)
