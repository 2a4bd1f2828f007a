"""A DHCPv6 client of its own (RFC 8415): one address, or only the DNS servers, and back again."""

from __future__ import annotations

import secrets
import socket
import time

from kvmnet.adapters.packets import LATE_S, wait_readable
from kvmnet.formats import dhcp6
from kvmnet.formats.dhcp6 import Dhcp6Message
from kvmnet.model.probe import ProbeLease6
from kvmnet.model.standin import Lease6Result
from kvmnet.model.values import Ip, Mac

_AGAIN_S = 0.5
"""Pause between two messages; RFC 8415 waits a second and more, for thousands that boot at once."""


class Dhcp6Client:
    """One attempt to get an address on one NIC that has a link-local address."""

    def __init__(self, nic: str, mac: Mac, lifeline: int) -> None:
        self._nic = nic
        self._mac = mac
        self._lifeline = lifeline
        self._transaction = secrets.randbits(24)
        self._sent = 0
        self.claimed: ProbeLease6 | None = None
        """What was asked for: the server may count it as ours, confirmed or not."""

    def ask(self, wait_s: float) -> Lease6Result:
        """SOLICIT, ADVERTISE, REQUEST, REPLY; each half gets at most `wait_s`."""
        with self._open() as sock:
            first = self._exchange(sock, dhcp6.SOLICIT, dhcp6.ADVERTISE, wait_s)
            solicits = self._sent
            if first is None:
                return Lease6Result(solicits=solicits)
            offer, server = first
            if not offer.addresses:
                return Lease6Result(solicits=solicits, refusal=offer.refusal or "no address in it")
            ip = offer.addresses[0].ip
            self.claimed = _lease(offer, server)
            self._transaction = secrets.randbits(24)
            last = self._exchange(sock, dhcp6.REQUEST, dhcp6.REPLY, wait_s, offer.server_id, ip)
        if last is None:
            return Lease6Result(solicits=solicits, refusal=f"{ip} was offered, never confirmed")
        if not last[0].addresses:
            self.claimed = None
            return Lease6Result(solicits=solicits, refusal=last[0].refusal or "no address in it")
        self.claimed = _lease(*last)
        return Lease6Result(lease=self.claimed, solicits=solicits)

    def ask_settings(self, wait_s: float) -> Lease6Result:
        """INFORMATION-REQUEST, REPLY: DNS servers without an address."""
        with self._open() as sock:
            found = self._exchange(sock, dhcp6.INFORMATION_REQUEST, dhcp6.REPLY, wait_s)
        return Lease6Result(lease=None if found is None else _lease(*found), solicits=self._sent)

    def give_back(self) -> None:
        """Release what was claimed; the server's confirmation is not waited for."""
        lease = self.claimed
        if lease is None or lease.address is None:
            return
        self.claimed = None
        self._transaction = secrets.randbits(24)
        with self._open() as sock:
            self._send(sock, dhcp6.RELEASE, bytes.fromhex(lease.server_id), lease.address)

    def _open(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.bind(("::", dhcp6.CLIENT_PORT))
        except OSError:
            sock.close()
            raise
        return sock

    def _exchange(
        self, sock: socket.socket, kind: int, answer: int, wait_s: float,
        server_id: bytes = b"", ip: Ip | None = None,
    ) -> tuple[Dhcp6Message, Ip] | None:  # fmt: skip
        self._sent = 0
        end = time.monotonic() + wait_s
        while (now := time.monotonic()) < end:
            self._send(sock, kind, server_id, ip)
            self._sent += 1
            until = min(end, now + _AGAIN_S)
            while wait_readable(sock, until, self._lifeline) and time.monotonic() < end + LATE_S:
                raw, source = sock.recvfrom(65536)
                message = dhcp6.decode(raw)
                if message is not None and self._is_mine(message, answer, server_id):
                    return message, Ip(str(source[0]).partition("%")[0])
        return None

    def _send(self, sock: socket.socket, kind: int, server_id: bytes, ip: Ip | None) -> None:
        raw = dhcp6.encode(
            kind, self._transaction, self._mac, server_id=server_id, ip=ip,
            with_address=kind != dhcp6.INFORMATION_REQUEST,
        )  # fmt: skip
        index = socket.if_nametoindex(self._nic)
        sock.sendto(raw, (dhcp6.SERVERS, dhcp6.SERVER_PORT, 0, index))

    def _is_mine(self, message: Dhcp6Message, kind: int, server_id: bytes) -> bool:
        return (
            message.type == kind
            and message.transaction == self._transaction
            and message.client_id == dhcp6.duid(self._mac)
            and bool(message.server_id)
            and server_id in (b"", message.server_id)
        )


def _lease(message: Dhcp6Message, server: Ip) -> ProbeLease6:
    address = message.addresses[0] if message.addresses else None
    return ProbeLease6(
        address=None if address is None else address.ip,
        server=server,
        server_id=message.server_id.hex(),
        dns=message.dns,
        valid_s=None if address is None else address.valid_s,
    )
