"""DHCPv6 messages between a client and a server next door (RFC 8415, DNS servers of RFC 3646)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ipaddress import IPv6Address

from msgspec import Struct

from kvmnet.formats.ethernet import mac_bytes
from kvmnet.model.values import Ip, Mac

SOLICIT, ADVERTISE, REQUEST = 1, 2, 3
REPLY, RELEASE, INFORMATION_REQUEST = 7, 8, 11
CLIENT_PORT = 546
SERVER_PORT = 547
SERVERS = Ip("ff02::1:2")
"""All servers and relays next door."""

CLIENT_ID, SERVER_ID, IA_NA, IA_ADDRESS, WANTED, ELAPSED = 1, 2, 3, 5, 6, 8
STATUS, DNS_SERVERS = 13, 23

STATUS_WORDS: Mapping[int, str] = {
    1: "unspecified failure",
    2: "no addresses available",
    3: "no binding",
    4: "not on link",
    5: "use multicast",
}


class Dhcp6Address(Struct, frozen=True, kw_only=True):
    """An address as the server lends it."""

    ip: Ip
    valid_s: int


class Dhcp6Message(Struct, frozen=True, kw_only=True):
    """One message as a client understands it."""

    type: int
    transaction: int
    """24 bits."""
    client_id: bytes = b""
    server_id: bytes = b""
    addresses: tuple[Dhcp6Address, ...] = ()
    dns: tuple[Ip, ...] = ()
    refusal: str = ""
    """Why there is no address: the status that is not success, with the server's words."""


def duid(mac: Mac) -> bytes:
    """A client's identifier made of its MAC (DUID-LL)."""
    return struct.pack("!HH", 3, 1) + mac_bytes(mac)


def encode(
    kind: int, transaction: int, mac: Mac, *, server_id: bytes = b"", ip: Ip | None = None,
    with_address: bool = True,
) -> bytes:  # fmt: skip
    """A client's message; `ip` is the address asked for or given back."""
    options = _option(CLIENT_ID, duid(mac)) + _option(ELAPSED, bytes(2))
    if server_id:
        options += _option(SERVER_ID, server_id)
    if with_address:
        inner = b"" if ip is None else _option(IA_ADDRESS, IPv6Address(ip).packed + bytes(8))
        options += _option(IA_NA, mac_bytes(mac)[2:] + bytes(8) + inner)
    options += _option(WANTED, struct.pack("!H", DNS_SERVERS))
    return struct.pack("!I", kind << 24 | transaction) + options


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("!HH", code, len(value)) + value


def decode(raw: bytes) -> Dhcp6Message | None:
    """A message, or None if it is not whole."""
    if len(raw) < 4:
        return None
    options = _options(raw[4:])
    if options is None:
        return None
    inner = [_options(x[12:]) for x in options.get(IA_NA, ()) if len(x) >= 12]
    groups = [options, *(x for x in inner if x is not None)]
    return Dhcp6Message(
        type=raw[0],
        transaction=int.from_bytes(raw[1:4], "big"),
        client_id=options.get(CLIENT_ID, [b""])[0],
        server_id=options.get(SERVER_ID, [b""])[0],
        addresses=tuple(
            Dhcp6Address(ip=_ip(x[:16]), valid_s=int.from_bytes(x[20:24], "big"))
            for group in groups[1:]
            for x in group.get(IA_ADDRESS, ())
            if len(x) >= 24
        ),
        dns=tuple(
            _ip(x[at : at + 16])
            for x in options.get(DNS_SERVERS, ())
            for at in range(0, len(x) - 15, 16)
        ),
        refusal=next((x for group in groups for x in _refusals(group)), ""),
    )


def _options(raw: bytes) -> dict[int, list[bytes]] | None:
    """Options by number; some come several times."""
    found: dict[int, list[bytes]] = {}
    at = 0
    while at < len(raw):
        if at + 4 > len(raw):
            return None
        code, length = struct.unpack("!HH", raw[at : at + 4])
        if at + 4 + length > len(raw):
            return None
        found.setdefault(code, []).append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def _refusals(options: Mapping[int, list[bytes]]) -> list[str]:
    said = []
    for raw in options.get(STATUS, ()):
        code = int.from_bytes(raw[:2], "big")
        if len(raw) >= 2 and code:
            words = raw[2:].decode("utf-8", "backslashreplace")
            meaning = STATUS_WORDS.get(code, f"status {code}")
            said.append(f"{meaning}: {words}" if words else meaning)
    return said


def _ip(raw: bytes) -> Ip:
    return Ip(str(IPv6Address(raw)))
