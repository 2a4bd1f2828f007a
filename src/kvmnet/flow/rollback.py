"""Taking back what was begun: by the kvmnet that began it, the next one, or the guard."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol

import msgspec

from kvmnet.adapters import journal, process, rcu, steps, systemd
from kvmnet.core import reboot
from kvmnet.errors import KvmnetError, NotUndone, PartlyDone, Unavailable
from kvmnet.model import guest_steps, plan
from kvmnet.model.plan import PlannedStep
from kvmnet.model.transaction import Outcome, Transaction

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers

STOPPING_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})

STEP_S = 30.0
HAND_OVER_S = 120.0
"""How long a step may take before the process that takes it counts as hung. Far longer than any
of them needs: a manager is given its own time-outs, and a libvirt that restarts is waited for."""


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


def deadline(step: plan.Step) -> float:
    """When a step that is begun now has to be over, in seconds of CLOCK_BOOTTIME."""
    match step:
        case plan.Prove() | guest_steps.ProveGuest():
            return until(step.within_s)
        case plan.HandOver():
            return process.now() + HAND_OVER_S
        case _:
            return until(0.0)


def until(within_s: float) -> float:
    """When what takes `within_s` at the most counts as hung, in seconds of CLOCK_BOOTTIME."""
    return process.now() + within_s + STEP_S


def undo(
    transaction: Transaction, why: str, watcher: Watcher, *, cause: KvmnetError | None = None
) -> None:
    """Take the undo of every step that was begun, the last first; nothing stops it half-way.

    An undo that fails does not keep the others from being taken; `NotUndone` names what is left.
    A libvirt that was waited for in vain, by `cause` or an undo, is not waited for again. After a
    reboot only what it left is taken back.
    """
    with signals_held():
        left: list[str] = []
        away = isinstance(cause, Unavailable)
        rebooted = is_of_another_boot(transaction)
        back = {x.group for x in transaction.left_out}
        for planned in reversed(transaction.plan.steps[: transaction.begun]):
            step = planned.undo if planned.group not in back else None
            if step is not None and rebooted:
                step = reboot.after_reboot(step)
            if step is None:
                continue
            watcher.undoing(msgspec.structs.replace(planned, undo=step))
            _allow_time(transaction, step)
            try:
                if away:
                    steps.check_possible(step, transaction.uri)
                steps.take(step, transaction.uri)
            except PartlyDone as error:  # noted, since it is no reason to block what comes later
                watcher.say(f"{error} ({error.hint})")
                why = f"{why}; {error}"
            except KvmnetError as error:
                away = away or isinstance(error, Unavailable)
                left.append(f"{step}: {error}")
        _end(transaction, why, left)


def _end(transaction: Transaction, why: str, left: list[str]) -> None:
    if not left:
        _note_end(transaction, "undone", why)
        return
    _note_end(transaction, "stuck", f"{why}; not undone: {'; '.join(left)}")
    raise NotUndone(
        f"{transaction.plan.title} failed, and not all of it could be undone",
        why="; ".join(left),
        hint=f"mend that, then try again: kvmnet undo {transaction.id} (or give it up: "
        f"kvmnet undo {transaction.id} --give-up)",
    )


def is_of_another_boot(transaction: Transaction) -> bool:
    """Whether the host has rebooted since it was begun."""
    return transaction.boot_id is not None and transaction.boot_id != process.boot_id()


def _allow_time(transaction: Transaction, step: plan.Step) -> None:
    """Tell the guard how long the undo of a step may take; a full disk does not stop it."""
    if transaction.deadline is not None:
        with contextlib.suppress(KvmnetError):
            journal.write(msgspec.structs.replace(transaction, deadline=deadline(step)))


def close(transaction: Transaction, outcome: Outcome, why: str = "") -> None:
    """Note how a transaction ended, and take away what watched over it. Raises `Failed`."""
    journal.write(
        msgspec.structs.replace(
            transaction, outcome=outcome, why=why, ended_at=int(time.time()),
            deadline=None, waits_until=None,
        )
    )  # fmt: skip
    clean_up(transaction)


def clean_up(transaction: Transaction) -> None:
    """Leave nothing of a transaction but its journal: no timer, no unit, no confirmation."""
    with contextlib.suppress(KvmnetError):
        journal.forget_confirmation(transaction.id)
    if not reboot.needs_guard(transaction.plan):
        return
    rcu.put_right()
    if not systemd.is_ours():
        return
    systemd.stop_timer(transaction.id)
    with contextlib.suppress(KvmnetError):
        if not any(reboot.outlives_boot(x.plan) for x in journal.unfinished()):
            systemd.remove_recovery()


def _note_end(transaction: Transaction, outcome: Outcome, why: str) -> None:
    """Note how it ended; where the disk is full, an undone transaction is forgotten instead."""
    try:
        close(transaction, outcome, why)
    except KvmnetError:
        if outcome == "undone":
            journal.forget(transaction)
            clean_up(transaction)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
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
