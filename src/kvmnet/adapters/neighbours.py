"""Asking neighbours: ARP or ND for one address, IPv6 routers by solicitation."""

from __future__ import annotations

import time

from kvmnet.adapters.packets import PacketSocket, Received
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
    decode_router_advertisement,
    encode_ipv6,
    encode_neighbour_solicitation,
    encode_router_solicitation,
    link_local,
    solicited_node,
    solicited_node_mac,
)
from kvmnet.model.probe import Advertiser
from kvmnet.model.standin import MacResult, RouterResult
from kvmnet.model.values import Ip, Mac

NO_IP = Ip("0.0.0.0")
_NO_MAC = Mac("00:00:00:00:00:00")
_ALL_ROUTERS_MAC = Mac("33:33:00:00:00:02")
_ASK_AGAIN_S = 0.3
_SOLICIT_AGAIN_S = 0.5
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


class RouterSearch:
    """Router solicitations, and the advertisements that come meanwhile."""

    def __init__(self, nic: str, lifeline: int) -> None:
        self._socket = PacketSocket(nic, IPV6, lifeline=lifeline)
        self._begin = time.monotonic()
        self._mac = mac_text(self._socket.mac)
        self._seen: dict[tuple[Ip, Mac], Advertiser] = {}

    def close(self) -> None:
        self._socket.__exit__()

    def solicit(self) -> None:
        """Ask all routers. The clock starts here."""
        self._begin = time.monotonic()
        self._send()

    def _send(self) -> None:
        source = link_local(self._mac)
        packet = Ipv6(
            source=source,
            destination=Ip("ff02::2"),
            next_header=ICMPV6,
            payload=encode_router_solicitation(source, self._mac),
        )
        self._socket.send(
            encode_frame(
                Frame(
                    destination=_ALL_ROUTERS_MAC,
                    source=self._mac,
                    ethertype=IPV6,
                    payload=encode_ipv6(packet),
                )
            )
        )

    def wait(self, wait_s: float) -> RouterResult:
        """The first that advertised itself within `wait_s` after the solicitation."""
        # What has come in already is read even if the time is over.
        end = max(self._begin + wait_s, time.monotonic() + 0.005)
        while not self._seen:
            until = min(end, time.monotonic() + _SOLICIT_AGAIN_S)
            while not self._seen and (received := self._socket.receive(until)) is not None:
                self._note(received)
            if self._seen:
                break
            if time.monotonic() >= end:
                return RouterResult(waited_ms=(time.monotonic() - self._begin) * 1000)
            self._send()
        return RouterResult(router=next(iter(self._seen.values())))

    def all(self) -> tuple[Advertiser, ...]:
        """Every router that has advertised itself by now; nothing more is waited for."""
        until = time.monotonic() + 0.005
        while (received := self._socket.receive(until)) is not None:
            self._note(received)
        return tuple(self._seen.values())

    def _note(self, received: Received) -> None:
        """An advertisement as RFC 4861, 6.1.2 accepts it: from next door, from a link-local one."""
        packet = decode_ipv6(received.frame.payload)
        if packet is None or packet.next_header != ICMPV6 or packet.hop_limit != 255:
            return
        found = decode_router_advertisement(packet.payload)
        if found is None or not packet.source.startswith("fe80:"):
            return
        router = Advertiser(
            ip=packet.source,
            mac=received.frame.source,
            ms=(received.at - self._begin) * 1000,
            default=found.lifetime_s > 0,
            managed=found.managed,
            other=found.other,
            mtu=found.mtu,
            prefixes=found.prefixes,
            dns=found.dns,
        )
        self._seen.setdefault((router.ip, router.mac), router)
