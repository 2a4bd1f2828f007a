"""Takes those steps of a plan that change libvirt's networks and guests."""

from __future__ import annotations

from kvmnet.adapters import libvirt_guests, libvirt_networks
from kvmnet.formats import network_edit
from kvmnet.model import guest_steps, plan

LibvirtStep = (
    plan.DefineNetwork
    | plan.EditNetwork
    | plan.RestoreNetwork
    | plan.UndefineNetwork
    | plan.StartNetwork
    | plan.StopNetwork
    | plan.SetAutostart
    | guest_steps.GuestStep
)


def take(step: LibvirtStep, uri: str | None) -> None:
    """Do what the step says, on the libvirt connection `uri`. Raises `KvmnetError`."""
    match step:
        case plan.DefineNetwork():
            libvirt_networks.define(uri, step.name, step.uuid, step.config)
        case plan.EditNetwork():
            libvirt_networks.define_xml(uri, step.name, network_edit.edit(step.xml, step.edit))
        case plan.RestoreNetwork():
            libvirt_networks.define_xml(uri, step.name, step.xml)
        case plan.UndefineNetwork():
            libvirt_networks.undefine(uri, step.name, step.uuid)
        case plan.StartNetwork():
            libvirt_networks.start(uri, step.name)
            libvirt_networks.plug(uri, step.name, step.plug)
        case plan.StopNetwork():
            libvirt_networks.stop(uri, step.name, step.uuid)
        case plan.SetAutostart():
            libvirt_networks.set_autostart(uri, step.name, step.on)
        case guest_steps.SaveGuest():
            (failure,) = libvirt_guests.save(uri, (step,))
            if failure is not None:
                raise failure
        case guest_steps.RestoreGuest():
            libvirt_guests.restore(uri, step)
        case guest_steps.MoveNic():
            libvirt_guests.move(uri, step)
        case guest_steps.PlugNic():
            libvirt_guests.plug(uri, step)
        case guest_steps.UnplugNic():
            libvirt_guests.unplug(uri, step)
        case guest_steps.ProveGuest():
            from kvmnet.adapters import guest_proof  # late: guests that are off need none of it

            guest_proof.prove(uri, step)
