"""ICMP echo (RFC 792), ICMPv6 echo (RFC 4443), router discovery (RFC 4861)."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address

from msgspec import Struct

from kvmnet.formats.ethernet import checksum, mac_bytes
from kvmnet.model.values import Cidr, Ip, Mac

ICMP = 1
ICMPV6 = 58
ALL_NODES = Ip("ff02::1")
ALL_ROUTERS = Ip("ff02::2")
UNSPECIFIED = Ip("::")

ECHO_REQUEST, ECHO_REPLY = 8, 0
ECHO_REQUEST6, ECHO_REPLY6 = 128, 129
ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT = 133, 134
NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT = 135, 136


class Echo(Struct, frozen=True, kw_only=True):
    """An echo request or reply of either family."""

    type: int
    ident: int
    sequence: int
    data: bytes = b""


class Ipv6(Struct, frozen=True, kw_only=True):
    """An IPv6 packet without extension headers."""

    source: Ip
    destination: Ip
    next_header: int
    payload: bytes
    hop_limit: int = 255


class RouterAdvertisement(Struct, frozen=True, kw_only=True):
    """What a router tells about its network."""

    lifetime_s: int
    """0: it is no default router."""
    managed: bool
    """Addresses come by DHCPv6."""
    other: bool = False
    """Other settings come by DHCPv6."""
    mtu: int | None = None
    prefixes: tuple[Cidr, ...] = ()
    """Those for autoconfiguration (flag A)."""
    dns: tuple[Ip, ...] = ()
    """DNS servers (RFC 8106)."""


def encode_echo(echo: Echo) -> bytes:
    """An IPv4 echo message with its checksum."""
    body = struct.pack("!HH", echo.ident, echo.sequence) + echo.data
    check = checksum(struct.pack("!BBH", echo.type, 0, 0) + body)
    return struct.pack("!BBH", echo.type, 0, check) + body


def decode_echo(raw: bytes) -> Echo | None:
    """An echo message of either family; its checksum is the receiver's kernel's business."""
    if len(raw) < 8 or raw[1] or raw[0] not in (0, 8, ECHO_REQUEST6, ECHO_REPLY6):
        return None
    ident, sequence = struct.unpack("!HH", raw[4:8])
    return Echo(type=raw[0], ident=ident, sequence=sequence, data=raw[8:])


def encode_echo6(echo: Echo, source: Ip, destination: Ip) -> bytes:
    body = struct.pack("!HH", echo.ident, echo.sequence) + echo.data
    return _icmpv6(echo.type, body, source, destination)


def encode_router_solicitation(source: Ip, mac: Mac) -> bytes:
    body = bytes(4) + b"\x01\x01" + mac_bytes(mac)
    return _icmpv6(ROUTER_SOLICITATION, body, source, ALL_ROUTERS)


def solicited_node(ip: Ip) -> Ip:
    """The group in which the owner of an address listens for questions (RFC 4291, 2.7.1)."""
    head = IPv6Address("ff02::1:ff00:0").packed[:13]
    return Ip(str(IPv6Address(head + IPv6Address(ip).packed[13:])))


def encode_neighbour_solicitation(target: Ip, source: Ip, mac: Mac) -> bytes:
    """Who has `target`? For the target's solicited-node group (RFC 4861, 4.3).

    From `::` it is the question before an address is taken, and may not say who asks.
    """
    asker = b"" if source == UNSPECIFIED else b"\x01\x01" + mac_bytes(mac)
    body = bytes(4) + IPv6Address(target).packed + asker
    return _icmpv6(NEIGHBOUR_SOLICITATION, body, source, solicited_node(target))


def solicited_node_mac(ip: Ip) -> Mac:
    """The Ethernet group of `solicited_node` (RFC 2464, 7)."""
    return Mac("33:33:" + IPv6Address(solicited_node(ip)).packed[12:].hex(":"))


def decode_neighbour_advertisement(raw: bytes) -> Ip | None:
    """The address whose owner answers (RFC 4861, 4.4)."""
    if len(raw) < 24 or raw[0] != NEIGHBOUR_ADVERTISEMENT or raw[1]:
        return None
    return Ip(str(IPv6Address(raw[8:24])))


def _icmpv6(kind: int, body: bytes, source: Ip, destination: Ip) -> bytes:
    pseudo = (
        IPv6Address(source).packed
        + IPv6Address(destination).packed
        + struct.pack("!II", 4 + len(body), ICMPV6)
    )
    check = checksum(pseudo + struct.pack("!BBH", kind, 0, 0) + body)
    return struct.pack("!BBH", kind, 0, check) + body


def decode_router_advertisement(raw: bytes) -> RouterAdvertisement | None:
    if len(raw) < 16 or raw[0] != ROUTER_ADVERTISEMENT or raw[1]:
        return None
    mtu: int | None = None
    prefixes: list[Cidr] = []
    servers: list[Ip] = []
    at = 16
    while at + 8 <= len(raw) and raw[at + 1]:
        option = raw[at : at + 8 * raw[at + 1]]
        if raw[at] == 5:
            mtu = int.from_bytes(option[4:8], "big")
        if raw[at] == 3 and len(option) == 32 and option[3] & 0x40 and option[2] <= 128:
            prefixes.append(Cidr(f"{IPv6Address(option[16:32])}/{option[2]}"))
        if raw[at] == 25:
            whole = range(8, len(option) - 15, 16)
            servers += [Ip(str(IPv6Address(option[x : x + 16]))) for x in whole]
        at += len(option)
    return RouterAdvertisement(
        lifetime_s=int.from_bytes(raw[6:8], "big"),
        managed=bool(raw[5] & 0x80),
        other=bool(raw[5] & 0x40),
        mtu=mtu,
        prefixes=tuple(prefixes),
        dns=tuple(servers),
    )


def encode_ipv6(packet: Ipv6) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(packet.payload), packet.next_header, packet.hop_limit)
    return (
        head
        + IPv6Address(packet.source).packed
        + IPv6Address(packet.destination).packed
        + packet.payload
    )


def decode_ipv6(raw: bytes) -> Ipv6 | None:
    if len(raw) < 40 or raw[0] >> 4 != 6:
        return None
    length = int.from_bytes(raw[4:6], "big")
    if 40 + length > len(raw):
        return None
    return Ipv6(
        source=Ip(str(IPv6Address(raw[8:24]))),
        destination=Ip(str(IPv6Address(raw[24:40]))),
        next_header=raw[6],
        payload=raw[40 : 40 + length],
        hop_limit=raw[7],
    )


def link_local(mac: Mac) -> Ip:
    """The EUI-64 link-local address of a MAC (RFC 4291, appendix A)."""
    raw = mac_bytes(mac)
    host = bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]
    return Ip(str(IPv6Address(b"\xfe\x80" + bytes(6) + host)))
