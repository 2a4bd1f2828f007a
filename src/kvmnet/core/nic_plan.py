"""Plans that give a guest a NIC, or take one away, running and saved alike."""

from __future__ import annotations

from collections.abc import Iterator

from kvmnet.core.macs import uses_in
from kvmnet.core.move_target import check
from kvmnet.errors import Refused
from kvmnet.model import guest_steps as steps
from kvmnet.model.plan import Plan, PlannedStep
from kvmnet.model.state import State
from kvmnet.model.target import Target, place
from kvmnet.model.values import Mac
from kvmnet.model.virt import Guest, GuestNic


def plan_attach(
    state: State, guest: Guest, target: Target, mac: Mac, xml: str, saved: str | None
) -> Plan:
    """The plan for a new NIC. Raises `NotFound`, `Refused` if the target or the MAC is bad.

    `saved` is the guest's definition; None for a transient guest.
    """
    carrier = check(state, target)
    use = next((x for x in uses_in(state) if x.mac == mac), None)
    if use is not None:
        raise Refused(f"{mac} is in use", why=use.where, hint="leave --mac out, or say --mac new")
    plug = steps.PlugNic(
        guest=guest.name, uuid=guest.uuid, mac=mac, place=str(target), xml=xml, where="running"
    )
    unplug = steps.UnplugNic(guest=guest.name, uuid=guest.uuid, mac=mac, where="running")
    planned: list[PlannedStep] = []
    if guest.active:
        planned.append(
            PlannedStep(step=plug, undo=unplug, disturbs=f"guest {guest.name}: it gets a NIC")
        )
        if carrier.bridge is not None:
            planned.append(_proof(guest, mac, target))
    if saved is not None:
        planned.append(
            PlannedStep(
                step=steps.PlugNic(
                    guest=guest.name, uuid=guest.uuid, mac=mac, place=str(target), xml=xml,
                    where="saved",
                ),
                undo=steps.RestoreGuest(guest=guest.name, uuid=guest.uuid, xml=saved),
            )
        )  # fmt: skip
    return Plan(
        title=f"attach NIC {mac} on {target} to guest {guest.name}",
        steps=tuple(planned),
        notes=carrier.warnings,
    )


def _proof(guest: Guest, mac: Mac, target: Target) -> PlannedStep:
    """No address is demanded: whether a guest uses a new NIC is its own business."""
    proof = steps.ProveGuest(
        guest=guest.name, uuid=guest.uuid, mac=mac, place=str(target), demands="port"
    )
    return PlannedStep(step=proof, undo=None)


def plan_detach(guest: Guest, nic: GuestNic, running: str | None, saved: str | None) -> Plan:
    """The plan that takes a NIC away.

    `running` is the running NIC's XML and `saved` the guest's definition, if it has such a NIC.
    """
    assert nic.mac is not None
    planned = tuple(_detach_steps(guest, nic, nic.mac, running, saved))
    only = len(guest.nics) == 1
    return Plan(
        title=f"detach NIC {nic.mac} from guest {guest.name}",
        steps=planned,
        notes=(f"guest {guest.name} has no NIC then",) if only else (),
    )


def _detach_steps(
    guest: Guest, nic: GuestNic, mac: Mac, running: str | None, saved: str | None
) -> Iterator[PlannedStep]:
    if running is not None:
        yield PlannedStep(
            step=steps.UnplugNic(guest=guest.name, uuid=guest.uuid, mac=mac, where="running"),
            undo=steps.PlugNic(
                guest=guest.name, uuid=guest.uuid, mac=mac, place=place(nic), xml=running,
                where="running", if_off="skip",
            ),
            disturbs=f"guest {guest.name}: it loses the NIC on {place(nic)}",
        )  # fmt: skip
    if saved is not None:
        yield PlannedStep(
            step=steps.UnplugNic(guest=guest.name, uuid=guest.uuid, mac=mac, where="saved"),
            undo=steps.RestoreGuest(guest=guest.name, uuid=guest.uuid, xml=saved),
        )
