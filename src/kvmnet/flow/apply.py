"""How a plan becomes real, and how it is taken back.

The whole story is `apply`: journal, guard, steps, verify, a person's word where it is asked for,
keep; and on any failure, the undo of every step that was begun, in reverse order. A kvmnet that is
killed leaves its journal open: the guard undoes it at once (`flow/guard.py`), and where there is
none, the next kvmnet that wants to change something (`recover`).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from kvmnet.adapters import journal, lock, process, steps, together
from kvmnet.core import reboot
from kvmnet.errors import (
    Failed,
    Interrupted,
    KvmnetError,
    PartlyDone,
    PermissionDenied,
    Refused,
    Unavailable,
    Undone,
)
from kvmnet.flow import guard
from kvmnet.flow.rollback import STEP_S, Watcher, close, deadline, undo, until
from kvmnet.model.guest_steps import SaveGuest
from kvmnet.model.plan import Plan, PlannedStep, Prove
from kvmnet.model.transaction import Confirm, LeftOut, Transaction

__all__ = ["Watcher", "apply", "changing", "recover"]

_LOOK_AGAIN_S = 0.2
_AT_ONCE = 50
"""Definitions of guests that are saved together: the journal of a thousand guests is long, so it
is not written for each of them."""


@contextlib.contextmanager
def changing(command: str, watcher: Watcher) -> Iterator[None]:
    """Hold the lock while this host is changed, after undoing what was cut off earlier.

    Planning belongs inside too: two kvmnets that choose a free subnet must not choose the same.
    """
    with lock.hold(command, watcher.say):
        recover(watcher)
        yield


def _batches(planned: Sequence[PlannedStep]) -> Iterator[list[tuple[int, PlannedStep]]]:
    """The steps with their numbers from 1, one by one; definitions of guests some at once."""
    numbered = list(enumerate(planned, start=1))
    for many, found in itertools.groupby(numbered, lambda x: isinstance(x[1].step, SaveGuest)):
        same = list(found)
        size = _AT_ONCE if many else 1
        yield from (same[start : start + size] for start in range(0, len(same), size))


class _Run:
    """A transaction on its way: what the journal says of it, kept up to date."""

    def __init__(self, transaction: Transaction, watcher: Watcher) -> None:
        self.current = transaction
        self._watcher = watcher
        self._is_guarded = reboot.needs_guard(transaction.plan)
        self._taken = 0

    def take_steps(self) -> None:
        """Raises `KvmnetError` where a step fails, unless the others can do without its group."""
        for batch in _batches(self.current.plan.steps):
            todo = [x for x in batch if x[1].group not in self._groups_out()]
            if not todo:
                continue
            self._begin(todo)
            failures = together.take([x.step for _, x in todo], self.current.uri)
            for (number, planned), failure in zip(todo, failures, strict=True):
                if isinstance(failure, PartlyDone):
                    self._watcher.say(f"{failure} ({failure.hint})")
                if failure is None or isinstance(failure, PartlyDone):
                    self._watcher.done(number, planned)
                elif planned.group is None or isinstance(failure, Unavailable):
                    raise failure
                else:
                    self._leave_out(planned.group, failure)
        self._check_rest()

    def _begin(self, batch: Sequence[tuple[int, PlannedStep]]) -> None:
        self._taken, last = batch[-1]
        over = deadline(last.step) if self._is_guarded else None
        self._note(msgspec.structs.replace(self.current, begun=self._taken, deadline=over))
        for number, planned in batch:
            self._watcher.began(number, planned)

    def _leave_out(self, group: str, error: KvmnetError) -> None:
        """Put a group back as it was. Raises `KvmnetError` if that fails: then all is undone."""
        self._watcher.say(f"{group} did not work and is put back: {error}")
        for planned in reversed(self.current.plan.steps[: self._taken]):
            if planned.group == group and planned.undo is not None:
                self._watcher.undoing(planned)
                steps.take(planned.undo, self.current.uri)
        out = LeftOut(group=group, why=str(error))
        self._note(msgspec.structs.replace(self.current, left_out=(*self.current.left_out, out)))

    def _groups_out(self) -> frozenset[str]:
        return frozenset(x.group for x in self.current.left_out)

    def _check_rest(self) -> None:
        groups = {x.group for x in self.current.plan.steps}
        if groups and groups <= self._groups_out():
            first = self.current.left_out[0]
            raise Failed("none of it worked", why=f"{first.group}: {first.why}")

    def allow_verifying(self, within_s: float) -> None:
        """Give the guard another deadline than the last step's: what is verified takes longer."""
        if self._is_guarded:
            self._note(msgspec.structs.replace(self.current, deadline=until(within_s)))

    def await_person(self) -> None:
        """Wait until somebody confirms, wherever from. Raises `Failed` if nobody does in time."""
        if self.current.confirm.by != "manual":
            return
        within_s = self.current.confirm.within_s
        over = process.now() + within_s
        with _hangups_ignored():
            self._note(
                msgspec.structs.replace(self.current, waits_until=over, deadline=over + STEP_S)
            )
            self._watcher.say(
                f"it works; to keep it, run `kvmnet confirm` within {within_s} seconds, in this or "
                "any other terminal, or it is undone"
            )
            while not journal.is_confirmed(self.current.id):
                if process.now() > over:
                    raise Failed(
                        "it was not confirmed", why=f"nobody did within {within_s} seconds",
                        hint="run it again with more time: --confirm manual=SECONDS",
                    )  # fmt: skip
                time.sleep(_LOOK_AGAIN_S)

    def _note(self, transaction: Transaction) -> None:
        self.current = transaction
        journal.write(transaction)


def apply(
    plan: Plan,
    *,
    uri: str | None,
    command: str,
    verify: Callable[[], None],
    watcher: Watcher,
    verify_within_s: float = STEP_S,
    confirm: Confirm = Confirm(),  # noqa: B008 (frozen)
    undoes: str | None = None,
) -> tuple[LeftOut, ...]:
    """Take the plan's steps and keep them if `verify` and `confirm` agree, else undo them all.

    Returns the groups that were put back while the others went on.

    `verify` raises a `KvmnetError` if the host is not as it should be now, and takes no longer than
    `verify_within_s`, or the guard counts it as hung; `undoes` is the id of the kept transaction
    that this plan takes back. Raises `Refused` (no journal or no guard:
    nothing was touched), `PermissionDenied` (the same), `Undone`, `Interrupted` (all put back),
    `NotUndone`.
    """
    plan = _with_proofs(plan, confirm, watcher)
    _check_rights(plan)
    transaction = _new_transaction(plan, uri, command)
    transaction = msgspec.structs.replace(transaction, confirm=confirm, undoes=undoes)
    journal.begin(transaction)
    run = _Run(transaction, watcher)
    with _guarded(transaction):
        _carry_out(run, verify, watcher, verify_within_s)
    journal.forget_old()
    return run.current.left_out


def _carry_out(
    run: _Run, verify: Callable[[], None], watcher: Watcher, verify_within_s: float
) -> None:
    title = run.current.plan.title
    try:
        run.take_steps()
        run.allow_verifying(verify_within_s)
        verify()
        run.await_person()
        close(run.current, "kept", _why_kept(run.current))
    except KeyboardInterrupt:
        undo(run.current, "stopped by the user", watcher)
        raise Interrupted(
            f"{title}: stopped by the user", why="everything was put back as it was"
        ) from None
    except KvmnetError as error:
        undo(run.current, str(error), watcher, cause=error)
        raise Undone(
            f"{title} did not work; everything was put back as it was",
            why=str(error), hint=error.hint,
        ) from None  # fmt: skip
    except BaseException as error:  # a bug, or a terminal that went away: put back, then tell
        undo(run.current, f"kvmnet failed: {error}", watcher)
        raise


def _why_kept(transaction: Transaction) -> str:
    if transaction.confirm.by == "manual":
        return "confirmed by a person"
    return "not proven: --confirm none" if transaction.confirm.by == "none" else ""


@contextlib.contextmanager
def _guarded(transaction: Transaction) -> Iterator[None]:
    """Have the guard watch over a change of how the host is reached. Raises `Refused`."""
    if not reboot.needs_guard(transaction.plan):
        yield
        return
    try:
        watching = guard.start(transaction)
    except BaseException as error:
        guard.abandon(transaction)
        if not isinstance(error, KvmnetError):
            raise
        raise Refused(
            "nothing was changed",
            why=f"the guard, which would undo it if kvmnet died: {error}",
            hint=error.hint,
        ) from None
    is_left = False
    try:
        yield
    except BaseException as error:
        is_left = _leave_to_guard(transaction)
        if is_left and isinstance(error, KeyboardInterrupt):
            raise Interrupted(
                f"{transaction.plan.title}: stopped by the user twice",
                why="its guard is putting everything back as it was",
                hint="how it ended: kvmnet history",
            ) from None
        raise
    finally:
        if not is_left:
            watching.end(guard.END_S)


def _leave_to_guard(transaction: Transaction) -> bool:
    """Have the guard undo what this process was kept from undoing: a second signal came before
    that began. False: it has ended already, or the journal can't be read or written."""
    with contextlib.suppress(KvmnetError):
        found = guard.is_open(transaction.id)
        if found is not None:
            journal.write(msgspec.structs.replace(found, waits_until=None))
            return True
    return False


def _with_proofs(plan: Plan, confirm: Confirm, watcher: Watcher) -> Plan:
    """The plan, without its proofs where nobody wants them."""
    kept = tuple(x for x in plan.steps if not isinstance(x.step, Prove))
    if confirm.by != "none" or len(kept) == len(plan.steps):
        return plan
    watcher.say("nothing will be proven (--confirm none): it is kept even if it cuts the host off")
    return msgspec.structs.replace(plan, steps=kept)


def _check_rights(plan: Plan) -> None:
    """Members of the group libvirt may change libvirt's networks, but not the host itself."""
    beyond: list[PlannedStep] = [x for x in plan.steps if steps.needs_root(x.step)]
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
        boot_id=process.boot_id(),
        pid=os.getpid(),
        pid_started=process.started(os.getpid()),
        deadline=process.now() + STEP_S if reboot.needs_guard(plan) else None,
    )


@contextlib.contextmanager
def _hangups_ignored() -> Iterator[None]:
    """A session that ends must not end the waiting: who confirms may come by another one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def recover(watcher: Watcher) -> None:
    """Undo what an earlier kvmnet left half-done. Only for the holder of the lock."""
    for transaction in reversed(journal.unfinished()):
        if transaction.waits_until is not None and journal.is_confirmed(transaction.id):
            close(transaction, "kept", "confirmed by a person; kvmnet was gone by then")
            continue
        watcher.say(
            f"an earlier kvmnet was cut off at step {transaction.begun} of "
            f"{len(transaction.plan.steps)} of `{transaction.plan.title}`: undoing it"
        )
        undo(transaction, "kvmnet was cut off", watcher)
