"""`kvmnet doctor` on a real libvirtd with real guests: silent in good order, mends, puts back."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kvmnet.errors import CommandFailed
from kvmnet.lab import topology
from kvmnet.lab.faults import breaking
from kvmnet.lab.lab import Lab
from kvmnet.lab.topology import USER_HOME, USER_ID

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def web(lab: Lab) -> str:
    """The address of a guest on network default, beside one on the bridge br0."""
    lab.kvmnet("up", "--yes")
    lab.kvmnet("bridge", "create", "br0", "--port", "eth1", "--yes")
    guest = lab.add_guest("web", on="network:default")
    beside = lab.add_guest("srv", on="bridge:br0")
    beside.wait_ready(90)
    beside.wait_address(30)
    guest.wait_ready(90)
    return guest.wait_address(30)


def diagnosis(lab: Lab, *words: str, accept: tuple[int, ...] = (0, 1)) -> dict[str, Any]:
    done = lab.kvmnet("doctor", *words, "--json", accept=accept, timeout=90)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def names(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(x["name"], x["subject"]) for x in document["findings"]]


def is_reached(lab: Lab, address: str) -> bool:
    argv = ["timeout", "5", "busybox", "wget", "-q", "-O-", f"http://{address}/"]
    try:
        return "web" in lab.run("host", argv).stdout
    except CommandFailed:
        return False


def test_a_lab_in_good_order_is_healthy_and_the_proof_is_told(lab: Lab, web: str) -> None:
    document = diagnosis(lab, accept=(0,))
    assert document["healthy"] and names(document) == [] and document["unread"] == []
    assert {x["place"]: x["ok"] for x in document["probes"]} == {
        "network:default": True, "bridge:br0": True,
    }  # fmt: skip
    again = lab.kvmnet("doctor", timeout=60)
    assert len(again.stdout.splitlines()) == 1, again.stdout
    assert "nothing is wrong" in again.stdout and "2 guests" in again.stdout
    assert "stand-in" not in again.stdout


def test_a_target_that_refuses_the_host_too_is_no_word_on_guests(lab: Lab, web: str) -> None:
    document = diagnosis(lab, "--to", f"{topology.WEB_IP}:81", accept=(0,))
    assert names(document) == [("target-silent", "the host")]
    (found,) = document["findings"]
    assert "gateway" not in found["what"] and f"{topology.WEB_IP}:81" in found["what"]
    assert any("refused" in x for x in found["evidence"]), found
    assert names(diagnosis(lab, "--to", f"{topology.WEB_IP}:80", accept=(0,))) == []


def test_a_name_that_does_not_exist_is_no_silent_dns_server(lab: Lab, web: str) -> None:
    name = f"nosuch.{topology.LAN_DOMAIN}"
    document = diagnosis(lab, "network:default", "--to", name, accept=(0,))
    assert names(document) == [("name-unknown", f"the name {name}")]
    assert f"there is no name {name}" in document["findings"][0]["what"]


def test_what_an_isolated_network_does_not_reach_is_as_it_was_made(lab: Lab, web: str) -> None:
    lab.kvmnet("network", "create", "alone", "--mode", "isolated", "--yes")
    try:
        for to in (topology.WEB_NAME, f"{topology.WEB_IP}:80"):
            document = diagnosis(lab, "network:alone", "--to", to, accept=(0,))
            assert names(document) == [("network-isolated", "network alone")], document
            assert "isolated, as its definition says" in document["findings"][0]["what"]
    finally:
        lab.kvmnet("network", "delete", "alone", "--yes")


def test_a_user_who_may_not_read_the_firewall_is_not_told_that_all_is_well(
    lab: Lab, web: str
) -> None:
    user = ("setpriv", f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups", "env",
            f"HOME={USER_HOME}", f"XDG_RUNTIME_DIR={USER_HOME}")  # fmt: skip
    words = [*user, sys.executable, "-m", "kvmnet", "--connect", "qemu:///system", "doctor"]
    done = lab.run("host", words, accept=(1,))
    assert "nothing wrong was found, but firewall" in done.stdout, done.stdout
    assert "nothing is wrong" not in done.stdout and "not looked at: firewall" in done.stdout


def test_a_guest_is_looked_at_alone(lab: Lab, web: str) -> None:
    document = diagnosis(lab, "srv", accept=(0,))
    assert [x["place"] for x in document["probes"]] == ["bridge:br0"]


def test_a_network_that_is_off_is_mended_and_undo_brings_the_fault_back(lab: Lab, web: str) -> None:
    lab.run("host", ["virsh", "net-destroy", "default"])
    assert not is_reached(lab, web)
    assert names(diagnosis(lab, accept=(1,))) == [("network-inactive", "network default")]
    assert "guests on" not in lab.kvmnet("doctor", "srv", "--no-probes").stdout
    mended = diagnosis(lab, "--fix", "--yes", accept=(0,))
    assert mended["applied"] and names(mended) == []
    assert is_reached(lab, web)
    lab.kvmnet("undo", "--yes")
    assert not is_reached(lab, web)
    assert names(diagnosis(lab, accept=(1,))) == [("network-inactive", "network default")]
    diagnosis(lab, "--fix", "--yes", accept=(0,))


def test_two_faults_are_both_named_and_both_mended(lab: Lab, web: str) -> None:
    tap = lab.run("host", ["sh", "-c", "ls /sys/class/net/virbr0/brif | grep vnet"]).stdout.strip()
    lab.run("host", ["ip", "link", "set", tap, "nomaster"])
    lab.run("host", ["ip", "link", "set", "br0", "type", "bridge", "stp_state", "1",
                     "forward_delay", "1500"])  # fmt: skip
    assert not is_reached(lab, web)
    found = names(diagnosis(lab, accept=(1,)))
    assert found == [("orphaned-tap", "guest web"), ("stp-delay", "bridge br0")]
    dry = lab.kvmnet("doctor", "--fix", "--dry-run", accept=(1,), timeout=60).stdout
    assert f"plug {tap} into bridge virbr0" in dry and "undo: set stp_state of bridge br0" in dry
    assert not is_reached(lab, web)
    asked = lab.kvmnet("doctor", "--fix", accept=(3,), timeout=60)
    assert "--yes" in asked.stderr and not is_reached(lab, web)
    assert names(diagnosis(lab, "web", "--fix", "--yes", accept=(0,))) == []
    assert names(diagnosis(lab, "--fix", "--yes", accept=(0,))) == []
    assert is_reached(lab, web)


SYSCTL_FILE = "/etc/sysctl.d/95-kvmnet-ip-forward-off.conf"


def test_what_is_mended_lasts_and_undo_takes_that_back_too(lab: Lab, web: str) -> None:
    """A setting gets a file, a network its definition: what is read at boot mends it again."""
    lab.run("host", ["sysctl", "-qw", "net.ipv4.ip_forward=0"])
    lab.run("host", ["sh", "-c", "virsh net-dumpxml --inactive default > /run/it.xml; sed -i "
                     "'s/^ *<bridge .*/<bridge name=\"virbr0\" stp=\"on\" delay=\"6\"\\/>/' "
                     "/run/it.xml; virsh -q net-define /run/it.xml"])  # fmt: skip
    saved = ["virsh", "net-dumpxml", "--inactive", "default"]
    was = lab.run("host", saved).stdout
    assert "stp='on' delay='6'" in was
    lab.run("host", ["ip", "link", "set", "virbr0", "type", "bridge", "stp_state", "1",
                     "forward_delay", "600"])  # fmt: skip
    dry = lab.kvmnet("doctor", "--fix", "--dry-run", "--no-probes", accept=(1,)).stdout
    assert f"write {SYSCTL_FILE}" in dry and "definition of network default" in dry
    assert lab.run("host", saved).stdout == was
    diagnosis(lab, "--fix", "--yes", accept=(0,))
    assert "stp='off' delay='0'" in lab.run("host", saved).stdout
    text = lab.run("host", ["cat", SYSCTL_FILE]).stdout
    assert text.splitlines()[-1] == "net/ipv4/ip_forward = 1" and "ip-forward-off" in text
    lab.run("host", ["sysctl", "-qw", "net.ipv4.ip_forward=0"])
    lab.run("host", ["sysctl", "-q", "-p", SYSCTL_FILE])
    assert lab.run("host", ["cat", "/proc/sys/net/ipv4/ip_forward"]).stdout == "1\n"
    lab.kvmnet("undo", "--yes")
    assert lab.run("host", ["test", "-e", SYSCTL_FILE], accept=(1,)).status == 1
    assert lab.run("host", saved).stdout == was
    diagnosis(lab, "--fix", "--yes", accept=(0,))


def test_what_does_not_help_is_undone(lab: Lab, web: str) -> None:
    """A bridge that somebody keeps switching to spanning tree: the finding stays, so exit 4."""
    lab.run("host", ["ip", "link", "set", "br0", "type", "bridge", "stp_state", "1",
                     "forward_delay", "1500"])  # fmt: skip
    spoiler = lab.spawn("host", ["sh", "-c", "while :; do ip link set br0 type bridge "
                        "stp_state 1 forward_delay 1500; sleep 0.05; done"])  # fmt: skip
    try:
        done = lab.kvmnet("doctor", "--fix", "--yes", accept=(4,), timeout=60)
        assert "stp-delay" in done.stderr and "put back" in done.stderr
    finally:
        spoiler.kill()
        spoiler.wait(10)
        time.sleep(0.5)  # for its last `ip`
        lab.run("host", ["ip", "link", "set", "br0", "type", "bridge", "stp_state", "0"])
        lab.run("host", ["ip", "link", "set", "br0", "type", "bridge", "forward_delay", "0"])


MENDING_STEPS = 3
"""ip_forward, the tap, the file that keeps ip_forward."""
DRIVER = str(Path(__file__).with_name("doctor_driver.py"))


def test_a_mending_that_is_killed_is_undone_by_the_next_kvmnet(lab: Lab, web: str) -> None:
    """After each half step all is as broken as before; in the end all of it is mended."""
    taps = lab.run("host", ["ls", "/sys/class/net/virbr0/brif"]).stdout.split()
    (tap,) = [x for x in taps if x.startswith("vnet")]
    lab.run("host", ["ip", "link", "set", tap, "nomaster"])
    lab.run("host", ["sysctl", "-qw", "net.ipv4.ip_forward=0"])
    lab.run("host", ["rm", "-f", SYSCTL_FILE])  # an earlier test's, which would be a step less
    script = f"cat /proc/sys/net/ipv4/ip_forward; ls -l /sys/class/net/{tap}/master; " \
             f"cat {SYSCTL_FILE}"  # fmt: skip
    look = ["sh", "-c", f"({script}) 2>&1; true"]
    broken = lab.run("host", look).stdout
    for step in range(1, MENDING_STEPS + 1):
        for moment in ("began", "done"):
            words = [sys.executable, DRIVER, "sigkill", moment, str(step)]
            killed = lab.run("host", words, accept=range(-64, 256))
            assert killed.status == -9, killed.stdout + killed.stderr
            told = lab.kvmnet("network", "start", "absent", accept=(1,)).stderr
            assert f"cut off at step {step} of" in told
            assert lab.run("host", look).stdout == broken, (moment, step)
    kept = [sys.executable, DRIVER, "sigkill", "done", str(MENDING_STEPS + 1)]
    assert lab.run("host", kept).stdout.startswith(f"{MENDING_STEPS} steps")
    mended = lab.run("host", look).stdout
    assert mended.startswith("1\n") and "virbr0" in mended and "ip_forward = 1" in mended
    assert names(diagnosis(lab, accept=(0,))) == []


def test_addresses_that_a_port_has_no_use_for_go(lab: Lab, web: str) -> None:
    """A renamed NIC that came up alone took one from the router; then one that the bridge has."""
    breaking.break_(lab, "port-renamed")
    try:
        nic = "enp4s0"
        lab.run("host", ["ip", "link", "set", nic, "up"])
        own = ["ip", "-6", "-o", "address", "show", "dev", nic, "scope", "global"]
        end = time.monotonic() + 20
        while not lab.run("host", own).stdout and time.monotonic() < end:
            time.sleep(0.2)
        assert "2001:db8:77:" in lab.run("host", own).stdout
        mended = diagnosis(lab, "--fix", "--yes")
        assert mended["applied"] and mended["findings"] == []
        assert lab.run("host", own).stdout == ""
    finally:
        breaking.mend(lab, "port-renamed")
    shown = lab.run("host", ["ip", "-4", "-o", "address", "show", "dev", "br0"]).stdout.split()
    lab.run("host", ["ip", "address", "add", shown[3], "dev", "eth1", "noprefixroute"])
    assert names(diagnosis(lab, accept=(1,))) == [("ip-left-on-port", "NIC eth1")]
    assert names(diagnosis(lab, "--fix", "--yes", accept=(0,))) == []
    lab.kvmnet("undo", "--yes")
    assert names(diagnosis(lab, accept=(1,))) == [("ip-left-on-port", "NIC eth1")]
    lab.run("host", ["ip", "address", "delete", shown[3], "dev", "eth1"])


def test_what_nothing_explains_is_followed_to_where_it_is_lost(lab: Lab, web: str) -> None:
    """A rule that no check reads (the length of a packet), and DHCP answers lost on the uplink."""
    lab.run(
        "host",
        ["nft", "-f", "/dev/stdin"],
        stdin="""
      table inet odd { chain f { type filter hook forward priority 50; policy accept;
        iifname virbr0 icmp type echo-request meta length 0-1000 drop
      }
      }""",
    )
    (finding,) = diagnosis(lab, accept=(1,))["findings"]
    assert finding["subject"] == "network default"
    assert "inet odd f" in finding["what"] and "echo-request" in finding["what"]
    lab.run("host", ["nft", "delete", "table", "inet", "odd"])
    lab.run(
        "host",
        ["nft", "-f", "/dev/stdin"],
        stdin="""
      table netdev odd { chain i { type filter hook ingress device eth1 priority 0; policy accept;
        udp dport 68 drop
      }
      }""",
    )
    found = diagnosis(lab, "bridge:br0", accept=(1,))
    lab.run("host", ["nft", "delete", "table", "netdev", "odd"])
    (finding,) = [x for x in found["findings"] if x["severity"] == "problem"]
    assert "last seen at the link eth1" in finding["what"]
    assert any("an answer of 192.168.77.1: in by eth1" in x for x in finding["evidence"])


def test_a_saved_state_is_diagnosed_elsewhere(lab: Lab, web: str) -> None:
    lab.run("host", ["virsh", "net-destroy", "default"])
    saved = lab.kvmnet("state", "save", "-").stdout
    lab.kvmnet("network", "start", "default")
    looked = lab.kvmnet("doctor", "--state", "-", stdin=saved, accept=(1,))
    assert "network-inactive" in looked.stdout and "a saved State: nothing was tried" in (
        looked.stdout
    )
