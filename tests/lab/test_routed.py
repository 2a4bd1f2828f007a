"""Guests with LAN addresses on an uplink where only the host's own MAC may speak.

The router's port drops every frame from the host's NIC whose sender is not the host, as an access
point does with a station, and a hosting provider's switch with a rented machine.
"""

from __future__ import annotations

import ipaddress
import json
import re
import time
from collections.abc import Iterator

import pytest

from kvmnet.adapters.run import Completed
from kvmnet.lab import topology as t
from kvmnet.lab.guest import LabGuest
from kvmnet.lab.lab import Lab

pytestmark = pytest.mark.lab

FIRST, LAST = "192.168.77.200", "192.168.77.230"
CREATE = ("network", "create", "lan", "--mode", "route", "--uplink", t.HOST_NIC, "--lan-range",
          f"{FIRST}-{LAST}")  # fmt: skip
FILE = "/etc/sysctl.d/60-kvmnet-lan-lan.conf"
PROXY_ARP = f"/proc/sys/net/ipv4/conf/{t.HOST_NIC}/proxy_arp"
PROXY_DELAY = f"/proc/sys/net/ipv4/neigh/{t.HOST_NIC}/proxy_delay"


def kvmnet(lab: Lab, *words: str, status: int = 0) -> Completed:
    done = lab.kvmnet(*words, accept=range(256))
    assert done.status == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def host(lab: Lab, script: str, accept: range = range(1)) -> str:
    return lab.run("host", ["sh", "-c", script], accept=accept).stdout


def traces(lab: Lab) -> dict[str, str]:
    """All that a network of this kind may leave behind, as the host shows it."""
    return {
        "settings": host(lab, f"cat {PROXY_ARP} {PROXY_DELAY}"),
        "files": host(lab, "ls /etc/sysctl.d"),
        "routes": host(lab, "ip -o route show table all | sed 's/expires.*//' | sort"),
        "proxies": host(lab, "ip neigh show proxy; ip -6 neigh show proxy"),
        "links": host(lab, "ip -o link | awk '{print $2}' | sort"),
        "networks": host(lab, "virsh net-list --all --name"),
        "saved": host(lab, "ls /etc/libvirt/qemu/networks/lan* || true"),
    }


@pytest.fixture(scope="module")
def locked(lab: Lab) -> Lab:
    """The lab, its router taking frames from the host's NIC only if the host itself sends them."""
    for words in (
        ["add", "table", "bridge", "lock"],
        ["add", "chain", "bridge", "lock", "only",
         "{ type filter hook prerouting priority 0; }"],
        ["add", "rule", "bridge", "lock", "only", "iifname", f"sw-{t.HOST}", "ether", "saddr", "!=",
         t.HOST_MAC, "counter", "drop"],
    ):  # fmt: skip
        lab.run("router", ["nft", *words])
    return lab


@pytest.fixture(scope="module")
def before(locked: Lab) -> dict[str, str]:
    return traces(locked)


@pytest.fixture(scope="module")
def guest(locked: Lab, before: dict[str, str]) -> Iterator[LabGuest]:
    kvmnet(locked, *CREATE)
    added = locked.add_guest("web", on="network:lan")
    added.wait_ready(90)
    added.wait_address(60)
    yield added
    added.remove()
    kvmnet(locked, "network", "delete", "lan", "--yes")
    assert traces(locked) == before


def peer_sees(lab: Lab, address: str, deadline_s: float = 10.0) -> None:
    """The peer pings the guest, loads its page, and takes the host's MAC for its address."""
    lab.run("peer", ["ip", "neigh", "flush", "dev", t.PEER_NIC])
    lab.run("peer", ["busybox", "ping", "-c", "1", "-W", str(int(deadline_s)), address])
    page = lab.run("peer", ["busybox", "wget", "-q", "-O-", f"http://{address}/"])
    assert page.stdout == "Hello from the guest web.\n"
    known = lab.run("peer", ["ip", "neigh", "show", address]).stdout
    assert t.HOST_MAC in known


def test_it_takes_an_address_of_the_range_and_the_peer_finds_it_behind_the_hosts_mac(
    locked: Lab, guest: LabGuest
) -> None:
    address = guest.wait_address(5)
    assert int(ipaddress.ip_address(FIRST)) <= int(ipaddress.ip_address(address))
    assert int(ipaddress.ip_address(address)) <= int(ipaddress.ip_address(LAST))
    peer_sees(locked, address)


def test_nobody_else_may_speak_on_the_uplink(locked: Lab) -> None:
    """The lock that all of this is tried under is a real one: the host is heard, others are not."""
    ask = ["busybox", "arping", "-D", "-c", "2", "-w", "2"]
    locked.run("host", [*ask, "-I", t.HOST_NIC, t.PEER_IP], accept=(1,))  # answered: it is in use
    host(locked, f"ip link add link {t.HOST_NIC} name other type macvlan mode bridge")
    try:
        host(locked, "ip link set other up")
        locked.run("host", [*ask, "-I", "other", t.PEER_IP])
    finally:
        host(locked, "ip link delete other")


def test_the_first_packet_waits_for_no_proxy_delay(locked: Lab, guest: LabGuest) -> None:
    address = guest.wait_address(5)
    slow = []
    for _ in range(5):
        locked.run("peer", ["ip", "neigh", "flush", "dev", t.PEER_NIC])
        shown = locked.run("peer", ["busybox", "ping", "-c", "1", "-W", "5", address]).stdout
        found = re.search(r"time=([\d.]+) ms", shown)
        assert found is not None, shown
        slow.append(float(found[1]) / 1000)
    assert min(slow) < 0.2
    assert sorted(slow)[2] < 0.4, slow


def test_it_reaches_peer_router_and_internet_from_its_own_address(
    locked: Lab, guest: LabGuest
) -> None:
    address = guest.wait_address(5)
    for there in (t.PEER_IP, t.ROUTER_IP, t.HOST_IP):
        guest.run(["ping", "-c", "1", "-W", "5", there])
    page = guest.run(["wget", "-q", "-O-", f"http://{t.WEB_NAME}/"])
    assert page.stdout == t.WEB_PAGE + "\n"
    guest.run(["ping", "-c", "1", "-W", "5", t.PEER_IP])
    known = locked.run("peer", ["ip", "neigh", "show", address]).stdout
    assert t.HOST_MAC in known, "the peer was pinged from another address than the guest's"


def test_status_shows_the_guest_and_finds_nothing_wrong(locked: Lab, guest: LabGuest) -> None:
    address = guest.wait_address(5)
    status = json.loads(kvmnet(locked, "status", "--json").stdout)
    assert status["findings"] == []
    assert address in kvmnet(locked, "guest", "show", "web").stdout
    assert FIRST.rsplit(".", 1)[0] in kvmnet(locked, "network", "show", "lan").stdout


def test_a_stand_in_guest_is_online_too(locked: Lab, guest: LabGuest) -> None:
    report = json.loads(kvmnet(locked, "probe", "network:lan", "--json").stdout)["report"]
    verdicts = {step["name"]: step["verdict"] for step in report["steps"]}
    assert verdicts["dhcp"] == verdicts["gateway"] == verdicts["target"] == "ok", verdicts


def test_while_it_is_stopped_the_host_answers_for_nobody(locked: Lab, guest: LabGuest) -> None:
    address = guest.wait_address(5)
    kvmnet(locked, "network", "stop", "lan", "--force")
    locked.run("peer", ["ip", "neigh", "flush", "dev", t.PEER_NIC])
    locked.run("peer", ["busybox", "ping", "-c", "1", "-W", "1", address], accept=(1,))
    assert t.HOST_MAC not in locked.run("peer", ["ip", "neigh", "show", address]).stdout
    kvmnet(locked, "network", "start", "lan")
    peer_sees(locked, address)


def test_a_restart_of_libvirtd_is_not_noticed(locked: Lab, guest: LabGuest) -> None:
    address = guest.wait_address(5)
    locked.stop_libvirtd()
    try:
        peer_sees(locked, address)
    finally:
        locked.start_libvirtd()
    peer_sees(locked, address)


def test_a_setting_that_somebody_has_unset_is_set_again_by_start(
    locked: Lab, guest: LabGuest
) -> None:
    address = guest.wait_address(5)
    kvmnet(locked, "network", "stop", "lan", "--force")
    host(locked, f"echo 0 > {PROXY_ARP}")
    kvmnet(locked, "network", "start", "lan")
    peer_sees(locked, address)


def test_what_somebody_unsets_while_it_runs_is_found_and_mended_by_start(
    locked: Lab, guest: LabGuest
) -> None:
    host(locked, f"echo 0 > {PROXY_ARP}")
    (found,) = json.loads(kvmnet(locked, "status", "--json").stdout)["findings"]
    assert found["name"] == "lan-not-answered"
    (fix,) = found["fix"]
    kvmnet(locked, *fix.split()[1:])
    assert json.loads(kvmnet(locked, "status", "--json").stdout)["findings"] == []
    peer_sees(locked, guest.wait_address(5))
    assert "already" in kvmnet(locked, *fix.split()[1:]).stderr


def test_its_uplink_is_no_port_for_a_bridge(locked: Lab, guest: LabGuest) -> None:
    before = traces(locked)
    said = kvmnet(locked, "bridge", "create", "br0", "--port", t.HOST_NIC, "--yes", status=3).stderr
    assert "answers for them on eth1 only" in said
    assert "kvmnet network delete lan" in said
    assert traces(locked) == before


def test_a_boot_brings_it_back_without_kvmnet(locked: Lab, guest: LabGuest) -> None:
    """What a boot takes away is taken away, and what a boot does is done."""
    bridge = host(locked, "virsh net-info lan | awk '/^Bridge/ {print $2}'").strip()
    locked.stop_libvirtd()
    host(locked, "kill $(cat /run/libvirt/network/lan.pid); rm -rf /run/libvirt/network/*")
    host(locked, f"ip link delete {bridge}; echo 0 > {PROXY_ARP}; echo 80 > {PROXY_DELAY}")
    host(locked, "iptables -F; iptables -X; echo 0 > /proc/sys/net/ipv4/ip_forward")
    # udev's 99-systemd.rules call systemd-sysctl for a NIC that appears, with just these prefixes
    host(locked, f"sysctl -p {FILE}")
    locked.start_libvirtd()
    deadline = time.monotonic() + 40
    while "lan" not in host(locked, "virsh net-list --name"):
        assert time.monotonic() < deadline, "libvirt did not start the network"
        time.sleep(0.1)
    kvmnet(locked, "network", "start", "lan")  # a guest that survives a boot is the test's alone
    tap = host(locked, "virsh domiflist web | awk '/lan/ {print $1}'").strip()
    host(locked, f"ip link set {tap} master {bridge}")
    peer_sees(locked, guest.wait_address(5))


def test_a_second_network_on_the_same_uplink_leaves_the_first_its_settings(
    locked: Lab, guest: LabGuest
) -> None:
    kvmnet(locked, "network", "create", "lan2", "--mode", "route", "--uplink", t.HOST_NIC,
           "--lan-range", "192.168.77.240-192.168.77.247")  # fmt: skip
    kvmnet(locked, "network", "delete", "lan2", "--yes")
    assert host(locked, f"cat {PROXY_ARP} {PROXY_DELAY}") == "1\n0\n"
    peer_sees(locked, guest.wait_address(5))


REFUSED = [
    ("192.168.77.8-192.168.77.15", "this host's own"),
    ("192.168.77.0-192.168.77.7", "first and last address"),
    ("192.168.77.16-192.168.77.23", t.PEER_MAC),
    ("192.168.78.0-192.168.78.15", "not inside the subnet"),
    ("192.168.77.250-192.168.78.10", "not inside the subnet"),
]


@pytest.mark.parametrize(("wanted", "why"), REFUSED)
def test_what_is_somebody_elses_is_refused(locked: Lab, wanted: str, why: str) -> None:
    before = traces(locked)
    said = kvmnet(locked, "network", "create", "no", "--mode", "route", "--uplink", t.HOST_NIC,
                  "--lan-range", wanted, status=3).stderr  # fmt: skip
    assert why in said
    assert traces(locked) == before


WRONG = [
    ["--lan-range", "192.168.77.200-192.168.77.207"],
    ["--mode", "route", "--lan-range", "192.168.77.200-192.168.77.207"],
    ["--mode", "nat", "--uplink", "eth1", "--lan-range", "192.168.77.200-192.168.77.207"],
    ["--mode", "route", "--uplink", "eth1", "--lan-range", "192.168.77.200"],
    ["--mode", "route", "--uplink", "eth1", "--lan-range", "192.168.77.207-192.168.77.200"],
    ["--mode", "route", "--uplink", "eth1", "--lan-range", "192.168.77.200-192.168.77.201"],
    ["--mode", "route", "--uplink", "eth1", "--lan-range", "10.0.0.0-10.255.255.255"],
    ["--mode", "route", "--uplink", "eth1", "--lan-range", "2001:db8::10-2001:db8::20"],
    ["--mode", "route", "--uplink", "eth1", "--lan-range", "192.168.77.200-2001:db8::20"],
    ["--mode", "route", "--uplink", "eth1", "--lan-range", "192.168.77.200-192.168.77.230",
     "--lan-range", "2001:db8:77::c0-2001:db8:77::cf"],
    ["--mode", "route", "--uplink", "eth1", "--lan-range", "192.168.77.200-192.168.77.207",
     "--lan-range", "192.168.77.208-192.168.77.223"],
    ["--mode", "route", "--uplink", "eth1", "--subnet", "10.9.0.0/24", "--lan-range",
     "192.168.77.200-192.168.77.207"],
    ["--mode", "bridge", "--bridge", "br0", "--lan-range", "192.168.77.200-192.168.77.207"],
]  # fmt: skip


@pytest.mark.parametrize("words", WRONG)
def test_wrong_combinations_are_wrong_usage(locked: Lab, words: list[str]) -> None:
    kvmnet(locked, "network", "create", "no", *words, status=2)


def test_a_firewall_that_drops_is_opened_with_consent_and_closed_by_delete(locked: Lab) -> None:
    words = ("network", "create", "walled", "--mode", "route", "--uplink", t.HOST_NIC,
             "--lan-range", "192.168.77.240-192.168.77.247")  # fmt: skip
    host(locked, "nft add table inet wall; nft 'add chain inet wall forward "
                 "{ type filter hook forward priority 0; policy drop; }'")  # fmt: skip
    try:
        assert "inet wall forward" in kvmnet(locked, *words, status=3).stderr
        kvmnet(locked, *words, "--yes")
        report = json.loads(kvmnet(locked, "probe", "network:walled", "--json").stdout)["report"]
        assert {x["name"]: x["verdict"] for x in report["steps"]}["target"] == "ok"
        kvmnet(locked, "network", "delete", "walled", "--yes")
        assert "kvmnet:walled" not in host(locked, "nft list ruleset")
    finally:
        host(locked, "nft delete table inet wall")
