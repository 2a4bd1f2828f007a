"""Takes the steps of a plan: the one place where a step meets what it changes.

What needs libvirt is imported when it is needed: a bridge needs none of it, and the guard, which
is waited for, would start half as fast. So are the checks, which guests need none of.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from kvmnet.adapters import (
    arrange,
    files,
    hand_over,
    link_steps,
    manager_calls,
    openings,
    proxies,
    sysctl_write,
)
from kvmnet.model import plan
from kvmnet.model.guest_steps import ProveGuest
from kvmnet.model.link_steps import LINK_STEPS


def take(step: plan.Step, uri: str | None) -> None:
    """Do what the step says, on the libvirt connection `uri`. Raises `KvmnetError`."""
    match step:
        case plan.SetSysctl():
            sysctl_write.write_sysctl(step.path, step.value)
        case plan.WriteFile():
            files.ensure_folder(Path(step.path).parent)
            files.ensure(Path(step.path), step.text, mode=step.mode)
        case plan.RemoveFile():
            files.remove(Path(step.path))
        case plan.ReloadLibvirt():
            from kvmnet.adapters import libvirt_reload

            libvirt_reload.reload(step)
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
            from kvmnet.adapters import checks

            checks.prove(step.checks, within_s=step.within_s)
        case _ if isinstance(step, LINK_STEPS):
            link_steps.take(step)
        case _:
            from kvmnet.adapters import libvirt_steps

            libvirt_steps.take(step, uri)


def load(undoes: Sequence[plan.Step]) -> None:
    """Have all in memory that these need: when they are taken, the programs may be other ones."""
    for step in undoes:
        if isinstance(step, plan.HandOver):
            manager_calls.load(step.calls)
        elif isinstance(step, plan.Arrange):
            arrange.load()
        elif not needs_root(step):
            import_module("kvmnet.adapters.libvirt_steps")
            if isinstance(step, ProveGuest):
                import_module("kvmnet.adapters.guest_proof")


def needs_root(step: plan.Step) -> bool:
    """Whether the step changes the host itself, and not only by way of libvirt."""
    return isinstance(
        step,
        (
            *LINK_STEPS,
            plan.SetSysctl,
            plan.WriteFile,
            plan.RemoveFile,
            plan.AnswerNeighbours,
            plan.IgnoreNeighbours,
            plan.MakeOpening,
            plan.CloseOpening,
            plan.Arrange,
            plan.HandOver,
            plan.Prove,
        ),
    )


def check_possible(step: plan.Step, uri: str | None) -> None:
    """Raise `Unavailable` soon if the step would only wait for a libvirt that does not answer."""
    if not needs_root(step):
        from kvmnet.adapters import libvirt_networks

        libvirt_networks.check_answering(uri)
