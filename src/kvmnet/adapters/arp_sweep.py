"""Asks the LAN who has any address of a range."""

from __future__ import annotations

import ipaddress
import time

from kvmnet.adapters.packets import PacketSocket
from kvmnet.formats.ethernet import (
    ARP,
    BROADCAST,
    Arp,
    Frame,
    decode_arp,
    encode_arp,
    encode_frame,
    mac_text,
)
from kvmnet.model.values import Ip, Mac
from kvmnet.model.virt import DhcpRange

_NO_MAC = Mac("00:00:00:00:00:00")
_ROUNDS = 2
_BURST = 32
"""Requests sent before answers are read: a switch's or access point's queue is short."""
_PAUSE_S = 0.005


def sweep(nic: str, wanted: DhcpRange, source: Ip, wait_s: float) -> tuple[tuple[Ip, Mac], ...]:
    """Who answers ARP for addresses of the range, in their order; each is asked for twice.

    `wait_s` is how long answers are waited for after the last request of all. Raises
    `PermissionDenied` unless root asks.
    """
    start, end = (int(ipaddress.IPv4Address(x)) for x in (wanted.start, wanted.end))
    asked = [Ip(str(ipaddress.IPv4Address(number))) for number in range(start, end + 1)]
    found: dict[Ip, Mac] = {}
    with PacketSocket(nic, ARP) as sock:
        mac = mac_text(sock.mac)
        for _round in range(_ROUNDS):
            for number, ip in enumerate(asked):
                sock.send(_question(mac, source, ip))
                if number % _BURST == _BURST - 1:
                    _collect(sock, mac, time.monotonic() + _PAUSE_S, found)
            _collect(sock, mac, time.monotonic() + wait_s / _ROUNDS, found)
    return tuple((ip, found[ip]) for ip in asked if ip in found)


def _question(mac: Mac, source: Ip, ip: Ip) -> bytes:
    arp = Arp(operation=1, sender_mac=mac, sender_ip=source, target_mac=_NO_MAC, target_ip=ip)
    return encode_frame(
        Frame(destination=BROADCAST, source=mac, ethertype=ARP, payload=encode_arp(arp))
    )


def _collect(sock: PacketSocket, own: Mac, until: float, found: dict[Ip, Mac]) -> None:
    while (received := sock.receive(until)) is not None:
        arp = decode_arp(received.frame.payload)
        if arp is not None and arp.sender_mac != own:
            found.setdefault(arp.sender_ip, arp.sender_mac)
