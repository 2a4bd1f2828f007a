"""Tells host network managers what changed: one function for each kind of call."""

from __future__ import annotations

from kvmnet.adapters import ifupdown_calls, manager_networkd, manager_networkmanager
from kvmnet.adapters.run import run
from kvmnet.model import handover


def make(call: handover.ManagerCall) -> None:
    """Carry out one call. Raises `KvmnetError` with the manager's own reason."""
    match call:
        case handover.NetplanGenerate():
            run(["netplan", "generate"], timeout=20.0)
        case handover.NetworkdReload():
            manager_networkd.reload(call)
        case handover.DhclientHeld():
            ifupdown_calls.hold(call)
        case handover.DhclientMoved():
            ifupdown_calls.move(call)
        case handover.IfstateSet():
            ifupdown_calls.set_state(call)
        case handover.IfupdownDns():
            ifupdown_calls.tell_dns(call)
        case handover.NmLoad():
            manager_networkmanager.load(call)
        case handover.NmUp():
            manager_networkmanager.up(call)
        case handover.NmDown():
            manager_networkmanager.down(call.uuid)
        case handover.NmReapply():
            manager_networkmanager.reapply(call.link)
