"""A libvirt network on the host's bridge: its guests are hosts of the LAN, by their own MAC."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from kvmnet.adapters.run import Completed
from kvmnet.lab import topology as t
from kvmnet.lab.guest import LabGuest
from kvmnet.lab.lab import Lab

pytestmark = pytest.mark.lab

NETWORK = "onlan"


def kvmnet(lab: Lab, *words: str, status: int = 0) -> Completed:
    done = lab.kvmnet(*words, accept=range(256))
    assert done.status == status, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def bridged(lab: Lab) -> Lab:
    kvmnet(lab, "bridge", "create", "br0", "--port", t.HOST_NIC, "--yes")
    kvmnet(lab, "network", "create", NETWORK, "--mode", "bridge", "--bridge", "br0")
    return lab


@pytest.fixture(scope="module")
def guest(bridged: Lab) -> Iterator[LabGuest]:
    added = bridged.add_guest("web", on=f"network:{NETWORK}")
    added.wait_ready(90)
    added.wait_address(60)
    yield added
    added.remove()


def mac_of(lab: Lab) -> str:
    listing = lab.run("host", ["virsh", "domiflist", "web"]).stdout
    return next(line.split()[4] for line in listing.splitlines() if NETWORK in line)


def test_its_address_is_from_the_lans_dhcp(guest: LabGuest) -> None:
    last = int(guest.wait_address(5).rpartition(".")[2])
    low, high = (int(ip.rpartition(".")[2]) for ip in t.LAN_DHCP_RANGE)
    assert low <= last <= high


def test_the_peer_sees_it_by_its_own_mac_and_loads_its_page(bridged: Lab, guest: LabGuest) -> None:
    address = guest.wait_address(5)
    page = bridged.run("peer", ["busybox", "wget", "-q", "-O-", f"http://{address}/"])
    assert page.stdout == "Hello from the guest web.\n"
    assert mac_of(bridged) in bridged.run("peer", ["ip", "neigh", "show", address]).stdout


def test_it_reaches_the_internet_and_the_host(guest: LabGuest) -> None:
    assert guest.run(["wget", "-q", "-O-", f"http://{t.WEB_NAME}/"]).stdout == t.WEB_PAGE + "\n"
    guest.run(["ping", "-c", "1", "-W", "5", t.HOST_IP])


def test_status_shows_the_way_from_the_guest_to_the_lan(bridged: Lab, guest: LabGuest) -> None:
    address = guest.wait_address(5)
    status = kvmnet(bridged, "status").stdout
    for word in (NETWORK, "br0", t.HOST_NIC, address):
        assert word in status
    document = json.loads(kvmnet(bridged, "status", "--json").stdout)
    assert [x for x in document["findings"] if x["severity"] == "problem"] == []


def test_the_guests_address_is_shown_with_what_knows_it(bridged: Lab, guest: LabGuest) -> None:
    address = guest.wait_address(5)
    document = json.loads(kvmnet(bridged, "guest", "show", "web", "--json").stdout)
    text = json.dumps(document)
    assert address in text
    assert '"agent"' in text
    assert address in kvmnet(bridged, "guest", "list").stdout


def test_a_stand_in_guest_on_it_is_online_by_the_lans_own_servers(bridged: Lab) -> None:
    done = kvmnet(bridged, "probe", f"network:{NETWORK}", "--json")
    steps = {x["name"]: x for x in json.loads(done.stdout)["report"]["steps"]}
    assert t.ROUTER_IP in steps["dhcp"]["detail"]
    assert steps["gateway"]["verdict"] == steps["target"]["verdict"] == "ok"


def test_deleting_it_leaves_the_bridge_and_the_hosts_own_way(bridged: Lab) -> None:
    kvmnet(bridged, "network", "create", "second", "--mode", "bridge", "--bridge", "br0")
    kvmnet(bridged, "network", "delete", "second", "--yes")
    bridged.run("host", ["busybox", "ping", "-c", "1", "-W", "5", t.ROUTER_IP])
