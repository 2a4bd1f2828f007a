"""Sees every DHCP packet on every link of the host, and nothing else, until it is closed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from types import TracebackType

from kvmnet.adapters.packets import ALL_PROTOCOLS
from kvmnet.errors import Failed, PermissionDenied
from kvmnet.formats import dhcp_seen
from kvmnet.model.dhcp_seen import DhcpSeen

_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_OUTGOING = 4
_BUFFER = 4 << 20
"""Bytes that the kernel keeps until they are read: some thousand packets."""


class DhcpWatch:
    """Packets from when it is made until it is closed; nothing is read before `seen` is called.

    It ends with this process. Raises `PermissionDenied`, `Failed`.
    """

    def __init__(self) -> None:
        code = dhcp_seen.filter_code()
        self._code = ctypes.create_string_buffer(code, len(code))
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except PermissionError:
            raise PermissionDenied(
                "DHCP packets can not be watched", why="only root may", hint="run it with sudo"
            ) from None
        try:
            program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(self._code))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
            with contextlib.suppress(PermissionError):
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            self._socket.setblocking(False)
            self._bind_to_all()
        except OSError as error:
            self._socket.close()
            raise Failed("DHCP packets can not be watched", why=error.strerror or "") from None

    def _bind_to_all(self) -> None:
        """Listen on all links. The filter has to stand before, and Python binds to one link."""
        protocol = socket.htons(ALL_PROTOCOLS)
        address = struct.pack("=HHiHBB8x", socket.AF_PACKET, protocol, 0, 0, 0, 0)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.bind(self._socket.fileno(), address, len(address)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def __enter__(self) -> DhcpWatch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def seen(self) -> tuple[DhcpSeen, ...]:
        """What passed since it was made, in its order."""
        found: list[DhcpSeen] = []
        while True:
            try:
                frame, address = self._socket.recvfrom(65535)
            except BlockingIOError:
                return tuple(found)
            except OSError:  # a link went away
                continue
            packet = dhcp_seen.parse(frame, str(address[0]), out=address[2] == _OUTGOING)
            if packet is not None:
                found.append(packet)
