"""The kernel's answer to RTM_GETLINK, for what `ip` does not print, or takes too long to start for;
and what it says by itself of changes.

Facts: linux/rtnetlink.h, linux/if_link.h (IFLA_BR_MCAST_QUERIER_STATE, since Linux 5.16).
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator

_HEADER = struct.Struct("=IHHII")
_IFINFO_LEN = 16
_ATTRIBUTE = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF
NEWLINK, DONE, ERROR = 16, 3, 2
_GETLINK, _REQUEST_DUMP = 18, 0x301
_IFNAME, _LINKINFO, _INFO_DATA = 3, 18, 2
_REQUEST = 1
_OPERSTATE, _UP = 16, b"\x06"
"""IFLA_OPERSTATE, and IF_OPER_UP of it (RFC 2863, ifOperStatus)."""
_QUERIER_INTERVAL, _QUERIER_STATE = 32, 47
_IPV6_ADDRESS, _IPV6_OTHER_TIMER = 5, 7
_ANSWERING = 1000
"""Hundredths of a second that listeners take to answer (RFC 2710, Query Response Interval)."""
GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE: who listens there is told."""
_CHANGES = frozenset({NEWLINK, 17, 21, 25})
"""RTM_NEWLINK (a link that is no port any more, too), RTM_DELLINK, RTM_DELADDR, RTM_DELROUTE."""


def link_request() -> bytes:
    """The question for all links."""
    return _HEADER.pack(_HEADER.size + _IFINFO_LEN, _GETLINK, _REQUEST_DUMP, 1, 0) + bytes(
        _IFINFO_LEN
    )


def one_link_request(index: int) -> bytes:
    """The question for the link with that number (struct ifinfomsg)."""
    body = struct.pack("=BxHiII", 0, 0, index, 0, 0)
    return _HEADER.pack(_HEADER.size + len(body), _GETLINK, _REQUEST, 1, 0) + body


def is_operating(data: bytes) -> bool | None:
    """Whether the link of the answer is up and carries; None: the answer is an error."""
    for kind, body in _messages(data):
        if kind == NEWLINK:
            return dict(_attributes(body[_IFINFO_LEN:])).get(_OPERSTATE) == _UP
    return None


def is_last(data: bytes) -> bool:
    """Whether the answer ends in this datagram."""
    return any(kind in {DONE, ERROR} for kind, _ in _messages(data))


def takes_away(data: bytes) -> bool:
    """Whether one of the messages says that something is gone, or that a link is another."""
    return any(kind in _CHANGES for kind, _ in _messages(data))


def bridges_with_querier6(data: bytes) -> tuple[str, ...]:
    """The bridges of the answer on which somebody asks for IPv6 listeners (MLD).

    Not while listeners may still be answering the last question: until then a bridge that has
    not been asked before floods as if there were no querier.
    """
    found = []
    for kind, body in _messages(data):
        if kind != NEWLINK:
            continue
        link = dict(_attributes(body[_IFINFO_LEN:]))
        details = dict(_attributes(link.get(_LINKINFO, b"")))
        settings = dict(_attributes(details.get(_INFO_DATA, b"")))
        state = dict(_attributes(settings.get(_QUERIER_STATE, b"")))
        left, whole = state.get(_IPV6_OTHER_TIMER), settings.get(_QUERIER_INTERVAL)
        if left is not None and whole is not None:
            asks = _number(whole) - _number(left) >= _ANSWERING
        else:  # a bridge that is to ask itself but has no address to ask from does not
            asks = any(state.get(_IPV6_ADDRESS, b""))
        if asks:
            found.append(link.get(_IFNAME, b"").rstrip(b"\0").decode("utf-8", "replace"))
    return tuple(found)


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        if length < _HEADER.size or length > len(data):
            return
        yield kind, data[_HEADER.size : length]
        data = data[_aligned(length) :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size or length > len(data):
            return
        yield kind & _TYPE_MASK, data[_ATTRIBUTE.size : length]
        data = data[_aligned(length) :]


def _aligned(length: int) -> int:
    return (length + 3) & ~3
