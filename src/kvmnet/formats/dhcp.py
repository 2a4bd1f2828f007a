"""DHCP messages (RFC 2131, options of RFC 2132 and RFC 3442)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ipaddress import IPv4Address

from msgspec import Struct

from kvmnet.formats.ethernet import ipv4_bytes, ipv4_text, mac_bytes, mac_text
from kvmnet.model.values import Ip, Mac

DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE = range(1, 8)
CLIENT_PORT = 68
SERVER_PORT = 67
NO_IP = Ip("0.0.0.0")

_COOKIE = b"\x63\x82\x53\x63"
_FIXED = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")

SUBNET_MASK = 1
ROUTER = 3
DNS_SERVERS = 6
DOMAIN_NAME = 15
INTERFACE_MTU = 26
REQUESTED_IP = 50
LEASE_TIME = 51
OVERLOAD = 52
MESSAGE_TYPE = 53
SERVER_ID = 54
PARAMETERS = 55
MESSAGE = 56
MAX_SIZE = 57
VENDOR_CLASS = 60
CLIENT_ID = 61
CLASSLESS_ROUTES = 121

_WANTED = bytes(
    [SUBNET_MASK, ROUTER, DNS_SERVERS, DOMAIN_NAME, INTERFACE_MTU, 28, LEASE_TIME, 119,
     CLASSLESS_ROUTES]
)  # fmt: skip


class DhcpMessage(Struct, frozen=True, kw_only=True):
    """One message; `options` maps option numbers to their raw values."""

    type: int
    xid: int
    client_mac: Mac
    secs: int = 0
    reply: bool = False
    """A server's message (BOOTREPLY)."""
    ciaddr: Ip = NO_IP
    yiaddr: Ip = NO_IP
    options: Mapping[int, bytes] = {}

    def ip(self, option: int) -> Ip | None:
        """The first address of an option."""
        found = self.ips(option)
        return found[0] if found else None

    def ips(self, option: int) -> tuple[Ip, ...]:
        raw = self.options.get(option, b"")
        return tuple(ipv4_text(raw[i : i + 4]) for i in range(0, len(raw) - 3, 4))

    def number(self, option: int) -> int | None:
        raw = self.options.get(option)
        return int.from_bytes(raw, "big") if raw else None

    def text(self, option: int) -> str | None:
        raw = self.options.get(option)
        return raw.rstrip(b"\0").decode("utf-8", "backslashreplace") if raw else None


def discover(xid: int, mac: Mac, *, secs: int, lease_s: int) -> DhcpMessage:
    return _from_client(DISCOVER, xid, mac, secs, {LEASE_TIME: struct.pack("!I", lease_s)})


def request(offer: DhcpMessage, *, secs: int, lease_s: int) -> DhcpMessage:
    """Accept an offer (RFC 2131 4.3.2, in state SELECTING)."""
    options = {
        REQUESTED_IP: ipv4_bytes(offer.yiaddr),
        SERVER_ID: offer.options[SERVER_ID],
        LEASE_TIME: struct.pack("!I", lease_s),
    }
    return _from_client(REQUEST, offer.xid, offer.client_mac, secs, options)


def release(xid: int, mac: Mac, ip: Ip, server: Ip) -> DhcpMessage:
    """Give the address back (RFC 2131 4.4.6); nobody answers this."""
    return DhcpMessage(
        type=RELEASE,
        xid=xid,
        client_mac=mac,
        ciaddr=ip,
        options={CLIENT_ID: b"\x01" + mac_bytes(mac), SERVER_ID: ipv4_bytes(server)},
    )


def _from_client(
    kind: int, xid: int, mac: Mac, secs: int, more: Mapping[int, bytes]
) -> DhcpMessage:
    options = {
        CLIENT_ID: b"\x01" + mac_bytes(mac),
        MAX_SIZE: struct.pack("!H", 1472),
        VENDOR_CLASS: b"kvmnet",
        PARAMETERS: _WANTED,
        **more,
    }
    return DhcpMessage(type=kind, xid=xid, client_mac=mac, secs=secs, options=options)


def encode(message: DhcpMessage) -> bytes:
    """The message as a UDP payload, at least 300 bytes long as BOOTP relays expect it."""
    fixed = _FIXED.pack(
        2 if message.reply else 1, 1, 6, 0, message.xid, min(message.secs, 0xFFFF), 0,
        ipv4_bytes(message.ciaddr), ipv4_bytes(message.yiaddr), bytes(4), bytes(4),
        mac_bytes(message.client_mac), b"", b"",
    )  # fmt: skip
    options = {MESSAGE_TYPE: bytes([message.type]), **message.options}
    body = b"".join(bytes([code, len(value)]) + value for code, value in options.items())
    return (fixed + _COOKIE + body + b"\xff").ljust(300, b"\0")


def decode(raw: bytes) -> DhcpMessage | None:
    """A DHCP message, or None if it is not one."""
    if len(raw) < _FIXED.size + 4 or raw[_FIXED.size : _FIXED.size + 4] != _COOKIE:
        return None
    op, htype, hlen, _, xid, secs, _, ci, yi, _, _, chaddr, sname, file = _FIXED.unpack(
        raw[: _FIXED.size]
    )
    if op not in (1, 2) or (htype, hlen) != (1, 6):
        return None
    options = _options(raw[_FIXED.size + 4 :])
    overload = int.from_bytes(options.get(OVERLOAD, b""), "big")
    if overload & 1:
        options = {**_options(file), **options}
    if overload & 2:
        options = {**_options(sname), **options}
    kind = options.pop(MESSAGE_TYPE, b"")
    if len(kind) != 1:
        return None
    return DhcpMessage(
        type=kind[0], xid=xid, client_mac=mac_text(chaddr[:6]), secs=secs, reply=op == 2,
        ciaddr=ipv4_text(ci), yiaddr=ipv4_text(yi), options=options,
    )  # fmt: skip


def _options(raw: bytes) -> dict[int, bytes]:
    """Options by number; one that comes in several pieces is joined (RFC 3396)."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(raw) and raw[at] != 255:
        if raw[at] == 0:
            at += 1
            continue
        if at + 1 >= len(raw) or at + 2 + raw[at + 1] > len(raw):
            break
        code, length = raw[at], raw[at + 1]
        found[code] = found.get(code, b"") + raw[at + 2 : at + 2 + length]
        at += 2 + length
    return found


def prefix_len(message: DhcpMessage) -> int:
    """Length of the subnet mask; 32 where it is missing or not a mask."""
    raw = message.options.get(SUBNET_MASK, b"")
    if len(raw) != 4:
        return 32
    mask = int.from_bytes(raw, "big")
    length = mask.bit_count()
    return length if mask == (0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF else 32


def default_router(message: DhcpMessage) -> Ip | None:
    """The default route of option 121, which overrides option 3 where both came (RFC 3442)."""
    raw = message.options.get(CLASSLESS_ROUTES)
    if raw is None:
        return message.ip(ROUTER)
    at = 0
    while at < len(raw):
        width = raw[at]
        octets = (width + 7) // 8
        gateway = raw[at + 1 + octets : at + 5 + octets]
        if width > 32 or len(gateway) < 4:
            return None
        if width == 0 and IPv4Address(gateway) != IPv4Address(NO_IP):
            return ipv4_text(gateway)
        at += 5 + octets
    return None
