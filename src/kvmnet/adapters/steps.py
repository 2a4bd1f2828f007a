"""Takes the steps of a plan: the one place where a step meets what it changes."""

from __future__ import annotations

from pathlib import Path

from kvmnet.adapters import (
    arrange,
    checks,
    files,
    guest_proof,
    hand_over,
    libvirt_guests,
    libvirt_networks,
    openings,
    proxies,
    sysctl_write,
)
from kvmnet.formats import network_edit
from kvmnet.model import guest_steps, plan


def take(step: plan.Step, uri: str | None) -> None:
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
        case plan.SetSysctl():
            sysctl_write.write_sysctl(step.path, step.value)
        case plan.WriteFile():
            files.ensure_folder(Path(step.path).parent)
            files.ensure(Path(step.path), step.text, mode=step.mode)
        case plan.RemoveFile():
            files.remove(Path(step.path))
        case plan.AnswerNeighbours():
            proxies.answer(step.nic, step.addresses)
        case plan.IgnoreNeighbours():
            proxies.ignore(step.nic, step.addresses)
        case plan.MakeOpening():
            openings.make(step.opening)
        case plan.CloseOpening():
            openings.close(step.opening)
        case plan.Arrange():
            arrange.carry_out(step.target)
        case plan.HandOver():
            hand_over.carry_out(step)
        case plan.Prove():
            checks.prove(step.checks, within_s=step.within_s)
        case guest_steps.SaveGuest():
            libvirt_guests.save(uri, step)
        case guest_steps.RestoreGuest():
            libvirt_guests.restore(uri, step)
        case guest_steps.MoveNic():
            libvirt_guests.move(uri, step)
        case guest_steps.PlugNic():
            libvirt_guests.plug(uri, step)
        case guest_steps.UnplugNic():
            libvirt_guests.unplug(uri, step)
        case guest_steps.ProveGuest():
            guest_proof.prove(uri, step)


def needs_root(step: plan.Step) -> bool:
    """Whether the step changes the host itself, and not only by way of libvirt."""
    return isinstance(
        step,
        plan.SetSysctl
        | plan.WriteFile
        | plan.RemoveFile
        | plan.AnswerNeighbours
        | plan.IgnoreNeighbours
        | plan.MakeOpening
        | plan.CloseOpening
        | plan.Arrange
        | plan.HandOver
        | plan.Prove,
    )


def check_possible(step: plan.Step, uri: str | None) -> None:
    """Raise `Unavailable` soon if the step would only wait for a libvirt that does not answer."""
    if not needs_root(step):
        libvirt_networks.check_answering(uri)
