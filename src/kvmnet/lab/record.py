"""The record of a running lab, kept outside of it in /run/kvmnet-lab/NAME, and its lock.

A lab is one tree of processes below an init in a PID namespace of its own: when that init ends,
the kernel ends all the rest and frees the namespaces and mounts. So the record is the only thing
that can be left behind by a crash, and it names the init by pid and start time: a pid alone may
belong to somebody else by now.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from kvmnet.adapters.files import read_optional, write_atomic
from kvmnet.errors import Failed, InvalidInput, NotFound, PermissionDenied, TimedOut, Unavailable


class Busy(Unavailable):
    """Somebody else is starting, stopping or tidying up that lab."""


RUN_DIR = Path("/run/kvmnet-lab")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")


class Process(Struct, frozen=True, kw_only=True):
    """A process as this machine sees it; `start` is in clock ticks since boot (proc(5), stat)."""

    pid: int
    start: int

    def alive(self) -> bool:
        return start_time(self.pid) == self.start


class Holder(Struct, frozen=True, kw_only=True):
    """The process that keeps one place's namespaces open."""

    where: str
    process: Process


class Record(Struct, frozen=True, kw_only=True):
    """A lab as it is known outside of it."""

    name: str
    phase: Literal["starting", "up"]
    init: Process
    holders: tuple[Holder, ...] = ()
    started_at: int = 0
    """Seconds since the epoch."""

    def holder(self, where: str) -> Process:
        """The process whose namespaces are that place. Raises `NotFound`."""
        for holder in self.holders:
            if holder.where == where:
                return holder.process
        known = ", ".join(x.where for x in self.holders)
        raise NotFound(f"the lab has no place {where!r}", why=f"its places are: {known}")

    def path(self, inside: str, where: str = "host") -> str:
        """A path of a place as it can be opened from outside, while the lab is up."""
        return f"/proc/{self.holder(where).pid}/root{inside}"

    @property
    def libvirt_uri(self) -> str:
        """URI of the lab's libvirtd that works from outside of the lab."""
        return f"qemu:///system?socket={self.path('/run/libvirt/libvirt-sock')}"


def start_time(pid: int) -> int | None:
    """When that process started, in clock ticks since boot; None if it is gone or a zombie."""
    text = read_optional(Path(f"/proc/{pid}/stat"))
    if text is None:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def parse_name(name: str) -> str:
    """A lab's name: letters, digits and _; it is a folder's name too."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name[:60]!a} is not a lab's name",
            why="1 to 40 letters, digits and _ are expected, first a letter",
        )
    return name


def require_root() -> None:
    """Raise `PermissionDenied` for anybody but root."""
    if os.geteuid() != 0:
        raise PermissionDenied(
            "the lab needs root",
            why="it makes network namespaces and runs a libvirtd of its own in them",
            hint="run it again with sudo, or as root",
        )


def folder(name: str) -> Path:
    return RUN_DIR / parse_name(name)


def log_path(name: str) -> Path:
    return folder(name) / "log"


def read(name: str) -> Record | None:
    """The record of that lab, whether it still runs or not; None if there is none."""
    text = read_optional(folder(name) / "record.json")
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=Record)
    except msgspec.DecodeError as error:
        raise Failed(
            f"the record of the lab {name} can not be read", why=str(error),
            hint=f"if no lab runs, remove {folder(name)}",
        ) from None  # fmt: skip


def write(record: Record) -> None:
    write_atomic(
        folder(record.name) / "record.json",
        msgspec.json.encode(record).decode() + "\n",
        mode=0o600,
    )


def running(name: str) -> Record:
    """The record of a lab that is up. Raises `NotFound`."""
    require_root()
    record = read(name)
    if record is None or record.phase != "up" or not record.init.alive():
        option = "" if name == "default" else f" --name {name}"
        raise NotFound(f"the lab {name!r} is not up", hint=f"start it: kvmnet lab up{option}")
    return record


def names() -> tuple[str, ...]:
    """The names of all labs that have a record or are being started, alive or not."""
    try:
        entries = sorted(x.name for x in RUN_DIR.iterdir() if x.is_dir())
    except FileNotFoundError:
        return ()
    return tuple(x for x in entries if _NAME.fullmatch(x))


def end(process: Process, *, timeout_s: float = 30.0) -> None:
    """End a lab's init, and with it all of the lab; returns when the kernel is done with it."""
    deadline = time.monotonic() + timeout_s
    with contextlib.suppress(ProcessLookupError):
        if process.alive():
            os.kill(process.pid, signal.SIGKILL)
    # A PID namespace's init is gone only after all others in it are gone (pid_namespaces(7)).
    while process.alive():
        if time.monotonic() > deadline:
            raise TimedOut(f"the lab's process {process.pid} did not end")
        time.sleep(0.01)


def forget(name: str) -> None:
    """Remove what is on disk of a lab; call it only under the lock and when its init is gone."""
    shutil.rmtree(folder(name), ignore_errors=True)


@contextlib.contextmanager
def lock(name: str, *, timeout_s: float) -> Iterator[None]:
    """Only one process at a time starts, stops or tidies up the lab of that name.

    Raises `Busy` if somebody else holds it for longer than `timeout_s` seconds.
    """
    path = RUN_DIR / f"{parse_name(name)}.lock"
    deadline = time.monotonic() + timeout_s
    handle = _try_lock(path)
    while handle is None:
        if time.monotonic() >= deadline:
            raise Busy(
                f"the lab {name!r} is busy",
                why="another kvmnet is starting or stopping it",
                hint="try again in a few seconds",
            )
        time.sleep(0.05)
        handle = _try_lock(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)
        with contextlib.suppress(OSError):
            RUN_DIR.rmdir()  # only succeeds when no lab is left


def _try_lock(path: Path) -> int | None:
    """A handle on the locked file, or None while somebody else has it."""
    try:
        RUN_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None  # the folder was removed in between
    except OSError as error:
        raise Failed(f"{path} could not be made", why=error.strerror or "") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The holder removes the file at the end: a lock on a removed file locks nothing.
        if os.fstat(handle).st_ino == os.stat(path).st_ino:
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(handle)
    return None
