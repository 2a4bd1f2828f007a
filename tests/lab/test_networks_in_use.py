"""Networks with somebody on them: a real guest, a squatter, the host's own IPv6."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from kvmnet.adapters.run import Completed
from kvmnet.lab.guest import LabGuest
from kvmnet.lab.lab import Lab
from kvmnet.lab.topology import HOST, HOST_NIC, ROUTER_IP

pytestmark = pytest.mark.lab

T = TypeVar("T")

DRIVER = str(Path(__file__).with_name("transaction_driver.py"))
ACCEPT_RA = f"/proc/sys/net/ipv6/conf/{HOST_NIC}/accept_ra"
SYSCTL_FILE = "/etc/sysctl.d/60-kvmnet-accept-ra.conf"

RICH = """<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>
  <name>rich</name>
  <metadata><app:note xmlns:app='http://example.org/app'>ours &amp; yours</app:note></metadata>
  <!-- a comment -->
  <forward mode='route'/>
  <bridge name='virbr8' stp='on' delay='2'/>
  <mtu size='1400'/>
  <domain name='rich.example' localOnly='yes'/>
  <dns><host ip='10.88.0.9'><hostname>printer</hostname></host></dns>
  <ip address='10.88.0.1' netmask='255.255.255.0' localPtr='yes'>
    <dhcp><range start='10.88.0.100' end='10.88.0.200'><lease expiry='2' unit='hours'/></range>
    <host mac='52:54:00:88:00:09' name='printer' ip='10.88.0.9'/></dhcp>
  </ip>
  <route address='10.89.0.0' prefix='24' gateway='10.88.0.2'/>
  <portgroup name='staff' default='yes'><bandwidth><inbound average='1000'/></bandwidth></portgroup>
  <dnsmasq:options><dnsmasq:option value='cname=www.rich.example,printer.rich.example'/>
  </dnsmasq:options>
</network>"""


def sh(lab: Lab, script: str) -> str:
    return lab.run(HOST, ["sh", "-ec", script]).stdout


def kvmnet(lab: Lab, *words: str, status: int = 0) -> Completed:
    done = lab.kvmnet(*words, accept=range(256))
    assert done.status == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def eventually(check: Callable[[], T], timeout_s: float) -> T:
    """The first true answer; the last one when the time is over."""
    deadline = time.monotonic() + timeout_s
    while not (answer := check()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return answer


def findings(lab: Lab, name: str) -> list[Any]:
    status = json.loads(kvmnet(lab, "status", "--json").stdout)
    return [x for x in status["findings"] if x["name"] == name]


def router_route(lab: Lab) -> str:
    return sh(lab, f"ip -6 route show default dev {HOST_NIC} proto ra")


@pytest.fixture(scope="module")
def guest(lab: Lab) -> LabGuest:
    """A guest on the IPv6 network `six`, with its IPv4 address."""
    kvmnet(lab, "network", "create", "six", "--ipv6", "auto")
    running = lab.add_guest("web", on="network:six")
    running.wait_address(90)
    return running


def reaches_the_host(guest: LabGuest, gateway: str) -> bool:
    done = guest.run(["ping", "-c1", "-W2", gateway], accept=range(256))
    return done.status == 0


def gateway_of(lab: Lab, network: str) -> str:
    found = re.search(r"<ip address='([^']*)'", sh(lab, f"virsh net-dumpxml {network}"))
    assert found is not None
    return found[1]


def test_a_guest_gets_an_ipv6_address_by_itself(lab: Lab, guest: LabGuest) -> None:
    prefix = re.search(r"address='(fd[^']*)::1'", sh(lab, "virsh net-dumpxml six"))
    assert prefix is not None

    def addresses() -> str:
        shown = guest.shell("ip -6 address show dev eth0")
        return shown if f"inet6 {prefix[1]}:" in shown else ""

    assert eventually(addresses, 15)


@pytest.mark.parametrize("verb", [["stop", "six"], ["delete", "six", "--yes"]])
def test_what_a_guest_uses_is_not_taken_away(lab: Lab, guest: LabGuest, verb: list[str]) -> None:
    refused = kvmnet(lab, "network", *verb, status=3)
    assert "web" in refused.stderr and "--force" in refused.stderr
    assert reaches_the_host(guest, gateway_of(lab, "six"))


def test_a_forced_stop_leaves_an_orphaned_tap_that_is_found_and_mended(
    lab: Lab, guest: LabGuest
) -> None:
    gateway = gateway_of(lab, "six")
    stopped = kvmnet(lab, "network", "stop", "six", "--force")
    assert "web" in stopped.stderr and "orphaned tap" in stopped.stderr
    (found,) = findings(lab, "network-inactive")
    assert found["subject"] == "network six" and "web" in found["breaks"]
    assert found["fix"] == ["kvmnet network start six"]
    assert findings(lab, "orphaned-tap") == [], "one cause is one finding"
    kvmnet(lab, *shlex.split(found["fix"][0])[1:])
    assert findings(lab, "network-inactive") == findings(lab, "orphaned-tap") == []
    assert reaches_the_host(guest, gateway)


def test_a_tap_that_libvirt_left_unplugged_is_mended_by_the_printed_command(
    lab: Lab, guest: LabGuest
) -> None:
    sh(lab, "virsh net-destroy six; virsh net-start six")
    (found,) = findings(lab, "orphaned-tap")
    (mend,) = found["fix"]
    lab.run(HOST, shlex.split(mend))
    assert findings(lab, "orphaned-tap") == []
    assert reaches_the_host(guest, gateway_of(lab, "six"))


def test_an_orphaned_tap_is_plugged_in_by_a_restart_of_libvirtd(lab: Lab, guest: LabGuest) -> None:
    sh(lab, "virsh net-destroy six; virsh net-start six")
    assert findings(lab, "orphaned-tap")
    lab.stop_libvirtd()
    lab.start_libvirtd()
    gateway = gateway_of(lab, "six")
    assert eventually(
        lambda: not findings(lab, "orphaned-tap") and reaches_the_host(guest, gateway), 30
    )


def test_an_undone_forced_delete_plugs_the_guest_in_again(lab: Lab, guest: LabGuest) -> None:
    gateway = gateway_of(lab, "six")
    for step in ("1", "3"):
        driver = [sys.executable, DRIVER, "delete-by-force", "six", "exception", "done", step]
        assert lab.run(HOST, driver, accept=(4,)).status == 4
        assert findings(lab, "orphaned-tap") == []
        assert reaches_the_host(guest, gateway)


def test_the_hosts_own_ipv6_lives_on_while_it_forwards(lab: Lab, guest: LabGuest) -> None:
    """A cable pulled and plugged in makes the kernel ask the router anew."""
    replug = (f"ip link set {HOST_NIC} down; ip link set {HOST_NIC} up;"
              f"ip route replace default via {ROUTER_IP}")  # fmt: skip
    assert sh(lab, f"cat /proc/sys/net/ipv6/conf/{HOST_NIC}/forwarding {ACCEPT_RA}") == "1\n2\n"
    assert router_route(lab)
    sh(lab, replug)
    assert eventually(lambda: router_route(lab), 30)
    sh(lab, f"echo 1 > {ACCEPT_RA}; {replug}")
    time.sleep(3)
    assert not router_route(lab), "without kvmnet's setting it would be gone"
    sh(lab, f"echo 2 > {ACCEPT_RA}; {replug}")
    assert eventually(lambda: router_route(lab), 30)


def test_a_forced_delete_tells_what_becomes_of_the_guest(lab: Lab, guest: LabGuest) -> None:
    done = kvmnet(lab, "network", "delete", "six", "--yes", "--force")
    assert "web" in done.stderr and "orphaned tap" in done.stderr
    assert "six" not in sh(lab, "virsh net-list --all --name").split()
    (found,) = findings(lab, "network-inactive")
    assert found["subject"] == "network six" and "used by: web" in found["evidence"]
    guest.remove()


def test_an_undone_delete_restores_the_very_definition(lab: Lab) -> None:
    lab.run(HOST, ["virsh", "-q", "net-define", "/dev/stdin"], stdin=RICH)
    sh(lab, "virsh -q net-start rich; virsh -q net-autostart rich")
    look = (
        "virsh net-dumpxml --inactive rich; virsh net-dumpxml rich; virsh net-info rich;"
        "cat /etc/libvirt/qemu/networks/rich.xml"
    )
    before = sh(lab, look)
    assert "portgroup" in before and "cname=" in before and "ours &amp; yours" in before
    for step in ("1", "2", "3"):
        driver = [sys.executable, DRIVER, "delete", "rich", "exception", "done", step]
        assert lab.run(HOST, driver, accept=(4,)).status == 4
        assert sh(lab, look) == before
    kvmnet(lab, "network", "delete", "rich", "--yes")


def test_an_undone_create_removes_the_setting_and_its_file(lab: Lab) -> None:
    sh(lab, f"rm -f {SYSCTL_FILE}; echo 1 > {ACCEPT_RA}")
    driver = [sys.executable, DRIVER, "create", "new", "exception", "done", "5"]
    assert lab.run(HOST, driver, accept=(4,)).status == 4
    assert sh(lab, f"cat {ACCEPT_RA}; ls {SYSCTL_FILE} 2>&1 || true").startswith("1\nls: ")


@pytest.fixture
def trial(lab: Lab) -> Iterator[str]:
    yield "trial"
    lab.kvmnet("network", "delete", "trial", "--yes", accept=range(256))


@pytest.mark.parametrize(
    ("options", "verdict", "at_least", "at_most"),
    [((), "ok", 0.0, 500.0), (("--dhcp-ping",), "warn", 2500.0, 8000.0)],
)
def test_dnsmasqs_ping_before_a_lease_is_a_choice(
    lab: Lab, trial: str, options: tuple[str, ...], verdict: str, at_least: float, at_most: float
) -> None:
    kvmnet(lab, "network", "create", trial, *options)
    for _ in range(3):  # who has something else to do is slow once
        done = lab.kvmnet("probe", f"network:{trial}", "--json", accept=(0, 1))
        dhcp = {x["name"]: x for x in json.loads(done.stdout)["report"]["steps"]}["dhcp"]
        assert dhcp["ms"] >= at_least
        if dhcp["ms"] < at_most and dhcp["verdict"] == verdict:
            break
    assert dhcp["verdict"] == verdict and dhcp["ms"] < at_most, dhcp


@pytest.mark.parametrize(("last", "expected"), [(150, True), (50, False)])
def test_a_squatter_inside_the_dynamic_range_is_told(
    lab: Lab, trial: str, last: int, expected: bool
) -> None:
    """Outside of the range, where addresses set by hand belong, nobody is disturbed."""
    kvmnet(lab, "network", "create", trial, "--bridge", "vbr9")
    gateway = gateway_of(lab, trial)
    address = f"{gateway.rpartition('.')[0]}.{last}"
    sh(lab, "ip netns add squat; ip link add sq0 type veth peer name eth0 netns squat;"
       f"ip link set sq0 master vbr9 up; ip -n squat address add {address}/24 dev eth0;"
       "ip -n squat link set eth0 up")  # fmt: skip
    try:
        sh(lab, f"busybox ping -c2 -W5 {address}")
        found = findings(lab, "address-conflict")
        assert [x["subject"] for x in found] == ([f"network {trial}"] if expected else [])
        if expected:
            assert f"{address}, which is leased to nobody" in found[0]["what"]
    finally:
        sh(lab, "ip link delete sq0; ip netns delete squat")
