"""Real guests in a lab: they boot, take addresses, run commands, notice their cable."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from kvmnet.errors import CommandFailed, Failed, InvalidInput, NotFound, TimedOut
from kvmnet.lab import accelerator, image, inspect, topology
from kvmnet.lab.guest import LabGuest, domain_xml, parse_target
from kvmnet.lab.lab import Lab

pytestmark = pytest.mark.lab

NAT = """<network><name>default</name><forward mode='nat'/>
<bridge name='virbr0' stp='off' delay='0'/>
<ip address='192.168.122.1' netmask='255.255.255.0'>
<dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip></network>"""


@pytest.fixture(scope="module")
def network(lab: Lab) -> Lab:
    lab.run("host", ["virsh", "net-define", "/dev/stdin"], stdin=NAT)
    lab.run("host", ["virsh", "net-start", "default"])
    return lab


@pytest.fixture(scope="module")
def guest(network: Lab) -> LabGuest:
    added = network.add_guest("web")
    added.wait_ready(90)
    added.wait_address(60)
    return added


def test_it_has_a_lease_and_reaches_the_internet(guest: LabGuest) -> None:
    assert guest.wait_address(5).startswith("192.168.122.")
    page = guest.run(["wget", "-q", "-O-", f"http://{topology.WEB_NAME}/"])
    assert page.stdout == topology.WEB_PAGE + "\n"


def test_commands_inside(guest: LabGuest) -> None:
    done = guest.run(["sh", "-c", "cat; echo wrong >&2; exit 4"], stdin="in\n", accept=(4,))
    assert done == (4, "in\n", "wrong\n")
    with pytest.raises(CommandFailed):
        guest.run(["false"])
    with pytest.raises(Failed):
        guest.run(["no-such-program"])
    with pytest.raises(TimedOut):
        guest.run(["sleep", "30"], timeout=0.5)
    assert guest.shell("hostname") == "web\n"


def test_its_web_server_names_it(network: Lab, guest: LabGuest) -> None:
    url = f"http://{guest.wait_address(5)}/"
    page = network.run("host", ["busybox", "wget", "-q", "-O-", url])
    assert page.stdout == "Hello from the guest web.\n"


def test_ssh_and_scp_to_the_host(network: Lab, guest: LabGuest) -> None:
    target = f"{topology.USER}@192.168.122.1"
    assert guest.run(["ssh", target, "hostname"]).stdout == "host\n"
    guest.shell("head -c 300000 /dev/urandom > /tmp/file")
    guest.run(["scp", "/tmp/file", f"{target}:copy"])
    there = network.run("host", ["md5sum", f"{topology.USER_HOME}/copy"]).stdout.split()[0]
    assert guest.shell("md5sum /tmp/file").split()[0] == there


def test_a_new_cable_makes_it_ask_for_a_lease(guest: LabGuest) -> None:
    log = "/run/udhcpc.eth0.log"
    before = guest.shell(f"grep -c obtained {log}")
    started = int(guest.shell(f"grep -c started {log}"))
    guest.set_link(False)
    deadline = time.monotonic() + 10
    while guest.shell("cat /sys/class/net/eth0/carrier", accept=(0, 1)).strip() != "0":
        assert time.monotonic() < deadline, "the guest did not notice"
        time.sleep(0.1)
    time.sleep(0.5)  # its watcher looks five times a second
    guest.set_link(True)
    deadline = time.monotonic() + 30
    while guest.shell(f"grep -c obtained {log}") == before:
        assert time.monotonic() < deadline, guest.shell(f"cat {log}")
        time.sleep(0.2)
    assert int(guest.shell(f"grep -c started {log}")) > started


def test_status_shows_it(network: Lab, guest: LabGuest) -> None:
    deadline = time.monotonic() + 20
    while True:  # an agent that is busy is not waited for
        (shown,) = inspect.guests(network.record)
        if guest.wait_address(5) in shown.addresses or time.monotonic() > deadline:
            break
    assert (shown.name, shown.state) == ("web", "running")
    assert shown.nics == ("network:default",)
    assert guest.wait_address(5) in shown.addresses


def test_two_nics_on_the_lan_then_power_off(network: Lab) -> None:
    for line in (
        "link add br0 type bridge stp_state 0 forward_delay 0",
        "link set br0 up",
        "link set eth1 master br0",
    ):
        network.run("host", ["ip", *line.split()])
    added = network.add_guest("two", on="bridge:br0", nics=2)
    added.wait_ready(90)
    first = added.wait_address(60)
    second = added.wait_address(60, nic=1)
    assert first != second
    assert {first.rpartition(".")[0], second.rpartition(".")[0]} == {"192.168.77"}
    page = network.run("peer", ["busybox", "wget", "-q", "-O-", f"http://{first}/"])
    assert page.stdout == "Hello from the guest two.\n"
    added.shutdown()
    added.remove()
    assert "two" not in network.run("host", ["virsh", "list", "--all", "--name"]).stdout
    with pytest.raises(NotFound):
        added.remove()
    network.run("host", ["ip", "link", "delete", "br0"])


def test_guests_by_command(network: Lab) -> None:
    base = [sys.executable, "-m", "kvmnet", "lab", "guest"]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        words = (*base, *words, "--name", network.name)
        return subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)

    added = run("add", "shell")
    assert added.returncode == 0, added.stderr
    assert added.stdout.startswith("shell 192.168.122.")
    again = run("add", "shell")
    assert again.returncode == 3, again.stderr
    assert "already" in again.stderr
    assert run("remove", "shell").returncode == 0
    gone = run("remove", "shell")
    assert gone.returncode == 1
    assert "no guest shell" in gone.stderr
    nowhere = run("add", "lost", "--on", "network:none")
    assert nowhere.returncode == 1
    assert "lost" not in network.run("host", ["virsh", "list", "--all", "--name"]).stdout
    assert run("add", "x", "--on", "moon:1").returncode == 2
    assert run("add", "x", "--nics", "0").returncode == 2
    assert run("add", "<x>").returncode == 2


def test_the_guests_kernel_tells_whether_an_accelerator_works() -> None:
    kernel = image.ensure(lambda _text: None).kernel
    assert accelerator.boots(kernel, ("-accel", "tcg"), limit_s=60)
    assert not accelerator.boots(kernel, ("-accel", "no-such-thing"), limit_s=30)
    assert not accelerator.boots(kernel.parent, ("-accel", "tcg"), limit_s=30)


@pytest.mark.parametrize("bad", ["", "default", "network:", "bridge:a/b", "bridge:", "lan:x"])
def test_bad_targets(bad: str) -> None:
    with pytest.raises(InvalidInput):
        parse_target(bad)


def test_definition_escapes_names() -> None:
    xml = domain_xml("a", "bridge", "b'&<", 2, key="k", accelerated=False)
    assert "&amp;&lt;" in xml
    assert xml.count("<interface") == 2
