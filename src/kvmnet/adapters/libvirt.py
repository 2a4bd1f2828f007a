"""The one door to libvirt's API: connections, time limits, and its errors in our words.

A libvirtd that is stopped or overloaded accepts connections and never answers, and libvirt's own
calls have no time limit. So every call that goes through `within` runs in a thread of its own; when
the time is over the caller goes on and the thread is left behind (it is a daemon thread: it ends
with the process).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from kvmnet.adapters import patience
from kvmnet.adapters.patience import PATIENCE_S
from kvmnet.adapters.run import find_program
from kvmnet.errors import (
    Failed,
    KvmnetError,
    NotFound,
    NotInstalled,
    PermissionDenied,
    TimedOut,
    Unavailable,
)

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")

CONNECT_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 30.0
LAST_MOMENT_S = 0.5
AT_ONCE = 4
"""Calls that are made at once where there are many: libvirtd takes five of one connection
(libvirtd.conf, max_client_requests)."""
INTERRUPTED_CALL_S = 3.0
"""How long a call that is under way may go on after Ctrl-C."""

_START = "start it: systemctl start libvirtd (or virtqemud.socket and virtnetworkd.socket)"
_DAEMONS = ("libvirtd", "virtqemud", "virtnetworkd")
_GROUP = "run it as root, or join the group libvirt: usermod -aG libvirt $USER, and log in again"


def _binding() -> Any:
    """libvirt's Python module, imported late: it costs 40 ms, and not every host has it."""
    try:
        import libvirt
    except ImportError:
        raise Unavailable(
            "libvirt can not be read",
            why="its Python binding is not installed",
            hint="install the package python3-libvirt",
        ) from None
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    return libvirt


def check_installed(uri: str | None = None) -> None:
    """Raises `Unavailable` where there is no binding, before anything is loaded that needs it.

    Raises `NotInstalled` where there is no libvirt either that it could be for.
    """
    try:
        _binding()
    except Unavailable as error:
        raise absence(uri) or error from None


def absence(uri: str | None) -> NotInstalled | None:
    """The reason why this connection can not be there; None: it is libvirt's to answer."""
    named = uri or os.environ.get("LIBVIRT_DEFAULT_URI", "")
    if urlsplit(named).netloc or any(find_program(x) for x in _DAEMONS):
        return None
    return NotInstalled(
        "libvirt can not be read",
        why="it is not installed on this host",
        hint="for guests, install the packages libvirt-daemon-system and python3-libvirt",
    )


def translate(error: Exception, what: str) -> KvmnetError:
    """libvirt's error as ours; `what` says what was tried, on what."""
    libvirt = _binding()
    if not isinstance(error, libvirt.libvirtError):
        raise error
    code = error.get_error_code()
    why = (error.get_error_message() or str(error)).strip()
    missing = {libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_NETWORK}
    denied = {
        libvirt.VIR_ERR_AUTH_FAILED,
        libvirt.VIR_ERR_AUTH_CANCELLED,
        libvirt.VIR_ERR_AUTH_UNAVAILABLE,
        libvirt.VIR_ERR_ACCESS_DENIED,
        libvirt.VIR_ERR_OPERATION_DENIED,
    }
    if code in missing:
        return NotFound(what, why=why)
    if code in denied or "Permission denied" in why:
        return PermissionDenied(what, why=why, hint=_GROUP)
    if "no connection driver available" in why:
        return Unavailable(what, why=why, hint="name one, for instance --connect qemu:///system")
    if code == libvirt.VIR_ERR_NO_CONNECT or "Failed to connect socket" in why:
        return Unavailable(what, why=why, hint=_START)
    if code in {libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_RPC} and "socket" in why:
        return Unavailable(what, why=why, hint=_START)
    return Failed(what, why=why)


_left_behind: list[threading.Event] = []
"""Calls that nobody waits for any more; set once they have come back."""


def leave_behind(done: threading.Event) -> None:
    """Let a call go on alone, but give it a moment when the process ends.

    A thread that comes back from libvirt while the interpreter is being taken down crashes the
    process. One that never comes back does no harm.
    """
    _left_behind.append(done)
    atexit.register(done.wait, LAST_MOMENT_S)


def wait_for_answer(done: threading.Event, seconds: float) -> bool:
    """Wait for libvirt until `done` or the time is over, and tell people if that is long."""
    if seconds > PATIENCE_S and not done.wait(PATIENCE_S):
        patience.on_wait()
        seconds -= PATIENCE_S
    return done.wait(max(0.0, seconds))


def within(seconds: float, what: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of `call`, or `TimedOut` after `seconds`; libvirt's errors come translated."""
    result: list[T] = []
    failure: list[BaseException] = []

    done = threading.Event()

    def work() -> None:
        try:
            result.append(call(*args, **kwargs))
        except BaseException as error:  # handed over to the caller below
            failure.append(error)
        finally:
            done.set()

    # Never Thread.join: interrupted, it takes a running thread for ended (Python 3.11).
    thread = threading.Thread(target=work, daemon=True)
    try:
        thread.start()
        wait_for_answer(done, seconds)
    except KeyboardInterrupt:
        # What was asked for may still happen: whoever undoes it must not come before it.
        if not done.wait(INTERRUPTED_CALL_S):
            leave_behind(done)
        raise
    if not done.is_set():
        leave_behind(done)
        raise TimedOut(
            what,
            why=f"libvirt did not answer within {seconds:g} seconds",
            hint="look whether libvirtd hangs: systemctl status libvirtd",
        )
    if not failure:
        return result[0]
    error = failure[0]
    if isinstance(error, KvmnetError) or not isinstance(error, Exception):
        raise error
    raise translate(error, what) from None


def in_threads(call: Callable[[Item], T], items: Sequence[Item]) -> list[T]:
    """`call` of each item, `AT_ONCE` at a time; the results in the order of the items.

    libvirtd works on several calls of one connection at once, and Python waits for none of them
    meanwhile. To be called within `within`, which has the time limit. Raises what a call raised,
    when the others are over.
    """
    results: dict[int, T] = {}
    failures: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for number in range(first, len(items), AT_ONCE):
                results[number] = call(items[number])
        except BaseException as error:  # handed over to the caller below
            failures.append(error)

    threads = [
        threading.Thread(target=work, args=(first,), daemon=True)
        for first in range(1, min(AT_ONCE, len(items)))
    ]
    for thread in threads:
        thread.start()
    work(0)
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [results[number] for number in range(len(items))]


@contextlib.contextmanager
def connect(
    uri: str | None = None, *, read_only: bool = False, timeout_s: float = CONNECT_TIMEOUT_S
) -> Iterator[Any]:
    """An open libvirt connection (a `virConnect`), closed at the end.

    `uri` None is libvirt's own default for this user. Raises `Unavailable` (not running, no
    binding), `PermissionDenied`, `TimedOut`.
    """
    libvirt = _binding()
    opener = libvirt.openReadOnly if read_only else libvirt.open
    connection = within(timeout_s, f"no connection to libvirt ({uri or 'default'})", opener, uri)
    try:
        yield connection
    finally:
        # A call that was left behind still uses the connection: it is left open with it.
        if all(done.is_set() for done in _left_behind):
            with contextlib.suppress(KvmnetError):
                within(timeout_s, "closing the connection", connection.close)


_PASST = (
    "<domain type='test'><name>passt</name><memory>1024</memory><os><type>hvm</type></os><devices>"
    "<interface type='user'><backend type='passt'/></interface></devices></domain>"
)


def knows_passt() -> bool | None:
    """Whether this machine's libvirt takes passt in a definition; None: there is no libvirt.

    Its own parser is asked, by its test driver, which runs in this process and touches nothing.
    The version does not tell: Debian 12 has 9.0, whose schema lists passt and whose parser was
    built to refuse it.
    """
    try:
        libvirt = _binding()
    except KvmnetError:
        return None
    try:
        connection = libvirt.open("test:///default")
    except libvirt.libvirtError:  # a library without that driver
        return None
    try:
        connection.defineXML(_PASST)
    except libvirt.libvirtError:
        return False
    finally:
        connection.close()
    return True
