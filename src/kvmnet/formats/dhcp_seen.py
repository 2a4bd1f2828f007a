"""Frames with DHCP packets (RFC 2131), as far as telling whose they are and which way they go."""

from __future__ import annotations

import struct

from kvmnet.formats.ethernet import ipv4_text, mac_text
from kvmnet.model.dhcp_seen import DhcpSeen

_ETHERNET, _BOOTP, _CHADDR = 14, 8, 28
_IPV4, _UDP, _REPLY = 0x0800, 17, 2

_LOAD_HALF, _LOAD_BYTE, _LOAD_HALF_X, _LOAD_HEADER = 0x28, 0x30, 0x48, 0xB1
_JUMP_EQUAL, _JUMP_BITS, _RETURN = 0x15, 0x45, 0x06


def filter_code() -> bytes:
    """A classic BPF program (kernel: Documentation/networking/filter.rst): UDP to port 67 or 68."""
    program = (
        (_LOAD_HALF, 0, 0, 12),
        (_JUMP_EQUAL, 0, 8, _IPV4),
        (_LOAD_BYTE, 0, 0, 23),
        (_JUMP_EQUAL, 0, 6, _UDP),
        (_LOAD_HALF, 0, 0, 20),
        (_JUMP_BITS, 4, 0, 0x1FFF),  # a fragment has no ports
        (_LOAD_HEADER, 0, 0, 14),
        (_LOAD_HALF_X, 0, 0, 16),
        (_JUMP_EQUAL, 2, 0, 67),
        (_JUMP_EQUAL, 1, 0, 68),
        (_RETURN, 0, 0, 0),
        (_RETURN, 0, 0, 0x40000),
    )
    return b"".join(struct.pack("=HBBI", *x) for x in program)


def parse(frame: bytes, link: str, *, out: bool) -> DhcpSeen | None:
    """What the frame is; None: no DHCP packet over Ethernet."""
    if len(frame) < _ETHERNET + 20 or frame[12:14] != b"\x08\x00":
        return None
    start = _ETHERNET + 4 * (frame[_ETHERNET] & 0x0F) + _BOOTP
    message = frame[start:]
    if frame[_ETHERNET + 9] != _UDP or len(message) < _CHADDR + 16 or message[2] != 6:
        return None
    return DhcpSeen(
        mac=mac_text(message[_CHADDR : _CHADDR + 6]),
        link=link,
        out=out,
        reply=message[0] == _REPLY,
        source=ipv4_text(frame[_ETHERNET + 12 : _ETHERNET + 16]),
    )
