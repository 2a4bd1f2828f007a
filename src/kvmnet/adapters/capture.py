"""Sees packets of a trace on every link of the host at once, and no other packet."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
import time

from kvmnet.adapters.packets import ALL_PROTOCOLS
from kvmnet.errors import Failed, PermissionDenied
from kvmnet.formats.capture_filter import instructions
from kvmnet.formats.ethernet import mac_text
from kvmnet.formats.trace_packet import decode
from kvmnet.model.trace import Pattern, Sighting

_SO_ATTACH_FILTER = 26
_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33
_OUTGOING, _ETHERNET, _LOOPBACK = 4, 1, 772
_VLAN_TAGS = frozenset({b"\x81\x00", b"\x88\xa8"})


class Capture:
    """All packets that fit a pattern, on all links, until closed. It ends with this process.

    Raises `PermissionDenied`, `Failed`.
    """

    def __init__(self, patterns: tuple[Pattern, ...]) -> None:
        self._patterns = patterns
        self._wall = time.time_ns() - time.monotonic_ns()
        code = instructions(patterns)
        self._code = ctypes.create_string_buffer(code, len(code))
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except PermissionError:
            raise PermissionDenied(
                "packets can not be watched", why="only root may", hint="run it again with sudo"
            ) from None
        try:
            program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(self._code))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            with contextlib.suppress(PermissionError):
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 20)
            self._socket.setblocking(False)
            self._bind_to_all()
        except OSError as error:
            self._socket.close()
            raise Failed("packets can not be watched", why=error.strerror or "") from None

    def _bind_to_all(self) -> None:
        """Listen on all links. The filter has to stand before, and Python binds to one link."""
        protocol = socket.htons(ALL_PROTOCOLS)
        address = struct.pack("=HHiHBB8x", socket.AF_PACKET, protocol, 0, 0, 0, 0)
        if ctypes.CDLL(None, use_errno=True).bind(self.fileno(), address, len(address)) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def take(self) -> list[Sighting]:
        """What was seen since the last call, at most a few hundred."""
        found: list[Sighting] = []
        for _ in range(512):
            try:
                raw, extra, _, address = self._socket.recvmsg(512, 256)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENETDOWN:  # one of all links went away or down
                    raise Failed("packets can not be read", why=error.strerror or "") from None
                continue
            seen = self._sighting(raw, extra, address)
            if seen is not None:
                found.append(seen)
        return found

    def _sighting(
        self, raw: bytes, extra: list[tuple[int, int, bytes]], address: tuple[str, int, int, int]
    ) -> Sighting | None:
        link, _, kind, hardware = address[:4]
        ethernet = hardware in (_ETHERNET, _LOOPBACK)
        start = 14 if ethernet else 0
        while ethernet and raw[start - 2 : start] in _VLAN_TAGS:
            start += 4
        packet = decode(raw[start:], self._patterns)
        if packet is None:
            return None
        return Sighting(
            at=self._time(extra),
            link=link,
            out=kind == _OUTGOING,
            packet=packet,
            mac_from=mac_text(raw[6:12]) if hardware == _ETHERNET else None,
            mac_to=mac_text(raw[:6]) if hardware == _ETHERNET else None,
        )

    def _time(self, extra: list[tuple[int, int, bytes]]) -> float:
        for level, kind, data in extra:
            if (level, kind, len(data)) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS, 16):
                seconds, nanoseconds = struct.unpack("qq", data)
                at: int = seconds * 1_000_000_000 + nanoseconds - self._wall
                return at / 1e9
        return time.monotonic()
