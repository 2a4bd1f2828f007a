"""A guest is moved × everything that can go wrong at a step: old or new, and it says which."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmnet.adapters.run import Completed
from kvmnet.lab.guest import LabGuest
from kvmnet.lab.lab import Lab

pytestmark = pytest.mark.lab

DRIVER = str(Path(__file__).with_name("move_driver.py"))
LIVE_STEPS = 4
"""It is plugged in here, moved, proven there, saved."""
NEW = "bridge br1"
OLD = "network default"

OFF = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>16</memory>
<os><type arch='x86_64'>hvm</type></os><devices>
<interface type='network'><mac address='{mac}'/><source network='default'/>
<model type='virtio'/></interface></devices></domain>"""


def virsh(lab: Lab, *words: str, accept: tuple[int, ...] = (0,)) -> str:
    return lab.run("host", ["virsh", "-c", "qemu:///system", *words], accept=accept).stdout


def places(lab: Lab, guest: str) -> set[str]:
    """What the guest's NIC is on, running and saved, and the bridge that its tap is in."""
    found: set[str] = set()
    for words in (["domiflist", guest], ["domiflist", guest, "--inactive"]):
        rows = [x.split() for x in virsh(lab, *words).splitlines()[2:] if x.strip()]
        found |= {f"{x[1]} {x[2]}" for x in rows}
        for row in rows:
            if row[0] != "-":
                shown = lab.run("host", ["ip", "-o", "link", "show", row[0]]).stdout
                bridge = shown.split(" master ")[1].split()[0]
                assert (row[1] == "bridge") == (bridge == "br1"), shown
    return found


def drive(lab: Lab, guests: str, target: str, *fault: str) -> Completed:
    return lab.run(
        "host", [sys.executable, DRIVER, guests, target, *fault], accept=range(-64, 256), timeout=90
    )


def recover(lab: Lab) -> str:
    """The next kvmnet that changes something, and what it says."""
    return lab.kvmnet("network", "start", "absent", accept=range(256), timeout=60).stderr


@pytest.fixture(scope="module")
def world(lab: Lab) -> Lab:
    """Two networks with a DHCP server: the one guests are on, and one known by its bridge."""
    lab.kvmnet("network", "create", "default", "--subnet", "192.168.122.0/24")
    lab.kvmnet("network", "create", "one", "--bridge", "br1", "--subnet", "10.9.9.0/24")
    return lab


@pytest.fixture(scope="module")
def running(world: Lab) -> LabGuest:
    guest = world.add_guest("web", on="network:default")
    guest.wait_ready(120)
    guest.wait_address(90)
    return guest


@pytest.fixture
def web(world: Lab, running: LabGuest) -> Iterator[LabGuest]:
    assert places(world, "web") == {OLD}
    running.wait_address(30)
    yield running
    if places(world, "web") != {OLD}:
        world.kvmnet("guest", "move", "web", "--to", "network:default", "--yes", accept=range(256))


@pytest.fixture
def off(world: Lab) -> Iterator[str]:
    """Three guests that are shut off."""
    names = ("off1", "off2", "off3")
    for number, name in enumerate(names):
        xml = OFF.format(name=name, mac=f"52:54:00:0f:01:0{number}")
        world.run("host", ["virsh", "define", "/dev/stdin"], stdin=xml)
    yield ",".join(names)
    for name in (*names, "renamed"):
        virsh(world, "destroy", name, accept=(0, 1))
        virsh(world, "undefine", name, accept=(0, 1))


@pytest.mark.parametrize("moment", ["began", "done"])
@pytest.mark.parametrize("step", range(1, LIVE_STEPS + 1))
def test_killed_at_any_step_of_a_live_move(
    world: Lab, web: LabGuest, moment: str, step: int
) -> None:
    before = virsh(world, "dumpxml", "--inactive", "--security-info", "web")
    assert drive(world, "web", "bridge:br1", "sigkill", moment, str(step)).status == -9
    assert f"cut off at step {step} of {LIVE_STEPS}" in recover(world)
    assert places(world, "web") == {OLD}
    assert virsh(world, "dumpxml", "--inactive", "--security-info", "web") == before
    assert "cut off" not in recover(world)


@pytest.mark.parametrize(("fault", "status"), [("exception", 4), ("sigint", 130)])
@pytest.mark.parametrize("step", range(1, LIVE_STEPS + 1))
def test_a_fault_after_any_step_puts_the_guest_back(
    world: Lab, web: LabGuest, fault: str, status: int, step: int
) -> None:
    done = drive(world, "web", "bridge:br1", fault, "done", str(step))
    assert done.status == status, done.stdout + done.stderr
    assert places(world, "web") == {OLD}


@pytest.mark.parametrize("step", range(1, LIVE_STEPS + 1))
def test_a_libvirtd_that_restarts_is_waited_for(world: Lab, web: LabGuest, step: int) -> None:
    done = drive(world, "web", "bridge:br1", "libvirtd-restarts", "done", str(step))
    assert done.status == 0, done.stdout + done.stderr
    assert places(world, "web") == {NEW}


@pytest.mark.parametrize("moment", ["began", "done"])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_killed_while_guests_that_are_off_move(
    world: Lab, off: str, moment: str, step: int
) -> None:
    assert drive(world, off, "bridge:br1", "sigkill", moment, str(step)).status == -9
    assert "cut off at step" in recover(world)
    for name in off.split(","):
        assert places(world, name) == {OLD}


@pytest.mark.parametrize("fault", ["removed", "renamed", "started"])
def test_what_happens_to_one_guest_is_told_and_the_others_move(
    world: Lab, off: str, fault: str
) -> None:
    done = drive(world, off, "bridge:br1", fault, "began", "1")
    assert done.status == 1, done.stdout + done.stderr
    told = {"removed": "somebody removed it", "renamed": "it is renamed now",
            "started": "guest off1 was started meanwhile"}[fault]  # fmt: skip
    assert "off1: " in done.stdout
    assert told in done.stdout
    assert places(world, "off2") == places(world, "off3") == {NEW}
    left = {"removed": None, "renamed": "renamed", "started": "off1"}[fault]
    if left is not None:
        assert places(world, left) == {OLD}
    assert ("off1" in virsh(world, "list", "--all", "--name").split()) == (left == "off1")


def test_a_hook_that_refuses_leaves_the_guest_where_it_was(world: Lab, web: LabGuest) -> None:
    """libvirt asks /etc/libvirt/hooks/network before it gives a guest a port of a network."""
    hook = "/etc/libvirt/hooks/network"
    script = f"mkdir -p /etc/libvirt/hooks; cat > {hook}; chmod 755 {hook}"
    text = '#!/bin/sh\n[ "$1 $2" != "one port-created" ]\n'
    world.run("host", ["sh", "-c", script], stdin=text)
    world.stop_libvirtd()
    world.start_libvirtd()
    try:
        done = drive(world, "web", "network:one", "exception", "done", "99")
        assert done.status == 4, done.stdout + done.stderr
        assert "hook" in done.stdout.lower()
        assert places(world, "web") == {OLD}
    finally:
        world.run("host", ["rm", hook])
        world.stop_libvirtd()
        world.start_libvirtd()


def test_a_guest_that_is_shut_down_in_the_middle_keeps_its_definition(
    world: Lab, web: LabGuest
) -> None:
    done = drive(world, "web", "bridge:br1", "shut-down", "done", "1")
    assert done.status == 4, done.stdout + done.stderr
    assert "was shut down meanwhile" in done.stdout
    assert places(world, "web") == {OLD}
    assert "cut off" not in recover(world)
    virsh(world, "start", "web")
    web.wait_ready(120)
    web.wait_address(60)
