"""The program `ip`, given lines in batches: started for each, or kept running for many.

Of what a short `ip` takes the most is its start: 2 ms where processors are quick, a tenth of a
second where they are emulated. A change of the host's network asks it a dozen times, so it keeps
two running that answer (of rules `ip` shows one family each), and has one started that changes
things.

One that is kept knows links by what it was told before (its own cache): a link that somebody else
has made anew under the old name, or has renamed, is the old one to it. So one that changes things
does so once, questions about single links are not for one that is kept, and where an answer does
not fit, or something failed, none is trusted any more: see `start_anew`. It also remembers having
been asked `link show`: `addr show` tells more from then on, in another order. Nobody asks both.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Literal

from kvmnet.adapters.run import (
    DEFAULT_TIMEOUT_S,
    PIPE,
    Completed,
    Running,
    TimeoutExpired,
    run,
    spawn,
)
from kvmnet.errors import CommandFailed, KvmnetError, TimedOut

Use = Literal["answers", "answers for IPv6", "changes"]

_ANSWERING = ("-json", "-details", "-statistics", "-force")
_OPTIONS: dict[Use, tuple[str, ...]] = {
    "answers": _ANSWERING,
    "answers for IPv6": ("-6", *_ANSWERING),
    "changes": ("-brief",),
}
_STATUSES = (0, 1, 2, 255)
"""2: the kernel refused; 255: a word that `ip` does not know."""
_AT = re.compile(r"Command failed -:(\d+)")
_NO_OBJECT = "kvmnet-end"
"""`ip -force` says of it that it is no object, and goes on: by then all before it is done."""
_ANSWERED = re.compile(rb'Object "kvmnet-end"[^\n]*\nCommand failed -:\d+\n\Z')
_LAST_LINE = "link show dev lo"
"""After changes, which print nothing; it ends `ip` where it fails, so a `-force` is not wanted."""
_END_S = 1.0
_CHUNK = 65536


def ask(lines: Sequence[str]) -> Completed:
    """JSON of both families, a line of it for each question (`addr show`) that can be answered.

    What fails is in `stderr`, as `Command failed -:N` says, from 1; the others are done
    (changes too). Raises what `run` raises.
    """
    return _exchange("answers", lines)


def ask_ipv6(lines: Sequence[str]) -> Completed:
    """The same for `ip -6`."""
    return _exchange("answers for IPv6", lines)


def change(lines: Sequence[str]) -> Completed:
    """Carry the lines out (`link set eth0 up`), as far as to the first that fails.

    Raises what `run` raises.
    """
    return _exchange("changes", lines)


@contextlib.contextmanager
def kept_to_answer() -> Iterator[None]:
    """Keep the programs running that are asked meanwhile; those that answer start at once."""
    with _kept_running("answers", "answers for IPv6"):
        yield


@contextlib.contextmanager
def kept_to_change() -> Iterator[None]:
    """The same; the one that changes things starts at once too."""
    with _kept_running(*_OPTIONS):
        yield


@contextlib.contextmanager
def _kept_running(*first: Use) -> Iterator[None]:
    """Whoever comes first starts them, whoever goes last lets them go; threads may come and go."""
    global _kept, _holders
    with _lock:
        _kept = _kept or _Kept(first)
        _holders += 1
    try:
        yield
    finally:
        _release()


def _release() -> None:
    global _kept, _holders
    with _lock:
        _holders -= 1
        gone = None if _holders else _kept
        _kept = _kept if _holders else None
    if gone is not None:
        gone.end()


def _hold() -> _Kept | None:
    """Those that are kept, if any are; they stay until `_release`."""
    global _holders
    with _lock:
        _holders += _kept is not None
        return _kept


def start_anew() -> None:
    """Let those go that are running: what follows is told by others, which have no past."""
    kept = _hold()
    if kept is not None:
        kept.end()
        _release()


def _exchange(use: Use, lines: Sequence[str]) -> Completed:
    kept = _hold()
    if kept is not None:
        try:
            return kept.exchange(use, lines)
        finally:
            _release()
    text = "".join(f"{x}\n" for x in lines)
    return run(["ip", *_OPTIONS[use], "-batch", "-"], stdin=text, accept=_STATUSES)


class _Program:
    """One `ip` that waits for lines.

    It is in a session of its own: a Ctrl-C is for kvmnet, which may have to put things back.
    """

    def __init__(self, use: Use) -> None:
        self._argv = ("ip", *_OPTIONS[use], "-batch", "-")
        self._changes = use == "changes"
        self._running: Running = spawn(
            self._argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, new_session=True
        )
        if self._changes:
            _hurry(self._running.pid)
        self._lines = 0
        self._lock = threading.Lock()
        self._is_closed = False

    def is_there(self) -> bool:
        return not self._is_closed and self._running.poll() is None

    def exchange(self, lines: Sequence[str]) -> Completed | None:
        """None: it was let go meanwhile, and nothing was done.

        Raises `TimedOut`, `CommandFailed`; then it has ended.
        """
        with self._lock:
            if self._is_closed:
                return None
            try:
                return self._exchange(lines)
            except BaseException:  # an answer would be taken for that to another question
                self.kill()
                raise

    def _exchange(self, lines: Sequence[str]) -> Completed:
        last = _LAST_LINE if self._changes else _NO_OBJECT
        text = "".join(f"{x}\n" for x in (*lines, last)).encode("utf-8", "surrogateescape")
        talk = _Talk(self._running, self._argv)
        is_whole = talk.run(text, self._is_end)
        before, self._lines = self._lines, self._lines + len(lines) + 1
        out, err = (x.decode("utf-8", "surrogateescape") for x in (talk.out, talk.err))
        err = _AT.sub(lambda at: f"Command failed -:{int(at[1]) - before}", err)
        if not is_whole:
            status = self._ended()
            if status not in _STATUSES[1:]:
                raise CommandFailed(self._argv, status, err or out)
            return Completed(status, out, err)
        if self._changes:
            return Completed(0, "", err)
        err = err[: err.rindex(f'Object "{_NO_OBJECT}"')]
        return Completed(1 if _AT.search(err) else 0, out, err)

    def _is_end(self, out: bytes, err: bytes) -> bool:
        return out.endswith(b"\n") if self._changes else _ANSWERED.search(err) is not None

    def _ended(self) -> int:
        self._close()
        return self._running.returncode

    def close(self) -> None:
        """It ends when its input does; whoever waits for its answer gets that first."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            _file(self._running.stdin).close()
        try:
            self._running.wait(_END_S)
        except TimeoutExpired:
            self.kill()
        self._close_files()

    def kill(self) -> None:
        self._running.kill()
        self._running.wait()
        self._close_files()

    def _close_files(self) -> None:
        self._is_closed = True
        for stream in (self._running.stdin, self._running.stdout, self._running.stderr):
            with contextlib.suppress(OSError):
                _file(stream).close()


def _hurry(pid: int) -> None:
    """Let nobody come between the steps of a change: the kernel drops what a NIC receives from the
    moment that it is a port until it forwards (`br_add_if`), and a new bridge wakes udev up.

    It needs root, and may be refused in a container (sched(7), `RLIMIT_RTPRIO`).
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))


class _Talk:
    """Lines in, and what comes back, with neither side waiting for the other."""

    def __init__(self, running: Running, argv: Sequence[str]) -> None:
        self._running = running
        self._argv = argv
        self.out = b""
        self.err = b""

    def run(self, text: bytes, is_end: Callable[[bytes, bytes], bool]) -> bool:
        """Whether `is_end` was true of what came; False: the program ended. Raises `TimedOut`."""
        end = time.monotonic() + DEFAULT_TIMEOUT_S
        todo = memoryview(text)
        running = self._running
        files = map(_file, (running.stdin, running.stdout, running.stderr))
        stdin, out, err = (x.fileno() for x in files)
        with selectors.PollSelector() as ready:
            os.set_blocking(stdin, False)
            ready.register(stdin, selectors.EVENT_WRITE)
            reading = {out, err}
            for one in reading:
                ready.register(one, selectors.EVENT_READ)
            while reading:
                left = end - time.monotonic()
                if left <= 0:
                    raise TimedOut(f"`{' '.join(self._argv)}` did not answer",
                                   why=f"it was given {DEFAULT_TIMEOUT_S:g} seconds")  # fmt: skip
                for key, _ in ready.select(left):
                    if key.fd == stdin:
                        todo = todo[_written(stdin, todo) :]
                        if not todo:
                            ready.unregister(stdin)
                    elif not self._read(key.fd, out):
                        ready.unregister(key.fd)
                        reading.discard(key.fd)
                if not todo and is_end(self.out, self.err):
                    self._drain(ready, stdin, out)
                    return True
        return False

    def _drain(self, ready: selectors.BaseSelector, stdin: int, out: int) -> None:
        """The end came by one pipe: by then all is in the other, and may not have been read."""
        if stdin in ready.get_map():
            ready.unregister(stdin)
        while events := ready.select(0):
            for key, _ in events:
                if not self._read(key.fd, out):
                    ready.unregister(key.fd)
            if not ready.get_map():
                return

    def _read(self, handle: int, out: int) -> bool:
        """Whether there can be more."""
        chunk = os.read(handle, _CHUNK)
        if handle == out:
            self.out += chunk
        else:
            self.err += chunk
        return bool(chunk)


def _written(stdin: int, todo: memoryview) -> int:
    """How much is done with: all of it, where nobody reads it any more (its end tells why)."""
    try:
        return os.write(stdin, todo[:_CHUNK])
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return len(todo)


def _file(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # it was opened as a pipe
    return stream


class _Kept:
    """The programs that run, by what they are for."""

    def __init__(self, first: Sequence[Use]) -> None:
        self._programs: dict[Use, _Program] = {}
        self._lock = threading.Lock()
        # Starting takes a while, in which much of kvmnet is loaded.
        self._starter = threading.Thread(target=self._start, args=(first,), daemon=True)
        self._starter.start()

    def _start(self, first: Sequence[Use]) -> None:
        for use in first:
            with contextlib.suppress(KvmnetError, OSError):  # it is told where it is asked
                self._program(use)

    def _program(self, use: Use) -> _Program:
        with self._lock:
            found = self._programs.get(use)
            if found is None or not found.is_there():
                found = self._programs[use] = _Program(use)
            return found

    def exchange(self, use: Use, lines: Sequence[str]) -> Completed:
        self._starter.join()
        while True:
            program = self._program(use)
            done = program.exchange(lines)
            if use == "changes":  # the next has no past: see above
                program.close()
            if done is not None:
                return done

    def end(self) -> None:
        self._starter.join()
        with self._lock:
            gone, self._programs = self._programs, {}
        for program in gone.values():
            program.close()


_lock = threading.Lock()
_kept: _Kept | None = None
_holders = 0


def _forget() -> None:
    """A copy of this process has none of its files, so it has none of these programs."""
    global _lock, _kept, _holders
    _lock, _kept, _holders = threading.Lock(), None, 0


os.register_at_fork(after_in_child=_forget)
