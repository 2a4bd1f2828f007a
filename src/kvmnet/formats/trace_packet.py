"""The packets that a trace sends, and how they and their answers are told from all others.

Each carries 32 random bits in a place that forwarding and NAT leave alone, and its number where
they are left alone too: IPv4's identification, IPv6's flow label, the data of an echo request.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_address
from itertools import pairwise

from kvmnet.formats.dns import NS, encode_query
from kvmnet.formats.ethernet import checksum
from kvmnet.model.trace import Flow, Packet, Pattern, Role, Word
from kvmnet.model.values import Ip

_TCP, _UDP, _ICMP, _ICMP6 = 6, 17, 1, 58
_TTL = 64
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
_LENGTH = {4: 20, 6: 40}
_TOKEN_AT = {"tcp": 4, "udp": 8, "icmp": 8}
"""Bytes from the begin of the transport header."""
_NAMES = {_TCP: "tcp", _UDP: "udp", _ICMP: "icmp", _ICMP6: "icmp"}
DNS = 53
_UNREACHABLE = {
    0: "network unreachable", 1: "host unreachable", 2: "protocol unreachable",
    3: "port unreachable", 4: "fragmentation needed", 9: "network prohibited",
    10: "host prohibited", 13: "administratively prohibited",
}  # fmt: skip
_UNREACHABLE6 = {
    0: "no route", 1: "administratively prohibited", 2: "beyond scope", 3: "address unreachable",
    4: "port unreachable", 5: "source policy", 6: "reject route",
}  # fmt: skip


def dns_token(random: int) -> int:
    """A token for queries to port 53: the id is random, the flags are those of a query."""
    return (random & 0xFFFF0000) | 0x0100


def encode(flow: Flow, number: int) -> bytes:
    """One IP packet of the flow."""
    body = _transport(flow, number)
    source, destination = ip_address(flow.source).packed, ip_address(flow.destination).packed
    protocol = _protocol(flow)
    if flow.family == 6:
        head = struct.pack("!IHBB", 6 << 28 | number, len(body), protocol, _TTL)
        return head + source + destination + body

    def header(check: int) -> bytes:
        return struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), number, 0, _TTL, protocol, check,
            source, destination,
        )  # fmt: skip

    return header(checksum(header(0))) + body


def _protocol(flow: Flow) -> int:
    return {"tcp": _TCP, "udp": _UDP, "icmp": _ICMP6 if flow.family == 6 else _ICMP}[flow.protocol]


def _transport(flow: Flow, number: int) -> bytes:
    def build(check: int) -> bytes:
        if flow.protocol == "tcp":
            options = struct.pack("!BBH", 2, 4, 1400 if flow.family == 4 else 1220)
            return (
                struct.pack("!HHIIBBHHH", flow.sport, flow.dport, flow.token, 0, 6 << 4, _SYN,
                            64240, check, 0) + options
            )  # fmt: skip
        if flow.protocol == "udp":
            data = _datagram(flow, number)
            return struct.pack("!HHHH", flow.sport, flow.dport, 8 + len(data), check) + data
        kind = 128 if flow.family == 6 else 8
        head = struct.pack("!BBHI", kind, 0, check, flow.token)
        return head + struct.pack("!II", flow.token, number) + b"kvmnet trace".ljust(40, b"\0")

    blank = build(0)
    pseudo = b"" if _protocol(flow) == _ICMP else _pseudo(flow, len(blank))
    return build(checksum(pseudo + blank) or (0xFFFF if flow.protocol == "udp" else 0))


def _datagram(flow: Flow, number: int) -> bytes:
    if flow.dport == DNS:
        return encode_query(flow.token >> 16, ".", NS)
    return struct.pack("!II", flow.token, number) + b"kvmnet trace"


def _pseudo(flow: Flow, length: int) -> bytes:
    """The pseudo-header of transport checksums (RFC 9293, 3.1; RFC 8200, 8.1)."""
    ends = ip_address(flow.source).packed + ip_address(flow.destination).packed
    layout = "!II" if flow.family == 6 else "!HH"
    if flow.family == 6:
        return ends + struct.pack(layout, length, _protocol(flow))
    return ends + struct.pack(layout, _protocol(flow), length)


def patterns(flow: Flow) -> tuple[Pattern, ...]:
    """What the flow's packets, the answers to it, and ICMP errors about it look like."""
    head, protocol = _LENGTH[flow.family], _protocol(flow)
    begin = _begin(flow.family, protocol)
    token = Word(offset=head + _TOKEN_AT[flow.protocol], value=flow.token)
    found = [
        Pattern(role="request", words=(*begin, *_kind(flow, head, request=True), token)),
        Pattern(role="reply", words=(*begin, *_answer(flow, head))),
    ]
    return (*found, *_errors(flow, head))


def _errors(flow: Flow, head: int) -> Iterator[Pattern]:
    """ICMP errors quote eight bytes of the transport header at least, most quote more."""
    begin = _begin(flow.family, _ICMP6 if flow.family == 6 else _ICMP)
    begin += _begin(flow.family, _protocol(flow), head + 8)
    quoted = 2 * head + 8
    ports = Word(offset=quoted, value=flow.sport << 16 | flow.dport)
    if flow.protocol == "udp":
        yield Pattern(role="error", words=(*begin, ports))
    at = _TOKEN_AT[flow.protocol] - (4 if flow.protocol == "icmp" else 0)
    yield Pattern(role="error", words=(*begin, Word(offset=quoted + at, value=flow.token)))


def _begin(family: int, protocol: int, at: int = 0) -> tuple[Word, ...]:
    """Version, length of the header and protocol."""
    if family == 6:
        return (
            Word(offset=at, value=0x60000000, mask=0xF0000000),
            Word(offset=at + 4, value=protocol << 8, mask=0xFF00),
        )
    return (
        Word(offset=at, value=0x45000000, mask=0xFF000000),
        Word(offset=at + 8, value=protocol << 16, mask=0xFF0000),
    )


def _kind(flow: Flow, head: int, *, request: bool) -> tuple[Word, ...]:
    """Echo requests and replies carry the same data: their type tells them apart."""
    if flow.protocol != "icmp":
        return ()
    kind = (128 if request else 129) if flow.family == 6 else (8 if request else 0)
    return (Word(offset=head, value=kind << 24, mask=0xFF000000),)


def _answer(flow: Flow, head: int) -> tuple[Word, ...]:
    if flow.protocol == "tcp":  # it acknowledges the SYN, RST too
        return (Word(offset=head + 8, value=(flow.token + 1) & 0xFFFFFFFF),)
    if flow.protocol == "udp":
        return (Word(offset=head, value=flow.dport << 16 | flow.sport),)
    return (*_kind(flow, head, request=False), Word(offset=head + 8, value=flow.token))


def decode(raw: bytes, wanted: tuple[Pattern, ...]) -> Packet | None:
    """The packet that begins with these bytes, if it belongs to the flow."""
    role = next((p.role for p in wanted if all(_fits(raw, w) for w in p.words)), None)
    if role is None:
        return None
    six = raw[0] >> 4 == 6
    head = 40 if six else 20
    protocol = raw[6] if six else raw[9]
    spots = (8, 24, 40) if six else (12, 16, 20)
    source, destination = (Ip(str(ip_address(raw[a:b]))) for a, b in pairwise(spots))
    sport, dport = struct.unpack_from("!HH", raw, head) if protocol in (_TCP, _UDP) else (0, 0)
    return Packet(
        role=role,
        source=source,
        destination=destination,
        protocol=_NAMES.get(protocol, str(protocol)),
        sport=sport,
        dport=dport,
        number=_number(raw, role, protocol, six=six),
        note=_note(raw, role, head, protocol),
    )


def _fits(raw: bytes, word: Word) -> bool:
    piece = raw[word.offset : word.offset + 4]
    return len(piece) == 4 and int.from_bytes(piece, "big") & word.mask == word.value


def _number(raw: bytes, role: Role, protocol: int, *, six: bool) -> int | None:
    if role == "request":
        return int.from_bytes(raw[1:4], "big") & 0xFFFFF if six else int.from_bytes(raw[4:6], "big")
    head = 40 if six else 20
    if role == "reply" and protocol in (_ICMP, _ICMP6) and len(raw) >= head + 16:
        return int.from_bytes(raw[head + 12 : head + 16], "big")
    if role == "error":
        inner = head + 8
        return int.from_bytes(raw[inner + 1 : inner + 4], "big") & 0xFFFFF if six else (
            int.from_bytes(raw[inner + 4 : inner + 6], "big"))  # fmt: skip
    return None


def _note(raw: bytes, role: Role, head: int, protocol: int) -> str:
    if role == "reply" and protocol == _TCP and len(raw) > head + 13:
        flags = raw[head + 13]
        return "RST" if flags & _RST else "SYN-ACK" if flags & _SYN else "ACK"
    if role == "reply" and protocol in (_ICMP, _ICMP6):
        return "echo reply"
    if role != "error":
        return ""
    kind, code = raw[head], raw[head + 1]
    if protocol == _ICMP:
        if kind == 3:
            return _UNREACHABLE.get(code, f"unreachable, code {code}")
        return {11: "time exceeded", 5: "redirect"}.get(kind, f"ICMP type {kind} code {code}")
    if kind == 1:
        return _UNREACHABLE6.get(code, f"unreachable, code {code}")
    return {2: "packet too big", 3: "time exceeded"}.get(kind, f"ICMPv6 type {kind} code {code}")
