"""Real guests change networks: live and shut off, there and back, with a way back at any fault."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest

from kvmnet.adapters.run import Completed
from kvmnet.lab.guest import LabGuest
from kvmnet.lab.lab import Lab

pytestmark = pytest.mark.lab

OFF = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>16</memory>
<os><type arch='x86_64'>hvm</type></os><devices>
<interface type='network'><mac address='{mac}'/><source network='default'/>
<model type='virtio'/></interface>
<graphics type='vnc' passwd='s3cret'/></devices></domain>"""


def virsh(lab: Lab, *words: str, accept: tuple[int, ...] = (0,)) -> str:
    return lab.run("host", ["virsh", "-c", "qemu:///system", *words], accept=accept).stdout


def define_off(lab: Lab, name: str, number: int = 1) -> None:
    mac = f"52:54:00:0f:{number >> 8:02x}:{number & 255:02x}"
    lab.run("host", ["virsh", "define", "/dev/stdin"], stdin=OFF.format(name=name, mac=mac))


def kvmnet(lab: Lab, *words: str, status: int = 0, timeout: float = 90) -> Completed:
    done = lab.kvmnet(*words, accept=range(256), timeout=timeout)
    assert done.status == status, done.stdout + done.stderr
    return done


def nics(lab: Lab, guest: str, *, saved: bool = False) -> list[tuple[str, str]]:
    """What the guest's NICs are on: type and source."""
    words = ["domiflist", guest, *(["--inactive"] if saved else [])]
    rows = [x.split() for x in virsh(lab, *words).splitlines()[2:] if x.strip()]
    return [(x[1], x[2]) for x in rows]


def page(lab: Lab, address: str, where: str = "peer") -> str:
    words = ["timeout", "4", "busybox", "wget", "-q", "-O-", f"http://{address}/"]
    return lab.run(where, words, accept=range(256)).stdout


@pytest.fixture(scope="module")
def world(lab: Lab) -> Lab:
    """A NAT network, and a bridge on the LAN."""
    kvmnet(lab, "network", "create", "default", "--subnet", "192.168.122.0/24")
    kvmnet(lab, "bridge", "create", "br0", "--port", "eth1", "--no-persist", "--yes")
    return lab


@pytest.fixture(scope="module")
def web(world: Lab) -> LabGuest:
    guest = world.add_guest("web", on="network:default")
    guest.wait_ready(120)
    guest.wait_address(90)
    return guest


@pytest.fixture
def off(world: Lab) -> Iterator[str]:
    define_off(world, "off")
    yield "off"
    virsh(world, "undefine", "off", accept=(0, 1))


def test_a_guest_that_is_off_moves_and_comes_back_with_its_password(world: Lab, off: str) -> None:
    before = virsh(world, "dumpxml", "--inactive", "--security-info", off)
    assert "s3cret" in before
    done = kvmnet(world, "guest", "move", off, "--to", "bridge:br0")
    assert "off is on bridge:br0" in done.stdout
    assert nics(world, off) == [("bridge", "br0")]
    after = virsh(world, "dumpxml", "--inactive", "--security-info", off)
    changed = set(before.splitlines()) ^ set(after.splitlines())
    assert {x.strip() for x in changed} == {
        "<interface type='network'>", "<source network='default'/>",
        "<interface type='bridge'>", "<source bridge='br0'/>",
    }  # fmt: skip
    assert kvmnet(world, "guest", "move", off, "--to", "bridge:br0").stdout == ""
    kvmnet(world, "undo", "--yes")
    assert virsh(world, "dumpxml", "--inactive", "--security-info", off) == before


def test_no_plan_shows_a_password(world: Lab, off: str) -> None:
    words = ("guest", "move", off, "--to", "bridge:br0", "--dry-run")
    plain, document = kvmnet(world, *words), kvmnet(world, *words, "--json")
    assert "s3cret" not in plain.stdout + plain.stderr + document.stdout + document.stderr
    step = json.loads(document.stdout)["plan"]["steps"][0]["step"]
    assert (step["type"], step["guest"], step["xml"]) == ("save-guest", "off", "")
    assert nics(world, off) == [("network", "default")]


def test_live_from_nat_to_the_lan_and_back(world: Lab, web: LabGuest) -> None:
    old = web.wait_address(30)
    assert page(world, old) == ""
    done = kvmnet(world, "guest", "move", "web", "--to", "bridge:br0", "--yes")
    assert "web is on bridge:br0" in done.stdout
    assert nics(world, "web") == nics(world, "web", saved=True) == [("bridge", "br0")]
    new = web.wait_address(5, other_than=old)
    assert new.startswith("192.168.77.")
    assert page(world, new) == "Hello from the guest web.\n"
    kvmnet(world, "guest", "move", "web", "--to", "network:default", "--yes")
    assert nics(world, "web") == nics(world, "web", saved=True) == [("network", "default")]
    assert web.wait_address(5, other_than=new).startswith("192.168.122.")
    assert page(world, new) == ""


def test_what_a_bridge_that_is_in_use_says_to_do_works(world: Lab, web: LabGuest) -> None:
    kvmnet(world, "guest", "move", "web", "--to", "bridge:br0", "--yes")
    refused = kvmnet(world, "bridge", "delete", "br0", "--yes", status=3).stderr
    assert "guest web is plugged into it" in refused
    (way,) = re.findall(r"kvmnet (guest move .*?);", refused)
    kvmnet(world, *way.split(), "--yes")
    assert nics(world, "web") == [("network", "default")]


def test_a_new_address_is_the_one_that_is_told(world: Lab, off: str) -> None:
    done = kvmnet(world, "guest", "move", off, "--to", "bridge:br0", "--mac", "new")
    (told,) = re.findall(r"gets the MAC address ([0-9a-f:]+),", done.stdout + done.stderr)
    assert told in virsh(world, "dumpxml", "--inactive", off)


def test_undo_of_a_live_move(world: Lab, web: LabGuest) -> None:
    before = virsh(world, "dumpxml", "--inactive", "--security-info", "web")
    kvmnet(world, "guest", "move", "web", "--to", "bridge:br0", "--yes")
    kvmnet(world, "undo", "--yes")
    assert virsh(world, "dumpxml", "--inactive", "--security-info", "web") == before
    assert nics(world, "web") == [("network", "default")]
    deadline = time.monotonic() + 20
    while not web.wait_address(20).startswith("192.168.122."):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_guest_that_gets_no_address_there_goes_back(world: Lab, web: LabGuest) -> None:
    """A bridge without an uplink: there is nobody who gives out addresses."""
    world.run("host", ["ip", "link", "add", "br9", "type", "bridge"])
    world.run("host", ["ip", "link", "set", "br9", "up"])
    try:
        done = kvmnet(world, "guest", "move", "web", "--to", "bridge:br9", "--yes", status=4)
        assert "has not arrived on bridge:br9" in done.stderr
        assert nics(world, "web") == nics(world, "web", saved=True) == [("network", "default")]
        assert web.wait_address(20).startswith("192.168.122.")
    finally:
        world.run("host", ["ip", "link", "delete", "br9"])


def test_between_a_network_and_its_own_bridge_a_guest_goes_on_answering(
    world: Lab, web: LabGuest
) -> None:
    """The guest keeps its address, so a ping every 10 ms can run all the while."""
    address = web.wait_address(20)
    assert address.startswith("192.168.122.")
    bridge = virsh(world, "net-info", "default").split("Bridge:")[1].split()[0]
    # At its end by -w it would count answers that are still on their way as lost.
    ping = ["busybox", "ping", "-i", "0.01", "-c", "1200", address]
    for _ in range(3):  # who has something else to do loses packets once, a fault each time
        running = world.spawn("host", ping)
        try:
            kvmnet(world, "guest", "move", "web", "--to", f"bridge:{bridge}", "--yes")
            assert nics(world, "web") == nics(world, "web", saved=True) == [("bridge", bridge)]
            kvmnet(world, "guest", "move", "web", "--to", "network:default", "--yes")
        finally:
            shown = running.communicate(timeout=60)[0].decode()
        counts = re.search(r"(\d+) packets transmitted, (\d+) packets received", shown)
        assert counts is not None, shown
        sent, received = map(int, counts.groups())
        if sent - received <= 5:
            break
    assert sent > 50, shown
    assert sent - received <= 5, shown


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("bridge:br7", "there is no bridge br7"),
        ("bridge:eth1", "eth1 is no bridge"),
        ("network:none", "there is no network none"),
        ("direct:eth1", "it is a port of br0"),
    ],
)
def test_a_target_that_does_not_carry_is_refused(
    world: Lab, off: str, target: str, said: str
) -> None:
    done = world.kvmnet("guest", "move", off, "--to", target, accept=(1, 3))
    assert said in done.stderr
    assert nics(world, off) == [("network", "default")]


def test_fifty_at_once_and_back(world: Lab) -> None:
    for number in range(50):
        define_off(world, f"many{number:02}", number + 10)
    try:
        done = kvmnet(world, "guest", "move", "many*", "--to", "bridge:br0")
        assert "50 guests are on bridge:br0" in done.stdout
        assert {nics(world, f"many{x:02}")[0] for x in range(50)} == {("bridge", "br0")}
        kvmnet(world, "undo", "--yes")
        assert {nics(world, f"many{x:02}")[0] for x in range(50)} == {("network", "default")}
    finally:
        for number in range(50):
            virsh(world, "undefine", f"many{number:02}", accept=(0, 1))


def test_a_nic_comes_and_goes_in_a_running_guest(world: Lab, web: LabGuest) -> None:
    before = virsh(world, "dumpxml", "--inactive", "web")
    attach = ("guest", "attach", "web", "--to", "bridge:br0", "--mac", "52:54:00:00:aa:01")
    assert "web has a NIC on bridge:br0" in kvmnet(world, *attach).stdout
    both = [("network", "default"), ("bridge", "br0")]
    assert nics(world, "web") == nics(world, "web", saved=True) == both
    assert "is in use" in kvmnet(world, *attach, status=3).stderr
    kvmnet(world, "guest", "detach", "web", "--nic", "2", "--yes")
    assert nics(world, "web") == nics(world, "web", saved=True) == both[:1]
    assert virsh(world, "dumpxml", "--inactive", "web") == before
    kvmnet(world, "undo", "--yes")
    assert nics(world, "web") == nics(world, "web", saved=True) == both
    moved = kvmnet(world, "guest", "move", "web", "--nic", "2", "--to", "network:default", "--yes")
    assert "web is on network:default" in moved.stdout
    assert nics(world, "web") == [("network", "default")] * 2
    kvmnet(world, "guest", "detach", "web", "--nic", "52:54:00:00:aa:01", "--yes")
    assert nics(world, "web") == nics(world, "web", saved=True) == both[:1]


def test_undo_is_refused_where_somebody_has_changed_the_guest(world: Lab, off: str) -> None:
    kvmnet(world, "guest", "move", off, "--to", "bridge:br0")
    virsh(world, "setmaxmem", off, "20M", "--config")
    refused = kvmnet(world, "undo", "--yes", status=3)
    assert "the definition of guest off has changed" in refused.stderr
    assert nics(world, off) == [("bridge", "br0")]


def test_a_guest_removed_since_is_not_brought_back(world: Lab, off: str) -> None:
    define_off(world, "other", 2)
    kvmnet(world, "guest", "move", off, "other", "--to", "bridge:br0")
    virsh(world, "undefine", "other")
    kvmnet(world, "undo", "--yes")
    assert nics(world, off) == [("network", "default")]
    assert "other" not in virsh(world, "list", "--all", "--name").split()


@pytest.mark.parametrize("how", ["--next-boot", ""])
def test_what_can_not_be_live_happens_at_the_next_start(
    world: Lab, web: LabGuest, how: str
) -> None:
    before = virsh(world, "dumpxml", "--inactive", "web")
    words = ["guest", "move", "web", "--to", "user", "--yes", *([how] if how else [])]
    done = kvmnet(world, *words)
    assert "at the next start" in done.stdout
    assert nics(world, "web") == [("network", "default")]
    assert "<interface type='user'>" in virsh(world, "dumpxml", "--inactive", "web")
    refused = kvmnet(world, *words[:5], "--yes", "--live", status=3)
    assert "--replug" in refused.stderr
    kvmnet(world, "undo", "--yes")
    assert virsh(world, "dumpxml", "--inactive", "web") == before


def test_a_macvtap_by_unplugging_and_plugging(world: Lab, web: LabGuest) -> None:
    world.run("host", ["ip", "link", "add", "mv0", "type", "veth", "peer", "name", "mv1"])
    for name in ("mv0", "mv1"):
        world.run("host", ["ip", "link", "set", name, "up"])
    try:
        kvmnet(world, "guest", "move", "web", "--to", "direct:mv0", "--replug", "--yes")
        assert nics(world, "web") == nics(world, "web", saved=True) == [("direct", "mv0")]
        kvmnet(world, "undo", "--yes")
        assert nics(world, "web") == nics(world, "web", saved=True) == [("network", "default")]
    finally:
        world.run("host", ["ip", "link", "delete", "mv0"])


def test_one_guest_that_fails_does_not_stop_the_others(world: Lab) -> None:
    """A guest of the same MAC as another can't come along."""
    for name, number in (("one", 3), ("two", 3), ("three", 4)):
        define_off(world, name, number)
    try:
        move = ("guest", "move", "one", "two", "three", "--to", "bridge:br0")
        done = kvmnet(world, *move, status=1)
        assert "guest two was left alone" in done.stderr
        places = [nics(world, x)[0][0] for x in ("one", "two", "three")]
        assert places == ["bridge", "network", "bridge"]
        kvmnet(world, "undo", "--yes")
        assert "in use there" in kvmnet(world, *move, "--all-or-nothing", status=3).stderr
        assert {nics(world, x)[0][0] for x in ("one", "two", "three")} == {"network"}
    finally:
        for name in ("one", "two", "three"):
            virsh(world, "undefine", name)
