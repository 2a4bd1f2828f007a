"""The guard: undoes a change of the host's network from outside, if kvmnet itself can not.

It is a process of its own, begun before the first step: a copy of kvmnet's (`ps` shows it as
`kvmnet.flow.guard ID`), or one of these:

    python -P -m kvmnet.flow.guard ID          watch until the transaction is closed
    python -P -m kvmnet.flow.guard --once ID   look once: for systemd's timer
    python -P -m kvmnet.flow.guard --boot      before the network managers, after a reboot

It acts when the kvmnet that began the transaction is gone, or is still at a step whose deadline is
over; then that kvmnet is killed first. All undo is done under the lock, by whoever gets it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

import kvmnet
from kvmnet.adapters import journal, lock, process, steps, systemd
from kvmnet.adapters.process import Process
from kvmnet.adapters.run import PIPE, spawn, wait
from kvmnet.core import reboot
from kvmnet.errors import Failed, KvmnetError, NotFound, NotUndone, TimedOut, Unavailable
from kvmnet.flow.rollback import clean_up, close, is_of_another_boot, undo
from kvmnet.model.plan import PlannedStep
from kvmnet.model.transaction import Transaction

READY = "watching"
_START_S = 15.0
END_S = 5.0
_LOOK_AGAIN_S = 1.0
_TRIES = 3
_TRY_AGAIN_S = 5.0


class Silent:
    """A watcher for where nobody looks."""

    def began(self, number: int, planned: PlannedStep) -> None:
        """Nobody is told."""

    def done(self, number: int, planned: PlannedStep) -> None:
        """Nobody is told."""

    def undoing(self, planned: PlannedStep) -> None:
        """Nobody is told."""

    def say(self, text: str) -> None:
        """Nobody is told."""


class Watching(Protocol):
    """The guard of one transaction, from the side of the kvmnet that is watched."""

    def says(self, word: str, within_s: float) -> bool:
        """Whether that is what it says first."""

    def end(self, within_s: float) -> None:
        """Have it end. One that is just undoing something is waited for."""


class _Started:
    """A guard that is a program of its own from its start."""

    def __init__(self, transaction_id: str) -> None:
        self._running = spawn(_argv(transaction_id), stdout=PIPE, new_session=True)

    def says(self, word: str, within_s: float) -> bool:
        return process.says(self._running, word, within_s)

    def end(self, within_s: float) -> None:
        self._running.terminate()
        # One that is busy finds out by itself that there is nothing left to do.
        with contextlib.suppress(TimedOut):
            wait(self._running, within_s, accept=range(-64, 256))


def _argv(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "kvmnet.flow.guard", *words]


def _environment() -> dict[str, str]:
    """What a program that PID 1 starts would not know."""
    names = ("KVMNET_STATE_DIR", "PYTHONPATH")
    return {name: os.environ[name] for name in names if name in os.environ}


def start(transaction: Transaction) -> Watching:
    """Have the guard watch over a transaction that is in the journal; returns once it does.

    A copy of this process has all in memory that an undo needs, and is there at once; where there
    are other threads (a libvirt that hangs leaves one behind) it is a program of its own.
    Raises `KvmnetError`; then `abandon` takes away what was begun of it.
    """
    timer = None
    has_timer = systemd.is_ours()
    if has_timer:  # it may take a while: the rest is done meanwhile
        timer = systemd.start_timer(transaction.id, _argv("--once", transaction.id), _environment())
    watching = _forked(transaction) or _Started(transaction.id)
    try:
        if has_timer:
            if reboot.outlives_boot(transaction.plan):
                _install_recovery()
            systemd.timer_started(timer)
        if not watching.says(READY, _START_S):
            raise Failed("it did not start", hint=" ".join(_argv(transaction.id)))
    except BaseException:
        watching.end(END_S)
        if timer is not None:  # else it could come after it was taken away
            with contextlib.suppress(KvmnetError):
                systemd.timer_started(timer)
        raise
    return watching


def _forked(transaction: Transaction) -> Watching | None:
    def body(says: int) -> int:
        def tell() -> None:
            os.write(says, f"{READY}\n".encode())
            os.close(says)

        os.chdir("/")
        return _telling(transaction.id, lambda: _watch(transaction, tell))

    return process.fork(f"kvmnet.flow.guard {transaction.id}", body)


def _install_recovery() -> None:
    state = journal.state_directory()
    systemd.install_recovery(
        _argv("--boot"),
        _environment(),
        needs=(state, Path(sys.executable), Path(kvmnet.__file__).parent),
        journal=state / "transactions",
    )


def abandon(transaction: Transaction) -> None:
    """Take a transaction away of which no step was begun. Never raises `KvmnetError`."""
    with contextlib.suppress(KvmnetError):
        journal.forget(transaction)
    clean_up(transaction)


def is_open(transaction_id: str) -> Transaction | None:
    """The transaction as the journal has it, if it is neither kept nor undone. Raises `Failed`."""
    try:
        found = journal.read(transaction_id)
    except NotFound:
        return None
    return found if found.outcome == "open" else None


def watch(transaction_id: str, on_ready: Callable[[], None]) -> None:
    """Return once the transaction is closed, by its kvmnet or by this guard."""
    found = is_open(transaction_id)
    if found is None:
        on_ready()
    else:
        _watch(found, on_ready)


def _watch(transaction: Transaction, on_ready: Callable[[], None]) -> None:
    """The same, of one that was open a moment ago: a copy of its kvmnet need not read it first."""
    owner = process.hold(transaction.pid, transaction.pid_started)
    on_ready()
    with contextlib.suppress(ImportError):  # it is tried again when it is needed
        steps.load([x.undo for x in transaction.plan.steps if x.undo is not None])
    while True:
        # Asked first: what the journal says of one that has ended is its last word.
        has_ended = owner is None or owner.ended_within(0)
        found = is_open(transaction.id)
        if found is None:
            return
        why = verdict(found, None if has_ended else owner)
        if why is not None:
            _take_back(transaction.id, why)
            return
        assert owner is not None
        left = (found.deadline or 0.0) - process.now()
        owner.ended_within(min(_LOOK_AGAIN_S, max(0.05, left)))


def look_once(transaction_id: str) -> None:
    """What `watch` does, without waiting."""
    found = is_open(transaction_id)
    if found is None:
        systemd.stop_timer(transaction_id)
        return
    owner = process.hold(found.pid, found.pid_started)
    if owner is None or owner.ended_within(0):
        owner, found = None, is_open(transaction_id)
    if found is None:
        systemd.stop_timer(transaction_id)
        return
    why = verdict(found, owner)
    if why is not None:
        _take_back(transaction_id, why)


def verdict(transaction: Transaction, owner: Process | None) -> str | None:
    """Why the transaction has to be undone; None: its kvmnet is at work.

    `owner` None: it had ended before the transaction was read, so that this is its last word.
    A kvmnet that hangs is killed.
    """
    who = f"kvmnet (process {transaction.pid})"
    steps = transaction.plan.steps
    where = f"at step {transaction.begun} of {len(steps)}"
    if transaction.begun:
        where += f" ({steps[transaction.begun - 1].step})"
    if owner is None:
        return f"{who} was gone {where}"
    if transaction.deadline is None or process.now() <= transaction.deadline:
        return None
    owner.kill()
    owner.ended_within(END_S)
    return f"{who} hung {where} and was killed"


def _take_back(transaction_id: str, why: str) -> None:
    """Undo it under the lock, unless somebody else was quicker. Raises `KvmnetError`."""
    for attempt in range(1, _TRIES + 1):
        try:
            with lock.hold(f"guard of transaction {transaction_id}", _say_nothing):
                found = journal.read(transaction_id)
                if found.outcome == "kept" or found.outcome == "undone":
                    clean_up(found)
                elif _is_confirmed_in_time(found):
                    close(found, "kept", f"confirmed by a person; {why}")
                else:
                    undo(found, why, Silent())
            return
        except NotUndone:
            if attempt == _TRIES:
                raise
            time.sleep(_TRY_AGAIN_S)


def _say_nothing(text: str) -> None:
    del text


def _is_confirmed_in_time(transaction: Transaction) -> bool:
    """Whether a kvmnet that died while it waited for a person's word gets it now.

    All of its steps were proven; whoever has to answer may have lost the session that it ran in.
    """
    if transaction.waits_until is None or is_of_another_boot(transaction):
        return False
    while not journal.is_confirmed(transaction.id):
        if process.now() > transaction.waits_until:
            return False
        time.sleep(0.2)
    return True


def recover_at_boot() -> None:
    """Undo what the reboot cut off, before the network managers read their files."""
    with lock.hold("recovery at boot", _say_nothing):
        for transaction in reversed(journal.unfinished()):
            if is_of_another_boot(transaction) and reboot.needs_guard(transaction.plan):
                with contextlib.suppress(NotUndone):  # it stays stuck, and is tried again later
                    undo(transaction, "the host went down in the middle of it", Silent(),
                         cause=Unavailable("libvirt does not run yet"))  # fmt: skip
        if systemd.is_ours():
            systemd.remove_recovery()


def _detach() -> None:
    """Nothing of the session that kvmnet was started in is held on to."""
    with contextlib.suppress(OSError):
        print(READY, flush=True)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)


def main(words: list[str]) -> int:
    """Never ends with a traceback: what went wrong is in the journal."""
    os.chdir("/")
    for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    match words:
        case ["--boot"]:
            return _telling("", recover_at_boot)
        case ["--once", transaction_id]:
            return _telling(transaction_id, lambda: look_once(transaction_id))
        case [transaction_id]:
            return _telling(transaction_id, lambda: watch(transaction_id, _detach))
        case _:
            return 2


def _telling(transaction_id: str, work: Callable[[], None]) -> int:
    """The exit status."""
    try:
        work()
    except NotUndone:
        return 1  # the journal says so already
    except Exception as error:
        # The last that stands between a host and its old state: whatever stops it, a bug too, has
        # to be told, and nobody sees its standard error. The journal is where people look.
        _note_failure(transaction_id, error)
        return 1
    return 0


def _note_failure(transaction_id: str, error: Exception) -> None:
    with contextlib.suppress(Exception):
        found = journal.read(transaction_id)
        why = f"{found.why}; the guard failed: {error}".removeprefix("; ")
        journal.write(msgspec.structs.replace(found, why=why))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
