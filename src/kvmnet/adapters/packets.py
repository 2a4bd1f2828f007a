"""The one door to raw frames: packet sockets, and waiting for them with a deadline."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import NamedTuple

from kvmnet.errors import Failed, NotFound, PermissionDenied
from kvmnet.formats.ethernet import Frame, decode_frame

ALL_PROTOCOLS = 0x0003
LATE_S = 1.0
"""How long after its deadline a wait still reads what has come in: a flood keeps nobody there."""
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP = 1
_PACKET_AUXDATA = 8
_PACKET_MR_PROMISC = 1
_PACKET_OUTGOING = 4
_CHECKSUM_NOT_READY = 1 << 3
"""TP_STATUS_CSUMNOTREADY: the frame came from this machine, its checksum is filled in by a NIC
that it will never pass (packet(7), PACKET_AUXDATA)."""
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35


class OwnerGone(Exception):
    """The process at the other end of the lifeline is gone: give up whatever is going on."""


class Received(NamedTuple):
    """A frame that came in."""

    frame: Frame
    checksum_ready: bool
    """False: the checksum was left to the hardware and means nothing."""
    at: float
    """When the kernel got it, on the monotonic clock."""


class PacketSocket:
    """All frames of one protocol that come in through one NIC.

    `lifeline` is the reading end of a pipe: when its other end closes, waiting raises `OwnerGone`.
    """

    def __init__(
        self, nic: str, ethertype: int, *, lifeline: int | None = None, promiscuous: bool = False
    ) -> None:
        self._lifeline = lifeline
        self._late: Received | None = None
        """The first frame that came after a deadline."""
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except PermissionError:
            raise PermissionDenied(
                f"frames can not be sent on {nic}", why="only root may", hint="run it as root"
            ) from None
        try:
            self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            with contextlib.suppress(PermissionError):  # in a user namespace: the default will do
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 << 20)
            self._socket.bind((nic, ethertype))
            if promiscuous:
                self._be_promiscuous(nic)
            self._socket.setblocking(False)
        except OSError as error:
            self._socket.close()
            raise _no_socket(nic, error) from None

    def _be_promiscuous(self, nic: str) -> None:
        request = struct.pack("iHH8s", socket.if_nametoindex(nic), _PACKET_MR_PROMISC, 0, b"")
        self._socket.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, request)

    def __enter__(self) -> PacketSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def mac(self) -> bytes:
        """The NIC's own address."""
        address: bytes = self._socket.getsockname()[4]
        return address

    def send(self, raw: bytes) -> None:
        """Send a whole frame. Raises `Failed`."""
        for _ in range(50):
            try:
                self._socket.send(raw)
                return
            except BlockingIOError:
                select.select([], [self._socket], [], 0.1)
            except OSError as error:
                if error.errno != 105:  # ENOBUFS: the queue is full for a moment
                    raise Failed("a frame could not be sent", why=error.strerror or "") from None
                time.sleep(0.002)
        raise Failed("a frame could not be sent", why="the NIC's queue stays full")

    def receive(self, deadline: float) -> Received | None:
        """The next frame that came in by `deadline` (monotonic seconds), or None once it is over.

        What came in time counts, however late this process comes to read it. What came later is
        kept for the next call, and a flood of it keeps nobody here.
        """
        found = self._late or self._next(deadline)
        self._late = None
        if found is not None and found.at > deadline:
            self._late, found = found, None
        return found

    def _next(self, deadline: float) -> Received | None:
        while wait_readable(self._socket, deadline, self._lifeline):
            try:
                raw, extra, _, address = self._socket.recvmsg(65536, 256)
            except BlockingIOError:
                continue
            except OSError as error:
                raise Failed("no frames can be read", why=error.strerror or "") from None
            frame, at = decode_frame(raw), _arrival(extra)
            if frame is not None and address[2] != _PACKET_OUTGOING:
                return Received(frame, _checksum_ready(extra), at)
            if at > deadline:
                return None
        return None


def wait_readable(source: socket.socket, deadline: float, lifeline: int | None = None) -> bool:
    """Wait until there is something to read; False once `deadline` has passed."""
    return _poll([source], select.POLLIN, deadline, lifeline)


def wait_writable(source: socket.socket, deadline: float, lifeline: int | None = None) -> bool:
    """Wait until it can be written to, or a connection has been made or has failed."""
    return _poll([source], select.POLLOUT, deadline, lifeline)


def wait_any(
    sources: Sequence[socket.socket], deadline: float, lifeline: int | None = None
) -> bool:
    """Wait until one of several has something to read; False once `deadline` has passed."""
    return _poll(sources, select.POLLIN, deadline, lifeline)


def _poll(
    sources: Sequence[socket.socket], event: int, deadline: float, lifeline: int | None
) -> bool:
    poll = select.poll()
    for source in sources:
        poll.register(source, event)
    if lifeline is not None:
        poll.register(lifeline, 0)
    left = max(0.0, deadline - time.monotonic())
    ready = dict(poll.poll(left * 1000))
    if lifeline is not None and lifeline in ready:
        raise OwnerGone
    return bool(ready)


def _checksum_ready(extra: list[tuple[int, int, bytes]]) -> bool:
    for level, kind, data in extra:
        if level == _SOL_PACKET and kind == _PACKET_AUXDATA and len(data) >= 4:
            return not int(struct.unpack("I", data[:4])[0]) & _CHECKSUM_NOT_READY
    return True


def _arrival(extra: list[tuple[int, int, bytes]]) -> float:
    """The kernel's time stamp, which is of the wall clock, on the monotonic clock.

    Where nobody on the host wanted them before, the kernel begins to take them a moment after the
    socket was opened; a frame that came earlier has the time at which it is read.
    """
    now = time.monotonic()
    for level, kind, data in extra:
        if (level, kind, len(data)) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS, 16):
            seconds: int
            nanoseconds: int
            seconds, nanoseconds = struct.unpack("qq", data)
            return now - max(0.0, time.time() - (seconds + nanoseconds / 1e9))
    return now


def _no_socket(nic: str, error: OSError) -> Failed | NotFound:
    if error.errno in (19, 6):  # ENODEV, ENXIO
        return NotFound(f"there is no NIC {nic}", hint="list them: ip link")
    if error.errno == 100:
        return Failed(f"{nic} is down", why=error.strerror or "", hint=f"ip link set {nic} up")
    return Failed(f"frames can not be read from {nic}", why=error.strerror or "")
