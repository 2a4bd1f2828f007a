"""Established TCP connections: which there are, and whether their far ends still acknowledge.

An idle connection is made to speak by its own kernel: TCP_REPAIR set to 0 on a socket that is not
under repair sends one window probe and does nothing else (net/ipv4/tcp.c, do_tcp_setsockopt and
tcp_send_window_probe). That is an empty segment with the last sequence number, as a keep-alive has
it, with the connection's own time stamps; the far end has to answer with an acknowledgement
(RFC 9293, 3.10.7.4), Linux at most once in 500 ms (tcp_invalid_ratelimit). The socket is borrowed
from the process that owns it (pidfd_getfd(2)); its data is never touched.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Sequence

from kvmnet.adapters.run import run
from kvmnet.formats.sockets import Established, parse_established

_PIDFD_GETFD = 438
"""The same number on every architecture (it is newer than the common table)."""
_TCP_REPAIR = 19
_REPAIR_OFF = 0
_LAST_ACK_AT = 56
"""Where tcpi_last_ack_recv is in struct tcp_info (linux/tcp.h): after 8 bytes of flags and twelve
numbers of 4 bytes."""
_ASK_AGAIN_S = 0.1
"""Far ends that have answered a moment ago are silent until their 500 ms are over."""
_LOOK_AGAIN_S = 0.01


def established() -> tuple[Established, ...]:
    """All established connections of this network namespace. Raises `KvmnetError`."""
    return parse_established(run(["ss", "-tinHOp", "state", "established"]).stdout)


class _Borrowed:
    """A process's own socket, for asking its kernel about it."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._asked_at: float | None = None

    def ask(self) -> None:
        """Have the kernel send one window probe, unless it did a moment ago."""
        now = time.monotonic()
        if self._asked_at is not None and now - self._asked_at < _ASK_AGAIN_S:
            return
        self._asked_at = now
        # Leaving repair mode also sets SO_REUSEADDR to 0: it is put back at once.
        reuse = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        self._socket.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _REPAIR_OFF)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)

    def acknowledged_ms(self) -> int:
        """How long ago the far end last acknowledged something."""
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return int(struct.unpack_from("=I", info, _LAST_ACK_AT)[0])

    def close(self) -> None:
        self._socket.close()


def silent(connections: Sequence[Established], wait_s: float) -> tuple[str | None, ...]:
    """For each: None once its far end has acknowledged since now, else what was done in vain.

    Waits `wait_s` seconds at most. A connection whose process can't be reached (it belongs to the
    kernel, or to nobody that this user sees) counts only if something comes in by itself.
    Raises `KvmnetError` if `ss` fails.
    """
    begin = time.monotonic()
    borrowed = {number: _borrow(one) for number, one in enumerate(connections)}
    try:
        waiting = set(borrowed)
        while waiting:
            waiting -= {n for n in waiting if _has_answered(borrowed[n], begin)}
            if not waiting or time.monotonic() - begin >= wait_s:
                break
            time.sleep(_LOOK_AGAIN_S)
        unseen = {n for n in waiting if borrowed[n] is None}
        heard = _heard([connections[n] for n in unseen], begin) if unseen else frozenset()
    finally:
        for sock in borrowed.values():
            if sock is not None:
                sock.close()
    return tuple(
        None
        if number not in waiting or one in heard
        else "nothing came in, and its process can not be asked"
        if number in unseen
        else f"no acknowledgement within {time.monotonic() - begin:.1f} s"
        for number, one in enumerate(connections)
    )


def _has_answered(sock: _Borrowed | None, begin: float) -> bool:
    if sock is None:
        return False
    try:
        sock.ask()
        return sock.acknowledged_ms() < (time.monotonic() - begin) * 1000
    except OSError:
        return False  # not allowed here, or it was closed meanwhile: the next look tells


def _heard(connections: Sequence[Established], begin: float) -> frozenset[Established]:
    now = {_ends(x): x for x in established()}
    elapsed_ms = (time.monotonic() - begin) * 1000
    return frozenset(
        one
        for one in connections
        if (seen := now.get(_ends(one))) is not None
        and seen.acknowledged_ms is not None
        and seen.acknowledged_ms < elapsed_ms
    )


def _ends(one: Established) -> tuple[str, int, str, int]:
    return one.local, one.local_port, one.remote, one.remote_port


def _borrow(connection: Established) -> _Borrowed | None:
    """The connection's socket; None where no process with it can be reached."""
    import ctypes  # late: where nobody is connected it is not needed

    libc = ctypes.CDLL(None, use_errno=True)
    for pid, number in connection.owners:
        try:
            process = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            handle = int(libc.syscall(_PIDFD_GETFD, process, number, 0))
        finally:
            os.close(process)
        if handle < 0:
            continue
        try:
            sock = socket.socket(fileno=handle)
        except OSError:
            os.close(handle)
            continue
        if _is(sock, connection):
            return _Borrowed(sock)
        sock.close()
    return None


def _is(sock: socket.socket, connection: Established) -> bool:
    """Whether the number still means that connection: processes close and open."""
    if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    try:
        ports = sock.getsockname()[1], sock.getpeername()[1]
    except OSError:
        return False
    return ports == (connection.local_port, connection.remote_port)
