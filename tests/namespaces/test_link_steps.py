"""Steps that change attributes of links, on real ones: taken twice, undone, undone twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kvmnet.model import link_steps, plan
from kvmnet.model.host import Address
from kvmnet.model.values import Cidr, Ip

from .conftest import World

DRIVER = str(Path(__file__).parent / "files" / "step_driver.py")
ADDRESS = Address(link="tap0", ip=Ip("10.7.0.2"), prefix_len=24, family=4, valid_s=900,
                  preferred_s=800, dynamic=True)  # fmt: skip
CIDR = Cidr("10.7.0.2/24")


@pytest.fixture
def host(world: World) -> World:
    for line in (
        "link add br0 type bridge stp_state 1 forward_delay 1500", "link set br0 up",
        "link add br1 type bridge", "tuntap add tap0 mode tap", "link set tap0 up",
        "address add 10.7.0.2/24 dev tap0 valid_lft 900 preferred_lft 800",
    ):  # fmt: skip
        world.ip(line)
    return world


def take(world: World, *steps: plan.Step) -> None:
    for step in steps:
        world.run(sys.executable, "-P", DRIVER, msgspec.json.encode(step).decode())


def link(world: World, name: str) -> dict[str, Any]:
    (found,) = json.loads(world.ip(f"-json -details link show {name}"))
    return dict(found)


def test_a_tap_is_plugged_and_unplugged(host: World) -> None:
    plug = link_steps.PlugTap(tap="tap0", bridge="br0")
    unplug = link_steps.UnplugTap(tap="tap0", bridge="br0")
    take(host, unplug)
    take(host, plug, plug)
    assert link(host, "tap0")["master"] == "br0"
    take(host, link_steps.PlugTap(tap="tap0", bridge="br1"), unplug)
    assert link(host, "tap0")["master"] == "br1", "another's port is not for us to unplug"
    take(host, plug, unplug, unplug)
    assert "master" not in link(host, "tap0")


def test_spanning_tree_is_switched_off_and_on_again(host: World) -> None:
    off = (
        link_steps.SetBridge(bridge="br0", attribute="stp_state", value=0),
        link_steps.SetBridge(bridge="br0", attribute="forward_delay", value=0),
    )
    on = (
        link_steps.SetBridge(bridge="br0", attribute="forward_delay", value=1500),
        link_steps.SetBridge(bridge="br0", attribute="stp_state", value=1),
    )
    take(host, *off, *off)
    data = link(host, "br0")["linkinfo"]["info_data"]
    assert (data["stp_state"], data["forward_delay"]) == (0, 0)
    take(host, *on, *on)
    data = link(host, "br0")["linkinfo"]["info_data"]
    assert (data["stp_state"], data["forward_delay"]) == (1, 1500)


def test_a_link_goes_off_and_on(host: World) -> None:
    down = link_steps.SetLink(link="br0", up=False)
    take(host, down, down)
    assert "UP" not in link(host, "br0")["flags"]
    up = link_steps.SetLink(link="br0", up=True)
    take(host, up, up)
    assert "UP" in link(host, "br0")["flags"]


def test_an_address_is_taken_and_given_back_with_its_lifetime(host: World) -> None:
    remove = link_steps.RemoveAddress(link="tap0", address=CIDR)
    take(host, remove, remove)
    assert CIDR not in host.ip("address show tap0")
    add = link_steps.AddAddress(address=ADDRESS)
    take(host, add, add)
    (found,) = json.loads(host.ip("-json address show tap0"))
    (address,) = [x for x in found["addr_info"] if x["family"] == "inet"]
    assert 0 < address["valid_life_time"] <= 900


def test_work_that_a_nic_does_is_switched(host: World) -> None:
    """Checksums of a bridge: what is switched off where guests see wrong ones."""
    off = link_steps.SetOffload(nic="br0", feature="tx", on=False)
    take(host, off, off)
    shown = host.run(sys.executable, "-P", DRIVER, "br0", "tx").stdout
    assert shown == "False\n"
    take(host, link_steps.SetOffload(nic="br0", feature="tx", on=True))
    assert host.run(sys.executable, "-P", DRIVER, "br0", "tx").stdout == "True\n"


def test_a_link_that_is_gone_needs_nothing(host: World) -> None:
    take(
        host,
        link_steps.PlugTap(tap="vnet9", bridge="br0"),
        link_steps.UnplugTap(tap="vnet9", bridge="br0"),
        link_steps.SetBridge(bridge="br9", attribute="stp_state", value=0),
        link_steps.SetLink(link="br9", up=False),
        link_steps.SetOffload(nic="br9", feature="tx", on=False),
        link_steps.RemoveAddress(link="br9", address=CIDR),
        link_steps.AddAddress(address=msgspec.structs.replace(ADDRESS, link="br9")),
    )
