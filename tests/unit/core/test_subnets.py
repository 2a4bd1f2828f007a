import ipaddress
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmnet.core.subnets import check_subnet, free_subnet, occupied, overlap
from kvmnet.errors import InvalidInput, Refused
from kvmnet.model.host import Address, DockerNetwork, Route
from kvmnet.model.state import State
from kvmnet.model.values import Cidr, Ip
from kvmnet.model.virt import Network, NetworkConfig, NetworkIp


def zeros(count: int) -> bytes:
    return bytes(count)


def network(name: str, address: str, prefix_len: int, *, active: bool) -> Network:
    config = NetworkConfig(
        mode="nat",
        bridge=f"virbr-{name}",
        ips=(NetworkIp(family=4, address=Ip(address), prefix_len=prefix_len),),
    )
    return Network(
        connection="qemu:///system", name=name, uuid=name, active=active, persistent=True,
        autostart=False, live=config if active else None, saved=config,
    )  # fmt: skip


STATE = State(
    taken_at=0,
    hostname="h",
    addresses=(
        Address(link="eth0", ip=Ip("10.1.2.3"), prefix_len=16, family=4),
        Address(link="lo", ip=Ip("127.0.0.1"), prefix_len=8, family=4, scope="host"),
        Address(link="eth0", ip=Ip("fd00:1::5"), prefix_len=64, family=6),
    ),
    routes=(
        Route(family=4, destination=Cidr("0.0.0.0/0"), link="eth0"),
        Route(family=4, destination=Cidr("0.0.0.0/1"), link="tun0"),
        Route(family=4, destination=Cidr("172.20.0.0/16"), table="vpn", link="tun0"),
        Route(family=4, destination=Cidr("192.168.200.0/24"), type="blackhole"),
        Route(family=6, destination=Cidr("fd00:2::/48"), link="tun0"),
    ),
    docker_networks=(DockerNetwork(name="web", subnets=(Cidr("172.18.0.0/16"),)),),
    networks=(
        network("on", "192.168.122.1", 24, active=True),
        network("off", "192.168.123.1", 24, active=False),
    ),
)


@pytest.mark.parametrize(
    ("subnet", "by"),
    [
        ("10.1.200.0/24", "address 10.1.2.3 of eth0"),
        ("10.0.0.0/8", "address 10.1.2.3 of eth0"),
        ("172.20.3.0/24", "table vpn"),
        ("192.168.200.0/25", "route to 192.168.200.0/24"),
        ("172.18.5.0/24", "Docker network web"),
        ("192.168.122.128/25", "libvirt network on (active)"),
        ("192.168.123.0/24", "libvirt network off (not active)"),
        ("fd00:1::/64", "address fd00:1::5 of eth0"),
        ("fd00:2:0:7::/64", "route to fd00:2::/48"),
    ],
)
def test_what_is_overlapped_is_named(subnet: str, by: str) -> None:
    clash = overlap(Cidr(subnet), occupied(STATE))
    assert clash is not None
    assert by in clash.by


@pytest.mark.parametrize("subnet", ["192.168.121.0/24", "10.2.0.0/16", "fd00:3::/64"])
def test_default_routes_and_neighbours_of_subnets_occupy_nothing(subnet: str) -> None:
    assert overlap(Cidr(subnet), occupied(STATE)) is None


def test_a_network_does_not_overlap_itself() -> None:
    subnet = Cidr("192.168.122.0/24")
    assert overlap(subnet, occupied(STATE, except_network="on")) is None


def test_the_first_free_subnet_is_libvirts_own() -> None:
    assert free_subnet(4, (), zeros) == "192.168.122.0/24"
    assert free_subnet(4, occupied(STATE), zeros) == "192.168.124.0/24"


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.lists(
        st.sampled_from(
            ["192.168.0.0/16", "10.0.0.0/9", "10.128.0.0/9", "172.16.0.0/13", "192.168.122.7/32"]
        ),
        unique=True,
    )
)
def test_what_is_proposed_overlaps_nothing(routes: list[str]) -> None:
    state = State(
        taken_at=0,
        hostname="h",
        routes=tuple(Route(family=4, destination=Cidr(x), link="e") for x in routes),
    )
    taken = occupied(state)
    free = free_subnet(4, taken, zeros)
    assert overlap(free, taken) is None
    assert ipaddress.ip_network(free).is_private


def test_no_private_subnet_free() -> None:
    state = State(
        taken_at=0,
        hostname="h",
        routes=tuple(
            Route(family=4, destination=Cidr(x), link="e")
            for x in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
        ),
    )
    with pytest.raises(Refused, match="no private IPv4 subnet"):
        free_subnet(4, occupied(state), zeros)


def test_ipv6_is_a_random_unique_local_64() -> None:
    answers = iter([b"\0\1\0\0\0", b"\x12\x34\x56\x78\x9a"])
    taken = occupied(
        State(taken_at=0, hostname="h",
              routes=(Route(family=6, destination=Cidr("fd00:100::/32"), link="e"),))
    )  # fmt: skip
    assert free_subnet(6, taken, lambda _count: next(answers)) == "fd12:3456:789a::/64"


@pytest.mark.parametrize(
    ("subnet", "why"),
    [
        ("192.168.1.0/31", "no room"),
        ("192.168.1.1/32", "no room"),
        ("224.1.0.0/16", "multicast"),
        ("127.5.0.0/16", "loopback"),
        ("169.254.1.0/24", "link-local"),
        ("0.1.0.0/24", "this network"),
        ("250.0.0.0/24", "reserved"),
        ("8.0.0.0/5", "larger"),
    ],
)
def test_subnets_that_guests_can_not_live_in(subnet: str, why: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_subnet(Cidr(subnet), 4)
    assert why in caught.value.why


@pytest.mark.parametrize("subnet", ["fd00::/48", "fd00::/65", "fe80::/64", "ff02::/64", "::1/128"])
def test_ipv6_subnets_that_guests_can_not_live_in(subnet: str) -> None:
    with pytest.raises(InvalidInput):
        check_subnet(Cidr(subnet), 6)


def test_families_are_not_mixed() -> None:
    with pytest.raises(InvalidInput):
        check_subnet(Cidr("fd00::/64"), 4)
    with pytest.raises(InvalidInput):
        check_subnet(Cidr("192.168.1.0/24"), 6)


def test_a_30_has_room_for_one_guest() -> None:
    check_subnet(Cidr("192.168.1.0/30"), 4)


def test_routes_over_all_private_ipv6_end_in_a_refusal() -> None:
    state = State(
        taken_at=0,
        hostname="h",
        routes=(Route(family=6, destination=Cidr("fd00::/8"), type="unreachable"),),
    )
    with pytest.raises(Refused, match="no private IPv6 subnet is free"):
        free_subnet(6, occupied(state), os.urandom)
