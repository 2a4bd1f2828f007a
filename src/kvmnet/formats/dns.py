"""DNS questions and answers (RFC 1035), as much as a probe needs."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from msgspec import Struct

from kvmnet.model.values import Ip

A, NS, TXT, AAAA = 1, 2, 16, 28
INTERNET, CHAOS = 1, 3

RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


class DnsAnswer(Struct, frozen=True, kw_only=True):
    """The answer's code and the addresses in its answer section."""

    id: int
    rcode: int
    truncated: bool = False
    addresses: tuple[Ip, ...] = ()

    @property
    def code(self) -> str:
        return RCODES.get(self.rcode, f"RCODE{self.rcode}")


def encode_query(ident: int, name: str, kind: int, *, klass: int = INTERNET) -> bytes:
    """One question, recursion desired. `name`: labels of 1 to 63 ASCII bytes, "." is the root."""
    labels = [label.encode("ascii") for label in name.rstrip(".").split(".") if label]
    question = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return (
        struct.pack("!HHHHHH", ident, 0x0100, 1, 0, 0, 0)
        + question
        + struct.pack("!HH", kind, klass)
    )


def decode_answer(raw: bytes) -> DnsAnswer | None:
    """An answer, or None where it is none. Records that are cut off are left out."""
    if len(raw) < 12:
        return None
    ident, flags, questions, answers, _, _ = struct.unpack("!HHHHHH", raw[:12])
    if not flags & 0x8000:
        return None
    at: int | None = 12
    for _ in range(questions):
        at = _skip_name(raw, at)
        at = None if at is None else at + 4
    return DnsAnswer(
        id=ident,
        rcode=flags & 15,
        truncated=bool(flags & 0x0200),
        addresses=_addresses(raw, at, answers),
    )


def _addresses(raw: bytes, at: int | None, count: int) -> tuple[Ip, ...]:
    found: list[Ip] = []
    for _ in range(count):
        at = _skip_name(raw, at)
        if at is None or at + 10 > len(raw):
            break
        kind, klass, _, length = struct.unpack("!HHIH", raw[at : at + 10])
        data = raw[at + 10 : at + 10 + length]
        at += 10 + length
        if klass == INTERNET and kind == A and len(data) == 4:
            found.append(Ip(str(IPv4Address(data))))
        elif klass == INTERNET and kind == AAAA and len(data) == 16:
            found.append(Ip(str(IPv6Address(data))))
    return tuple(found)


def _skip_name(raw: bytes, at: int | None) -> int | None:
    """The place after a name; None if it runs out of the message."""
    while at is not None and at < len(raw):
        length = raw[at]
        if length == 0:
            return at + 1
        if length & 0xC0 == 0xC0:  # a pointer ends the name
            return at + 2
        at += 1 + length
    return None
