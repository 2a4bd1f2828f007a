"""The way in: guests, networks and the host, tried from the LAN."""

from __future__ import annotations

import signal
import time

import pytest

from kvmnet.lab import topology
from kvmnet.lab.guest import LabGuest
from kvmnet.lab.lab import Lab

from .test_probe import KVMNET, nat, network, probe

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def web(lab: Lab) -> LabGuest:
    """A guest on a NAT network, with an address."""
    network(lab, nat("quick", 81))
    network(lab, nat("routed", 82, mode="<forward mode='route'/>"))
    guest = lab.add_guest("web", on="network:quick")
    guest.wait_ready()
    guest.wait_address()
    return guest


def nothing_is_left(lab: Lab, nic: str = topology.HOST_NIC) -> None:
    assert "kvmnet-" not in lab.run("host", ["ip", "-br", "link"]).stdout
    assert "clsact" not in lab.run("host", ["tc", "qdisc", "show", "dev", nic]).stdout


def test_host_behind_a_nic_that_is_no_port(lab: Lab, web: LabGuest) -> None:
    report = probe(lab, "network:quick", "--from", "lan:eth1", "--to", f"{topology.HOST_IP}:22")
    step = report["by_name"]["way-in"]
    assert step["verdict"] == "ok" and "connected" in step["detail"]
    closed = probe(lab, "network:quick", "--from", "lan:eth1", "--to", f"{topology.HOST_IP}:81",
                   status=1)  # fmt: skip
    assert "nothing listens" in closed["by_name"]["way-in"]["reason"]
    assert report["ms"] < 6000
    known = lab.run("host", ["ip", "neigh", "show", "dev", topology.HOST_NIC]).stdout
    assert report["mac"] not in known
    nothing_is_left(lab)


def test_nat_can_not_be_reached_and_what_helps(lab: Lab, web: LabGuest) -> None:
    report = probe(lab, "guest:web", "--from", "lan:eth1", status=1)
    step = report["by_name"]["way-in-by-host"]
    assert step["verdict"] == "failed" and "behind NAT" in step["reason"]
    assert "kvmnet guest move web --to bridge:" in step["hint"]
    assert report["guest"]["name"] == "web"
    nothing_is_left(lab)
    network = probe(lab, "network:quick", "--from", "lan:eth1", status=1)
    step = network["by_name"]["way-in"]
    assert step["verdict"] == "failed" and "behind NAT" in step["reason"]
    assert "route to" not in step["hint"] and "published" in step["hint"]
    assert "way-in-by-host" not in network["by_name"]


def test_routed_network_by_way_of_the_host(lab: Lab, web: LabGuest) -> None:
    report = probe(lab, "network:routed", "--from", "lan:eth1")
    assert report["by_name"]["way-in"]["verdict"] == "skipped"
    assert "LAN's router" in report["by_name"]["way-in"]["reason"]
    assert report["by_name"]["way-in-by-host"]["verdict"] == "ok"


def test_killed_it_leaves_nothing(lab: Lab, web: LabGuest) -> None:
    for after_s in (0.2, 0.4, 0.6):
        words = [*KVMNET, "probe", "guest:web", "--from", "lan:eth1"]
        process = lab.spawn("host", words)
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=10)
        end = time.monotonic() + 5
        while "kvmnet-" in lab.run("host", ["ip", "-br", "link"]).stdout:
            assert time.monotonic() < end
            time.sleep(0.1)
        nothing_is_left(lab)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--from", "eth1"], 2, "lan:NIC is expected"),
        (["--from", "lan:"], 2, "can not be the name"),
        (["--from", "lan:nosuch"], 1, "there is no NIC nosuch"),
        (["--from", "lan:lo"], 3, "it leads to no LAN"),
        (["--from", "lan:eth1", "--to", "www.example.org"], 3, "name its address"),
        (["--from", "lan:-x"], 2, "begins with a dash"),
    ],
)
def test_wrong_words(lab: Lab, web: LabGuest, words: list[str], status: int, said: str) -> None:
    done = lab.kvmnet("probe", "network:quick", *words, accept=range(256))
    assert done.status == status and said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_nic_that_is_a_port(lab: Lab, web: LabGuest) -> None:
    """From here on the host's NIC stays a bridge's port."""
    lab.kvmnet("bridge", "create", "br0", "--port", "eth1", "--no-persist", "--yes")
    report = probe(lab, "bridge:br0", "--from", "lan:eth1")
    assert report["lease"]["server"] == topology.ROUTER_IP
    assert report["by_name"]["way-in"]["verdict"] == "ok"
    # The LAN's router does not know the way to a routed network; the host does.
    routed = probe(lab, "network:routed", "--from", "lan:eth1", status=1)
    assert routed["by_name"]["way-in"]["verdict"] == "failed"
    assert "a route to 10.82.0.1 by 192.168.77.10" in routed["by_name"]["way-in"]["hint"]
    assert routed["by_name"]["way-in-by-host"]["verdict"] == "ok"
    hidden = probe(lab, "network:quick", "--from", "lan:eth1", "--to", "10.81.0.1", status=1)
    assert "behind NAT" in hidden["by_name"]["way-in"]["reason"]
    assert "route to" not in hidden["by_name"]["way-in"]["hint"]
    guest = lab.add_guest("near", on="bridge:br0")
    guest.wait_ready()
    address = guest.wait_address()
    near = probe(lab, "guest:near", "--from", "lan:br0", "--to", f"{address}:80")
    assert near["by_name"]["way-in"]["verdict"] == "ok"
    leases = lab.run("router", ["cat", "/run/lab/leases"], accept=(0, 1)).stdout
    assert report["mac"] not in leases
    nothing_is_left(lab)


def test_guest_that_was_moved_is_met_where_it_is_now(lab: Lab, web: LabGuest) -> None:
    """The lease of the network that it left is still there; its agent knows better."""
    lab.kvmnet("guest", "move", "web", "--to", "bridge:br0", "--yes", timeout=90)
    leased = lab.run("host", ["virsh", "net-dhcp-leases", "quick"]).stdout
    assert "10.81.0." in leased
    report = probe(lab, "guest:web", "--from", "lan:br0")
    assert report["by_name"]["way-in"]["verdict"] == "ok"
    traced = lab.kvmnet("trace", "host", "guest:web:80", "--wait", "5")
    assert "192.168.77." in traced.stdout and "10.81." not in traced.stdout
