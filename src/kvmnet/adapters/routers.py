"""IPv6 routers, by solicitation."""

from __future__ import annotations

import time

from kvmnet.adapters.packets import PacketSocket, Received
from kvmnet.formats.ethernet import IPV6, Frame, encode_frame, mac_text
from kvmnet.formats.icmp import (
    ICMPV6,
    Ipv6,
    decode_ipv6,
    decode_router_advertisement,
    encode_ipv6,
    encode_router_solicitation,
    link_local,
)
from kvmnet.model.probe import Advertiser
from kvmnet.model.standin import RouterResult
from kvmnet.model.values import Ip, Mac

_ALL_ROUTERS_MAC = Mac("33:33:00:00:00:02")
_SOLICIT_AGAIN_S = 0.5


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
