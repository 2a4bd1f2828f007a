"""Plans that give a bridge one NIC more, or take one away."""

from __future__ import annotations

import msgspec

from kvmnet.core.bridge_change import (
    BridgeChange,
    find_bridge,
    kept_as,
    nics_of,
    port_of,
    shown_addresses,
)
from kvmnet.core.bridge_checks import check_loop, lost_with_the_port
from kvmnet.core.bridge_guests import shown_guests
from kvmnet.core.bridge_picture import as_is, freed, global_addresses
from kvmnet.core.finding import command
from kvmnet.core.uplinks import check_port, find_nic, guest_of, port_notes
from kvmnet.errors import Refused
from kvmnet.model.arrangement import Arrangement
from kvmnet.model.host import Link
from kvmnet.model.plan import Arrange, PlannedStep
from kvmnet.model.state import State

_SOME_NIC = "a guest's NIC, and it is not known of which guest"


def plan_add_port(state: State, bridge: str, nic: str) -> BridgeChange:
    """One more NIC becomes a port. Raises `NotFound`, `Refused`."""
    there, link = find_bridge(state, bridge), find_nic(state, nic)
    title = f"plug {link.name} into bridge {there.name}"
    if link.master == there.name:
        note = f"{link.name} is a port of {there.name} already"
        return BridgeChange(title=title, bridge=there.name, notes=(note,))
    check_port(state, link, there.name)
    if global_addresses(state, link.name):
        raise Refused(
            f"{link.name} can not become a port of {there.name}",
            why=f"it has addresses of its own ({shown_addresses(state, link.name)}), which would "
            "stop working",
            hint=f"take them away first: {command('ip', 'address', 'flush', 'dev', link.name)}",
        )
    beside = [there.name, *(x.name for x in nics_of(state, there.name))]
    if there.bridge is not None and not there.bridge.stp:
        check_loop(state, beside, link.name, there.name)
    notes = port_notes(state, link, there.name)
    if link.mtu < there.mtu:
        notes += (f"{there.name} gets MTU {link.mtu}, that of {link.name}",)
    return _with_ports(state, there, link, title, master=there.name, notes=notes)


def plan_remove_port(state: State, bridge: str, nic: str) -> BridgeChange:
    """A NIC ceases to be a port, and has no addresses. Raises `NotFound`, `Refused`."""
    there, link = find_bridge(state, bridge), find_nic(state, nic)
    title = f"take {link.name} out of bridge {there.name}"
    if link.master != there.name:
        note = f"{link.name} is no port of {there.name}"
        return BridgeChange(title=title, bridge=there.name, notes=(note,))
    what = f"{link.name} can not be taken out of {there.name}"
    if link.kind == "tap":
        guest = guest_of(state, link)
        raise Refused(
            what,
            why=f"it is the other end of {f'a NIC of guest {guest.name}' if guest else _SOME_NIC}",
            hint=f"{command('kvmnet', 'guest', 'move', guest.name)} --to TARGET"
            if guest else "kvmnet guest list",
        )  # fmt: skip
    if nics_of(state, there.name) == (link,) and global_addresses(state, there.name):
        raise Refused(
            what,
            why=f"it is the only way out of {there.name}, which has the host's addresses "
            f"({shown_addresses(state, there.name)})",
            hint=f"have it get them back: {command('kvmnet', 'bridge', 'delete', there.name)}",
        )
    notes = lost_with_the_port(state, there, (link,))
    return _with_ports(state, there, link, title, master=None, notes=notes)


def _with_ports(
    state: State, bridge: Link, link: Link, title: str, *, master: str | None,
    notes: tuple[str, ...],
) -> BridgeChange:  # fmt: skip
    """The change of one port, live and for the manager."""
    before, kept = as_is(state, (link.name,)), kept_as(state, bridge)
    port = msgspec.structs.replace(
        freed(before.links[0]), master=master, addresses=(), sysctls=(), up=True
    )
    others = tuple(x for x in kept.ports if x.name != link.name)
    ports = others if master is None else (*others, port_of(link))
    heir = kept.heir_of if kept.heir_of in {x.name for x in ports} else None
    if heir is None and kept.heir_of is not None and ports:
        heir = ports[0].name
    guests = shown_guests(state, bridge.name) if master is None else ""
    return BridgeChange(
        title=title,
        bridge=bridge.name,
        nics=(bridge.name,),
        arrange=PlannedStep(
            step=Arrange(what=title, target=Arrangement(links=(port,))),
            undo=Arrange(what=f"have {link.name} as it was", target=before),
            disturbs=f"{guests}: nobody is reached by {link.name} any more"
            if guests else "nobody",
        ),
        takeover=msgspec.structs.replace(kept, ports=ports, heir_of=heir),
        before=kept,
        heir=kept.heir_of or link.name,
        notes=notes,
    )  # fmt: skip
