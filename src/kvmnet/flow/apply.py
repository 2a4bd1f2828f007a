"""How a plan becomes real, and how it is taken back.

The whole story is `apply`: journal, steps, verify, keep; and on any failure, the undo of every step
that was begun, in reverse order. A kvmnet that is killed leaves its journal open, and the next one
that wants to change something finds it under the lock and undoes it first (`recover`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol

import msgspec

from kvmnet.adapters import journal, lock, steps
from kvmnet.errors import Interrupted, KvmnetError, NotUndone, PermissionDenied, Unavailable, Undone
from kvmnet.model.plan import Plan, PlannedStep
from kvmnet.model.transaction import Outcome, Transaction

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers

STOPPING_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


class Watcher(Protocol):
    """Is told how far a transaction is: for progress on a terminal, and for tests."""

    def began(self, number: int, planned: PlannedStep) -> None:
        """Step `number` (from 1) is in the journal and will be taken now."""

    def done(self, number: int, planned: PlannedStep) -> None:
        """Step `number` was taken."""

    def undoing(self, planned: PlannedStep) -> None:
        """The undo of a step will be taken now."""

    def say(self, text: str) -> None:
        """Something else that people should know."""


@contextlib.contextmanager
def changing(command: str, watcher: Watcher) -> Iterator[None]:
    """Hold the lock while this host is changed, after undoing what was cut off earlier.

    Planning belongs inside too: two kvmnets that choose a free subnet must not choose the same.
    """
    with lock.hold(command, watcher.say):
        recover(watcher)
        yield


def apply(
    plan: Plan, *, uri: str | None, command: str, verify: Callable[[], None], watcher: Watcher
) -> None:
    """Take the plan's steps and keep them if `verify` agrees, else undo them all.

    `verify` raises a `KvmnetError` if the host is not as it should be now. Raises `Refused` (no
    journal: nothing was touched), `PermissionDenied` (the same), `Undone`, `Interrupted` (all put
    back), `NotUndone`.
    """
    _check_rights(plan)
    current = _new_transaction(plan, uri, command)
    try:
        journal.begin(current)
        for number, planned in enumerate(plan.steps, start=1):
            current = msgspec.structs.replace(current, begun=number)
            journal.write(current)
            watcher.began(number, planned)
            steps.take(planned.step, uri)
            watcher.done(number, planned)
        verify()
        _close(current, "kept")
    except KeyboardInterrupt:
        undo(current, "stopped by the user", watcher)
        raise Interrupted(
            f"{plan.title}: stopped by the user", why="everything was put back as it was"
        ) from None
    except KvmnetError as error:
        if current.begun == 0:
            raise
        undo(current, str(error), watcher, cause=error)
        raise Undone(
            f"{plan.title} did not work; everything was put back as it was",
            why=str(error), hint=error.hint,
        ) from None  # fmt: skip
    except BaseException as error:  # a bug, or a terminal that went away: put back, then tell
        undo(current, f"kvmnet failed: {error}", watcher)
        raise
    journal.forget_old()


def _check_rights(plan: Plan) -> None:
    """Members of the group libvirt may change libvirt's networks, but not the host itself."""
    beyond = [planned for planned in plan.steps if steps.needs_root(planned.step)]
    if beyond and os.geteuid() != 0:
        raise PermissionDenied(
            f"{plan.title}: nothing was changed",
            why="only root may do this part of it: "
            + "; ".join(str(planned.step) for planned in beyond),
            hint="run it again with sudo",
        )


def _new_transaction(plan: Plan, uri: str | None, command: str) -> Transaction:
    now = time.time()
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))
    return Transaction(
        id=f"{stamp}.{int(now % 1 * 1e6):06}-{os.getpid()}",
        began_at=int(now),
        command=command,
        uri=uri,
        plan=plan,
    )


def _close(transaction: Transaction, outcome: Outcome, why: str = "") -> None:
    journal.write(
        msgspec.structs.replace(transaction, outcome=outcome, why=why, ended_at=int(time.time()))
    )


def undo(
    transaction: Transaction, why: str, watcher: Watcher, *, cause: KvmnetError | None = None
) -> None:
    """Take the undo of every step that was begun, the last first; nothing stops it half-way.

    An undo that fails does not keep the others from being taken; `NotUndone` names what is left.
    A libvirt that was waited for in vain, by `cause` or an undo, is not waited for again.
    """
    with _signals_held():
        left: list[str] = []
        away = isinstance(cause, Unavailable)
        for planned in reversed(transaction.plan.steps[: transaction.begun]):
            if planned.undo is None:
                continue
            watcher.undoing(planned)
            try:
                if away:
                    steps.check_possible(planned.undo, transaction.uri)
                steps.take(planned.undo, transaction.uri)
            except KvmnetError as error:
                away = away or isinstance(error, Unavailable)
                left.append(f"{planned.undo}: {error}")
        if left:
            _note_end(transaction, "stuck", "; ".join(left))
            raise NotUndone(
                f"{transaction.plan.title} failed, and not all of it could be undone",
                why="; ".join(left),
                hint="mend that and run any kvmnet command that changes something: it tries again "
                f"(to give it up, move {journal.path_of(transaction.id)} away)",
            )
        _note_end(transaction, "undone", why)


def _note_end(transaction: Transaction, outcome: Outcome, why: str) -> None:
    """Note how it ended; where the disk is full, an undone transaction is forgotten instead."""
    try:
        _close(transaction, outcome, why)
    except KvmnetError:
        if outcome == "undone":
            journal.forget(transaction)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Ctrl-C and its like wait until the end: putting things back is never left half-way.

    Blocking them keeps them from programs that are started meanwhile. It is not enough: a call to
    libvirt that was left behind is a thread that still takes them, and Python would interrupt the
    main thread for it. Where the undo itself fails, that is told rather than the signal.
    """
    came: list[int] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING_SIGNALS)
    handlers = _note_signals(came)
    try:
        yield
    except BaseException:
        while signal.sigtimedwait(STOPPING_SIGNALS, 0) is not None:
            pass
        came.clear()
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if came:
        raise KeyboardInterrupt


def _note_signals(came: list[int]) -> dict[signal.Signals, Handler]:
    """Have signals only noted in `came`; returns the handlers that did more."""
    if threading.current_thread() is not threading.main_thread():
        return {}  # Python runs handlers in the main thread alone
    handlers: dict[signal.Signals, Handler] = {}
    for number in STOPPING_SIGNALS:
        handler = signal.getsignal(number)
        if handler is not None:
            handlers[number] = handler
            signal.signal(number, lambda taken, _frame: came.append(taken))
    return handlers


def recover(watcher: Watcher) -> None:
    """Undo what an earlier kvmnet left half-done. Only for the holder of the lock."""
    for transaction in reversed(journal.unfinished()):
        watcher.say(
            f"an earlier kvmnet was cut off at step {transaction.begun} of "
            f"{len(transaction.plan.steps)} of `{transaction.plan.title}`: undoing it"
        )
        undo(transaction, "kvmnet was cut off", watcher)
