"""Real guests and their NICs: plugged in, unplugged, one of two moved, macvtap, loss counted."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmnet.adapters.run import Completed
from kvmnet.lab import topology
from kvmnet.lab.guest import LabGuest
from kvmnet.lab.lab import Lab

pytestmark = pytest.mark.lab

HERE = Path(__file__).parent
DRIVER = str(HERE / "move_driver.py")
SILENCE = str(HERE.parents[1] / "bench" / "silence.py")
NAT, LAN = "192.168.122.", "192.168.77."
REPLUG_STEPS = 3
"""It is unplugged, plugged in there, saved."""


def virsh(lab: Lab, *words: str) -> str:
    return lab.run("host", ["virsh", "-c", "qemu:///system", *words]).stdout


def kvmnet(lab: Lab, *words: str, status: int = 0) -> Completed:
    done = lab.kvmnet(*words, accept=range(256), timeout=90)
    assert done.status == status, done.stdout + done.stderr
    return done


def nics(lab: Lab, guest: str, *, saved: bool = False) -> list[tuple[str, str]]:
    """What the guest's NICs are on: type and source."""
    words = ["domiflist", guest, *(["--inactive"] if saved else [])]
    rows = [x.split() for x in virsh(lab, *words).splitlines()[2:] if x.strip()]
    return [(x[1], x[2]) for x in rows]


def page(lab: Lab, address: str) -> str:
    """The guest's web page as the other computer on the LAN gets it."""
    words = ["timeout", "4", "busybox", "wget", "-q", "-O-", f"http://{address}/"]
    return lab.run("peer", words, accept=range(256)).stdout


def wait_address(guest: LabGuest, prefix: str, nic: int = 0) -> str:
    """Its address there: one that it had elsewhere may still be shown for a moment."""
    deadline = time.monotonic() + 40
    while not (found := guest.wait_address(40, nic=nic)).startswith(prefix):
        assert time.monotonic() < deadline, f"eth{nic} has {found}"
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def world(lab: Lab) -> Lab:
    """A NAT network; the host's NIC is no port of a bridge yet."""
    kvmnet(lab, "network", "create", "default", "--subnet", "192.168.122.0/24")
    return lab


@pytest.fixture(scope="module")
def guest(world: Lab) -> LabGuest:
    found = world.add_guest("web", on="network:default")
    found.wait_ready(120)
    found.wait_address(90)
    return found


@pytest.fixture
def web(world: Lab, guest: LabGuest) -> Iterator[LabGuest]:
    """A running guest with one NIC on the NAT network."""
    assert nics(world, "web") == nics(world, "web", saved=True) == [("network", "default")]
    wait_address(guest, NAT)
    yield guest


@pytest.fixture(scope="module")
def bridged(world: Lab) -> Lab:
    kvmnet(world, "bridge", "create", "br0", "--port", "eth1", "--no-persist", "--yes")
    return world


# These need the host's own NIC: they come before it becomes a port.


def test_to_a_macvtap_on_the_lan_and_back(world: Lab, web: LabGuest) -> None:
    before = virsh(world, "dumpxml", "--inactive", "--security-info", "web")
    old = wait_address(web, NAT)
    assert page(world, old) == ""
    done = kvmnet(world, "guest", "move", "web", "--to", "direct:eth1", "--replug", "--yes")
    assert "by a macvtap the guest and this host do not reach each other" in done.stderr
    assert nics(world, "web") == nics(world, "web", saved=True) == [("direct", "eth1")]
    new = wait_address(web, LAN)
    assert page(world, new) == "Hello from the guest web.\n"
    kvmnet(world, "undo", "--yes")
    assert virsh(world, "dumpxml", "--inactive", "--security-info", "web") == before
    assert nics(world, "web") == [("network", "default")]
    wait_address(web, NAT)
    assert page(world, new) == ""


def test_to_a_network_of_its_own_and_back(world: Lab, web: LabGuest) -> None:
    """QEMU's own user network, unplugged and plugged."""
    kvmnet(world, "guest", "move", "web", "--to", "user:slirp", "--replug", "--yes")
    assert wait_address(web, "10.0.2.") == "10.0.2.15"
    shown = web.shell(f"timeout 10 wget -q -O- http://{topology.WEB_IP}/")
    assert shown.strip() == topology.WEB_PAGE
    kvmnet(world, "guest", "move", "web", "--to", "network:default", "--replug", "--yes")
    wait_address(web, NAT)


@pytest.mark.parametrize("moment", ["began", "done"])
@pytest.mark.parametrize("step", range(1, REPLUG_STEPS + 1))
def test_killed_at_any_step_of_a_replug(world: Lab, web: LabGuest, moment: str, step: int) -> None:
    before = virsh(world, "dumpxml", "--inactive", "--security-info", "web")
    words = [sys.executable, DRIVER, "web", "direct:eth1", "sigkill", moment, str(step), "replug"]
    assert world.run("host", words, accept=range(-64, 256), timeout=90).status == -9
    told = kvmnet(world, "network", "start", "absent", status=1).stderr
    assert f"cut off at step {step} of {REPLUG_STEPS}" in told
    assert nics(world, "web") == [("network", "default")]
    assert virsh(world, "dumpxml", "--inactive", "--security-info", "web") == before


def test_a_macvtap_that_is_attached_can_be_taken_back(world: Lab, web: LabGuest) -> None:
    kvmnet(world, "guest", "attach", "web", "--to", "direct:eth1")
    assert nics(world, "web")[1] == nics(world, "web", saved=True)[1] == ("direct", "eth1")
    assert page(world, wait_address(web, LAN, nic=1)) == "Hello from the guest web.\n"
    kvmnet(world, "undo", "--yes")
    assert nics(world, "web") == nics(world, "web", saved=True) == [("network", "default")]


def test_a_nic_that_comes_is_used_and_one_that_goes_is_gone(bridged: Lab, web: LabGuest) -> None:
    kvmnet(bridged, "guest", "attach", "web", "--to", "bridge:br0", "--mac", "52:54:00:00:aa:02")
    address = wait_address(web, LAN, nic=1)
    assert page(bridged, address) == "Hello from the guest web.\n"
    kvmnet(bridged, "guest", "detach", "web", "--from", "bridge:br0", "--yes")
    assert "eth1" not in web.shell("ls /sys/class/net").split()
    assert page(bridged, address) == ""
    kvmnet(bridged, "undo", "--yes")
    assert wait_address(web, LAN, nic=1) == address
    assert page(bridged, address) == "Hello from the guest web.\n"
    kvmnet(bridged, "guest", "detach", "web", "--nic", "2", "--yes")
    assert nics(bridged, "web") == nics(bridged, "web", saved=True) == [("network", "default")]


def test_with_another_address_it_is_another_nic(bridged: Lab, web: LabGuest) -> None:
    """A running NIC keeps its MAC; with --replug the guest gets one of the new address."""
    move = ("guest", "move", "web", "--to", "bridge:br0", "--mac", "new", "--yes")
    assert "--replug" in kvmnet(bridged, *move, "--live", status=3).stderr
    before = web.shell("cat /sys/class/net/eth0/address").strip()
    kvmnet(bridged, *move, "--replug")
    assert page(bridged, wait_address(web, LAN)) == "Hello from the guest web.\n"
    assert web.shell("cat /sys/class/net/eth0/address").strip() != before
    kvmnet(bridged, "undo", "--yes")
    wait_address(web, NAT)
    assert web.shell("cat /sys/class/net/eth0/address").strip() == before


def test_there_and_back_with_the_loss_counted(
    bridged: Lab, web: LabGuest, record_property: pytest.RecordProperty
) -> None:
    """The host pings both addresses of the guest all the while: at one of them it answers."""
    nat = wait_address(web, NAT)
    kvmnet(bridged, "guest", "move", "web", "--to", "bridge:br0", "--yes")
    lan = wait_address(web, LAN)
    for old, new, target in ((lan, nat, "network:default"), (nat, lan, "bridge:br0"),
                             (lan, nat, "network:default")):  # fmt: skip
        words = [sys.executable, "-P", "-m", "kvmnet", "guest", "move", "web", "--to", target,
                 "--yes"]  # fmt: skip
        done = bridged.run("host", [sys.executable, SILENCE, old, new, *words], timeout=90)
        seen = json.loads(done.stdout)
        record_property(f"to {target}", done.stdout)
        print(f"to {target}: {done.stdout}")
        # Half a second its cable is out; then it asks for an address and for its neighbours.
        assert 0 < seen["lost"] < seen["sent"]
        assert 500 <= seen["silence"] < 20000
    assert nics(bridged, "web") == [("network", "default")]


def test_of_two_nics_one_moves_and_the_other_goes_on(bridged: Lab) -> None:
    two = bridged.add_guest("two", on="network:default", nics=2)
    two.wait_ready(120)
    first, second = (wait_address(two, NAT, nic=x) for x in (0, 1))
    # On one LAN, Linux answers for the address of one NIC by the other too, and sends by the one
    # that had its address first: what one NIC carries would go with the other.
    two.shell(
        f"cd /proc/sys/net/ipv4/conf/all && echo 1 > arp_ignore && echo 2 > arp_announce"
        f" && ip route delete {NAT}0/24 dev eth1"
    )
    asked = kvmnet(bridged, "guest", "move", "two", "--to", "bridge:br0", "--yes", status=2)
    assert "--nic" in asked.stderr
    bridged.run("host", ["ip", "neighbour", "flush", "to", "192.168.122.0/24"])
    ping = bridged.spawn("host", ["busybox", "ping", "-i", "0.02", "-c", "600", first])
    words = ("guest", "move", "two", "--nic", "2", "--to", "bridge:br0", "--yes")
    kvmnet(bridged, *words)
    both = [("network", "default"), ("bridge", "br0")]
    assert nics(bridged, "two") == nics(bridged, "two", saved=True) == both
    new = wait_address(two, LAN, nic=1)
    assert page(bridged, new) == "Hello from the guest two.\n"
    shown = ping.communicate(timeout=60)[0].decode()
    sent, received = (int(x.split()[0]) for x in shown.split("statistics ---")[1].split(",")[:2])
    assert sent > 50 and sent - received <= 3, shown
    assert wait_address(two, NAT) == first
    kvmnet(bridged, "undo", "--yes")
    assert nics(bridged, "two") == nics(bridged, "two", saved=True) == [("network", "default")] * 2
    assert wait_address(two, NAT, nic=1) == second
    two.remove()
