"""Hears at once when the kernel takes routes or addresses away, or changes a link."""

from __future__ import annotations

import errno
import select
import socket
import time

from kvmnet.formats import rtnetlink

_MOST = 65536


class RouteWatch:
    """Listens from its beginning until it is closed."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._kernel = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._kernel.bind((0, rtnetlink.GROUPS))

    def close(self) -> None:
        """Hear nothing any more."""
        self._kernel.close()

    def wait(self, seconds: float) -> None:
        """Return as soon as something is taken away, at the latest after so many seconds."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            ready, _, _ = select.select([self._kernel], [], [], left)
            if ready and self._has_heard():
                return

    def _has_heard(self) -> bool:
        heard = False
        while True:
            try:
                heard = rtnetlink.takes_away(self._kernel.recv(_MOST)) or heard
            except BlockingIOError:
                return heard
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more than it could keep: something was said
                    raise
                heard = True
