"""What is left of a change after a reboot: the one table of it."""

from __future__ import annotations

import msgspec

from kvmnet.model import guest_steps, link_steps, plan


def after_reboot(undo: plan.Step) -> plan.Step | None:
    """What has to be done of an undo once the host has rebooted; None: the reboot has done it.

    The kernel's links, settings and rules were made anew from files. Files are as they were left,
    and so is what libvirt has saved; a network that ran is started by nobody else.
    """
    match undo:
        case plan.Arrange() | plan.SetSysctl() | plan.MakeOpening() | plan.CloseOpening():
            return None
        case plan.ReloadLibvirt() | plan.Prove():
            return None
        case plan.AnswerNeighbours() | plan.IgnoreNeighbours():
            return None
        case link_steps.PlugTap() | link_steps.UnplugTap() | link_steps.SetLink():
            return None
        case link_steps.SetBridge() | link_steps.SetOffload() | link_steps.SetPorts():
            return None
        case link_steps.AddAddress() | link_steps.RemoveAddress():
            return None
        case plan.HandOver():
            return msgspec.structs.replace(undo, calls=undo.calls_at_boot)
        case plan.WriteFile() | plan.RemoveFile():
            return undo
        case plan.DefineNetwork() | plan.EditNetwork() | plan.RestoreNetwork():
            return undo
        case plan.UndefineNetwork() | plan.SetAutostart():
            return undo
        case plan.StartNetwork() | plan.StopNetwork():
            return undo
        case guest_steps.SaveGuest() | guest_steps.RestoreGuest():
            return undo
        case guest_steps.PlugNic() | guest_steps.UnplugNic():
            return undo if undo.where == "saved" else None
        case guest_steps.MoveNic() | guest_steps.ProveGuest():
            return None  # guests start from what is saved


def needs_guard(plan_: plan.Plan) -> bool:
    """Whether the plan changes how the host itself is reached."""
    return any(
        isinstance(step, (plan.Arrange, plan.HandOver, *link_steps.GUARDED))
        for planned in plan_.steps
        for step in (planned.step, planned.undo)
    )


def outlives_boot(plan_: plan.Plan) -> bool:
    """Whether a reboot in the middle of the plan would come up with part of it."""
    return any(isinstance(planned.step, plan.HandOver) for planned in plan_.steps)
