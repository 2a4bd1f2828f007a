"""What ifupdown and its DHCP client are told when a bridge takes a NIC's place, and back."""

from __future__ import annotations

from typing import Literal

import msgspec

from kvmnet.formats.interfaces_view import IfupdownView
from kvmnet.model.handover import (
    DhclientHeld,
    DhclientMoved,
    DhcpClient,
    HandedOver,
    IfstateSet,
    IfupdownDns,
    ManagerCall,
)

Clients = tuple[DhcpClient, ...]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Who serves which link from now on, and who did."""

    up: tuple[str, ...]
    down: tuple[str, ...]
    moves: tuple[DhclientMoved, ...] = ()
    dns_stop: tuple[IfupdownDns, ...] = ()
    dns_start: tuple[IfupdownDns, ...] = ()


def with_calls(handed: HandedOver, view: IfupdownView, change: Change) -> HandedOver:
    """The hand-over with its calls, there and back."""
    touched = (*change.up, *change.down)
    was_up = tuple(x for x in touched if x in view.up)
    back = Change(
        up=was_up,
        down=tuple(x for x in touched if x not in view.up),
        moves=tuple(DhclientMoved(ends=x.starts, starts=x.ends) for x in change.moves),
        dns_stop=tuple(_turned(x, "stop") for x in change.dns_start),
        dns_start=tuple(_turned(x, "start") for x in change.dns_stop),
    )
    return msgspec.structs.replace(
        handed,
        calls_first=_held(change),
        calls=_calls(view, change),
        calls_back_first=_held(back),
        calls_back=_calls(view, back),
    )


def _calls(view: IfupdownView, change: Change) -> tuple[ManagerCall, ...]:
    """New DNS servers before the old ones go: there is no moment without.

    ifupdown2 looks at the kernel and not into such files, and takes a link as it finds it.
    """
    told = (change.up or change.down) and view.program == "ifupdown"
    state = (IfstateSet(up=change.up, down=change.down),) if told else ()
    return (*change.moves, *state, *change.dns_start, *change.dns_stop)


def _held(change: Change) -> tuple[ManagerCall, ...]:
    clients = tuple(x.ends for x in change.moves if x.ends is not None)
    return (DhclientHeld(clients=clients),) if clients else ()


def _turned(call: IfupdownDns, mode: Literal["start", "stop"]) -> IfupdownDns:
    return msgspec.structs.replace(call, mode=mode)


def moves(clients: Clients, source: str, target: str) -> tuple[DhclientMoved, ...]:
    """Every DHCP client of one link goes over to another."""
    return tuple(
        DhclientMoved(ends=x, starts=renamed(x, target)) for x in clients if x.link == source
    )


def ends(clients: Clients, links: tuple[str, ...]) -> tuple[DhclientMoved, ...]:
    """The links' DHCP clients end."""
    return tuple(DhclientMoved(ends=x, starts=None) for x in clients if x.link in links)


def renamed(client: DhcpClient, link: str) -> DhcpClient:
    """The same client for another link, as ifupdown would start it for that one."""

    def swap(word: str) -> str:
        if word == client.link:
            return link
        word = word.replace(f"dhcpcd/{client.link}.", f"dhcpcd/{link}.")
        return word.replace(f".{client.link}.", f".{link}.")

    return DhcpClient(
        program=client.program,
        link=link,
        family=client.family,
        argv=tuple(map(swap, client.argv)),
        pid_file=swap(client.pid_file),
        lease_file=swap(client.lease_file),
    )


def fresh(link: str) -> DhcpClient:
    """A DHCPv4 client as ifup starts it (ifupdown 0.8, `inet dhcp`)."""
    pid, lease = f"/run/dhclient.{link}.pid", f"/var/lib/dhcp/dhclient.{link}.leases"
    return DhcpClient(
        link=link, family=4, pid_file=pid, lease_file=lease,
        argv=("dhclient", "-4", "-v", "-i", "-pf", pid, "-lf", lease, "-I",
              "-df", f"/var/lib/dhcp/dhclient6.{link}.leases", link),
    )  # fmt: skip
