"""What of an undo is left to do once the host has rebooted."""

from __future__ import annotations

from typing import get_args

import pytest

from kvmnet.core.reboot import after_reboot, needs_guard, outlives_boot
from kvmnet.model import link_steps, plan
from kvmnet.model.arrangement import Arrangement
from kvmnet.model.handover import FileState, NetplanGenerate, NetworkdReload
from kvmnet.model.plan import Plan, PlannedStep

FILES = (FileState(path="/etc/netplan/a.yaml", text="old\n"),)
HAND_OVER = plan.HandOver(
    manager="netplan",
    files=FILES,
    calls=(NetplanGenerate(), NetworkdReload()),
    calls_at_boot=(NetplanGenerate(),),
)
ARRANGE = plan.Arrange(what="as it was", target=Arrangement(links=()))
WRITE = plan.WriteFile(path="/etc/x", text="x")
GONE = (
    ARRANGE,
    plan.SetSysctl(name="a", value="1", path="a"),
    plan.Prove(checks=()),
    link_steps.PlugTap(tap="vnet0", bridge="br0"),
    link_steps.SetBridge(bridge="br0", attribute="stp_state", value=0),
    link_steps.SetLink(link="br0", up=True),
)


@pytest.mark.parametrize("step", GONE, ids=lambda x: type(x).__name__)
def test_what_the_kernel_knew_is_gone_by_the_reboot(step: plan.Step) -> None:
    assert after_reboot(step) is None


def test_a_manager_that_does_not_run_yet_is_told_only_what_it_needs_before_it_does() -> None:
    left = after_reboot(HAND_OVER)
    assert isinstance(left, plan.HandOver)
    assert left.files == FILES
    assert left.calls == (NetplanGenerate(),)


def test_files_and_saved_networks_are_put_back() -> None:
    for step in (WRITE, plan.RemoveFile(path="/etc/x"), plan.UndefineNetwork(name="n")):
        assert after_reboot(step) is step


def test_every_kind_of_step_has_its_row() -> None:
    """A step that is in no row would be left out without a word: `match` returns None for it."""
    text = after_reboot.__code__.co_names
    assert {kind.__name__ for kind in get_args(plan.Step)} <= set(text)


def _plan(step: plan.Step, undo: plan.Step | None) -> Plan:
    return Plan(title="p", steps=(PlannedStep(step=step, undo=undo),))


def test_only_changes_of_the_hosts_own_network_are_guarded() -> None:
    assert needs_guard(_plan(ARRANGE, ARRANGE))
    assert needs_guard(_plan(HAND_OVER, HAND_OVER))
    assert not needs_guard(_plan(WRITE, plan.RemoveFile(path="/etc/x")))


def test_only_what_is_in_files_needs_recovery_at_boot() -> None:
    assert outlives_boot(_plan(HAND_OVER, HAND_OVER))
    assert not outlives_boot(_plan(ARRANGE, ARRANGE))
