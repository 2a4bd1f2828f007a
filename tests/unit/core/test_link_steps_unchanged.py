"""Whether what a step made of a link is still so: each kind of step, kept and changed since."""

from __future__ import annotations

import msgspec
import pytest

from kvmnet.core.unchanged import link_step
from kvmnet.model import link_steps
from kvmnet.model.host import Address, BridgeAttributes, Link
from kvmnet.model.state import State
from kvmnet.model.values import Cidr, Ip

ADDRESS = Address(link="br0", ip=Ip("10.0.0.1"), prefix_len=24, family=4)
STATE = State(
    taken_at=0,
    hostname="h",
    links=(
        Link(index=1, name="br0", kind="bridge", up=True,
             bridge=BridgeAttributes(stp=False, forward_delay_s=2.0)),
        Link(index=2, name="vnet0", kind="tap", master="br0"),
    ),
    addresses=(ADDRESS,),
)  # fmt: skip


@pytest.mark.parametrize(
    ("kept", "changed"),
    [
        (link_steps.PlugTap(tap="vnet0", bridge="br0"),
         link_steps.UnplugTap(tap="vnet0", bridge="br0")),
        (link_steps.UnplugTap(tap="vnet0", bridge="br1"),
         link_steps.PlugTap(tap="vnet0", bridge="br1")),
        (link_steps.SetBridge(bridge="br0", attribute="forward_delay", value=200),
         link_steps.SetBridge(bridge="br0", attribute="stp_state", value=1)),
        (link_steps.SetLink(link="br0", up=True), link_steps.SetLink(link="br0", up=False)),
        (link_steps.AddAddress(address=ADDRESS),
         link_steps.RemoveAddress(link="br0", address=Cidr("10.0.0.1/24"))),
        (link_steps.RemoveAddress(link="br0", address=Cidr("10.0.0.2/24")),
         link_steps.AddAddress(address=msgspec.structs.replace(ADDRESS, ip=Ip("10.0.0.2")))),
    ],
    ids=lambda x: str(x),
)  # fmt: skip
def test_a_link_is_as_the_step_left_it_or_not(
    kept: link_steps.LinkStep, changed: link_steps.LinkStep
) -> None:
    assert link_step(STATE, kept) == ()
    assert len(link_step(STATE, changed)) == 1


def test_a_link_that_is_gone_is_no_reason_not_to_go_back() -> None:
    gone = State(taken_at=0, hostname="h")
    for step in (
        link_steps.PlugTap(tap="vnet0", bridge="br0"),
        link_steps.SetBridge(bridge="br0", attribute="stp_state", value=1),
        link_steps.SetLink(link="br0", up=True),
        link_steps.SetOffload(nic="eth0", feature="lro", on=False),
    ):
        assert link_step(gone, step) == ()
