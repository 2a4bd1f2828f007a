"""Addresses that the loopback has for a moment, with routes that are kept (see `formats.lent`)."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from kvmnet.adapters import files, ip_program
from kvmnet.adapters.route_watch import RouteWatch
from kvmnet.adapters.run import PIPE, Running, spawn, wait
from kvmnet.errors import KvmnetError
from kvmnet.formats import lent

_EVERY_S = 0.01
_LOOK_AGAIN_S = 0.02
_BACK_WITHIN_S = 15.0
_LENT = Path("/run/kvmnet/lent")
"""The addresses that are lent, so that whoever undoes for a killed kvmnet takes back those."""


@contextlib.contextmanager
def addresses_lent(source: str, link: str) -> Iterator[frozenset[int]]:
    """Lend a link's addresses to the loopback until they are on `link` (or time is over).

    The block is told of which IP versions they are.

    The kernel forgets a link's routes with its last address (net/ipv4/fib_frontend.c), so they are
    made again at once. Nothing is lent at the end.

    A bridge that goes keeps its addresses and routes for a moment after NetworkManager has taken
    the port out (0.17 s in an emulated machine), and what is sent by them is lost: as soon as
    `link` is no port any more, its own routes come before those.
    """
    names: tuple[str, ...] = ()
    last: list[str] = []
    first: list[str] = []
    # Of a kvmnet that was killed meanwhile: they are lent on, and taken back with the others.
    earlier = tuple((files.read_optional(_LENT) or "").split())
    shown, routes = _told("addr show", "route show")
    # Somebody's own are not to be taken away later.
    there = [x for x in lent.addresses(shown, "lo") if x not in earlier]
    found = [x for x in lent.addresses(shown, source) if x not in there]
    own = tuple(dict.fromkeys((*earlier, *found)))
    for version in (4, 6):
        mine = tuple(x for x in own if ipaddress.ip_address(x).version == version)
        if mine:
            names += mine
            text = routes if version == 4 else ip_program.ask_ipv6(["route show"]).stdout
            last += lent.routes(text, source, link, version)
            first += lent.routes_before(text, source, link, version)
    with contextlib.suppress(KvmnetError):  # only whoever undoes for a killed one reads it
        files.put(_LENT, "".join(f"{x}\n" for x in names), mode=0o644, owner=(0, 0))
    try:
        _batch(lent.lend(names))
        keeper = _Keeper(link, last, first if source != link else last)
        try:
            yield frozenset(ipaddress.ip_address(x).version for x in names)
            _await_back(names, link)
        finally:
            keeper.end()
    finally:
        _batch(lent.back(names))
        _no_routes()
        with contextlib.suppress(KvmnetError):  # taken back twice it does no harm
            files.remove(_LENT)


class _Keeper(threading.Thread):
    """Makes routes again as soon as they are taken away: whoever waits for a manager meanwhile is
    too slow for it. One `ip` reads on: starting one each time would take what the manager needs.
    """

    def __init__(self, link: str, while_port: Sequence[str], once_free: Sequence[str]) -> None:
        super().__init__(daemon=True, name=f"routes of {link}")
        self._port_of = Path("/sys/class/net") / link / "master"
        self._while_port = "".join(f"{x}\n" for x in while_port).encode()
        self._once_free = "".join(f"{x}\n" for x in once_free).encode()
        self._ends = threading.Event()
        self._watch = RouteWatch()
        self._maker: Running = spawn(["ip", "-force", "-batch", "-"], stdin=PIPE)
        self._tell()
        self.start()

    def run(self) -> None:
        while not self._ends.is_set() and self._tell():
            self._watch.wait(_EVERY_S)

    def _tell(self) -> bool:
        """Whether there is somebody to tell."""
        assert self._maker.stdin is not None
        text = self._while_port if self._port_of.is_symlink() else self._once_free
        try:
            os.write(self._maker.stdin.fileno(), text)
        except BrokenPipeError:
            return False
        return True

    def end(self) -> None:
        """Make none any more."""
        self._ends.set()
        self._maker.kill()  # first: who writes to it may be waiting for it
        wait(self._maker, 5.0, accept=range(-64, 256))
        self.join(5.0)
        self._watch.close()


def _await_back(names: tuple[str, ...], link: str) -> None:
    end = time.monotonic() + _BACK_WITHIN_S
    while not set(names) <= set(lent.addresses(_told("addr show")[0], link)):
        if time.monotonic() > end:
            return
        time.sleep(_LOOK_AGAIN_S)


def take_back() -> None:
    """Take back what a process that was killed had lent."""
    text = files.read_optional(_LENT)
    if text is None:
        return
    # Routes are no evidence: the kernel forgets them with the link's last address.
    _batch(lent.back(tuple(text.split())))
    _no_routes()
    files.remove(_LENT)


def _no_routes() -> None:
    for attempt in (ip_program.ask, ip_program.ask_ipv6):
        attempt([f"route flush proto {lent.PROTOCOL}"])


def _told(*questions: str) -> list[str]:
    """What `ip` answers, a line for each."""
    for _ in range(2):
        done = ip_program.ask(questions)
        lines = done.stdout.splitlines()
        if done.status == 0 and len(lines) == len(questions):
            return lines
        ip_program.start_anew()
    return [""] * len(questions)


def _batch(lines: Sequence[str]) -> None:
    """As many of these as can be done."""
    if lines:
        ip_program.ask(lines)
