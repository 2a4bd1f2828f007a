"""The guard: undoes a change of the host's network from outside, if kvmnet itself can not.

It is a process of its own, started before the first step:

    python -P -m kvmnet.flow.guard ID          watch until the transaction is closed
    python -P -m kvmnet.flow.guard --stand-by  the same, once the ID comes by standard input
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
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

import kvmnet
from kvmnet.adapters import journal, lock, process, steps, systemd
from kvmnet.adapters.process import Process
from kvmnet.adapters.run import PIPE, Running, spawn, wait
from kvmnet.core import reboot
from kvmnet.errors import Failed, KvmnetError, NotFound, NotUndone, TimedOut, Unavailable
from kvmnet.flow.rollback import clean_up, close, is_of_another_boot, undo
from kvmnet.model.plan import PlannedStep
from kvmnet.model.transaction import Transaction

READY = "watching"
_START_S = 15.0
_END_S = 5.0
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


class Watching:
    """The guard of one transaction, from the side of the kvmnet that is watched."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def end(self) -> None:
        """Have it end. One that is just undoing something is waited for."""
        self._running.terminate()
        # One that is busy finds out by itself that there is nothing left to do.
        with contextlib.suppress(TimedOut):
            wait(self._running, _END_S, accept=range(-64, 256))


class Standby:
    """A guard that starts while the change is still being planned; it ends with this kvmnet."""

    def __init__(self) -> None:
        self._running = spawn(_argv("--stand-by"), stdin=PIPE, stdout=PIPE, new_session=True)
        self._is_used = False

    def take(self, transaction_id: str) -> Running | None:
        """Tell it what to watch; None: it has ended, and there has to be another one."""
        assert self._running.stdin is not None
        if self._is_used or self._running.poll() is not None:
            return None
        self._is_used = True
        try:
            with self._running.stdin as stream:
                stream.write(f"{transaction_id}\n".encode())
        except OSError:
            self._end()
            return None
        return self._running

    def dismiss(self) -> None:
        """Have it end if it was not needed."""
        if not self._is_used:
            self._end()

    def _end(self) -> None:
        Watching(self._running).end()
        for stream in (self._running.stdin, self._running.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


@contextlib.contextmanager
def standing_by() -> Iterator[Standby]:
    """Have a guard start already: its start then costs no time of its own."""
    standby = Standby()
    try:
        yield standby
    finally:
        standby.dismiss()


def _argv(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "kvmnet.flow.guard", *words]


def _environment() -> dict[str, str]:
    """What a program that PID 1 starts would not know."""
    names = ("KVMNET_STATE_DIR", "PYTHONPATH")
    return {name: os.environ[name] for name in names if name in os.environ}


def start(transaction: Transaction, standby: Standby | None = None) -> Watching:
    """Have the guard watch over a transaction that is in the journal; returns once it does.

    Raises `KvmnetError`; then `abandon` takes away what was begun of it.
    """
    running = standby.take(transaction.id) if standby is not None else None
    if running is None:
        running = spawn(_argv(transaction.id), stdout=PIPE, new_session=True)
    try:
        if systemd.is_ours():
            systemd.start_timer(transaction.id, _argv("--once", transaction.id), _environment())
            if reboot.outlives_boot(transaction.plan):
                _install_recovery()
        if not process.says(running, READY, _START_S):
            raise Failed("it did not start", hint=" ".join(_argv(transaction.id)))
    except BaseException:
        Watching(running).end()
        raise
    return Watching(running)


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


def _is_open(transaction_id: str) -> Transaction | None:
    try:
        found = journal.read(transaction_id)
    except NotFound:
        return None
    return found if found.outcome == "open" else None


def watch(transaction_id: str, on_ready: Callable[[], None]) -> None:
    """Return once the transaction is closed, by its kvmnet or by this guard."""
    found = _is_open(transaction_id)
    owner = process.hold(found.pid, found.pid_started) if found is not None else None
    on_ready()
    if found is not None:
        with contextlib.suppress(ImportError):  # it is tried again when it is needed
            steps.load([x.undo for x in found.plan.steps if x.undo is not None])
    while (found := _is_open(transaction_id)) is not None:
        why = verdict(found, owner)
        if why is not None:
            _take_back(transaction_id, why)
            return
        assert owner is not None
        left = (found.deadline or 0.0) - process.now()
        owner.ended_within(min(_LOOK_AGAIN_S, max(0.05, left)))


def look_once(transaction_id: str) -> None:
    """What `watch` does, without waiting."""
    found = _is_open(transaction_id)
    if found is None:
        systemd.stop_timer(transaction_id)
        return
    why = verdict(found, process.hold(found.pid, found.pid_started))
    if why is not None:
        _take_back(transaction_id, why)


def verdict(transaction: Transaction, owner: Process | None) -> str | None:
    """Why the transaction has to be undone; None: its kvmnet is at work.

    A kvmnet that hangs is killed.
    """
    who = f"kvmnet (process {transaction.pid})"
    steps = transaction.plan.steps
    where = f"at step {transaction.begun} of {len(steps)}"
    if transaction.begun:
        where += f" ({steps[transaction.begun - 1].step})"
    if owner is None or owner.ended_within(0):
        return f"{who} was gone {where}"
    if transaction.deadline is None or process.now() <= transaction.deadline:
        return None
    owner.kill()
    owner.ended_within(_END_S)
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
    try:
        match words:
            case ["--boot"]:
                recover_at_boot()
            case ["--once", transaction_id]:
                look_once(transaction_id)
            case ["--stand-by"]:
                words = sys.stdin.readline().split()  # nothing: there is nothing to watch
                if words:
                    watch(words[0], _detach)
            case [transaction_id]:
                watch(transaction_id, _detach)
            case _:
                return 2
    except NotUndone:
        return 1  # the journal says so already
    except Exception as error:  # nobody sees its standard error: the journal is where it is told
        _note_failure(words[-1], error)
        return 1
    return 0


def _note_failure(transaction_id: str, error: Exception) -> None:
    with contextlib.suppress(Exception):
        found = journal.read(transaction_id)
        why = f"{found.why}; the guard failed: {error}".removeprefix("; ")
        journal.write(msgspec.structs.replace(found, why=why))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
