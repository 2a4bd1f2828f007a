"""Calls methods over D-Bus: a few milliseconds each, where a program for it costs its start.

The system bus, and the socket of its own that systemd has for root, which needs no bus.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator, Sequence
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
_AT_ONCE = 50
"""Nobody may wait for more than 128 answers (dbus-daemon(1), max_replies_per_connection)."""


class Refusal(Failed):
    """The other end answered with an error."""


class Bus:
    """A connection on which calls are made."""

    def __init__(self, wire: socket.socket) -> None:
        self.heard: list[tuple[object, ...]] = []
        """What came with signals while answers were waited for; see `listen`."""
        self._wire = wire
        self._serials = itertools.count(1)

    def call(self, what: Call, timeout_s: float = TIMEOUT_S) -> tuple[object, ...]:
        """What the method answers. Raises `Refusal`, `Unavailable` or `TimedOut`."""
        (answer,) = self.call_all([what], timeout_s)
        if isinstance(answer, Refusal):
            raise answer
        return answer

    def call_all(
        self, calls: Sequence[Call], timeout_s: float = TIMEOUT_S
    ) -> list[tuple[object, ...] | Refusal]:
        """What each method answers, or why not; none waits for another's answer to be asked.

        Each answer may take `timeout_s` seconds. Raises `Unavailable` or `TimedOut`.
        """
        serials = [next(self._serials) for _ in calls]
        wanted = set(serials)
        came: dict[int | None, dbus.Message] = {}
        try:
            self._wire.settimeout(timeout_s)
            self._wire.sendall(b"".join(map(dbus.call, calls, serials)))
            while not came.keys() >= wanted:
                head = self._read(dbus.HEAD_BYTES)
                found = dbus.message(head + self._read(dbus.length(head) - len(head)))
                came[found.reply_to] = found
                if found.kind == dbus.SIGNAL:
                    self.heard.append(found.body)
        except TimeoutError:
            late = next(x for x, serial in zip(calls, serials, strict=True) if serial not in came)
            raise TimedOut(f"{late.member} of {late.interface} did not answer") from None
        except OSError as error:
            raise Unavailable("D-Bus broke off", why=error.strerror or "") from None
        return [_answer(x, came[serial]) for x, serial in zip(calls, serials, strict=True)]

    def listen(self, rule: str) -> None:
        """Hear the signals that match a rule (the specification's "Match Rules").

        Raises what `call` raises.
        """
        self.call(
            Call(
                destination=_BUS, path="/org/freedesktop/DBus", interface=_BUS,
                member="AddMatch", signature="s", arguments=(rule,),
            )
        )  # fmt: skip

    def properties(
        self, destination: str, path: str, interface: str, timeout_s: float = TIMEOUT_S
    ) -> dict[str, object]:
        """All properties that an object has by that interface. Raises what `call` raises."""
        return _properties(self.call(_get_all(destination, path, interface), timeout_s))

    def properties_of(
        self, destination: str, paths: Sequence[str], interface: str
    ) -> dict[str, dict[str, object]]:
        """The same of many objects at once, by their paths; those that are gone are left out.

        Raises `Unavailable` or `TimedOut`.
        """
        found: dict[str, dict[str, object]] = {}
        for start in range(0, len(paths), _AT_ONCE):
            some = paths[start : start + _AT_ONCE]
            answers = self.call_all([_get_all(destination, x, interface) for x in some])
            for path, answer in zip(some, answers, strict=True):
                if not isinstance(answer, Refusal):
                    found[path] = _properties(answer)
        return found

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


def _answer(what: Call, came: dbus.Message) -> tuple[object, ...] | Refusal:
    if came.kind != dbus.ERROR:
        return came.body
    why = str(came.body[0]) if came.body else came.error or ""
    return Refusal(f"{what.member} of {what.interface} failed", why=why)


def _get_all(destination: str, path: str, interface: str) -> Call:
    return Call(
        destination=destination, path=path, interface=f"{_BUS}.Properties",
        member="GetAll", signature="s", arguments=(interface,),
    )  # fmt: skip


def _properties(body: tuple[object, ...]) -> dict[str, object]:
    return dict(dbus.properties(body[0] if body else ()))


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
