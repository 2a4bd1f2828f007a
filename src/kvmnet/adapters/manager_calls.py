"""Tells host network managers what changed: one function for each kind of call.

Each manager's module is imported when it is called: a host has one of them, and the guard, which
is waited for, needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from kvmnet.model import handover


def load(calls: Sequence[handover.ManagerCall]) -> None:
    """Have the modules in memory that make these calls."""
    for call in calls:
        match call:
            case handover.NetplanGenerate():
                name = "manager_netplan"
            case handover.NetworkdReload():
                name = "manager_networkd"
            case handover.NmLoad() | handover.NmUp() | handover.NmDown() | handover.NmReapply():
                name = "manager_networkmanager"
            case _:
                name = "ifupdown_calls"
        import_module(f"kvmnet.adapters.{name}")


def make(call: handover.ManagerCall) -> None:
    """Carry out one call. Raises `KvmnetError` with the manager's own reason."""
    match call:
        case handover.NetplanGenerate():
            from kvmnet.adapters import manager_netplan

            manager_netplan.generate()
        case handover.NetworkdReload():
            from kvmnet.adapters import manager_networkd

            manager_networkd.reload(call)
        case handover.NmLoad() | handover.NmUp() | handover.NmDown() | handover.NmReapply():
            _tell_networkmanager(call)
        case _:
            _tell_ifupdown(call)


def _tell_networkmanager(
    call: handover.NmLoad | handover.NmUp | handover.NmDown | handover.NmReapply,
) -> None:
    from kvmnet.adapters import manager_networkmanager

    match call:
        case handover.NmLoad():
            manager_networkmanager.load(call)
        case handover.NmUp():
            manager_networkmanager.up(call)
        case handover.NmDown():
            manager_networkmanager.down(call.uuid)
        case handover.NmReapply():
            manager_networkmanager.reapply(call.link)


def _tell_ifupdown(
    call: handover.DhclientHeld
    | handover.DhclientMoved
    | handover.IfstateSet
    | handover.IfupdownDns,
) -> None:
    from kvmnet.adapters import ifupdown_calls

    match call:
        case handover.DhclientHeld():
            ifupdown_calls.hold(call)
        case handover.DhclientMoved():
            ifupdown_calls.move(call)
        case handover.IfstateSet():
            ifupdown_calls.set_state(call)
        case handover.IfupdownDns():
            ifupdown_calls.tell_dns(call)
