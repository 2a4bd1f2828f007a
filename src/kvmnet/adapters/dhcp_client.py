"""A DHCP client of its own: it takes a lease as a guest would, and can say what went wrong.

RFC 2131 repeats a DISCOVER after 4, 8, 16 … seconds, which suits a network with a thousand hosts
that boot at once. A probe has one, so it repeats earlier; the order of messages is the RFC's.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from kvmnet.adapters.packets import PacketSocket
from kvmnet.formats import dhcp
from kvmnet.formats.dhcp import DhcpMessage
from kvmnet.formats.ethernet import (
    BROADCAST,
    Udp,
    decode_ipv4,
    decode_udp,
    mac_text,
    udp_frame,
)
from kvmnet.model.probe import DhcpServer, ProbeLease
from kvmnet.model.standin import LeaseResult
from kvmnet.model.values import Ip, Mac

REPEAT_AFTER_S = (1.0, 2.0, 3.0)
"""Pauses between DISCOVERs, and between REQUESTs."""

_EVERYONE = Ip("255.255.255.255")


class _Reply(NamedTuple):
    message: DhcpMessage
    server_mac: Mac
    bad_checksum: bool
    at: float
    """When it came, on the monotonic clock."""


class DhcpClient:
    """One attempt to get a lease on one NIC. Not for use by two threads."""

    def __init__(self, sock: PacketSocket, lease_s: int) -> None:
        self._socket = sock
        self._mac = mac_text(sock.mac)
        self._lease_s = lease_s
        self._xid = secrets.randbits(32)
        self._begin = time.monotonic()
        self._sent = 0
        self._offers: dict[tuple[Ip, Mac], _Reply] = {}
        self.claimed: ProbeLease | None = None
        """What was asked for: the server may count it as ours, confirmed or not."""

    def ask(self, wait_s: float) -> LeaseResult:
        """DISCOVER, OFFER, REQUEST, ACK. Each half gets at most `wait_s`, the second 4 seconds."""
        first = self._exchange(
            lambda: dhcp.discover(self._xid, self._mac, secs=self._secs(), lease_s=self._lease_s),
            {dhcp.OFFER}, wait_s,
        )  # fmt: skip
        discovers = self._sent
        if first is None:
            return LeaseResult(outcome="silent", discovers=discovers)
        offer_ms = (first.at - self._begin) * 1000
        offer = first.message
        self._sent = 0
        self.claimed = _lease(first)
        last = self._exchange(
            lambda: dhcp.request(offer, secs=self._secs(), lease_s=self._lease_s),
            {dhcp.ACK, dhcp.NAK}, min(wait_s, 4.0), server=offer.options[dhcp.SERVER_ID],
        )  # fmt: skip
        result = LeaseResult(
            outcome="unconfirmed",
            lease=_lease(first),
            offer_ms=offer_ms,
            discovers=discovers,
            requests=self._sent,
        )
        result = msgspec.structs.replace(result, servers=self._servers())
        if last is None:
            return result
        if last.message.type == dhcp.NAK:
            self.claimed = None
            said = last.message.text(dhcp.MESSAGE) or ""
            return msgspec.structs.replace(result, outcome="refused", message=said)
        lease = _lease(last)
        bad = first.bad_checksum or last.bad_checksum
        self.claimed = msgspec.structs.replace(lease, bad_checksum=bad)
        return msgspec.structs.replace(result, outcome="bound", lease=self.claimed)

    def more_offers(self, linger_s: float) -> tuple[DhcpServer, ...]:
        """Every server that has made an offer by now, or does so until `linger_s` after the first.

        Nothing is waited for where no server ever answered.
        """
        if self._offers:
            first = min(x.at for x in self._offers.values())
            # What has come in already is read even if the time is over.
            self._receive(set(), max(first + linger_s, time.monotonic() + 0.005), None)
        return self._servers()

    def _servers(self) -> tuple[DhcpServer, ...]:
        return tuple(
            DhcpServer(
                ip=ip,
                mac=mac,
                offered=reply.message.yiaddr,
                router=dhcp.default_router(reply.message),
                dns=reply.message.ips(dhcp.DNS_SERVERS),
                bad_checksum=reply.bad_checksum,
                ms=(reply.at - self._begin) * 1000,
            )
            for (ip, mac), reply in self._offers.items()
        )

    def close(self) -> None:
        self._socket.__exit__()

    def _secs(self) -> int:
        return int(time.monotonic() - self._begin)

    def _exchange(
        self,
        make: Callable[[], DhcpMessage],
        kinds: set[int],
        wait_s: float,
        server: bytes | None = None,
    ) -> _Reply | None:
        """Send, and again after each pause, until one of `kinds` comes or the time is over."""
        end = time.monotonic() + wait_s
        for pause in _pauses():
            now = time.monotonic()
            if now >= end:
                return None
            self._broadcast(make())
            self._sent += 1
            reply = self._receive(kinds, min(end, now + pause), server)
            if reply is not None:
                return reply
        return None

    def _broadcast(self, message: DhcpMessage) -> None:
        self._socket.send(
            udp_frame(
                Udp(
                    source_port=dhcp.CLIENT_PORT,
                    destination_port=dhcp.SERVER_PORT,
                    payload=dhcp.encode(message),
                ),
                source=dhcp.NO_IP,
                destination=_EVERYONE,
                source_mac=self._mac,
                destination_mac=BROADCAST,
            )
        )

    def _receive(self, kinds: set[int], deadline: float, server: bytes | None) -> _Reply | None:
        while (received := self._socket.receive(deadline)) is not None:
            packet = decode_ipv4(received.frame.payload)
            udp = None if packet is None else decode_udp(packet)
            if udp is None or udp.destination_port != dhcp.CLIENT_PORT:
                continue
            message = dhcp.decode(udp.payload)
            if message is None or not self._is_mine(message):
                continue
            bad = received.checksum_ready and not udp.checksum_ok
            reply = _Reply(message, received.frame.source, bad, received.at)
            if message.type == dhcp.OFFER:
                self._offers.setdefault((_server(message), reply.server_mac), reply)
            if message.type in kinds and server in (None, message.options[dhcp.SERVER_ID]):
                return reply
        return None

    def _is_mine(self, message: DhcpMessage) -> bool:
        """Of this exchange, with what the RFC demands of a server (RFC 2131, table 3)."""
        return (
            message.reply
            and message.xid == self._xid
            and message.client_mac == self._mac
            and len(message.options.get(dhcp.SERVER_ID, b"")) == 4
            and (message.type == dhcp.NAK or message.yiaddr != dhcp.NO_IP)
        )


def give_back(sock: PacketSocket, lease: ProbeLease) -> None:
    """Release the lease with a frame straight to the server; it does not answer (RFC 2131)."""
    mac = mac_text(sock.mac)
    message = dhcp.release(secrets.randbits(32), mac, lease.address, lease.server)
    sock.send(
        udp_frame(
            Udp(
                source_port=dhcp.CLIENT_PORT,
                destination_port=dhcp.SERVER_PORT,
                payload=dhcp.encode(message),
            ),
            source=lease.address,
            destination=lease.server,
            source_mac=mac,
            destination_mac=lease.server_mac,
        )
    )


def _pauses() -> Iterator[float]:
    yield from REPEAT_AFTER_S
    while True:
        yield REPEAT_AFTER_S[-1]


def _server(message: DhcpMessage) -> Ip:
    return message.ip(dhcp.SERVER_ID) or dhcp.NO_IP


def _lease(reply: _Reply) -> ProbeLease:
    message = reply.message
    return ProbeLease(
        address=message.yiaddr,
        prefix_len=dhcp.prefix_len(message),
        server=_server(message),
        server_mac=reply.server_mac,
        router=dhcp.default_router(message),
        dns=message.ips(dhcp.DNS_SERVERS),
        domain=message.text(dhcp.DOMAIN_NAME),
        mtu=message.number(dhcp.INTERFACE_MTU),
        lease_s=message.number(dhcp.LEASE_TIME),
        bad_checksum=reply.bad_checksum,
    )
