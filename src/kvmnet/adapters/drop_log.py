"""Drops of all packets by reason and place, from tracefs: what is left where BPF can not be used.

`python -m kvmnet.adapters.drop_log` is a process of its own: tracefs knows no owner, so what is
switched on there has to be switched off by somebody. It makes an instance of tracefs (a buffer of
its own; the global one stays as it is), hands on its lines, and removes it when its standard input
closes, also because whoever started it was killed. What a killed one leaves is removed by the next.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import select
import signal
import sys
import time
from pathlib import Path

from kvmnet.adapters.run import PIPE, Running, spawn, wait
from kvmnet.errors import CommandFailed, TimedOut, Unavailable
from kvmnet.formats.tracefs_events import parse
from kvmnet.model.trace import LoggedDrop

_CLONE_NEWNS = 0x00020000
_MS_PRIVATE_REC = 0x44000
_READY = b"ready\n"
_FAILED = b"failed: "
_START_S, _END_S = 10.0, 3.0
_PLACES = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug"), Path("/mnt"))
"""Where tracefs is mounted, in a mount namespace of this process only."""
_NAME = "kvmnet-"
_WHAT = "drops can not be watched by tracefs"


class DropLog:
    """All drops of the machine from now on, until closed. Raises `Unavailable`, `TimedOut`."""

    def __init__(self) -> None:
        self._process = spawn([sys.executable, "-P", "-m", __name__], stdin=PIPE, stdout=PIPE,
                              new_session=True)  # fmt: skip
        self._rest = b""
        try:
            self._await_ready()
        except (Unavailable, TimedOut):
            self.close()
            raise

    def __enter__(self) -> DropLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self) -> list[LoggedDrop]:
        """What was logged since the last call."""
        while (piece := self._read(0.0)) is not None and piece:
            self._rest += piece
        *lines, self._rest = self._rest.split(b"\n")
        every = (parse(line.decode("utf-8", "replace")) for line in lines)
        return [x for x in every if x is not None]

    def close(self) -> None:
        """Have it switched off and wait until it is."""
        process = self._process
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        if process.stdout is not None:
            process.stdout.close()
        try:
            wait(process, _END_S)
        except TimedOut:
            process.kill()
            process.wait()
        except CommandFailed:
            pass  # whoever started it knows why

    def _await_ready(self) -> None:
        end = time.monotonic() + _START_S
        while b"\n" not in self._rest:
            piece = self._read(max(0.0, end - time.monotonic()))
            if piece is None:
                raise TimedOut(_WHAT, why=f"it is not ready after {_START_S:g} seconds")
            if not piece:
                raise Unavailable(_WHAT, why="its helper ended")
            self._rest += piece
        line, self._rest = self._rest.split(b"\n", 1)
        if line + b"\n" != _READY:
            why = line.removeprefix(_FAILED).decode("utf-8", "replace")
            raise Unavailable(_WHAT, why=why)

    def _read(self, wait_s: float) -> bytes | None:
        """A piece of its output; None: nothing came in time."""
        stdout = _output(self._process)
        if not select.select([stdout], [], [], wait_s)[0]:
            return None
        return os.read(stdout, 1 << 16)


def _output(process: Running) -> int:
    assert process.stdout is not None
    return process.stdout.fileno()


def _mounted() -> Path:
    """tracefs, seen by this process only. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) or libc.mount(b"none", b"/", None, _MS_PRIVATE_REC, None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    place = next(x for x in _PLACES if x.is_dir())
    if libc.mount(b"tracefs", os.fsencode(place), b"tracefs", 0, None):
        code = ctypes.get_errno()
        raise OSError(code, f"mount of tracefs: {os.strerror(code)}")
    return place


def _remove(folder: Path) -> None:
    """Remove an instance; one that somebody still reads is left (the kernel says it is busy)."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def _switch_off(folder: Path) -> None:
    """What somebody else still reads costs nobody anything any more."""
    with contextlib.suppress(OSError):
        (folder / "events/skb/kfree_skb/enable").write_text("0")


def _instance(root: Path) -> tuple[Path, int]:
    """A new instance that logs drops, and the open end of its pipe. Raises `OSError`."""
    for old in (root / "instances").glob(f"{_NAME}*"):
        _remove(old)
    folder = root / "instances" / f"{_NAME}{os.getpid()}-{secrets.token_hex(3)}"
    folder.mkdir()
    pipe = -1
    try:
        pipe = os.open(folder / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
        (folder / "trace_clock").write_text("mono")
        (folder / "buffer_size_kb").write_text("256")
        (folder / "events/skb/kfree_skb/enable").write_text("1")
    except OSError:
        if pipe >= 0:
            os.close(pipe)
        _remove(folder)
        raise
    return folder, pipe


def _hand_on(pipe: int) -> None:
    """Copy lines until standard input closes or nobody reads them."""
    while True:
        ready = select.select([0, pipe], [], [], 0.05)[0]
        if 0 in ready and not os.read(0, 64):
            return
        try:
            piece = os.read(pipe, 1 << 16)
        except BlockingIOError:
            continue
        if piece:
            os.write(1, piece)


def main() -> int:
    # Its input closes when kvmnet ends: a signal for the whole session must not be quicker.
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    try:
        folder, pipe = _instance(_mounted())
    except OSError as error:
        os.write(1, _FAILED + str(error.strerror or error).encode() + b"\n")
        return 1
    try:
        os.write(1, _READY)
        _hand_on(pipe)
    except OSError:
        pass  # nobody reads any more
    finally:
        os.close(pipe)
        _switch_off(folder)
        _remove(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
