"""Processes by pid and start time, and the clock and boot that they live in."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from pathlib import Path

from kvmnet.adapters.files import read_optional
from kvmnet.adapters.run import Running

_PROC = Path("/proc")
_START_TIME = 19
"""Where starttime is among the fields of /proc/PID/stat after the name, which is in brackets and
may hold anything (proc(5))."""


def boot_id() -> str:
    """Of this boot; containers have their own if their manager gives them one."""
    return read_optional(_PROC / "sys/kernel/random/boot_id") or ""


def now() -> float:
    """Seconds since boot, suspended time included: nobody can set this clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def started(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; None: it is gone, or a zombie."""
    text = read_optional(_PROC / str(pid) / "stat")
    if text is None:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[_START_TIME])


def ancestors() -> tuple[int, ...]:
    """The pids of this process's parent, its parent, and so on."""
    found: list[int] = []
    pid = os.getppid()
    while pid > 0 and pid not in found:
        found.append(pid)
        text = read_optional(_PROC / str(pid) / "stat") or ""
        fields = text.rpartition(")")[2].split()
        pid = int(fields[1]) if len(fields) > 1 else 0
    return tuple(found)


class Process:
    """Another process, held so that its number can't come to mean a different one."""

    def __init__(self, pid: int, handle: int) -> None:
        self.pid = pid
        self._handle = handle

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def ended_within(self, seconds: float) -> bool:
        """Wait until it has ended, `seconds` at most; True at once when it has."""
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    def kill(self) -> None:
        """End it for good (SIGKILL), also if it is stopped."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)


def hold(pid: int | None, started_at: int | None) -> Process | None:
    """The process of that pid and start time; None: it is gone."""
    if pid is None:
        return None
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return None
    if started(pid) != started_at:
        os.close(handle)
        return None
    return Process(pid, handle)


def says(process: Running, word: str, within_s: float) -> bool:
    """Whether the program's first line on standard output is `word`; its output is not read on."""
    assert process.stdout is not None
    line = b""
    end = time.monotonic() + within_s
    with process.stdout as stream:
        while not line.endswith(b"\n"):
            left = end - time.monotonic()
            if left <= 0 or not select.select([stream], [], [], left)[0]:
                return False
            piece = os.read(stream.fileno(), 256)
            if not piece:
                return False
            line += piece
    return line.decode("utf-8", "replace").strip() == word
