"""What a probe's measurements mean, and what may be typed as its target."""

from __future__ import annotations

import pytest

from kvmnet.core.symptoms_beyond import NO_NAME
from kvmnet.errors import InvalidInput
from kvmnet.flow import probe_path, probe_steps, probe_steps6
from kvmnet.flow.probe_place import Place
from kvmnet.flow.probe_words import parse_endpoint, parse_target
from kvmnet.model.probe import (
    Advertiser,
    DhcpServer,
    Endpoint,
    Latency,
    PathMtu,
    ProbeLease,
    ProbeLease6,
)
from kvmnet.model.reached import ConnectResult, MacResult, NameResult, PingResult
from kvmnet.model.standin import Lease6Result, LeaseResult, RouterResult
from kvmnet.model.values import Cidr, Ip, Mac
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
     "host:٣", "fe80::1%eth0", "-o", "http://x/", "a" * 300],
)  # fmt: skip
def test_bad_endpoints(text: str) -> None:
    with pytest.raises(InvalidInput, match="is nothing to connect to"):
        parse_endpoint(text)


@pytest.mark.parametrize("text", ["", "default", "network:", "nic:eth0", ":x", "network"])
def test_bad_targets(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_target(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("web", "kvmnet probe guest:web, or"),
        ("my guest", "kvmnet probe 'guest:my guest', or"),
        ("nic:eth0", "kvmnet probe network:default"),
    ],
)
def test_a_bare_name_is_shown_as_a_guest(text: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_target(text)
    assert raised.value.hint is not None and raised.value.hint.startswith(hint)


def test_wrong_checksum_is_a_doubt() -> None:
    lease = ProbeLease(address=Ip("10.0.0.9"), prefix_len=24, server=Ip("10.0.0.1"),
                       server_mac=MAC, bad_checksum=True)  # fmt: skip
    step = probe_steps.dhcp(PLACE, LeaseResult(outcome="bound", lease=lease, offer_ms=3.0), 5.0)
    assert step.verdict == "warn" and "bad-checksum" in step.reason
    assert any("wrong" in x for x in step.evidence)


OTHER = Mac("52:54:00:00:00:02")
HERS = DhcpServer(ip=Ip("10.0.0.1"), mac=MAC, offered=Ip("10.0.0.9"))
ROGUE = DhcpServer(ip=Ip("10.0.0.2"), mac=OTHER, offered=Ip("10.0.0.77"))
BORROWED = DhcpServer(ip=Ip("10.0.0.1"), mac=OTHER, offered=Ip("10.0.0.77"))


@pytest.mark.parametrize(
    ("place", "servers", "expected", "verdict"),
    [
        (Place(bridge="br0", mac=MAC), (HERS,), (None,), "ok"),
        (Place(bridge="br0", mac=MAC), (HERS, ROGUE), (None, None), "warn"),
        (Place(bridge="br0", mac=MAC, bridge_mac=MAC), (HERS, ROGUE), (True, False), "warn"),
        (Place(bridge="br0", mac=MAC, gateway=Ip("10.0.0.1")), (ROGUE, HERS), (False, True),
         "warn"),
        (Place(bridge="br0", mac=MAC, bridge_mac=MAC, dhcp_ip=Ip("10.0.0.1")), (HERS,), (True,),
         "ok"),
        (Place(bridge="br0", mac=MAC, bridge_mac=MAC, dhcp_ip=Ip("10.0.0.1")), (HERS, ROGUE),
         (True, False), "failed"),
        # Alone, but not the right one; and one that says it is.
        (Place(bridge="br0", mac=MAC, bridge_mac=MAC, dhcp_ip=Ip("10.0.0.1")), (ROGUE,), (False,),
         "failed"),
        (Place(bridge="br0", mac=MAC, bridge_mac=MAC, dhcp_ip=Ip("10.0.0.1")), (BORROWED,),
         (False,), "failed"),
        (Place(bridge="br0", mac=MAC), (), (), "skipped"),
    ],
)  # fmt: skip
def test_dhcp_servers(
    place: Place, servers: tuple[DhcpServer, ...], expected: tuple[bool | None, ...], verdict: str
) -> None:
    marked = probe_path.marked_servers(place, servers)
    assert tuple(x.expected for x in marked) == expected
    step = probe_path.dhcp_servers(place, marked, 1.0)
    assert step.verdict == verdict
    assert all(x.mac in " ".join(step.evidence) for x in servers)


ROUTER = Advertiser(ip=Ip("fe80::1"), mac=MAC, default=True, prefixes=(Cidr("fd00::/64"),))
STRANGER = Advertiser(ip=Ip("fe80::2"), mac=OTHER, default=True)


@pytest.mark.parametrize(
    ("place", "routers", "verdict"),
    [
        (Place(bridge="br0", mac=MAC), (ROUTER,), "ok"),
        (Place(bridge="br0", mac=MAC), (ROUTER, STRANGER), "warn"),
        (Place(bridge="br0", mac=MAC, gateway6=Ip("fe80::1")), (ROUTER, STRANGER), "warn"),
        (Place(bridge="br0", mac=MAC, bridge_mac=MAC, ipv6="host"), (ROUTER,), "ok"),
        (Place(bridge="br0", mac=MAC, bridge_mac=MAC, ipv6="host"), (ROUTER, STRANGER), "failed"),
        (Place(bridge="br0", mac=MAC, bridge_mac=MAC, ipv6="none"), (STRANGER,), "failed"),
    ],
)
def test_routers6(place: Place, routers: tuple[Advertiser, ...], verdict: str) -> None:
    marked = probe_path.marked_routers(place, routers)
    assert probe_path.routers6(place, marked, 1.0).verdict == verdict


@pytest.mark.parametrize(
    ("received", "avg", "verdict"), [(5, 0.3, "ok"), (4, 0.3, "warn"), (5, 80.0, "warn")]
)
def test_latency(received: int, avg: float, verdict: str) -> None:
    found = Latency(ip=Ip("10.0.0.1"), sent=5, received=received, min_ms=avg, avg_ms=avg,
                    max_ms=avg)  # fmt: skip
    assert probe_path.latency((found,), 1.0).verdict == verdict


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
        ("a.example", NameResult(alive_ms=1.0, ms=1.0, code="NXDOMAIN"), "ok"),
        ("a.example", NameResult(alive_ms=1.0, ms=1.0, code="NOERROR"), "ok"),
        ("a.example", NameResult(alive_ms=1.0, ms=1.0, code="SERVFAIL"), "failed"),
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
    assert step.verdict == "ok" and "guests only" in step.detail
    dead = NameResult(error="Connection refused")
    step = probe_steps.dns(place_in("isolated"), Ip("10.0.0.1"), "a.example", dead, 1.0)
    assert step.verdict == "failed"


@pytest.mark.parametrize(
    ("mode", "result", "detail", "reason"),
    [
        ("nat", NameResult(alive_ms=1.0, code="NXDOMAIN"), "there is no name a.example",
         "10.0.0.1 says so (NXDOMAIN)"),
        ("nat", NameResult(alive_ms=1.0, code="NOERROR"), "a.example has no address", "NOERROR"),
        ("nat", NameResult(alive_ms=1.0, code="SERVFAIL"), "could not be resolved", "DNS step"),
        ("nat", NameResult(), "could not be resolved", "DNS step"),
        ("isolated", NameResult(alive_ms=1.0, code="REFUSED"), "could not be resolved",
         "isolated, by design"),
        ("isolated", NameResult(), "could not be resolved", "DNS step"),
    ],
)  # fmt: skip
def test_a_target_without_an_address(
    mode: str, result: NameResult, detail: str, reason: str
) -> None:
    to = Endpoint(host="a.example")
    step = probe_steps.unresolved(place_in(mode), to, Ip("10.0.0.1"), result)
    assert step.verdict == "failed" and detail in step.detail and reason in step.reason
    assert bool(NO_NAME.fullmatch(step.detail)) == (result.code in {"NXDOMAIN", "NOERROR"})


def test_what_is_beyond_an_isolated_network_is_not_reached_by_design() -> None:
    to, nobody = Endpoint(host="192.0.2.1"), PingResult(sent=8)
    step = probe_steps.target(place_in("isolated"), to, Ip("192.0.2.1"), nobody, 2e3, "0")
    assert step.verdict == "failed" and "by design" in step.reason and "move" in step.hint


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


@pytest.mark.parametrize("ip", ["192.0.2.1", "2001:db8::1"])
@pytest.mark.parametrize(
    ("mtu", "reported", "verdict"),
    [(1500, False, "ok"), (1400, True, "ok"), (1400, False, "failed"), (None, False, "skipped")],
)
def test_path_mtu(ip: str, mtu: int | None, reported: bool, verdict: str) -> None:
    found = PathMtu(ip=Ip(ip), mtu=mtu, first_hop=1500, reported=reported)
    assert found.black_hole == (verdict == "failed")
    assert probe_path.path_mtu("path-mtu", found, 1.0).verdict == verdict


def test_prefix_that_gives_no_address() -> None:
    router = Advertiser(ip=Ip("fe80::1"), mac=MAC, default=True, prefixes=(Cidr("fd00::/48"),))
    assert probe_steps6.ipv6(PLACE, RouterResult(router=router), None, 1.0).verdict == "failed"


def test_silent_router_is_a_fault_only_where_the_network_has_one() -> None:
    silent = RouterResult(waited_ms=600.0)
    mine = Place(bridge="br0", mac=MAC, ipv6="host")
    assert probe_steps6.ipv6(PLACE, silent, None, 600.0).verdict == "skipped"
    assert probe_steps6.ipv6(mine, silent, None, 600.0).verdict == "failed"


@pytest.mark.parametrize(
    ("addresses", "asked", "verdict"),
    [
        ((), Lease6Result(solicits=4), "failed"),
        ((), Lease6Result(solicits=1, refusal="no addresses available"), "failed"),
        ((Ip("fd00::9"),), Lease6Result(solicits=4), "warn"),
        ((), Lease6Result(lease=ProbeLease6(address=Ip("fd00::9"), server=Ip("fe80::1"),
                                            server_id="0003")), "ok"),
    ],
)  # fmt: skip
def test_dhcp6_as_the_router_says(
    addresses: tuple[Ip, ...], asked: Lease6Result, verdict: str
) -> None:
    router = Advertiser(ip=Ip("fe80::1"), mac=MAC, default=True, managed=True)
    found = RouterResult(router=router, addresses=addresses)
    assert probe_steps6.ipv6(PLACE, found, asked, 1.0).verdict == verdict


def test_conflict() -> None:
    assert probe_steps.address(LEASE, MacResult(mac=MAC, ms=1.0), 1.0).verdict == "failed"
    assert probe_steps.address(LEASE, MacResult(), 100.0).verdict == "ok"
