"""What a probe's measurements mean, and what may be typed as its target."""

from __future__ import annotations

import pytest

from kvmnet.errors import InvalidInput
from kvmnet.flow import probe_steps
from kvmnet.flow.probe import parse_endpoint, parse_target
from kvmnet.flow.probe_place import Place
from kvmnet.model.probe import Endpoint, ProbeLease
from kvmnet.model.standin import (
    ConnectResult,
    LeaseResult,
    MacResult,
    MtuResult,
    NameResult,
    PingResult,
    RouterResult,
)
from kvmnet.model.values import Ip, Mac
from kvmnet.model.virt import Network, NetworkConfig

MAC = Mac("52:54:00:00:00:01")
PLACE = Place(bridge="br0", mac=MAC)
LEASE = ProbeLease(address=Ip("10.0.0.9"), prefix_len=24, server=Ip("10.0.0.1"), server_mac=MAC)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("192.0.2.1", "192.0.2.1", None),
        ("192.0.2.1:80", "192.0.2.1", 80),
        ("WWW.example.org", "www.example.org", None),
        ("www.example.org.:443", "www.example.org", 443),
        ("2001:DB8::1", "2001:db8::1", None),
        ("[2001:db8::1]:22", "2001:db8::1", 22),
    ],
)
def test_endpoints(text: str, host: str, port: int | None) -> None:
    endpoint = parse_endpoint(text)
    assert endpoint == Endpoint(host=host, port=port)
    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "text",
    ["", ":", "host:", "host:0", "host:65536", "host:x", "a b", "[::1", "[::1]x", "1.2.3", "::g",
     "host:٣", "-o", "http://x/", "a" * 300],
)  # fmt: skip
def test_bad_endpoints(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_endpoint(text)


@pytest.mark.parametrize("text", ["", "default", "network:", "nic:eth0", ":x", "network"])
def test_bad_targets(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_target(text)


def test_wrong_checksum_and_second_server_are_doubts() -> None:
    lease = ProbeLease(address=Ip("10.0.0.9"), prefix_len=24, server=Ip("10.0.0.1"),
                       server_mac=MAC, bad_checksum=True)  # fmt: skip
    result = LeaseResult(outcome="bound", lease=lease, offer_ms=3.0, servers=(Ip("10.0.0.1"),
                         Ip("10.0.0.2")))  # fmt: skip
    step = probe_steps.dhcp(PLACE, result, 5.0)
    assert step.verdict == "warn"
    assert "bad-checksum" in step.reason and "2 DHCP servers" in step.reason


def test_silence_on_a_lan_is_not_blamed_on_libvirt() -> None:
    step = probe_steps.dhcp(PLACE, LeaseResult(outcome="silent", discovers=3), 8000.0)
    assert step.verdict == "failed" and "LAN" in step.hint


def test_blocked_port() -> None:
    step = probe_steps.link(
        Place(bridge="br0", mac=MAC, stp=True, forward_delay_s=2), 6e3, "blocking"
    )
    assert step.verdict == "failed" and step.reason == "spanning tree blocks it"


def test_host_behind_a_firewall_is_a_doubt_and_an_absent_one_a_failure() -> None:
    silent = PingResult(sent=4)
    there = probe_steps.host(Ip("10.0.0.1"), silent, MacResult(mac=MAC, ms=1.0), 1.0)
    gone = probe_steps.host(Ip("10.0.0.1"), silent, MacResult(), 1.0)
    assert (there.verdict, gone.verdict) == ("warn", "failed")


@pytest.mark.parametrize(
    ("name", "result", "verdict"),
    [
        (".", NameResult(alive_ms=1.0, ms=1.0, code="NOERROR"), "ok"),
        (".", NameResult(alive_ms=1.0, ms=1.0, code="REFUSED"), "warn"),
        (".", NameResult(alive_ms=1.0), "warn"),
        (".", NameResult(error="Connection refused"), "failed"),
        ("a.example", NameResult(alive_ms=1.0, ms=1.0, code="NXDOMAIN"), "failed"),
        ("a.example", NameResult(alive_ms=1.0), "failed"),
    ],
)
def test_dns(name: str, result: NameResult, verdict: str) -> None:
    assert probe_steps.dns(PLACE, Ip("10.0.0.1"), name, result, 1.0).verdict == verdict


def place_in(mode: str) -> Place:
    network = Network(connection="qemu:///system", name="r", uuid="", active=True, persistent=True,
                      autostart=True, live=NetworkConfig(mode=mode, bridge="br0"))  # fmt: skip
    return Place(bridge="br0", mac=MAC, network=network)


def test_dns_of_an_isolated_network_need_not_know_the_world() -> None:
    refused = NameResult(alive_ms=1.0, ms=1.0, code="REFUSED")
    step = probe_steps.dns(place_in("isolated"), Ip("10.0.0.1"), ".", refused, 1.0)
    assert step.verdict == "ok" and "guests only" in step.detail
    step = probe_steps.dns(place_in("isolated"), Ip("10.0.0.1"), "a.example", refused, 1.0)
    assert step.verdict == "failed"


def test_forwarding_that_is_off_is_named_before_a_missing_route() -> None:
    to = Endpoint(host="192.0.2.1")
    step = probe_steps.target(place_in("route"), to, Ip("192.0.2.1"), PingResult(sent=8), 2e3, "0")
    assert "ip_forward" in step.hint


@pytest.mark.parametrize("mode", ["route", "open"])
def test_network_without_nat_needs_a_route_back(mode: str) -> None:
    place = place_in(mode)
    to = Endpoint(host="192.0.2.1")
    step = probe_steps.target(place, to, Ip("192.0.2.1"), PingResult(sent=8), 2e3, "1")
    assert step.verdict == "failed" and "route back" in step.hint
    refused = ConnectResult(error="Connection refused")
    step = probe_steps.target(place, to, Ip("192.0.2.1"), refused, 1.0, "1")
    assert "nothing listens" in step.reason


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        (MtuResult(mtu=1500, first_hop=1500), "ok"),
        (MtuResult(mtu=1400, first_hop=1500, reported=True), "ok"),
        (MtuResult(mtu=1400, first_hop=1500), "failed"),
        (MtuResult(first_hop=1500), "skipped"),
    ],
)
def test_path_mtu(result: MtuResult, verdict: str) -> None:
    assert probe_steps.path_mtu(Ip("192.0.2.1"), result, 1.0).verdict == verdict


def test_prefix_that_gives_no_address() -> None:
    found = RouterResult(ip=Ip("fe80::1"), mac=MAC, ms=1.0, default=True, prefixes=("fd00::/48",))
    assert probe_steps.ipv6(found, PingResult(ms=1.0, sent=1), 1.0).verdict == "failed"
    assert probe_steps.ipv6(RouterResult(waited_ms=600.0), None, 600.0).verdict == "skipped"


def test_conflict() -> None:
    assert probe_steps.address(LEASE, MacResult(mac=MAC, ms=1.0), 1.0).verdict == "failed"
    assert probe_steps.address(LEASE, MacResult(), 100.0).verdict == "ok"
