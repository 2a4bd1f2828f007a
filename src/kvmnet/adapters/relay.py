"""Takes what the host sends out through a NIC to one machine that is not really behind it.

A stand-in whose frames come in through a NIC (`StandIn.aim_at`) hears nothing of the answers: they
leave through that NIC. The relay copies them to the stand-in's cable. They leave all the same: the
questions of the host's ARP are heard on the LAN, and nobody but the stand-in answers them.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from types import TracebackType

from kvmnet.adapters.packets import ALL_PROTOCOLS, wait_readable
from kvmnet.errors import Failed, PermissionDenied
from kvmnet.formats.ethernet import mac_bytes
from kvmnet.model.values import Mac

_SOL_PACKET = 263
_PACKET_VNET_HDR = 15
"""Frames come and go with what is left to the hardware: checksums, segments (packet(7))."""
_VNET_BYTES = 10
_OUTGOING = 4
_LOOK_S = 0.1
"""How soon it notices that it is to end."""


class Relay:
    """A context in which the frames are copied, by a thread of its own."""

    def __init__(self, nic: str, cable: str, mac: Mac) -> None:
        self._mac = mac_bytes(mac)
        self._over = threading.Event()
        self._from = _socket(nic, ALL_PROTOCOLS)
        try:
            self._to = _socket(cable, 0)
        except BaseException:
            self._from.close()
            raise
        self._thread = threading.Thread(target=self._work, daemon=True, name="relay")

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join(2.0)
        self._from.close()
        self._to.close()

    def _work(self) -> None:
        while not self._over.is_set():
            if not wait_readable(self._from, time.monotonic() + _LOOK_S):
                continue
            with contextlib.suppress(OSError):  # the NIC or the cable went down: nothing to copy
                raw, address = self._from.recvfrom(_VNET_BYTES + 65536)
                if address[2] == _OUTGOING and self._is_for_it(raw[_VNET_BYTES:]):
                    self._to.send(raw)

    def _is_for_it(self, frame: bytes) -> bool:
        return len(frame) >= 14 and (frame[:6] == self._mac or bool(frame[0] & 1))


def _socket(link: str, protocol: int) -> socket.socket:
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError:
        raise PermissionDenied(f"frames can not be read on {link}", why="only root may") from None
    try:
        sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, struct.pack("i", 1))
        sock.bind((link, protocol))
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise Failed(f"frames can not be read on {link}", why=error.strerror or "") from None
    return sock
