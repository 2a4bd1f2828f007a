"""The picture of a host with a real libvirtd and a real guest, on good and on bad days."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kvmnet.adapters.run import Completed
from kvmnet.lab.lab import Lab
from kvmnet.lab.topology import HOST, HOST_NIC, USER_HOME, USER_ID

pytestmark = pytest.mark.lab

DOMAIN = """<domain type='qemu'><name>{name}</name><memory>65536</memory><vcpu>1</vcpu>
<os><type arch='x86_64'>hvm</type></os><devices>{nics}</devices></domain>"""
NIC = "<interface type='network'><mac address='{mac}'/><source network='{network}'/></interface>"
DEFAULT = """<network><name>default</name><forward mode='nat'/>
<bridge name='virbr0' stp='off' delay='0'/><ip address='192.168.122.1' netmask='255.255.255.0'>
<dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip></network>"""
AS_USER = ("setpriv", f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups", "env",
           f"HOME={USER_HOME}", f"XDG_RUNTIME_DIR={USER_HOME}")  # fmt: skip
BOUND_S = 8.0
"""A look at a host whose libvirt hangs: five seconds, and what a slow machine adds."""


def document(lab: Lab, *words: str) -> Any:
    return json.loads(lab.kvmnet(*words, "--json").stdout)


def define(lab: Lab, name: str, *nics: str) -> None:
    xml = DOMAIN.format(name=name, nics="".join(nics))
    lab.run(HOST, ["virsh", "-q", "define", "/dev/stdin"], stdin=xml)


@pytest.fixture(scope="module")
def web(lab: Lab) -> str:
    """A guest that booted, with an address, known to its agent."""
    lab.run(HOST, ["virsh", "-q", "net-define", "/dev/stdin"], stdin=DEFAULT)
    lab.run(HOST, ["virsh", "-q", "net-start", "default"])
    guest = lab.add_guest("web")
    guest.wait_ready(90)
    return guest.wait_address(60)


def web_nic(lab: Lab) -> Any:
    guests = {x["name"]: x for x in document(lab, "guest", "list")["guests"]}
    return guests["web"]["nics"][0]


def test_address_from_every_source(lab: Lab, web: str) -> None:
    lab.run(HOST, ["busybox", "ping", "-c1", "-W5", web])
    nic = web_nic(lab)
    found = {x["ip"]: x for x in nic["known"]["addresses"]}
    sources = {x["source"]: x["age_s"] for x in found[web]["sources"]}
    assert set(sources) == {"lease", "agent", "neighbour"}
    assert all(age is not None and age < 600 for age in sources.values())
    assert nic["known"]["present"]["port"] == nic["nic"]["target"]
    assert nic["known"]["bridge"] == "virbr0"
    assert nic["known"]["disagreements"] == []


def test_status_tells_all_of_it(lab: Lab, web: str) -> None:
    status = document(lab, "status")
    assert HOST_NIC in [x["link"] for x in status["uplinks"]]
    assert "default" in [x["network"]["name"] for x in status["networks"]]
    assert "virbr0" in [x["name"] for x in status["bridges"]]
    assert status["unread"] == []
    text = lab.kvmnet("status").stdout
    assert web in text and "lease" in text and HOST_NIC in text


def test_guest_show_and_unknown_names(lab: Lab, web: str) -> None:
    assert web in lab.kvmnet("guest", "show", "web").stdout
    for kind in ("guest", "network", "bridge"):
        failed = lab.kvmnet(kind, "show", "no-such", accept=(1,))
        assert "no-such" in failed.stderr and "there are:" in failed.stderr
        assert "Traceback" not in failed.stderr
    assert "virbr0" in lab.kvmnet("bridge", "show", "virbr0").stdout
    assert "192.168.122" in lab.kvmnet("network", "show", "default").stdout


def test_saved_state_is_looked_at_elsewhere(lab: Lab, web: str) -> None:
    saved = lab.kvmnet("state", "save", "-").stdout
    there = lab.kvmnet("guest", "list", "--state", "-", "--json", stdin=saved)
    nic = next(x for x in json.loads(there.stdout)["guests"] if x["name"] == "web")["nics"][0]
    assert web in [x["ip"] for x in nic["known"]["addresses"]]


def test_orphaned_tap_is_found(lab: Lab, web: str) -> None:
    tap = web_nic(lab)["nic"]["target"]
    lab.run(HOST, ["ip", "link", "set", tap, "nomaster"])
    try:
        found = document(lab, "status")["findings"]
    finally:
        lab.run(HOST, ["ip", "link", "set", tap, "master", "virbr0"])
    orphaned = [x for x in found if x["name"] == "orphaned-tap"]
    assert [x["subject"] for x in orphaned] == ["guest web"]
    assert orphaned[0]["fix"] == [f"ip link set {tap} master virbr0"]


def test_running_and_saved_differ(lab: Lab, web: str) -> None:
    mac = web_nic(lab)["nic"]["mac"]
    words = ["virsh", "-q", "domif-setlink", "web", mac]
    lab.run(HOST, [*words, "down", "--config"])
    try:
        guest = document(lab, "guest", "show", "web")["guest"]
    finally:
        lab.run(HOST, [*words, "up", "--config"])
    (difference,) = guest["differences"]
    assert (difference["what"], difference["running"], difference["saved"]) == (
        "link_up", "yes", "no",
    )  # fmt: skip


def test_missing_network_and_same_mac(lab: Lab, web: str) -> None:
    nic = NIC.format(mac="52:54:00:aa:aa:aa", network="nowhere")
    for name in ("one", "two"):
        define(lab, name, nic)
    try:
        found = {x["name"] for x in document(lab, "status")["findings"]}
    finally:
        for name in ("one", "two"):
            lab.run(HOST, ["virsh", "-q", "undefine", name])
    assert {"network-inactive", "duplicate-identity"} <= found


@contextlib.contextmanager
def stopped(lab: Lab) -> Iterator[None]:
    """libvirtd hangs inside this block."""
    pid = lab.run(HOST, ["pidof", "libvirtd"]).stdout.split()[0]
    lab.run(HOST, ["kill", "-STOP", pid])
    try:
        yield
    finally:
        lab.run(HOST, ["kill", "-CONT", pid])


def timed(lab: Lab, *words: str, accept: tuple[int, ...] = (0,)) -> tuple[Completed, float]:
    began = time.monotonic()
    done = lab.kvmnet(*words, accept=accept)
    assert "Traceback" not in done.stderr
    return done, time.monotonic() - began


def test_agent_that_is_silent(lab: Lab, web: str) -> None:
    guest = lab.guest("web")
    pause = "p=$(pidof qemu-ga); (sleep 3; kill -STOP $p; sleep 20; kill -CONT $p)"
    guest.shell(f"{pause} </dev/null >/dev/null 2>&1 &")
    time.sleep(6)
    began = time.monotonic()
    found = document(lab, "guest", "list")
    took = time.monotonic() - began
    guest.wait_ready(60)
    assert took < BOUND_S
    (web_guest,) = [x for x in found["guests"] if x["name"] == "web"]
    assert web_guest["agent"] == "silent"
    assert web in [x["ip"] for x in web_guest["nics"][0]["known"]["addresses"]], "by its lease"
    assert "guest web: agent" in [x["what"] for x in found["unread"]]


def test_libvirtd_that_hangs(lab: Lab, web: str) -> None:
    with stopped(lab):
        status, took = timed(lab, "status")
        guests, _ = timed(lab, "guest", "list", accept=(1,))
    assert took < BOUND_S
    assert "virbr0" in status.stdout, "the kernel's part is there"
    assert "did not answer" in status.stdout
    assert "did not answer" in guests.stderr
    assert lab.kvmnet("guest", "list").status == 0, "and it is well again"


def test_ordinary_user(lab: Lab, web: str) -> None:
    words = [*AS_USER, sys.executable, "-m", "kvmnet"]
    status = lab.run(HOST, [*words, "status"], timeout=60)
    assert "Traceback" not in status.stderr
    assert "virbr0" in status.stdout
    assert "firewall" in status.stdout, "what can't be read is named"
    system = lab.run(
        HOST, [*words, "--connect", "qemu:///system", "guest", "list"], timeout=60, accept=(0, 1)
    )
    assert "Traceback" not in system.stderr
    assert "web" in system.stdout or "could not read" in system.stderr


def test_no_libvirt_at_all(lab: Lab) -> None:
    nowhere = ("--connect", "qemu:///system?socket=/nowhere")
    status, took = timed(lab, *nowhere, "status")
    assert took < BOUND_S
    assert "virbr0" in status.stdout
    assert "could not be read" in status.stdout
    networks, _ = timed(lab, *nowhere, "network", "list", accept=(1,))
    assert "libvirt" in networks.stderr
    assert "systemctl start" in networks.stderr


def test_libvirtd_that_is_killed_meanwhile(lab: Lab, web: str) -> None:
    """The lab starts it again: before or after, every look at the host ends well."""
    pid = lab.run(HOST, ["pidof", "libvirtd"]).stdout.split()[0]
    lab.run(HOST, ["kill", "-KILL", pid])
    status, took = timed(lab, "status")
    assert took < BOUND_S
    assert "virbr0" in status.stdout
