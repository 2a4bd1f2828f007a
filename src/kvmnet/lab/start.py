"""Starting and ending a lab, from outside of it."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable
from typing import IO

import msgspec

from kvmnet.adapters.files import read_optional
from kvmnet.adapters.run import PIPE, Running, spawn, wait
from kvmnet.errors import Failed, Refused, TimedOut
from kvmnet.lab import record, requirements
from kvmnet.lab.init import Report
from kvmnet.lab.record import Process, Record

UP_TIMEOUT_S = 60.0
LOCK_TIMEOUT_S = 90.0

Say = Callable[[str], None]

_launchers: dict[int, Running] = {}
"""The `unshare` above each lab's init that this process started, by the init's pid."""


def silent(text: str) -> None:
    """A `Say` that says nothing."""


KEEP = "keep"
"""The last order: live until somebody takes the lab down."""
TIE = "tie"
"""The last order: end together with the process that started the lab."""


def up(name: str, say: Say = silent, *, life: str = KEEP) -> Record:
    """Start a lab and return its record when all of it answers; `life` is KEEP or TIE.

    Raises `PermissionDenied`, `Unavailable` (something is missing), `Refused` (it is up already),
    `Failed`. Whatever the end, no half-made lab remains.
    """
    record.require_root()
    requirements.check()
    requirements.check_no_chroot()
    with record.lock(name, timeout_s=LOCK_TIMEOUT_S):
        old = record.read(name)
        if old is not None and old.phase == "up" and old.init.alive():
            option = "" if name == "default" else f" --name {name}"
            raise Refused(
                f"the lab {name!r} is up already",
                hint=f"use it, or take it down first: kvmnet lab down{option}",
            )
        _tidy(name, old)
        record.folder(name).mkdir(mode=0o700)
        try:
            return _build(name, say, life)
        except BaseException:
            _tidy(name, record.read(name))
            raise


def down(name: str) -> bool:
    """End a lab and all that runs in it; False if there was none. A crashed one is tidied up."""
    record.require_root()
    record.parse_name(name)
    if not record.folder(name).exists():
        return False
    with record.lock(name, timeout_s=LOCK_TIMEOUT_S):
        old = record.read(name)
        _tidy(name, old)
    return old is not None


def tidy_stale() -> tuple[str, ...]:
    """Remove the records of labs that have crashed; their names."""
    record.require_root()
    removed = []
    for name in record.names():
        if _is_running(name):
            continue
        with contextlib.suppress(record.Busy), record.lock(name, timeout_s=0):
            if not _is_running(name):  # it may have come up since
                _tidy(name, record.read(name))
                removed.append(name)
    return tuple(removed)


def _is_running(name: str) -> bool:
    known = record.read(name)
    return known is not None and known.phase == "up" and known.init.alive()


def _tidy(name: str, old: Record | None) -> None:
    if old is not None:
        record.end(old.init)
        launcher = _launchers.pop(old.init.pid, None)
        if launcher is not None:
            wait(launcher, 10, accept=range(-64, 256))
    record.forget(name)


def _build(name: str, say: Say, life: str) -> Record:
    """Start the init, follow its reports, and let it live on its own. Called under the lock."""
    with record.log_path(name).open("wb") as log:
        launcher = spawn(
            ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child",
             sys.executable, "-P", "-m", "kvmnet.lab.init", name],
            stdin=PIPE, stdout=PIPE, stderr=log, env=_init_environment(), new_session=True,
        )  # fmt: skip
    assert launcher.stdin is not None and launcher.stdout is not None
    orders = launcher.stdin
    with launcher.stdout as reports:
        try:
            init = _init_of(launcher)
            record.write(Record(name=name, phase="starting", init=init))
            _order(orders, "go")
            ready = _follow(name, reports, say)
            done = Record(
                name=name, phase="up", init=init, holders=ready.holders,
                started_at=int(time.time()),
            )  # fmt: skip
            record.write(done)
            _order(orders, life)
            if life == KEEP:
                orders.close()
        except BaseException:
            launcher.kill()  # its child, the init, dies with it (--kill-child)
            launcher.wait()
            raise
    _launchers[init.pid] = launcher  # it ends with the lab, and is waited for then
    return done


def _init_environment() -> dict[str, str]:
    """The init and its daemons speak English and do not know this user's session."""
    return {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}


def _init_of(launcher: Running, timeout_s: float = 5.0) -> Process:
    """The lab's init as this machine knows it: the only child of `unshare`."""
    path = f"/proc/{launcher.pid}/task/{launcher.pid}/children"
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and launcher.poll() is None:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(path) as stream:
            words = stream.read().split()
            start = record.start_time(int(words[0])) if words else None
            if start is not None:
                return Process(pid=int(words[0]), start=start)
        time.sleep(0.002)
    raise Failed(
        "the lab could not be started", why="unshare made no process in namespaces of its own",
        hint="see whether this works: unshare --mount --net --pid --uts --ipc --fork true",
    )  # fmt: skip


def _order(orders: IO[bytes], word: str) -> None:
    try:
        orders.write(word.encode() + b"\n")
        orders.flush()
    except BrokenPipeError:
        raise Failed("the lab's init ended too early") from None


def _follow(name: str, reports: IO[bytes], say: Say) -> Report:
    """Read reports until the lab is ready. Raises `Failed` with what the init said."""
    deadline = time.monotonic() + UP_TIMEOUT_S
    while True:
        left = deadline - time.monotonic()
        # One report at a time is read by the loop below, so nothing waits in a buffer here.
        if left <= 0 or not select.select([reports], [], [], left)[0]:
            raise TimedOut("the lab did not come up", why=f"it was given {UP_TIMEOUT_S:g} seconds")
        line = _read_line(reports)
        if not line:
            log = read_optional(record.log_path(name)) or ""
            raise Failed(
                "the lab's init ended unexpectedly",
                why=(log.strip().splitlines() or ["its log is empty"])[-1],
            )
        report = msgspec.json.decode(line, type=Report)
        if report.kind == "failed":
            raise Failed(f"the lab did not come up: {report.text}", why=report.why,
                         hint=report.hint)  # fmt: skip
        if report.kind == "ready":
            return report
        say(report.text)


def _read_line(stream: IO[bytes]) -> bytes:
    """One line, byte by byte past the stream's buffer, so that `select` tells the truth."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(stream.fileno(), 1)
        if not byte:
            return line
        line += byte
    return line
