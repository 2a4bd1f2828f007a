"""Checks that only a diagnosis makes: `kvmnet status` tells the same in other words."""

from __future__ import annotations

from collections.abc import Iterator

from kvmnet.core import mending
from kvmnet.core.finding import Finding, command
from kvmnet.core.scope import Scope
from kvmnet.model.state import State


def libvirt_down(state: State) -> Iterator[Finding]:
    """A libvirt that does not answer root: the first reason why guests are offline."""
    gap = next((x for x in state.unread if x.what.startswith("libvirt")), None)
    if gap is None or gap.absent or state.connections or not state.privileged:
        return
    yield Finding(
        name="libvirt-down",
        severity="problem",
        subject="the host",
        what="libvirt can not be reached, so nothing is known of guests and networks",
        breaks="no guest or network can be started or changed",
        evidence=(f"{gap.what}: {gap.why}",),
        fix=(gap.hint,) if gap.hint else (),
    )


def asked_network_inactive(state: State, scope: Scope) -> Iterator[Finding]:
    """A network that somebody asks about is wanted, also while no guest uses it yet."""
    network = state.network(scope.name) if scope.kind == "network" else None
    if network is None or network.active or network.saved is None:
        return
    yield Finding(
        name="network-inactive",
        severity="problem",
        subject=f"network {network.name}",
        what=f"the network {network.name} is not active",
        breaks="no guest can be plugged into it",
        evidence=(f"libvirt {network.connection} says so",),
        fix=(command("kvmnet", "network", "start", network.name),),
        mend=(mending.start_network(network.name),),
    )


def asked_guest_off(state: State, scope: Scope) -> Iterator[Finding]:
    """A guest that does not run has no network: for somebody who asks about just this guest."""
    guest = state.guest(scope.name) if scope.kind == "guest" else None
    if guest is None or guest.active:
        return
    yield Finding(
        name="guest-not-running",
        severity="note",
        subject=f"guest {guest.name}",
        what=f"it is {guest.state}: only a running guest has a network",
        evidence=(f"libvirt {guest.connection} says so",),
        fix=(command("virsh", "start", guest.name),),
    )
