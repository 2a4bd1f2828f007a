"""A stand-in guest in IPv6 networks, whole ones and broken ones."""

from __future__ import annotations

import time

import pytest

from .conftest import Machine, World, wait_for
from .probes import far_host, given_back, nothing_is_left, probe, verdicts

V4 = "--dhcp-range=10.7.0.10,10.7.0.250,300"
AUTO6 = ("--enable-ra", "--dhcp-range=fd07::,ra-stateless,64,300")
LEASED6 = ("--enable-ra", "--dhcp-range=fd07::100,fd07::1ff,64,300")
NAMES = ("--address=/known.example/10.7.0.1", "--address=/known.example/fd07::1",
         "--address=/far.example/10.99.0.2", "--address=/far.example/fd99::2")  # fmt: skip


def settled(machine: Machine) -> None:
    """Its links will take IPv6 addresses at once, as those of a host that runs for a while have."""
    machine.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")


def dual(world: World, *options: str) -> None:
    """A bridge with both families and a server that gives out both."""
    settled(world)
    world.bridge("br7", "10.7.0.1/24")
    world.ip("address add fd07::1/64 dev br7 nodad")
    world.dnsmasq("br7", V4, "--no-ping", *NAMES, *options)


def neighbour(world: World, number: int) -> Machine:
    """One more machine on the bridge."""
    machine = world.machine()
    settled(machine)
    world.plug(machine, "br7", f"n{number}", f"52:54:00:00:00:{number:02x}")
    machine.ip("link set eth0 up")
    return machine


def test_everything_over_ipv6_too(world: World) -> None:
    dual(world, *AUTO6)
    neighbour(world, 0x77)
    report = probe(world, "--to", "known.example")
    assert verdicts(report) == {
        "link": "ok", "dhcp": "ok", "address": "ok", "gateway": "ok", "host": "ok", "dns": "ok",
        "target": "ok", "path-mtu": "ok", "ipv6": "ok", "address6": "ok", "gateway6": "ok",
        "dns6": "ok", "target6": "ok", "path-mtu6": "ok", "latency": "ok", "dhcp-servers": "ok",
        "ipv6-routers": "ok", "release": "ok",
    }  # fmt: skip
    assert report["addresses6"][0].startswith("fd07::")
    assert report["routers6"][0]["default"] and len(report["routers6"][0]["dns"]) == 1
    assert {x["ip"]: x["mtu"] for x in report["path_mtus"]} == {"10.7.0.1": 1500, "fd07::1": 1500}
    assert all(x["received"] == x["sent"] == 5 for x in report["latencies"])
    assert all(x["expected"] and x["by"] == "stand-in" for x in report["steps"])


def test_address_by_dhcpv6_as_the_router_says(world: World) -> None:
    dual(world, *LEASED6)
    neighbour(world, 0x77)
    report = probe(world, "--to", "known.example")
    assert "failed" not in verdicts(report).values()
    assert report["routers6"][0]["managed"] is True
    lease = report["lease6"]
    assert lease["address"].startswith("fd07::1") and lease["dns"] == ["fd07::1"]
    assert verdicts(report)["target6"] == verdicts(report)["path-mtu6"] == "ok"
    assert nothing_is_left(world)
    given_back(world)


def test_dhcpv6_server_that_is_silent(world: World) -> None:
    dual(world, *LEASED6)
    world.run("nft", "add table ip6 t")
    world.run("nft", "add chain ip6 t i { type filter hook input priority 0 ; }")
    world.run("nft", "add rule ip6 t i udp dport 547 drop")
    step = probe(world, status=1)["by_name"]["ipv6"]
    assert step["verdict"] == "failed" and step["reason"] == "no DHCPv6 server answered"


def test_ipv6_only(world: World) -> None:
    settled(world)
    world.ip("link add name br7 type bridge")
    world.ip("address add fd07::1/64 dev br7 nodad")
    world.ip("link set br7 up")
    neighbour(world, 0x77)
    world.dnsmasq("br7", *AUTO6, *NAMES)
    report = probe(world, "--to", "known.example")
    seen = verdicts(report)
    assert seen["dhcp"] == seen["address"] == seen["target"] == "skipped"
    assert "IPv6 alone" in report["by_name"]["dhcp"]["reason"]
    assert seen["ipv6"] == seen["dns6"] == seen["target6"] == "ok"


def test_host_with_ipv6_that_advertises_nothing(world: World) -> None:
    dual(world)
    neighbour(world, 0x77)
    report = probe(world, "--to", "fd07::1", status=1)
    assert verdicts(report)["ipv6"] == "skipped" and verdicts(report)["target"] == "skipped"
    assert report["by_name"]["target6"]["verdict"] == "failed"
    assert "have no IPv6" in report["by_name"]["target6"]["reason"]
    assert report["routers6"] == []


def test_address_that_somebody_else_has(world: World) -> None:
    dual(world, "--enable-ra", "--dhcp-range=fd07::150,fd07::150,64,300")
    thief = neighbour(world, 0x99)
    thief.ip("address add fd07::150/64 dev eth0 nodad")
    report = probe(world, status=1)
    step = report["by_name"]["address6"]
    assert step["verdict"] == "failed" and "52:54:00:00:00:99" in step["detail"]
    assert report["conflicts"] == [{"ip": "fd07::150", "mac": "52:54:00:00:00:99"}]


@pytest.mark.parametrize("mtu", [1400, 1281])
def test_narrow_path_that_a_router_reports(world: World, mtu: int) -> None:
    dual(world, *AUTO6)
    neighbour(world, 0x77)
    far_host(world, mtu=mtu, black_hole=False)
    report = probe(world, "--to", "far.example")
    step = report["by_name"]["path-mtu6"]
    assert step["verdict"] == "ok" and step["detail"].startswith(f"{mtu} bytes"), step
    assert [x["reported"] for x in report["path_mtus"]] == [True, True]


@pytest.mark.parametrize("mtu", [1492, 1377])
def test_black_hole_in_both_families(world: World, mtu: int) -> None:
    dual(world, *AUTO6)
    neighbour(world, 0x77)
    far_host(world, mtu=mtu, black_hole=True)
    report = probe(world, "--to", "far.example", status=1)
    for name in ("path-mtu", "path-mtu6"):
        step = report["by_name"][name]
        assert step["verdict"] == "failed" and f"over {mtu} bytes" in step["detail"], step
    assert [(x["mtu"], x["reported"]) for x in report["path_mtus"]] == [(mtu, False)] * 2


def has_link_local(machine: Machine, link: str) -> bool:
    shown = machine.ip(f"-6 address show dev {link}")
    return "fe80::" in shown and "tentative" not in shown


def rogue_router(world: World, number: int, *options: str) -> Machine:
    """A machine on the bridge with a DHCP server and IPv6 router of its own."""
    rogue = neighbour(world, number)
    rogue.ip("address add 10.7.0.9/24 dev eth0")
    rogue.ip("address add fd66::1/64 dev eth0 nodad")
    # Without an address of the link dnsmasq hears nobody who asks for a router.
    for machine, link in ((world, "br7"), (rogue, "eth0")):
        wait_for(f"{link}'s own address", lambda m=machine, x=link: has_link_local(m, x))
    rogue.run(
        "dnsmasq", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--port=0",
        "--interface=eth0", "--bind-dynamic", "--pid-file=/run/rogue.pid", "--no-ping",
        "--dhcp-leasefile=/run/rogue.leases", "--user=root", *options,
    )  # fmt: skip
    return rogue


def test_second_dhcp_server(world: World) -> None:
    dual(world)
    rogue_router(world, 0x66, "--dhcp-range=10.7.0.100,10.7.0.120,300")
    begin = time.monotonic()
    report = probe(world)
    assert time.monotonic() - begin < 12
    step = report["by_name"]["dhcp-servers"]
    assert step["verdict"] == "warn" and "2 DHCP servers" in step["detail"]
    found = {x["ip"]: x for x in report["dhcp_servers"]}
    assert found["10.7.0.9"]["mac"] == "52:54:00:00:00:66"
    assert (found["10.7.0.1"]["expected"], found["10.7.0.9"]["expected"]) == (True, False)
    assert nothing_is_left(world)
    given_back(world)


def test_second_ipv6_router(world: World) -> None:
    dual(world, *AUTO6)
    rogue_router(world, 0x66, "--enable-ra", "--dhcp-range=fd66::,ra-only,64,300")
    for _ in range(3):  # both have just begun: one may not be heard yet
        report = probe(world, status=None)
        step = report["by_name"].get("ipv6-routers", {})
        if len(report["routers6"]) == 2:
            break
    assert step["verdict"] == "warn", report["routers6"]
    by_mac = {x["mac"]: x["expected"] for x in report["routers6"]}
    assert by_mac["52:54:00:00:00:66"] is False and len(by_mac) == 2


def test_slow_link(world: World) -> None:
    world.bridge("br7", "10.7.0.1/24")
    other = neighbour(world, 0x77)
    other.ip("address add 10.7.0.5/24 dev eth0")
    other.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "8kbit", "burst", "200",
              "latency", "2s")  # fmt: skip
    world.dnsmasq("br7", V4, "--no-ping", "--port=0", "--dhcp-option=3,10.7.0.5")
    report = probe(world, "--to", "10.7.0.1", status=None)
    step = report["by_name"]["latency"]
    assert step["verdict"] == "warn", step
    found = {x["ip"]: x for x in report["latencies"]}
    assert found["10.7.0.5"]["max_ms"] > 50 > found["10.7.0.1"]["min_ms"]
