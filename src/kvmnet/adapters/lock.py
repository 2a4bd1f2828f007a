"""The lock that lets one kvmnet at a time change this host."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kvmnet.errors import Failed, PermissionDenied, Unavailable

WAIT_S = 60.0
MAX_NOTE_BYTES = 4096
_NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def lock_path() -> Path:
    """root: /run/kvmnet/lock; others: their own runtime directory."""
    named = os.environ.get("KVMNET_STATE_DIR")
    if named:
        return Path(named) / "lock"
    if os.geteuid() == 0:
        return Path("/run/kvmnet/lock")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or Path.home() / ".cache") / "kvmnet" / "lock"


@contextlib.contextmanager
def hold(command: str, on_wait: Callable[[str], None], *, wait_s: float = WAIT_S) -> Iterator[None]:
    """Hold the lock; it goes with the process, however that ends.

    `on_wait` is told once who holds it. Raises `Unavailable` if it is not free in time, and
    `PermissionDenied` for a user who has no place for it.
    """
    path = _path()
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if os.geteuid() != 0 and error.errno in _NOT_OURS:
            raise _only_root(f"{path.parent} can not be written") from None
        raise Failed(
            f"the lock {path} can not be opened", why=error.strerror or "",
            hint=f"it is a plain file in a folder that can be written: ls -ld {path.parent} {path}",
        ) from None  # fmt: skip
    try:
        _wait_for(handle, on_wait, wait_s)
        # A full disk must not keep anybody from undoing: who holds the lock is a courtesy.
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()} {command}\n".encode("utf-8", "replace"), 0)
        yield
    finally:
        os.close(handle)


def _path() -> Path:
    try:
        return lock_path()
    except RuntimeError:  # what `Path.home` raises
        raise _only_root("this user has no home") from None


def _only_root(why: str) -> PermissionDenied:
    return PermissionDenied(
        "nothing can be changed by this user",
        why=f"a lock keeps two kvmnet from changing the host at once, and {why}",
        hint="run it again with sudo, or as a user with a home that can be written",
    )


def _wait_for(handle: int, on_wait: Callable[[str], None], wait_s: float) -> None:
    end = time.monotonic() + wait_s
    told = False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            note = os.pread(handle, MAX_NOTE_BYTES, 0).decode("utf-8", "replace")
            pid, _, command = note.strip().partition(" ")
            holder = f"process {pid} ({command})" if command else "another process"
        if time.monotonic() > end:
            raise Unavailable(
                "another kvmnet is changing this host",
                why=f"{holder} has not finished within {wait_s:g} seconds",
                hint="wait for it, or look at what it does",
            )
        if not told:
            on_wait(f"waiting for another kvmnet to finish: {holder}")
            told = True
        time.sleep(0.1)
