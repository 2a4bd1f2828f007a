"""Giving a guest a NIC and taking one away."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec
from msgspec import Struct

from kvmnet.adapters.libvirt_guests import GuestXml, read_all
from kvmnet.core import guest_choice
from kvmnet.core.macs import QEMU_PREFIX, generate, uses_in
from kvmnet.core.missing import elsewhere
from kvmnet.core.nic_choice import choose
from kvmnet.core.nic_plan import plan_attach, plan_detach
from kvmnet.errors import Refused, Unavailable
from kvmnet.flow import user_networks
from kvmnet.flow.apply import Watcher, apply, changing
from kvmnet.flow.guests import RUNNING_PARTS
from kvmnet.flow.observe import observe
from kvmnet.formats import guest_xml
from kvmnet.model.nic_choice import MacWish, NicChoice
from kvmnet.model.plan import Plan
from kvmnet.model.state import State
from kvmnet.model.target import BridgeTarget, DirectTarget, NetworkTarget, Target, UserTarget
from kvmnet.model.values import Mac
from kvmnet.model.virt import Guest

Planner = Callable[[str | None, Watcher], Plan]


class Attachment(Struct, frozen=True, kw_only=True):
    """A NIC that a guest is to get."""

    guest: str
    target: Target
    model: str = "virtio"
    mac: MacWish = MacWish(kind="new")


def attachment(request: Attachment) -> Planner:
    """Plans the new NIC. The planner raises `NotFound`, `Refused`."""

    def plan(uri: str | None, watcher: Watcher) -> Plan:
        state, guest, xml = _read(request.guest, uri, watcher)
        taken = [x.mac for x in uses_in(state)]
        mac = request.mac.mac or generate(QEMU_PREFIX, 1, taken, os.urandom)[0]
        target, notes = user_networks.chosen(_with_mode(request.target), uri)
        nic = _nic(target, request.model, mac)
        planned = plan_attach(state, guest, target, mac, nic, xml.saved)
        return msgspec.structs.replace(planned, notes=(*planned.notes, *notes))

    return plan


def _with_mode(target: Target) -> Target:
    """The target as the definition will name it."""
    if isinstance(target, DirectTarget) and target.mode is None:
        return DirectTarget(nic=target.nic, mode="bridge")
    return target


def _nic(target: Target, model: str, mac: Mac) -> str:
    match target:
        case NetworkTarget():
            return guest_xml.new_nic("network", {"network": target.name}, mac, model, None)
        case BridgeTarget():
            return guest_xml.new_nic("bridge", {"bridge": target.name}, mac, model, None)
        case DirectTarget():
            source = {"dev": target.nic, "mode": target.mode or "bridge"}
            return guest_xml.new_nic("direct", source, mac, model, None)
        case UserTarget():
            backend = "passt" if target.backend == "passt" else None
            return guest_xml.new_nic("user", {}, mac, model, backend)


def detachment(name: str, nic: NicChoice | None, origin: Target | None) -> Planner:
    """Plans to take a NIC away. The planner raises `NotFound`, `InvalidInput`."""

    def plan(uri: str | None, watcher: Watcher) -> Plan:
        _, guest, xml = _read(name, uri, watcher)
        chosen = choose(guest.nics, nic, origin, f"guest {guest.name}")
        if len(chosen) != 1:
            raise Refused(
                f"{len(chosen)} NICs of guest {guest.name} are meant", why="one goes at a time",
                hint="--nic MAC",
            )  # fmt: skip
        found = guest.nics[chosen[0] - 1]
        if found.mac is None:
            raise Refused(f"NIC {chosen[0]} of guest {guest.name} has no address to tell it by")
        running = guest_xml.find(xml.live, found.mac) if xml.live is not None else None
        is_saved = xml.saved is not None and guest_xml.find(xml.saved, found.mac) is not None
        return plan_detach(guest, found, running[1] if running else None,
                           xml.saved if is_saved else None)  # fmt: skip

    return plan


def _read(name: str, uri: str | None, watcher: Watcher) -> tuple[State, Guest, GuestXml]:
    state = observe(uri, RUNNING_PARTS)
    for gap in state.unread:
        if gap.what.startswith("libvirt") or gap.what == "links and addresses":
            raise Unavailable(f"{gap.what} could not be read", why=gap.why, hint=gap.hint)
        watcher.say(f"not looked at: {gap.what} ({gap.why})")
    found = read_all(uri, lambda its_name, uuid: name in {its_name, uuid})
    guest = next((x for x in state.guests if found and x.uuid == found[0].uuid), None)
    names = [x.name for x in state.guests]
    pairs = [(x.name, x.uuid) for x in found if guest]
    guest_choice.check_found([name], pairs, names, lambda: elsewhere(state))
    assert guest is not None
    return state, guest, found[0]


def carry_out(
    planner: Planner,
    *,
    uri: str | None,
    command: str,
    consent: Callable[[Plan], None],
    watcher: Watcher,
) -> Plan:
    """Plan under the lock, ask, apply. Raises what the planner and `apply` raise."""
    with changing(command, watcher):
        plan = planner(uri, watcher)
        consent(plan)
        if plan.steps:
            apply(plan, uri=uri, command=command, watcher=watcher, verify=lambda: None)
        return plan
