"""Reaching things by IP, with the kernel's own stack: ping, DNS, TCP."""

from __future__ import annotations

import contextlib
import os
import socket
import time

from kvmnet.adapters.packets import LATE_S, wait_readable, wait_writable
from kvmnet.formats import dns, icmp
from kvmnet.formats.icmp import Echo
from kvmnet.model.reached import ConnectResult, NameResult, PingResult
from kvmnet.model.values import Ip

_IP_RECVERR, _IPV6_RECVERR = 11, 25
_PAUSE_S = 0.05
_ECONNREFUSED = 111
"""What an ICMP "port unreachable" becomes: to an echo request only a firewall answers with it."""
_REFUSED_OFTEN = 2


def ping(ip: Ip, nic: str, lifeline: int | None, wait_s: float) -> PingResult:
    """Echo requests every 0.25 s until one is answered, two are refused or the time is over."""
    begin = time.monotonic()
    end = begin + wait_s
    ident, sent, error, refused = random16(), 0, "", 0
    with echo_socket(ip) as sock:
        try:
            sock.connect(address(ip, 0, nic))
        except OSError as problem:
            return PingResult(error=problem.strerror or str(problem))
        while (now := time.monotonic()) < end:
            sent += 1
            try:
                sock.send(echo(ip, ident, sent))
                while wait_readable(sock, min(end, now + 0.25), lifeline):
                    if answer_to(sock.recv(2048), ip, ident) is not None:
                        return PingResult(ms=(time.monotonic() - now) * 1000, sent=sent)
                    if time.monotonic() > end:
                        break
            except BlockingIOError:  # woken by what a router said, which was told already
                drain_errors(sock)
            except OSError as problem:
                error = problem.strerror or str(problem)
                refused += problem.errno == _ECONNREFUSED
                if refused == _REFUSED_OFTEN:
                    break
                time.sleep(_PAUSE_S)  # a socket with an error is readable at once
    return PingResult(sent=sent, error=error)


def drain_errors(sock: socket.socket) -> None:
    """Take what routers said off the queue: it would wake every poll as long as it lies there."""
    with contextlib.suppress(OSError):
        while True:
            sock.recvmsg(1, 512, socket.MSG_ERRQUEUE)


def random16() -> int:
    """Of the kernel's own: Python's `secrets` imports a library of hashes to get there."""
    return int.from_bytes(os.urandom(2))


def echo_socket(ip: Ip) -> socket.socket:
    """A raw socket for ICMP or ICMPv6, which hears of errors on the way."""
    if ":" in ip:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
    else:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    sock.setblocking(False)
    return sock


def address(ip: Ip, port: int, nic: str) -> tuple[str, int] | tuple[str, int, int, int]:
    """As sockets want it: a link-local address needs the NIC."""
    if ":" not in ip:
        return (ip, port)
    scope = socket.if_nametoindex(nic) if ip.startswith("fe80:") else 0
    return (ip, port, 0, scope)


def echo(ip: Ip, ident: int, sequence: int, size: int = 56) -> bytes:
    """An echo request with `size` bytes of data."""
    kind = icmp.ECHO_REQUEST6 if ":" in ip else icmp.ECHO_REQUEST
    return icmp.encode_echo(
        Echo(type=kind, ident=ident, sequence=sequence & 0xFFFF, data=bytes(size))
    )


def answer_to(raw: bytes, ip: Ip, ident: int) -> int | None:
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
    ident = random16()
    kinds = (dns.NS,) if name == "." else (dns.A, dns.AAAA)
    queries = {ident ^ n: dns.encode_query(ident ^ n, name, kind) for n, kind in enumerate(kinds)}
    own = ident ^ 0x8000
    queries[own] = dns.encode_query(own, "version.bind", dns.TXT, klass=dns.CHAOS)
    state = _Names(own, len(kinds))
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(address(server, 53, nic))
            while (now := time.monotonic()) < end and not state.complete:
                for query in queries.values():
                    with contextlib.suppress(BlockingIOError):  # no room now: asked again later
                        sock.send(query)
                until = min(end, now + 1.0)
                while not state.complete and wait_readable(sock, until, lifeline):
                    if time.monotonic() >= until + LATE_S:
                        break
                    try:
                        answer = dns.decode_answer(sock.recv(4096))
                    except BlockingIOError:  # woken, and there is nothing (any more)
                        continue
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
        code = sock.connect_ex(address(ip, port, nic))
        if code == 115:  # EINPROGRESS
            if not wait_writable(sock, begin + wait_s, lifeline):
                return ConnectResult(error=f"no answer within {wait_s:g} s")
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            return ConnectResult(error=os.strerror(code))
        return ConnectResult(ms=(time.monotonic() - begin) * 1000)
