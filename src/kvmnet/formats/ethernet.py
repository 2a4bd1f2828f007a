"""Frames and packets up to UDP: Ethernet II, ARP (RFC 826), IPv4 (RFC 791), UDP (RFC 768).

Decoders take whatever came from the wire: they return None for what is not whole or not theirs.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

from msgspec import Struct

from kvmnet.model.values import Ip, Mac

ARP = 0x0806
IPV4 = 0x0800
IPV6 = 0x86DD
BROADCAST = Mac("ff:ff:ff:ff:ff:ff")
UDP = 17


class Frame(Struct, frozen=True, kw_only=True):
    """An Ethernet II frame without its checksum."""

    destination: Mac
    source: Mac
    ethertype: int
    payload: bytes


class Arp(Struct, frozen=True, kw_only=True):
    """An ARP packet for IPv4 over Ethernet. Operation 1 asks, 2 answers."""

    operation: int
    sender_mac: Mac
    sender_ip: Ip
    target_mac: Mac
    target_ip: Ip


class Ipv4(Struct, frozen=True, kw_only=True):
    """An IPv4 packet that is not a fragment."""

    source: Ip
    destination: Ip
    protocol: int
    payload: bytes
    ttl: int = 64


class Udp(Struct, frozen=True, kw_only=True):
    """A UDP datagram; `checksum_ok` is False where the sum was filled in and is wrong."""

    source_port: int
    destination_port: int
    payload: bytes
    checksum_ok: bool = True


def mac_bytes(mac: Mac) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def mac_text(raw: bytes) -> Mac:
    return Mac(raw.hex(":"))


def ipv4_bytes(ip: Ip) -> bytes:
    return IPv4Address(ip).packed


def ipv4_text(raw: bytes) -> Ip:
    return Ip(str(IPv4Address(raw)))


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071). Zero over data that contains a right checksum."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def encode_frame(frame: Frame) -> bytes:
    head = mac_bytes(frame.destination) + mac_bytes(frame.source)
    return head + struct.pack("!H", frame.ethertype) + frame.payload


def decode_frame(raw: bytes) -> Frame | None:
    if len(raw) < 14:
        return None
    return Frame(
        destination=mac_text(raw[:6]),
        source=mac_text(raw[6:12]),
        ethertype=int.from_bytes(raw[12:14], "big"),
        payload=raw[14:],
    )


def encode_arp(arp: Arp) -> bytes:
    return (
        struct.pack("!HHBBH", 1, IPV4, 6, 4, arp.operation)
        + mac_bytes(arp.sender_mac)
        + ipv4_bytes(arp.sender_ip)
        + mac_bytes(arp.target_mac)
        + ipv4_bytes(arp.target_ip)
    )


def decode_arp(raw: bytes) -> Arp | None:
    if len(raw) < 28:
        return None
    hardware, protocol, hlen, plen, operation = struct.unpack("!HHBBH", raw[:8])
    if (hardware, protocol, hlen, plen) != (1, IPV4, 6, 4):
        return None
    return Arp(
        operation=operation,
        sender_mac=mac_text(raw[8:14]),
        sender_ip=ipv4_text(raw[14:18]),
        target_mac=mac_text(raw[18:24]),
        target_ip=ipv4_text(raw[24:28]),
    )


def encode_ipv4(packet: Ipv4) -> bytes:
    def header(check: int) -> bytes:
        return struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 20 + len(packet.payload), 0, 0, packet.ttl,
            packet.protocol, check, ipv4_bytes(packet.source), ipv4_bytes(packet.destination),
        )  # fmt: skip

    return header(checksum(header(0))) + packet.payload


def decode_ipv4(raw: bytes) -> Ipv4 | None:
    """None for fragments too: nothing that kvmnet waits for comes in pieces."""
    if len(raw) < 20 or raw[0] >> 4 != 4:
        return None
    header = (raw[0] & 15) * 4
    total = int.from_bytes(raw[2:4], "big")
    fragment = int.from_bytes(raw[6:8], "big") & 0x3FFF
    if header < 20 or not header <= total <= len(raw) or fragment:
        return None
    return Ipv4(
        source=ipv4_text(raw[12:16]),
        destination=ipv4_text(raw[16:20]),
        protocol=raw[9],
        payload=raw[header:total],
        ttl=raw[8],
    )


def encode_udp(udp: Udp, source: Ip, destination: Ip) -> bytes:
    length = 8 + len(udp.payload)
    pseudo = ipv4_bytes(source) + ipv4_bytes(destination) + struct.pack("!BBH", 0, UDP, length)
    ports = struct.pack("!HH", udp.source_port, udp.destination_port)
    check = checksum(pseudo + ports + struct.pack("!HH", length, 0) + udp.payload) or 0xFFFF
    return ports + struct.pack("!HH", length, check) + udp.payload


def decode_udp(packet: Ipv4) -> Udp | None:
    raw = packet.payload
    if packet.protocol != UDP or len(raw) < 8:
        return None
    source, destination, length, check = struct.unpack("!HHHH", raw[:8])
    if not 8 <= length <= len(raw):
        return None
    pseudo = (
        ipv4_bytes(packet.source)
        + ipv4_bytes(packet.destination)
        + struct.pack("!BBH", 0, 17, length)
    )
    return Udp(
        source_port=source,
        destination_port=destination,
        payload=raw[8:length],
        checksum_ok=check == 0 or checksum(pseudo + raw[:length]) == 0,
    )


def udp_frame(
    udp: Udp, *, source: Ip, destination: Ip, source_mac: Mac, destination_mac: Mac
) -> bytes:
    """A whole frame around one datagram."""
    packet = Ipv4(
        source=source, destination=destination, protocol=UDP,
        payload=encode_udp(udp, source, destination),
    )  # fmt: skip
    return encode_frame(
        Frame(
            destination=destination_mac,
            source=source_mac,
            ethertype=IPV4,
            payload=encode_ipv4(packet),
        )
    )
