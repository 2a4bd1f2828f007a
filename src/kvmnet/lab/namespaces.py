"""Entering a place of a lab: namespaces of another process, without another program in between.

`run_in` forks; the child joins the namespaces and becomes the command, so it has the very standard
streams and terminal of this process, and signals sent to this process reach it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import FrameType

from kvmnet.errors import Unavailable

_KINDS = ("ipc", "uts", "net", "mnt")
"""In the order of joining; `pid` is joined before the fork, since it counts for children only."""
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def run_in(pid: int, argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Run `argv` inside the namespaces of the process `pid`; its exit status, as a shell has it.

    Raises `Unavailable` if that process is gone.
    """
    with contextlib.ExitStack() as stack:
        handles = {
            kind: stack.enter_context(_opened(f"/proc/{pid}/ns/{kind}"))
            for kind in ("pid", *_KINDS)
        }
        own = stack.enter_context(_opened("/proc/self/ns/pid_for_children"))
        _setns(handles["pid"])
        sys.stdout.flush()
        sys.stderr.flush()
        held = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)  # until they can be handed on
        try:
            child = os.fork()
            if child == 0:
                _become(handles, argv, env, held)
            _setns(own)
        except BaseException:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            raise
    return _follow(child, held)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Unavailable("the lab is gone", hint="look: kvmnet lab status") from None
    try:
        yield handle
    finally:
        os.close(handle)


def _setns(handle: int) -> None:
    if _libc.setns(handle, 0) != 0:
        code = ctypes.get_errno()
        raise Unavailable("the lab can not be entered", why=os.strerror(code))


def _become(
    handles: Mapping[str, int], argv: Sequence[str], env: Mapping[str, str], mask: Iterable[int]
) -> None:
    """In the child: join, then replace this process. Never returns."""
    status = 126
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        folder = os.getcwd()
        for kind in _KINDS:
            _setns(handles[kind])
        with contextlib.suppress(OSError):
            os.chdir(folder)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execvpe(argv[0], list(argv), dict(env))
    except FileNotFoundError:
        status = 127
        os.write(2, f"kvmnet: {argv[0]}: not found in the lab\n".encode())
    except (OSError, Unavailable) as error:
        os.write(2, f"kvmnet: {argv[0]}: {error}\n".encode())
    finally:
        os._exit(status)


def _follow(child: int, mask: Iterable[int]) -> int:
    """Wait for the child, handing on signals. A terminal's Ctrl-C reaches the child by itself."""

    def forward(signum: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signum)

    previous = {number: signal.signal(number, forward) for number in _FORWARDED}
    for number in (signal.SIGINT, signal.SIGQUIT):
        previous[number] = signal.signal(number, _ignore)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        while True:
            _, status = os.waitpid(child, os.WUNTRACED)
            if os.WIFSTOPPED(status):  # Ctrl-Z: stop with it, go on with it
                os.kill(os.getpid(), signal.SIGSTOP)
                os.kill(child, signal.SIGCONT)
                continue
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _ignore(signum: int, frame: FrameType | None) -> None:
    """The child gets it too, from the terminal, and decides."""
