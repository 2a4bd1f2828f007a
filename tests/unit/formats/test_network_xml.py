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


ips = st.builds(
    NetworkIp,
    family=st.just(4),
    address=st.just(Ip("192.0.2.1")),
    prefix_len=st.integers(8, 30),
    ranges=st.lists(
        st.builds(DhcpRange, start=st.just(Ip("192.0.2.5")), end=st.just(Ip("192.0.2.9"))),
        max_size=2,
    ).map(tuple),
    reservations=st.lists(
        st.builds(
            Reservation, ip=st.just(Ip("192.0.2.7")), mac=st.just(Mac("52:54:00:00:00:07")),
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
    ips=st.lists(ips, max_size=2).map(tuple),
    dnsmasq_options=st.lists(st.sampled_from(["no-ping", "log-dhcp"]), max_size=2).map(tuple),
)


@given(configs)
def test_what_is_written_reads_the_same(config: NetworkConfig) -> None:
    assert parse(render("some-name", config)) == ParsedNetwork(
        name="some-name", uuid="", config=config
    )


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
