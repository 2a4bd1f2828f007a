"""The path MTU to an address, and black holes, where large packets vanish without a word."""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from typing import NamedTuple

from kvmnet.adapters.packets import LATE_S, wait_readable
from kvmnet.adapters.reach import address, answer_to, echo, echo_socket
from kvmnet.model.standin import MtuResult
from kvmnet.model.values import Ip

_ASK_KERNEL, _IGNORE_KERNEL = 2, 3
"""IP_PMTUDISC_DO obeys the path MTU that the kernel has learned, IP_PMTUDISC_PROBE does not; both
forbid fragments (ip(7), ipv6(7))."""
_EMSGSIZE = 90
_AT_ONCE = 24
_SMALL = 96


class _Family(NamedTuple):
    level: int
    mtu_discover: int
    mtu: int
    headers: int
    """Bytes of the IP and the ICMP header."""


_IPV4 = _Family(socket.IPPROTO_IP, 10, 14, 28)
_IPV6 = _Family(socket.IPPROTO_IPV6, 23, 24, 48)


class _Round(NamedTuple):
    answered: tuple[int, ...]
    too_big: bool


class _MtuMeter:
    """Echo requests of given packet sizes that may not be fragmented, to one address."""

    def __init__(
        self, sock: socket.socket, ip: Ip, nic: str, lifeline: int | None, wait_s: float
    ) -> None:
        self._socket = sock
        self._ip = ip
        self._to = address(ip, 0, nic)
        self._lifeline = lifeline
        self._wait_s = wait_s
        self._family = _IPV6 if ":" in ip else _IPV4
        self._ident = secrets.randbits(16)

    def obey(self, mode: int) -> None:
        self._socket.setsockopt(self._family.level, self._family.mtu_discover, mode)

    def connect(self) -> bool:
        """Look the way up anew: an IPv6 socket keeps the one that it knows."""
        try:
            self._socket.connect(self._to)
        except OSError:
            return False
        return True

    @property
    def known(self) -> int:
        """What the kernel takes for the path's MTU now."""
        return self._socket.getsockopt(self._family.level, self._family.mtu)

    def round(self, sizes: tuple[int, ...]) -> _Round:
        """Send all sizes at once. Once one is answered the others get four times as long."""
        answered: set[int] = set()
        begin = time.monotonic()
        end = begin + self._wait_s
        too_big = self._send(sizes)
        while len(answered) < len(sizes) - too_big:
            late = time.monotonic() > end + LATE_S
            if late or not wait_readable(self._socket, end, self._lifeline):
                break
            try:
                size_back = answer_to(self._socket.recv(65536), self._ip, self._ident)
            except OSError as problem:
                too_big += problem.errno == _EMSGSIZE
                self._drain()
                continue
            now = time.monotonic()
            if size_back in sizes and size_back is not None:
                answered.add(size_back)
                end = min(end, now + max(0.1, 4 * (now - begin)))
        return _Round(tuple(answered), too_big > 0)

    def _send(self, sizes: tuple[int, ...]) -> int:
        """How many of them did not even leave."""
        return sum(not self._sent(size) for size in sizes)

    def _sent(self, size: int) -> bool:
        raw = echo(self._ip, self._ident, size, size - self._family.headers)
        for _ in range(2):  # the first may fail for an error that came for an earlier packet
            with contextlib.suppress(OSError):
                return self._socket.send(raw) > 0
        return False

    def _drain(self) -> None:
        """Read the errors that came from the way, which would wake the poll for ever."""
        with contextlib.suppress(OSError):
            while True:
                self._socket.recvmsg(1, 512, socket.MSG_ERRQUEUE)


def measure_mtu(ip: Ip, nic: str, lifeline: int | None, wait_s: float) -> MtuResult:
    """The largest packet that reaches an address and comes back, without fragments."""
    with contextlib.closing(echo_socket(ip)) as sock:
        meter = _MtuMeter(sock, ip, nic, lifeline, wait_s)
        meter.obey(_ASK_KERNEL)
        if not meter.connect():
            return MtuResult()
        first = size = meter.known
        for _ in range(8):
            outcome = meter.round((size,))
            if outcome.answered:
                return MtuResult(mtu=size, first_hop=first, reported=size < first)
            if not meter.connect() or (not outcome.too_big and meter.known >= size):
                break
            size = min(size, meter.known)
        if not meter.round((_SMALL,)).answered:
            return MtuResult(first_hop=first)
        if meter.round((size,)).answered:  # it was lost once: no black hole
            return MtuResult(mtu=size, first_hop=first, reported=size < first)
        return MtuResult(mtu=_search(meter, _SMALL, size), first_hop=first)


def _search(meter: _MtuMeter, low: int, high: int) -> int:
    """The largest size that is answered, `low` being answered and `high` not: a black hole."""
    meter.obey(_IGNORE_KERNEL)
    while high - low > 1:
        step = max(1, (high - low) // _AT_ONCE)
        sizes = tuple(range(low + step, high, step))
        answered = meter.round(sizes).answered
        low = max((low, *answered))
        high = min((high, *(x for x in sizes if x > low)))
    return low
