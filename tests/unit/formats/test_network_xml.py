"""Each folder under network_xml/ is a case: `network.xml` and what it means, `expected.json`.

To add one, put a network.xml into a new folder, run this file with KVMNET_RECORD=1, and read the
expected.json that appears before you commit it.
"""

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmnet.errors import InvalidInput
from kvmnet.formats.network_xml import ParsedNetwork, parse, render
from kvmnet.model.values import Ip, Mac
from kvmnet.model.virt import DhcpRange, NetworkConfig, NetworkIp, Reservation

CASES = Path(__file__).parent / "network_xml"


@pytest.mark.parametrize("case", sorted(CASES.iterdir()), ids=lambda p: p.name)
def test_case(case: Path) -> None:
    parsed = parse((case / "network.xml").read_text())
    expected = case / "expected.json"
    if os.environ.get("KVMNET_RECORD"):
        expected.write_bytes(msgspec.json.format(msgspec.json.encode(parsed), indent=1) + b"\n")
    assert parsed == msgspec.json.decode(expected.read_bytes(), type=ParsedNetwork)


def ips(net: str) -> st.SearchStrategy[NetworkIp]:
    """An `<ip>` whose addresses begin with `net`."""
    return st.builds(
        NetworkIp,
        family=st.just(4),
        address=st.just(Ip(f"{net}.1")),
        prefix_len=st.integers(8, 28),
        ranges=st.lists(
            st.builds(DhcpRange, start=st.just(Ip(f"{net}.5")), end=st.just(Ip(f"{net}.9"))),
            max_size=2,
        ).map(tuple),
        reservations=st.lists(
            st.builds(
                Reservation, ip=st.just(Ip(f"{net}.7")), mac=st.just(Mac("52:54:00:00:00:07")),
                name=st.none() | st.just("web"),
            ),
            max_size=2,
        ).map(tuple),
    )  # fmt: skip


configs = st.builds(
    NetworkConfig,
    mode=st.sampled_from(["nat", "route", "open", "isolated"]),
    bridge=st.just("virbr7"),
    bridge_mac=st.none() | st.just(Mac("52:54:00:00:00:01")),
    stp=st.booleans(),
    forward_delay_s=st.integers(0, 30),
    mtu=st.none() | st.integers(576, 9000),
    domain=st.none() | st.just("guests.example"),
    dns=st.booleans(),
    ips=st.just(()) | st.tuples(ips("192.0.2")) | st.tuples(ips("192.0.2"), ips("198.51.100")),
    dnsmasq_options=st.lists(st.sampled_from(["no-ping", "log-dhcp"]), max_size=2).map(tuple),
)


@given(configs)
def test_what_is_written_reads_the_same(config: NetworkConfig) -> None:
    assert parse(render("some-name", config)) == ParsedNetwork(
        name="some-name", uuid="", config=config
    )


def test_dhcp_on_several_subnets_is_left_to_dnsmasq_since_libvirt_takes_it_in_one_only() -> None:
    first, second = (
        NetworkIp(
            family=4, address=Ip(f"192.0.2.{base + 1}"), prefix_len=29,
            ranges=(DhcpRange(start=Ip(f"192.0.2.{base + 2}"), end=Ip(f"192.0.2.{base + 6}")),),
        )
        for base in (8, 24)
    )  # fmt: skip
    text = render("lan", NetworkConfig(mode="route", bridge="virbr7", ips=(first, second)))
    assert "<dhcp>" not in text
    assert 'value="dhcp-range=192.0.2.10,192.0.2.14,255.255.255.248"' in text
    assert 'value="dhcp-range=192.0.2.26,192.0.2.30,255.255.255.248"' in text
    assert parse(text).config.ips == (first, second)


@pytest.mark.parametrize(
    "option",
    [
        "dhcp-range=192.0.2.10,192.0.2.14,255.255.0.0",
        "dhcp-range=192.0.2.10,192.0.3.14,255.255.255.0",
        "dhcp-range=192.0.2.10,192.0.2.999,255.255.255.0",
        "dhcp-range=set:red,192.0.2.10,192.0.2.14,255.255.255.0",
        "dhcp-range=192.0.2.10,static",
    ],
)
def test_a_users_own_range_that_is_not_the_subnets_stays_an_option(option: str) -> None:
    text = render(
        "own",
        NetworkConfig(
            mode="nat",
            bridge="virbr7",
            ips=(NetworkIp(family=4, address=Ip("192.0.2.1"), prefix_len=24),),
            dnsmasq_options=(option,),
        ),
    )
    assert parse(text).config.dnsmasq_options == (option,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not xml",
        "<domain/>",
        "<network><name>x</name><ip address='nonsense'/></network>",
        "<network><name>x</name><ip address='192.0.2.1' prefix='99'/></network>",
        "<network><name>x</name><bridge name='b' delay='soon'/></network>",
        "<network><name>x</name><mac address='ff:ff:ff:ff:ff:ff'/></network>",
        '<!DOCTYPE n [<!ENTITY a "b">]><network><name>&a;</name></network>',
        "<network><name>x</name><ip address='192.0.2.1' prefix='24'><dhcp><range start='192.0.2.2' "
        "end='192.0.2.9'><lease expiry='1' unit='moons'/></range></dhcp></ip></network>",
    ],
)
def test_nonsense_is_refused_and_named(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse(text)


def test_names_are_escaped_not_pasted() -> None:
    hostile = "</name><evil/>&\"'"
    assert parse(render(hostile, NetworkConfig(mode="isolated"))).name == hostile
