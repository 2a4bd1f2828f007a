"""Calls methods over D-Bus: a few milliseconds each, where a program for it costs its start.

The system bus, and the socket of its own that systemd has for root, which needs no bus.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from kvmnet.errors import Failed, KvmnetError, TimedOut, Unavailable
from kvmnet.formats import dbus
from kvmnet.formats.dbus import Call

SYSTEM_BUS = "/run/dbus/system_bus_socket"
SYSTEMD = "/run/systemd/private"
TIMEOUT_S = 10.0
_BUS = "org.freedesktop.DBus"
_HELLO = Call(destination=_BUS, path="/org/freedesktop/DBus", interface=_BUS, member="Hello")
_MAX_LINE = 4096


class Refusal(Failed):
    """The other end answered with an error."""


class Bus:
    """A connection on which calls are made one after the other."""

    def __init__(self, wire: socket.socket) -> None:
        self._wire = wire
        self._serials = itertools.count(1)

    def call(self, what: Call, timeout_s: float = TIMEOUT_S) -> tuple[object, ...]:
        """What the method answers. Raises `Refusal`, `Unavailable` or `TimedOut`."""
        serial = next(self._serials)
        try:
            self._wire.settimeout(timeout_s)
            self._wire.sendall(dbus.call(what, serial))
            while True:
                head = self._read(dbus.HEAD_BYTES)
                came = dbus.message(head + self._read(dbus.length(head) - len(head)))
                if came.reply_to == serial:
                    break
        except TimeoutError:
            raise TimedOut(f"{what.member} of {what.interface} did not answer") from None
        except OSError as error:
            raise Unavailable("D-Bus broke off", why=error.strerror or "") from None
        if came.kind == dbus.ERROR:
            why = str(came.body[0]) if came.body else came.error or ""
            raise Refusal(f"{what.member} of {what.interface} failed", why=why)
        return came.body

    def properties(self, destination: str, path: str, interface: str) -> dict[str, object]:
        """All properties that an object has by that interface. Raises what `call` raises."""
        body = self.call(
            Call(
                destination=destination, path=path, interface=f"{_BUS}.Properties",
                member="GetAll", signature="s", arguments=(interface,),
            )
        )  # fmt: skip
        return dict(dbus.properties(body[0] if body else ()))

    def property(
        self, destination: str, path: str, interface: str, name: str,
        timeout_s: float = TIMEOUT_S,
    ) -> object:  # fmt: skip
        """One of them. Raises what `call` raises."""
        what = Call(
            destination=destination, path=path, interface=f"{_BUS}.Properties",
            member="Get", signature="ss", arguments=(interface, name),
        )  # fmt: skip
        body = self.call(what, timeout_s)
        return body[0] if body else None

    def log_in(self) -> None:
        """Say who we are: what the kernel tells of us is asked for (EXTERNAL)."""
        self._wire.sendall(
            b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n"
        )
        line = b""
        while not line.endswith(b"\r\n") and len(line) < _MAX_LINE:
            line += self._read(1)
        if not line.startswith(b"OK "):
            raise PermissionError(0, "D-Bus does not let us in")
        self._wire.sendall(b"BEGIN\r\n")

    def _read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            some = self._wire.recv(size - len(found))
            if not some:
                raise ConnectionResetError(0, "it was closed")
            found += some
        return found


@contextmanager
def connected(path: str = SYSTEM_BUS, timeout_s: float = TIMEOUT_S) -> Iterator[Bus]:
    """A connection for the block. Raises `Unavailable`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
        wire.settimeout(timeout_s)
        bus = Bus(wire)
        try:
            wire.connect(path)
            bus.log_in()
            if path == SYSTEM_BUS:
                bus.call(_HELLO)
        except (OSError, KvmnetError) as error:
            raise Unavailable(f"D-Bus at {path} can not be used", why=str(error)) from None
        yield bus
