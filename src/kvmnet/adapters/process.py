"""Processes by pid and start time, and the clock and boot that they live in."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, NoReturn

from kvmnet.adapters.files import read_optional
from kvmnet.adapters.run import Running

_PROC = Path("/proc")
_ARG_START = 45
"""Where arg_start is among those fields; arg_end comes next."""
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


class Forked:
    """A copy of this program that goes its own way."""

    def __init__(self, pid: int, says: int) -> None:
        self._pid = pid
        self._says = says

    def says(self, word: str, within_s: float) -> bool:
        """Whether its first line is `word`; it is not read on."""
        with os.fdopen(self._says, "rb", buffering=0) as stream:
            return _first_line(stream, within_s) == word

    def end(self, within_s: float) -> None:
        """Have it end (SIGTERM), and wait for that as long as it may take."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)  # nobody else has waited for it: the pid is its own
        end = time.monotonic() + within_s
        while os.waitpid(self._pid, os.WNOHANG) == (0, 0) and time.monotonic() < end:
            time.sleep(0.005)


def fork(title: str, body: Callable[[int], int]) -> Forked | None:
    """Have a copy of this program run `body`, in a session of its own, under the name `title`.

    It holds none of this program's files, nor its locks, and ignores what a terminal sends when it
    goes away. `body` gets the file to say a word in, and returns the exit status. None: there are
    other threads (whatever they hold would be held in the copy for ever).
    """
    if len(os.listdir("/proc/self/task")) != 1:
        return None
    ours, theirs = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _be_another(title, theirs, before, body)
    except OSError:
        os.close(ours)
        return None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(theirs)
    return Forked(pid, ours)


def _be_another(title: str, says: int, mask: Iterable[int], body: Callable[[int], int]) -> NoReturn:
    """What the copy does; it never comes back to what the program was doing."""
    status = 1
    try:
        os.setsid()
        _let_go(says)
        _rename(title)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        status = body(says)
    finally:
        os._exit(status)


def _let_go(kept: int) -> None:
    """Every open file becomes /dev/null: numbers that objects of this program hold stay taken."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in (kept, nothing):
            with contextlib.suppress(OSError):  # the one that the list was read by
                os.fstat(int(name))
                os.dup2(nothing, int(name), inheritable=int(name) < 3)


def _rename(title: str) -> None:
    """What `ps` shows: who ends the one by its command line must not mean the other.

    Arguments lie where proc(5) says (arg_start, arg_end), and are the process's own to write.
    """
    text = (_PROC / "self/stat").read_text().rpartition(")")[2].split()
    start, end = int(text[_ARG_START]), int(text[_ARG_START + 1])
    words = title.encode()[: end - start - 1].ljust(end - start, b"\0")
    with contextlib.suppress(OSError), open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(start)
        memory.write(words)
    with contextlib.suppress(OSError):
        (_PROC / "self/comm").write_text(title[:15])


def says(process: Running, word: str, within_s: float) -> bool:
    """Whether the program's first line on standard output is `word`; its output is not read on."""
    assert process.stdout is not None
    with process.stdout as stream:
        return _first_line(stream, within_s) == word


def _first_line(stream: IO[bytes], within_s: float) -> str | None:
    """None: it has none, or not in time."""
    line = b""
    end = time.monotonic() + within_s
    while not line.endswith(b"\n"):
        left = end - time.monotonic()
        if left <= 0 or not select.select([stream], [], [], left)[0]:
            return None
        piece = os.read(stream.fileno(), 256)
        if not piece:
            return None
        line += piece
    return line.decode("utf-8", "replace").strip()
