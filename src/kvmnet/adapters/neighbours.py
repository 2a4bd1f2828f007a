"""Asking neighbours: ARP or ND for one address."""

from __future__ import annotations

import time

from kvmnet.adapters.packets import PacketSocket
from kvmnet.formats.ethernet import (
    ARP,
    BROADCAST,
    IPV6,
    Arp,
    Frame,
    decode_arp,
    encode_arp,
    encode_frame,
    mac_text,
)
from kvmnet.formats.icmp import (
    ICMPV6,
    Ipv6,
    decode_ipv6,
    decode_neighbour_advertisement,
    encode_ipv6,
    encode_neighbour_solicitation,
    solicited_node,
    solicited_node_mac,
)
from kvmnet.model.reached import MacResult
from kvmnet.model.values import Ip, Mac

NO_IP = Ip("0.0.0.0")
_NO_MAC = Mac("00:00:00:00:00:00")
_ASK_AGAIN_S = 0.3
_A_MOMENT_S = 0.005


def _until(end: float) -> float:
    """How long an answer to a question just asked is waited for. The last one has its moment too,
    where this process was kept from asking it in time."""
    now = time.monotonic()
    return max(min(end, now + _ASK_AGAIN_S), now + _A_MOMENT_S)


def _who_has(ip: Ip, mac: Mac, source: Ip) -> bytes:
    """The broadcast frame that asks for an IPv4 address, from `mac` (RFC 826)."""
    question = Arp(operation=1, sender_mac=mac, sender_ip=source, target_mac=_NO_MAC, target_ip=ip)
    frame = Frame(destination=BROADCAST, source=mac, ethertype=ARP, payload=encode_arp(question))
    return encode_frame(frame)


def find_mac(nic: str, lifeline: int | None, ip: Ip, source: Ip, wait_s: float) -> MacResult:
    """Who has `ip`? Asked again every 0.3 s. `source` 0.0.0.0 makes it a probe (RFC 5227)."""
    with PacketSocket(nic, ARP, lifeline=lifeline) as sock:
        mac = mac_text(sock.mac)
        raw = _who_has(ip, mac, source)
        begin = time.monotonic()
        end = begin + wait_s
        while time.monotonic() < end:
            sock.send(raw)
            until = _until(end)
            while (received := sock.receive(until)) is not None:
                arp = decode_arp(received.frame.payload)
                if arp is not None and arp.sender_ip == ip and arp.sender_mac != mac:
                    return MacResult(mac=arp.sender_mac, ms=(time.monotonic() - begin) * 1000)
    return MacResult()


def find_owners(nic: str, ip: Ip, source: Ip, wait_s: float, linger_s: float) -> tuple[Mac, ...]:
    """Everybody who answers ARP for `ip`: until `linger_s` after the first, `wait_s` at most."""
    found: dict[Mac, None] = {}
    with PacketSocket(nic, ARP) as sock:
        mac = mac_text(sock.mac)
        raw = _who_has(ip, mac, source)
        begin = time.monotonic()
        end = begin + wait_s
        while time.monotonic() < end:
            sock.send(raw)
            until = _until(end)
            while (received := sock.receive(until)) is not None:
                arp = decode_arp(received.frame.payload)
                if arp is None or arp.sender_ip != ip or arp.sender_mac == mac:
                    continue
                if not found:
                    end = until = min(end, time.monotonic() + linger_s)
                found[arp.sender_mac] = None
    return tuple(found)


def find_mac6(
    nic: str, ip: Ip, source: Ip, wait_s: float, lifeline: int | None = None
) -> MacResult:
    """Who has the IPv6 address `ip`? Asked again every 0.3 s from `source`, an address of ours.

    Source `::` makes it the question that is asked before an address is taken (RFC 4862, 5.4.2).
    """
    with PacketSocket(nic, IPV6, lifeline=lifeline) as sock:
        mac = mac_text(sock.mac)
        question = Ipv6(
            source=source,
            destination=solicited_node(ip),
            next_header=ICMPV6,
            payload=encode_neighbour_solicitation(ip, source, mac),
        )
        raw = encode_frame(
            Frame(
                destination=solicited_node_mac(ip),
                source=mac,
                ethertype=IPV6,
                payload=encode_ipv6(question),
            )
        )
        begin = time.monotonic()
        end = begin + wait_s
        while time.monotonic() < end:
            sock.send(raw)
            until = _until(end)
            while (received := sock.receive(until)) is not None:
                packet = decode_ipv6(received.frame.payload)
                # RFC 4861, 7.1.2: only from next door
                if packet is None or packet.next_header != ICMPV6 or packet.hop_limit != 255:
                    continue
                found = received.frame.source
                if decode_neighbour_advertisement(packet.payload) == ip and found != mac:
                    return MacResult(mac=found, ms=(time.monotonic() - begin) * 1000)
    return MacResult()
