"""Networks of every mode, made by the command line on a real libvirtd and tried with packets."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from kvmnet.adapters.run import Completed
from kvmnet.lab.lab import Lab

pytestmark = pytest.mark.lab

LEASE_AT_MOST_MS = 500.0
"""Measured: about 20 ms. libvirt's stock network takes 7,200."""


def kvmnet(lab: Lab, *words: str, status: int = 0) -> Completed:
    done = lab.kvmnet(*words, accept=range(256))
    assert done.status == status, done.stdout + done.stderr
    return done


def virsh(lab: Lab, *words: str) -> str:
    return lab.run("host", ["virsh", "-c", "qemu:///system", *words]).stdout


@pytest.fixture
def name(lab: Lab) -> Iterator[str]:
    yield "trial"
    lab.kvmnet("network", "delete", "trial", "--yes", "--force", accept=range(256))


def is_leased_at_once(lab: Lab, network: str) -> bool:
    """Whether a stand-in guest has a lease that fast."""
    report = json.loads(lab.kvmnet("probe", f"network:{network}", "--json", accept=(0, 1)).stdout)
    steps = {step["name"]: step for step in report["report"]["steps"]}
    return steps["dhcp"]["verdict"] == "ok" and float(steps["dhcp"]["ms"]) < LEASE_AT_MOST_MS


def gives_leases_at_once(lab: Lab, network: str) -> bool:
    """A machine that has something else to do slows one down; dnsmasq's ping slows each down."""
    return any(is_leased_at_once(lab, network) for _ in range(3))


@pytest.mark.parametrize("mode", ["nat", "route", "open", "isolated"])
def test_each_mode_is_made_started_and_gives_leases_at_once(lab: Lab, name: str, mode: str) -> None:
    kvmnet(lab, "network", "create", name, "--mode", mode)
    info = dict(line.split(None, 1) for line in virsh(lab, "net-info", name).splitlines() if line)
    assert (info["Active:"], info["Persistent:"], info["Autostart:"]) == ("yes", "yes", "yes")
    xml = virsh(lab, "net-dumpxml", name)
    assert ("<forward" in xml) == (mode != "isolated")
    assert "stp='off' delay='0'" in xml
    assert gives_leases_at_once(lab, name)


def test_mode_bridge_uses_the_hosts_bridge_and_leaves_it_alone(lab: Lab, name: str) -> None:
    lab.run("host", ["ip", "link", "add", "br9", "type", "bridge"])
    try:
        kvmnet(lab, "network", "create", name, "--mode", "bridge", "--bridge", "br9")
        assert "<forward mode='bridge'/>" in virsh(lab, "net-dumpxml", name)
        kvmnet(lab, "network", "delete", name, "--yes")
        lab.run("host", ["ip", "link", "show", "br9"])
    finally:
        lab.run("host", ["ip", "link", "delete", "br9"])


@pytest.mark.parametrize("subnet", ["10.60.0.0/30", "10.60.0.0/29", "10.0.0.0/8"])
def test_small_and_large_subnets_work(lab: Lab, name: str, subnet: str) -> None:
    kvmnet(lab, "network", "create", name, "--mode", "isolated", "--subnet", subnet)
    assert gives_leases_at_once(lab, name)


def test_an_ipv6_network_keeps_the_hosts_own_address(lab: Lab, name: str) -> None:
    setting = ["cat", "/proc/sys/net/ipv6/conf/eth1/accept_ra"]
    kvmnet(lab, "network", "create", name, "--ipv6", "auto")
    assert lab.run("host", setting).stdout == "2\n"
    file = lab.run("host", ["cat", "/etc/sysctl.d/60-kvmnet-accept-ra.conf"]).stdout
    assert "net/ipv6/conf/eth1/accept_ra = 2" in file.splitlines()
    assert "inet6 fd" in lab.run("host", ["ip", "-6", "address"]).stdout


def test_what_is_overlapped_is_named_and_a_free_subnet_proposed(lab: Lab, name: str) -> None:
    said = kvmnet(lab, "network", "create", name, "--subnet", "192.168.77.0/25", status=3).stderr
    assert "eth1" in said
    assert "--subnet 192.168.122.0/24" in said
    assert name not in virsh(lab, "net-list", "--all")


def test_dry_run_changes_nothing(lab: Lab, name: str) -> None:
    plan = json.loads(kvmnet(lab, "network", "create", name, "--dry-run", "--json").stdout)
    assert plan["applied"] is False
    assert len(plan["plan"]["steps"]) == 3
    assert name not in virsh(lab, "net-list", "--all")


def test_start_and_stop_twice_change_nothing_the_second_time(lab: Lab, name: str) -> None:
    kvmnet(lab, "network", "create", name)
    assert "active already" in kvmnet(lab, "network", "start", name).stderr
    kvmnet(lab, "network", "stop", name)
    assert "not active" in kvmnet(lab, "network", "stop", name).stderr
    kvmnet(lab, "network", "start", name)
    assert gives_leases_at_once(lab, name)


def test_delete_needs_a_yes(lab: Lab, name: str) -> None:
    kvmnet(lab, "network", "create", name)
    assert "--yes" in kvmnet(lab, "network", "delete", name, status=3).stderr
    kvmnet(lab, "network", "delete", name, "--yes")
    assert name not in virsh(lab, "net-list", "--all")


def test_a_used_network_is_not_taken_from_its_guest(lab: Lab, name: str) -> None:
    kvmnet(lab, "network", "create", name)
    lab.add_guest("user1", on=f"network:{name}")
    for verb in (["stop", name], ["delete", name, "--yes"]):
        assert "user1" in kvmnet(lab, "network", *verb, status=3).stderr
    forced = kvmnet(lab, "network", "stop", name, "--force").stderr
    assert "orphaned tap" in forced
    virsh(lab, "destroy", "user1")


def test_port_53_taken_is_told_and_everything_put_back(lab: Lab, name: str) -> None:
    script = (
        "import socket, time\n"
        "held = socket.create_server(('0.0.0.0', 53))\n"
        "print('held', flush=True)\ntime.sleep(60)\n"
    )
    hog = lab.spawn("host", [sys.executable, "-c", script])
    try:
        assert hog.stdout is not None
        assert hog.stdout.readline() == b"held\n"
        said = kvmnet(lab, "network", "create", name, status=4).stderr
        assert "dns-port-taken" in said
        assert "put back" in said
        assert name not in virsh(lab, "net-list", "--all")
    finally:
        hog.kill()
        hog.wait(10)


def test_a_stale_bridge_is_told(lab: Lab, name: str) -> None:
    kvmnet(lab, "network", "create", name, "--bridge", "vbr7")
    kvmnet(lab, "network", "stop", name)
    lab.run("host", ["ip", "link", "add", "vbr7", "type", "bridge"])
    try:
        said = kvmnet(lab, "network", "start", name, status=3).stderr
        assert "ip link delete vbr7" in said
    finally:
        lab.run("host", ["ip", "link", "delete", "vbr7"])


@pytest.mark.parametrize(
    "words",
    [
        ["../../etc"], ["a b"], ["-x"], ["ünï"], ["x\x1b[31m"], ["<n/>"], ["n" * 65], [""],
        ["t", "--subnet", "10.0.0.0"], ["t", "--subnet", "nonsense"],
        ["t", "--subnet", "224.0.0.0/24"], ["t", "--subnet", "10.0.0.0/31"],
        ["t", "--ipv6", "fd00::/48"], ["t", "--bridge", "a/b"], ["t", "--bridge", "x" * 16],
        ["t", "--dhcp-range", "10.0.0.5"], ["t", "--dhcp-range", "1.2.3.4-5.6.7.8"],
        ["t", "--mtu", "12"], ["t", "--mtu", "many"], ["t", "--domain", "no_such domain"],
        ["t", "--mode", "bridge"], ["t", "--mode", "teleport"],
    ],
)  # fmt: skip
def test_wrong_input_is_wrong_usage_and_touches_nothing(lab: Lab, words: list[str]) -> None:
    before = virsh(lab, "net-list", "--all")
    said = kvmnet(lab, "network", "create", *words, status=2).stderr
    assert "Traceback" not in said
    assert "\x1b" not in said
    assert virsh(lab, "net-list", "--all") == before


def test_a_users_session_is_told_why_not(lab: Lab) -> None:
    said = kvmnet(lab, "--connect", "qemu:///session", "network", "create", "x", status=3).stderr
    assert "qemu:///system" in said
