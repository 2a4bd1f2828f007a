"""Asks the LAN who has any IPv6 address of a range."""

from __future__ import annotations

import time

from kvmnet.adapters.packets import PacketSocket
from kvmnet.formats.ethernet import IPV6, Frame, encode_frame, mac_text
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
from kvmnet.model.values import Ip, Mac

_ROUNDS = 2
_BURST = 32
"""Questions sent before answers are read: a switch's or access point's queue is short."""
_PAUSE_S = 0.005


def sweep(nic: str, asked: tuple[Ip, ...], source: Ip, wait_s: float) -> tuple[tuple[Ip, Mac], ...]:
    """Who answers neighbour solicitations for the addresses; each is asked for twice.

    `source` is an address of ours on the NIC. `wait_s` is how long answers are waited for after the
    last question of all. Raises `PermissionDenied` unless root asks.
    """
    found: dict[Ip, Mac] = {}
    with PacketSocket(nic, IPV6) as sock:
        mac = mac_text(sock.mac)
        for _round in range(_ROUNDS):
            for number, ip in enumerate(asked):
                sock.send(_question(mac, source, ip))
                if number % _BURST == _BURST - 1:
                    _collect(sock, time.monotonic() + _PAUSE_S, found)
            _collect(sock, time.monotonic() + wait_s / _ROUNDS, found)
    return tuple((ip, found[ip]) for ip in asked if ip in found)


def _question(mac: Mac, source: Ip, ip: Ip) -> bytes:
    packet = Ipv6(
        source=source,
        destination=solicited_node(ip),
        next_header=ICMPV6,
        payload=encode_neighbour_solicitation(ip, source, mac),
    )
    return encode_frame(
        Frame(
            destination=solicited_node_mac(ip),
            source=mac,
            ethertype=IPV6,
            payload=encode_ipv6(packet),
        )
    )


def _collect(sock: PacketSocket, until: float, found: dict[Ip, Mac]) -> None:
    while (received := sock.receive(until)) is not None:
        packet = decode_ipv6(received.frame.payload)
        # RFC 4861, 7.1.2: only from next door
        if packet is None or packet.next_header != ICMPV6 or packet.hop_limit != 255:
            continue
        target = decode_neighbour_advertisement(packet.payload)
        if target is not None:
            found.setdefault(target, received.frame.source)
