"""Reaching things by IP, with the kernel's own stack: ping, DNS, TCP, path MTU."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from typing import NamedTuple

from kvmnet.adapters.packets import wait_readable, wait_writable
from kvmnet.formats import dns, icmp
from kvmnet.formats.icmp import Echo
from kvmnet.model.standin import ConnectResult, MtuResult, NameResult, PingResult
from kvmnet.model.values import Ip

_IP_MTU_DISCOVER, _IP_RECVERR, _IP_MTU = 10, 11, 14
_ASK_KERNEL, _IGNORE_KERNEL = 2, 3
"""IP_PMTUDISC_DO obeys the path MTU that the kernel has learned, IP_PMTUDISC_PROBE does not; both
forbid fragments (ip(7))."""
_HEADERS = 28
"""Bytes of the IPv4 and the ICMP header."""
_EMSGSIZE = 90
_AT_ONCE = 24
_SMALL = 64


def ping(ip: Ip, nic: str, lifeline: int | None, wait_s: float) -> PingResult:
    """Echo requests every 0.25 s until one is answered or the time is over."""
    begin = time.monotonic()
    end = begin + wait_s
    ident, sent, error = secrets.randbits(16), 0, ""
    with _echo_socket(ip) as sock:
        try:
            sock.connect(_address(ip, 0, nic))
        except OSError as problem:
            return PingResult(error=problem.strerror or str(problem))
        while (now := time.monotonic()) < end:
            sent += 1
            try:
                sock.send(_echo(ip, ident, sent))
                while wait_readable(sock, min(end, now + 0.25), lifeline):
                    if _answer(sock.recv(2048), ip, ident) is not None:
                        return PingResult(ms=(time.monotonic() - now) * 1000, sent=sent)
                    if time.monotonic() > end:
                        break
            except OSError as problem:
                error = problem.strerror or str(problem)
                wait_readable(sock, min(end, time.monotonic() + 0.1), lifeline)
    return PingResult(sent=sent, error=error)


def _echo_socket(ip: Ip) -> socket.socket:
    if ":" in ip:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    else:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    sock.setblocking(False)
    return sock


def _address(ip: Ip, port: int, nic: str) -> tuple[str, int] | tuple[str, int, int, int]:
    if ":" not in ip:
        return (ip, port)
    scope = socket.if_nametoindex(nic) if ip.startswith("fe80:") else 0
    return (ip, port, 0, scope)


def _echo(ip: Ip, ident: int, sequence: int, size: int = 56) -> bytes:
    kind = icmp.ECHO_REQUEST6 if ":" in ip else icmp.ECHO_REQUEST
    return icmp.encode_echo(Echo(type=kind, ident=ident, sequence=sequence, data=bytes(size)))


def _answer(raw: bytes, ip: Ip, ident: int) -> int | None:
    """The sequence number, if it is an answer to one of ours. IPv4 comes with its header."""
    body = raw if ":" in ip else raw[(raw[0] & 15) * 4 :] if raw else b""
    echo = icmp.decode_echo(body)
    kind = icmp.ECHO_REPLY6 if ":" in ip else icmp.ECHO_REPLY
    if echo is None or echo.type != kind or echo.ident != ident:
        return None
    return echo.sequence


def ask_name(server: Ip, name: str, nic: str, lifeline: int | None, wait_s: float) -> NameResult:
    """Ask for a name's addresses ("." asks for the root's servers), and the server for itself."""
    begin = time.monotonic()
    end = begin + wait_s
    ident = secrets.randbelow(0xFFFF)
    kinds = (dns.NS,) if name == "." else (dns.A, dns.AAAA)
    queries = {ident ^ n: dns.encode_query(ident ^ n, name, kind) for n, kind in enumerate(kinds)}
    own = ident ^ 0x8000
    queries[own] = dns.encode_query(own, "version.bind", dns.TXT, klass=dns.CHAOS)
    state = _Names(own, len(kinds))
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(_address(server, 53, nic))
            while (now := time.monotonic()) < end and not state.complete:
                for query in queries.values():
                    sock.send(query)
                until = min(end, now + 1.0)
                while not state.complete and wait_readable(sock, until, lifeline):
                    answer = dns.decode_answer(sock.recv(4096))
                    if answer is not None and answer.id in queries:
                        state.add(answer, (time.monotonic() - begin) * 1000)
        except OSError as problem:
            state.error = problem.strerror or str(problem)
    return state.result()


class _Names:
    """Answers as they come in."""

    def __init__(self, own: int, wanted: int) -> None:
        self._own = own
        self._wanted = wanted
        self._answers: dict[int, dns.DnsAnswer] = {}
        self._alive_ms: float | None = None
        self._ms: float | None = None
        self.error = ""

    def add(self, answer: dns.DnsAnswer, ms: float) -> None:
        self._alive_ms = ms if self._alive_ms is None else self._alive_ms
        if answer.id != self._own:
            self._answers[answer.id] = answer
            self._ms = ms

    @property
    def complete(self) -> bool:
        return len(self._answers) >= self._wanted

    def result(self) -> NameResult:
        answers = list(self._answers.values())
        good = [x for x in answers if x.rcode == 0] or answers
        found = sorted((ip for x in answers for ip in x.addresses), key=lambda ip: ":" in ip)
        return NameResult(
            alive_ms=self._alive_ms,
            ms=self._ms,
            code=good[0].code if good else "",
            addresses=tuple(found),
            error=self.error,
        )


def connect(ip: Ip, port: int, nic: str, lifeline: int | None, wait_s: float) -> ConnectResult:
    """A TCP connection, closed at once."""
    begin = time.monotonic()
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        code = sock.connect_ex(_address(ip, port, nic))
        if code == 115:  # EINPROGRESS
            if not wait_writable(sock, begin + wait_s, lifeline):
                return ConnectResult(error=f"no answer within {wait_s:g} s")
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            return ConnectResult(error=os.strerror(code))
        return ConnectResult(ms=(time.monotonic() - begin) * 1000)


class _Round(NamedTuple):
    answered: tuple[int, ...]
    too_big: bool


class _MtuMeter:
    """Echo requests of given packet sizes that may not be fragmented, to one IPv4 address."""

    def __init__(self, sock: socket.socket, ip: Ip, lifeline: int, wait_s: float) -> None:
        self._socket = sock
        self._ip = ip
        self._lifeline = lifeline
        self._wait_s = wait_s
        self._ident = secrets.randbits(16)

    def obey(self, mode: int) -> None:
        self._socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, mode)

    @property
    def known(self) -> int:
        """What the kernel takes for the path's MTU now."""
        return self._socket.getsockopt(socket.IPPROTO_IP, _IP_MTU)

    def round(self, sizes: tuple[int, ...]) -> _Round:
        """Send all sizes at once. Once one is answered the others get four times as long."""
        answered: set[int] = set()
        too_big = False
        begin = time.monotonic()
        end = begin + self._wait_s
        try:
            for size in sizes:
                self._socket.send(_echo(self._ip, self._ident, size, size - _HEADERS))
            while len(answered) < len(sizes) and wait_readable(self._socket, end, self._lifeline):
                size_back = _answer(self._socket.recv(65536), self._ip, self._ident)
                now = time.monotonic()
                if size_back in sizes and size_back is not None:
                    answered.add(size_back)
                    end = min(end, now + max(0.1, 4 * (now - begin)))
                if now > begin + self._wait_s:
                    break
        except OSError as problem:
            too_big = problem.errno == _EMSGSIZE
        return _Round(tuple(answered), too_big)


def measure_mtu(ip: Ip, lifeline: int, wait_s: float) -> MtuResult:
    """The largest packet that reaches an IPv4 address and comes back, without fragments."""
    with contextlib.closing(_echo_socket(ip)) as sock:
        meter = _MtuMeter(sock, ip, lifeline, wait_s)
        meter.obey(_ASK_KERNEL)
        try:
            sock.connect((ip, 0))
        except OSError:
            return MtuResult()
        first = size = meter.known
        for _ in range(8):
            outcome = meter.round((size,))
            if outcome.answered:
                return MtuResult(mtu=size, first_hop=first, reported=size < first)
            if not outcome.too_big and meter.known >= size:
                break
            size = min(size, meter.known)
        if not meter.round((_SMALL,)).answered:
            return MtuResult(first_hop=first)
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
