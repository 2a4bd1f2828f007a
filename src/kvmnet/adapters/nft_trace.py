"""The one door to nftables' trace: marks the packets of a trace, and hears what rules they met."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import time

from kvmnet.adapters.run import PIPE, Running, run, spawn, wait
from kvmnet.errors import CommandFailed, KvmnetError, TimedOut, Unavailable
from kvmnet.formats.nft_trace import OWN_TABLE, parse, table
from kvmnet.model.state import Unread
from kvmnet.model.trace import Pattern, RuleHit

_NETLINK_NETFILTER = 12
_GROUP_TRACE = 9
_SO_RCVBUFFORCE = 33
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1
_START_S = 10.0
_WHAT = "firewall rules can not be followed"


class RuleWatch:
    """The rules that packets meet which fit a pattern, until closed.

    The rules that mark them are in tables that the kernel removes when their owner, a running
    `nft`, ends; that ends when this process does, since it reads from it. `missing` says which
    families could not be watched. Raises `Unavailable`.
    """

    def __init__(self, patterns: tuple[Pattern, ...]) -> None:
        self._patterns = patterns
        self.missing: list[Unread] = []
        self._socket = _subscribe()
        self._owners: list[Running] = []
        name = f"{OWN_TABLE}_{secrets.token_hex(3)}"
        try:
            both = [_own(x, name, patterns, self._owners) for x in ("inet", "bridge")]
            _await_table(both[0])
            try:
                _await_table(both[1])
            except KvmnetError as error:
                self.missing.append(Unread(what="rules of nft's bridge family", why=error.why))
        except KvmnetError:
            self.close()
            raise

    def __enter__(self) -> RuleWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Have the tables removed and wait until they are."""
        for owner in self._owners:
            if owner.stdin is not None:
                with contextlib.suppress(OSError):
                    owner.stdin.close()
        for owner in self._owners:
            try:
                wait(owner, _START_S, accept=range(-64, 256))
            except TimedOut:
                owner.kill()
                owner.wait()
            for pipe in (owner.stdout, owner.stderr):
                if pipe is not None:
                    pipe.close()
        self._owners.clear()
        self._socket.close()

    def take(self) -> list[RuleHit]:
        """What the kernel told since the last call."""
        found: list[RuleHit] = []
        for _ in range(4096):
            try:
                raw = self._socket.recv(65536)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: more was told than there was room for
                why = "the kernel told of them faster than they were read"
                self.missing.append(Unread(what="some firewall rules", why=why))
                continue
            found.extend(parse(raw, time.monotonic(), self._patterns))
        return found


def _own(family: str, name: str, patterns: tuple[Pattern, ...], owners: list[Running]) -> Running:
    """Start an `nft` that makes the table and keeps it. Raises `Unavailable`."""
    owner = spawn(["nft", "-i"], stdin=PIPE, stdout=PIPE, stderr=PIPE, new_session=True)
    owners.append(owner)
    assert owner.stdin is not None
    text = table(family, name, patterns) + f"list table {family} {name}\n"
    with contextlib.suppress(BrokenPipeError):
        owner.stdin.write(text.encode())
        owner.stdin.flush()
    return owner


def _await_table(owner: Running) -> None:
    """Raise `Unavailable` if the table could not be made."""
    said = _answer(owner)
    if "\tflags owner\n" not in said:
        reason = next((x for x in said.splitlines() if "rror" in x), "nft gave no answer")
        raise Unavailable(_WHAT, why=reason.strip())


def _answer(owner: Running) -> str:
    """What the program says until it has shown its table or an error."""
    assert owner.stdout is not None and owner.stderr is not None
    streams = [owner.stdout, owner.stderr]
    said, end = "", time.monotonic() + _START_S
    while (left := end - time.monotonic()) > 0 and streams:
        ready = select.select(streams, [], [], left)[0]
        for stream in ready:
            piece = os.read(stream.fileno(), 65536).decode("utf-8", "replace")
            said += piece
            if not piece:
                streams.remove(stream)
        if "\tflags owner\n" in said and said.count("{") == said.count("}"):
            break
        if "rror" in said:
            break
    return said


def _subscribe() -> socket.socket:
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    except OSError as error:
        raise Unavailable(_WHAT, why=error.strerror or "") from None
    try:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
        sock.bind((0, 0))
        sock.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _GROUP_TRACE)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise Unavailable(_WHAT, why=error.strerror or "", hint="run it again as root") from None
    return sock


def left_over() -> tuple[str, ...]:
    """Tables of this kind that are still there: `inet kvmnet_trace_1a2b3c`."""
    with contextlib.suppress(CommandFailed, Unavailable):
        lines = run(["nft", "list", "tables"]).stdout.splitlines()
        return tuple(x.removeprefix("table ") for x in lines if f" {OWN_TABLE}_" in x)
    return ()
