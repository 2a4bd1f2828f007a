"""What has changed since a change was kept, and what its undo has to leave working."""

from __future__ import annotations

import msgspec
import pytest

from kvmnet.core import unchanged
from kvmnet.model.arrangement import Arrangement, LinkTarget
from kvmnet.model.handover import FileState, NetplanGenerate, NetworkdReload
from kvmnet.model.host import Address, BridgeAttributes, Link, Route
from kvmnet.model.plan import Arrange, HandOver, Plan, PlannedStep, Prove
from kvmnet.model.state import State
from kvmnet.model.values import Cidr, Ip, Mac

MAC = Mac("52:54:00:00:00:01")
STP_OFF = BridgeAttributes(stp=False, forward_delay_s=0.0)
ADDRESS = Address(link="br0", ip=Ip("10.0.0.2"), prefix_len=24, family=4, valid_s=3600)
ROUTE = Route(family=4, destination=Cidr("0.0.0.0/0"), link="br0", gateway=Ip("10.0.0.1"))
TARGET = Arrangement(
    links=(
        LinkTarget(name="br0", bridge=STP_OFF, mac=MAC, addresses=(ADDRESS,)),
        LinkTarget(name="eth0", master="br0"),
    ),
    routes=(ROUTE,),
)
BEFORE = Arrangement(links=(LinkTarget(name="eth0", addresses=(ADDRESS,)),), absent=("br0",))
KEPT = Plan(
    title="create bridge br0",
    steps=(
        PlannedStep(
            step=Arrange(what="make it", target=TARGET), undo=Arrange(what="undo", target=BEFORE)
        ),
        PlannedStep(step=Prove(checks=()), undo=None),
    ),
)
HOST = State(
    taken_at=0,
    hostname="h",
    links=(
        Link(index=2, name="eth0", kind="ethernet", master="br0"),
        Link(index=3, name="br0", kind="bridge", mac=MAC, bridge=STP_OFF),
    ),
    addresses=(
        msgspec.structs.replace(ADDRESS, valid_s=1200, dynamic=True),
        Address(link="br0", ip=Ip("fe80::1"), prefix_len=64, family=6, scope="link"),
    ),
    routes=(msgspec.structs.replace(ROUTE, protocol="dhcp", metric=100),),
)


def test_lifetimes_and_who_made_a_route_do_not_count() -> None:
    assert unchanged.arrangement(HOST, TARGET) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"links": HOST.links[1:]}, "eth0 is gone"),
        (
            {"links": (msgspec.structs.replace(HOST.links[0], master=None), HOST.links[1])},
            "eth0 is no port any more",
        ),
        ({"addresses": ()}, "br0 has lost the address 10.0.0.2/24"),
        (
            {"addresses": (*HOST.addresses, msgspec.structs.replace(ADDRESS, ip=Ip("10.0.0.3")))},
            "br0 has got the address 10.0.0.3/24",
        ),
        ({"routes": ()}, "the route to 0.0.0.0/0 by 10.0.0.1 through br0 is gone"),
    ],
)
def test_what_differs_is_said(change: dict[str, object], said: str) -> None:
    assert unchanged.arrangement(msgspec.structs.replace(HOST, **change), TARGET) == (said,)


def test_a_bridge_that_guests_were_plugged_into_is_not_taken_away() -> None:
    back = unchanged.reversed_plan(KEPT)
    assert unchanged.still_used(HOST, KEPT, back) == ()
    tap = Link(index=9, name="vnet0", kind="tap", master="br0")
    used = msgspec.structs.replace(HOST, links=(*HOST.links, tap))
    assert unchanged.still_used(used, KEPT, back) == ("vnet0 is a port of br0",)
    assert unchanged.command_instead(KEPT) == "kvmnet bridge delete br0"


def test_the_way_back_is_undone_by_the_way_there() -> None:
    back = unchanged.reversed_plan(KEPT)
    assert [(x.step, x.undo) for x in back.steps] == [(KEPT.steps[0].undo, KEPT.steps[0].step)]


def test_cut_off_by_a_reboot_the_way_back_writes_the_new_files_again() -> None:
    there = HandOver(
        manager="netplan",
        files=(FileState(path="/etc/netplan/a.yaml", text="new\n"),),
        calls=(NetplanGenerate(), NetworkdReload()),
    )
    kept = Plan(title="p", steps=(PlannedStep(step=there, undo=there),))
    undo = unchanged.reversed_plan(kept).steps[0].undo
    assert isinstance(undo, HandOver)
    assert undo.calls_at_boot == (NetplanGenerate(),)
