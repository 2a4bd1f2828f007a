"""Guests with IPv6 addresses of the LAN: the host answers neighbour solicitations for them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from kvmnet.adapters.run import Completed
from kvmnet.lab import topology as t
from kvmnet.lab.guest import LabGuest
from kvmnet.lab.lab import Lab

pytestmark = pytest.mark.lab

GUEST = "2001:db8:77::c5"
CREATE = ("network", "create", "lan", "--mode", "route", "--uplink", t.HOST_NIC,
          "--lan-range", "192.168.77.208-192.168.77.223",
          "--lan-range", "2001:db8:77::c0-2001:db8:77::cf")  # fmt: skip
PROXY_NDP = f"/proc/sys/net/ipv6/conf/{t.HOST_NIC}/proxy_ndp"
PROXY_DELAY = f"/proc/sys/net/ipv6/neigh/{t.HOST_NIC}/proxy_delay"
HOOKS = "/etc/libvirt/hooks/network.d"


def kvmnet(lab: Lab, *words: str, status: int = 0) -> Completed:
    done = lab.kvmnet(*words, accept=range(256))
    assert done.status == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def host(lab: Lab, script: str) -> str:
    return lab.run("host", ["sh", "-c", script]).stdout


def proxies(lab: Lab) -> list[str]:
    return host(lab, "ip -6 neigh show proxy").splitlines()


def traces(lab: Lab) -> dict[str, str]:
    """All that such a network may leave behind; what keeps the host's own IPv6 alive stays."""
    return {
        "settings": host(lab, f"cat {PROXY_NDP} {PROXY_DELAY}"),
        "files": host(
            lab, f"ls -A /etc/sysctl.d | grep -v accept-ra; ls -A {HOOKS} 2> /dev/null; true"
        ),
        "proxies": "".join(proxies(lab)),
        "networks": host(lab, "virsh net-list --all --name"),
    }


@pytest.fixture(scope="module")
def before(lab: Lab) -> dict[str, str]:
    return traces(lab)


@pytest.fixture(scope="module")
def guest(lab: Lab, before: dict[str, str]) -> Iterator[LabGuest]:
    kvmnet(lab, *CREATE)
    added = lab.add_guest("web", on="network:lan")
    added.wait_ready(90)
    added.wait_address(60)
    # The guest's system is too small for DHCPv6: by hand what that would give it.
    added.shell(f"ip -6 addr add {GUEST}/128 dev eth0")
    deadline = time.monotonic() + 30
    while not online(added):
        assert time.monotonic() < deadline, added.shell("ip -6 addr; ip -6 route")
        time.sleep(0.2)
    yield added
    added.remove()
    kvmnet(lab, "network", "delete", "lan", "--yes")
    assert traces(lab) == before


def online(guest: LabGuest) -> bool:
    """Whether it has heard a router, and its address has passed duplicate detection."""
    heard = "default via fe80::" in guest.shell("ip -6 route")
    return heard and "tentative" not in guest.shell("ip -6 addr show dev eth0")


def peer_sees(lab: Lab) -> None:
    """The peer pings the guest, loads its page, and takes the host's MAC for its address."""
    lab.run("peer", ["ip", "-6", "neigh", "flush", "dev", t.PEER_NIC])
    lab.run("peer", ["busybox", "ping6", "-c", "1", "-W", "10", GUEST])
    page = lab.run("peer", ["busybox", "wget", "-q", "-O-", f"http://[{GUEST}]/"])
    assert page.stdout == "Hello from the guest web.\n"
    assert t.HOST_MAC in lab.run("peer", ["ip", "-6", "neigh", "show", GUEST]).stdout


def lan_findings(lab: Lab) -> list[list[str]]:
    """The proposed commands of what is found about the network's being answered for."""
    found = json.loads(kvmnet(lab, "status", "--json").stdout)["findings"]
    return [x["fix"] for x in found if x["name"] == "lan-not-answered"]


def test_the_peer_finds_it_behind_the_hosts_mac_and_it_reaches_the_world(
    lab: Lab, guest: LabGuest
) -> None:
    peer_sees(lab)
    for there in (t.ROUTER_IP6, t.WEB_IP6):
        guest.run(["ping", "-6", "-c", "1", "-W", "5", there])
    assert lan_findings(lab) == []
    assert len(proxies(lab)) == 14


def test_routes_come_by_advertisement_and_addresses_do_not(lab: Lab, guest: LabGuest) -> None:
    routes = guest.shell("ip -6 route")
    assert "2001:db8:77::c0/124 dev eth0" in routes
    assert "default via fe80::" in routes
    assert guest.shell("ip -6 addr show dev eth0").count("2001:db8:77:") == 1


def test_the_hosts_own_ipv6_stays_alive(lab: Lab, guest: LabGuest) -> None:
    assert host(lab, f"cat /proc/sys/net/ipv6/conf/{t.HOST_NIC}/accept_ra") == "2\n"
    assert "default" in host(lab, "ip -6 route show proto ra")
    lab.run("host", ["busybox", "ping6", "-c", "1", "-W", "5", t.WEB_IP6])


def test_a_nic_that_was_down_is_found_and_mended_by_start(lab: Lab, guest: LabGuest) -> None:
    host(lab, f"ip link set {t.HOST_NIC} down; ip link set {t.HOST_NIC} up")
    assert proxies(lab) == []
    deadline = time.monotonic() + 20  # the host's own prefix comes with the next advertisement
    while not (found := lan_findings(lab)):
        assert time.monotonic() < deadline, "nothing is found"
        time.sleep(0.5)
    ((fix,),) = found
    kvmnet(lab, *fix.split()[1:])
    assert len(proxies(lab)) == 14
    peer_sees(lab)


def test_while_it_is_stopped_the_host_answers_for_nobody(lab: Lab, guest: LabGuest) -> None:
    kvmnet(lab, "network", "stop", "lan", "--force")
    assert proxies(lab) == []
    kvmnet(lab, "network", "start", "lan")
    peer_sees(lab)


def test_a_boot_brings_it_back_without_kvmnet(lab: Lab, guest: LabGuest) -> None:
    """What a boot takes away is taken away, and what a boot does is done."""
    bridge = host(lab, "virsh net-info lan | awk '/^Bridge/ {print $2}'").strip()
    lab.stop_libvirtd()
    host(lab, "kill $(cat /run/libvirt/network/lan.pid); rm -rf /run/libvirt/network/*")
    host(lab, f"ip link delete {bridge}; echo 0 > {PROXY_NDP}; echo 80 > {PROXY_DELAY}")
    for line in proxies(lab):
        host(lab, f"ip -6 neigh del proxy {line.split()[0]} dev {t.HOST_NIC}")
    host(lab, "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding")
    # udev's 99-systemd.rules call systemd-sysctl for a NIC that appears, with just these prefixes
    host(lab, "cat /etc/sysctl.d/60-kvmnet-*.conf | sysctl -p -")
    lab.start_libvirtd()
    deadline = time.monotonic() + 40
    while len(proxies(lab)) < 14:
        assert time.monotonic() < deadline, "libvirt's start of the network listed no address"
        time.sleep(0.1)
    tap = host(lab, "virsh domiflist web | awk '/lan/ {print $1}'").strip()
    host(lab, f"ip link set {tap} master {bridge}")
    peer_sees(lab)


def test_who_takes_an_address_of_it_later_finds_it_in_use(lab: Lab, guest: LabGuest) -> None:
    taken = ["2001:db8:77::c7/64", "dev", t.PEER_NIC]
    settings = f"/proc/sys/net/ipv6/conf/{t.PEER_NIC}"
    ask = f"for x in accept_dad dad_transmits; do echo %d > {settings}/$x; done"
    lab.run("peer", ["sh", "-c", ask % 1])
    try:
        lab.run("peer", ["ip", "addr", "add", *taken])
        deadline = time.monotonic() + 10
        while "dadfailed" not in lab.run("peer", ["ip", "addr", "show", *taken[1:]]).stdout:
            assert time.monotonic() < deadline, "the host does not answer"
            time.sleep(0.1)
    finally:
        lab.run("peer", ["ip", "addr", "del", *taken])
        lab.run("peer", ["sh", "-c", ask % 0])


def test_an_address_that_somebody_on_the_lan_has_is_refused(lab: Lab) -> None:
    before = traces(lab)
    taken = ["2001:db8:77::d5/64", "dev", t.PEER_NIC]
    lab.run("peer", ["ip", "addr", "add", *taken, "nodad"])
    try:
        said = kvmnet(lab, "network", "create", "no", "--mode", "route", "--uplink", t.HOST_NIC,
                      "--lan-range", "192.168.77.240-192.168.77.247", "--lan-range",
                      "2001:db8:77::d0-2001:db8:77::df", status=3).stderr  # fmt: skip
    finally:
        lab.run("peer", ["ip", "addr", "del", *taken])
    assert f"2001:db8:77::d5 ({t.PEER_MAC})" in said
    assert traces(lab) == before
