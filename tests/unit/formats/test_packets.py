"""Packets: golden ones from real programs, round trips, and hostile bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmnet.formats import dhcp, dhcp6, dns, ethernet, icmp
from kvmnet.model.values import Ip, Mac

GUEST = Mac("52:54:00:12:34:56")
HOST = Mac("52:54:00:00:00:01")

ARP_REQUEST = bytes.fromhex(
    "ffffffffffff 525400123456 0806 0001 0800 06 04 0001525400123456 c0a87a0a 000000000000 c0a87a01"
)
UDP_IN_IPV4 = bytes.fromhex(
    # 10.7.0.1:53 to 10.7.0.2:1234, "hi", sums computed by hand
    "4500001e 00000000 4011 66bf 0a070001 0a070002 0035 04d2 000a 7e59 6869"
)
DECODERS: list[Callable[[bytes], object]] = [
    ethernet.decode_frame,
    ethernet.decode_arp,
    ethernet.decode_ipv4,
    dhcp.decode,
    dns.decode_answer,
    icmp.decode_echo,
    icmp.decode_ipv6,
    icmp.decode_router_advertisement,
    dhcp6.decode,
]


def test_arp_request() -> None:
    frame = ethernet.decode_frame(ARP_REQUEST)
    assert frame is not None and frame.ethertype == ethernet.ARP
    arp = ethernet.decode_arp(frame.payload)
    assert arp == ethernet.Arp(
        operation=1, sender_mac=GUEST, sender_ip=Ip("192.168.122.10"),
        target_mac=Mac("00:00:00:00:00:00"), target_ip=Ip("192.168.122.1"),
    )  # fmt: skip
    assert ethernet.encode_frame(frame) == ARP_REQUEST
    assert ethernet.encode_arp(arp) == frame.payload


def test_checksum_of_the_rfc() -> None:
    # RFC 1071, section 3: the sum of these is ddf2 before it is complemented.
    assert ethernet.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


def test_udp_checksum_right_wrong_and_absent() -> None:
    packet = ethernet.decode_ipv4(UDP_IN_IPV4)
    assert packet is not None
    good = ethernet.decode_udp(packet)
    assert good is not None and good.checksum_ok and good.payload == b"hi"
    assert ethernet.encode_ipv4(packet) == UDP_IN_IPV4
    assert ethernet.encode_udp(good, packet.source, packet.destination) == packet.payload
    for check, ok in ((b"\x12\x34", False), (b"\0\0", True)):
        raw = UDP_IN_IPV4[:26] + check + UDP_IN_IPV4[28:]
        changed = ethernet.decode_ipv4(raw)
        assert changed is not None
        udp = ethernet.decode_udp(changed)
        assert udp is not None and udp.checksum_ok is ok


def test_fragments_are_not_taken_for_whole_packets() -> None:
    assert ethernet.decode_ipv4(UDP_IN_IPV4[:6] + b"\x20\0" + UDP_IN_IPV4[8:]) is None


def test_dhcp_discover_and_request() -> None:
    discover = dhcp.discover(0x12345678, GUEST, secs=3, lease_s=120)
    raw = dhcp.encode(discover)
    assert len(raw) >= 300
    assert raw[:12].hex() == "01010600" + "12345678" + "00030000"
    assert dhcp.decode(raw) == discover
    options = {dhcp.SERVER_ID: bytes([10, 7, 0, 1])}
    offer = dhcp.DhcpMessage(type=dhcp.OFFER, xid=7, client_mac=GUEST, reply=True,
                             yiaddr=Ip("10.7.0.9"), options=options)  # fmt: skip
    request = dhcp.request(offer, secs=0, lease_s=120)
    assert request.ip(dhcp.REQUESTED_IP) == "10.7.0.9" and request.ciaddr == dhcp.NO_IP
    assert request.ip(dhcp.SERVER_ID) == "10.7.0.1"
    release = dhcp.release(9, GUEST, Ip("10.7.0.9"), Ip("10.7.0.1"))
    assert release.ciaddr == "10.7.0.9" and dhcp.decode(dhcp.encode(release)) == release


def message(options: dict[int, bytes]) -> dhcp.DhcpMessage:
    return dhcp.DhcpMessage(type=dhcp.ACK, xid=1, client_mac=GUEST, reply=True, options=options)


@pytest.mark.parametrize(
    ("mask", "length"),
    [("ffffff00", 24), ("ffffffff", 32), ("00000000", 0), ("ff00ff00", 32), ("ffff", 32), ("", 32)],
)
def test_subnet_masks(mask: str, length: int) -> None:
    assert dhcp.prefix_len(message({1: bytes.fromhex(mask)})) == length


@pytest.mark.parametrize(
    ("options", "router"),
    [
        ({3: "0a070001"}, "10.7.0.1"),
        ({}, None),
        ({3: "0a070001", 121: "00 0a0700fe"}, "10.7.0.254"),
        ({3: "0a070001", 121: "18 0a0800 0a0700fe 00 0a0700fd"}, "10.7.0.253"),
        ({121: "21 0a0800"}, None),
        ({121: "00 0a07"}, None),
    ],
)
def test_default_router(options: dict[int, str], router: str | None) -> None:
    found = message({code: bytes.fromhex(raw) for code, raw in options.items()})
    assert dhcp.default_router(found) == router


def test_long_dhcp_options_are_joined() -> None:
    raw = dhcp.encode(message({}))
    at = raw.index(b"\x63\x82\x53\x63") + 4
    decoded = dhcp.decode(raw[:at] + b"\x35\x01\x05\x0f\x02ab\x0f\x02cd\xff")
    assert decoded is not None and decoded.text(dhcp.DOMAIN_NAME) == "abcd"


def test_dns_query_and_answer() -> None:
    query = dns.encode_query(0xABCD, "www.example.", dns.A)
    assert query.hex() == "abcd01000001000000000000" + "03777777076578616d706c6500" + "00010001"
    answer = bytes.fromhex(
        "abcd81800001000200000000 03777777076578616d706c6500 00010001"
        "c00c 0005 0001 00000e10 0002 c010"
        "c010 0001 0001 00000e10 0004 c0000201"
    )
    assert dns.decode_answer(answer) == dns.DnsAnswer(
        id=0xABCD, rcode=0, addresses=(Ip("192.0.2.1"),)
    )
    assert dns.decode_answer(query) is None
    assert dns.DnsAnswer(id=1, rcode=5).code == "REFUSED"
    assert dns.DnsAnswer(id=1, rcode=11).code == "RCODE11"


def test_echo() -> None:
    echo = icmp.Echo(type=icmp.ECHO_REQUEST, ident=1, sequence=2, data=b"abc")
    raw = icmp.encode_echo(echo)
    assert ethernet.checksum(raw) == 0
    assert icmp.decode_echo(raw) == echo


def test_router_advertisement() -> None:
    raw = bytes.fromhex(
        "86000000 40 80 0708 00000000 00000000"  # managed, 1800 s
        "0501 0000 00000578"  # MTU 1400
        "0304 40 c0 00015180 00003840 00000000 fd070000000000000000000000000000"
        "0304 40 80 00015180 00003840 00000000 fd080000000000000000000000000000"
        "1903 0000 00000258 fd070000000000000000000000000035"  # a DNS server
    )
    assert icmp.decode_router_advertisement(raw) == icmp.RouterAdvertisement(
        lifetime_s=1800, managed=True, mtu=1400, prefixes=("fd07::/64",),
        dns=(Ip("fd07::35"),),
    )  # fmt: skip


def test_question_before_an_address_is_taken_does_not_say_who_asks() -> None:
    named = icmp.encode_neighbour_solicitation(Ip("fd07::9"), Ip("fe80::1"), GUEST)
    unnamed = icmp.encode_neighbour_solicitation(Ip("fd07::9"), icmp.UNSPECIFIED, GUEST)
    assert (len(named), len(unnamed)) == (32, 24)
    assert ethernet.mac_bytes(GUEST) not in unnamed


def test_dhcpv6_reply_of_dnsmasq() -> None:
    raw = bytes.fromhex(
        "07 abcdef 0001 000a 00030001525400123456 0002 000e 0001000130aabbccbe534d757826"
        "0003 0028 00123456 00000000 00000000 0005 0018 fd07000000000000000000000000017a"
        "0000012c 0000012c"
        "000d 0009 0000 73756363657373"
        "0017 0010 fd070000000000000000000000000001"
    )
    assert dhcp6.decode(raw) == dhcp6.Dhcp6Message(
        type=dhcp6.REPLY, transaction=0xABCDEF, client_id=dhcp6.duid(GUEST),
        server_id=bytes.fromhex("0001000130aabbccbe534d757826"),
        addresses=(dhcp6.Dhcp6Address(ip=Ip("fd07::17a"), valid_s=300),),
        dns=(Ip("fd07::1"),),
    )  # fmt: skip


def test_dhcpv6_refusal_with_the_servers_words() -> None:
    status = "000d 0006 0002 66756c6c"
    raw = bytes.fromhex(f"02 abcdef 0003 0016 00123456 00000000 00000000 {status}")
    found = dhcp6.decode(raw)
    assert found is not None and found.refusal == "no addresses available: full"


def test_dhcpv6_request_names_server_and_address() -> None:
    raw = dhcp6.encode(dhcp6.REQUEST, 7, GUEST, server_id=b"\0\3abc", ip=Ip("fd07::9"))
    found = dhcp6.decode(raw)
    assert found is not None and (found.type, found.transaction) == (dhcp6.REQUEST, 7)
    assert found.server_id == b"\0\3abc" and found.addresses[0].ip == "fd07::9"


def test_link_local_address_of_a_mac() -> None:
    assert icmp.link_local(GUEST) == "fe80::5054:ff:fe12:3456"


@pytest.mark.parametrize("decode", DECODERS, ids=lambda f: f.__name__)
@given(raw=st.binary(max_size=400))
def test_hostile_bytes_never_crash(decode: Callable[[bytes], object], raw: bytes) -> None:
    decode(raw)


@given(tail=st.binary(max_size=120))
def test_hostile_dhcp_options(tail: bytes) -> None:
    raw = dhcp.encode(message({}))
    at = raw.index(b"\x63\x82\x53\x63") + 4
    found = dhcp.decode(raw[:at] + b"\x35\x01\x05" + tail)
    if found is not None:
        dhcp.prefix_len(found), dhcp.default_router(found), found.ips(6), found.text(15)


@given(tail=st.binary(max_size=120), count=st.integers(0, 3))
def test_hostile_dns_records(tail: bytes, count: int) -> None:
    dns.decode_answer(b"\0\1\x81\x80\0\1\0" + bytes([count]) + bytes(4) + tail)


@given(tail=st.binary(max_size=120))
def test_hostile_router_options(tail: bytes) -> None:
    icmp.decode_router_advertisement(b"\x86\0\0\0" + bytes(12) + tail)
