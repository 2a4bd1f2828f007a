"""What a transaction does about signals, and about undos that fail, while it puts things back."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvmnet.adapters import journal, steps
from kvmnet.errors import Failed, NotUndone, PartlyDone
from kvmnet.flow import guard, rollback
from kvmnet.flow.rollback import signals_held
from kvmnet.model.plan import Plan, PlannedStep, SetAutostart, Step
from kvmnet.model.transaction import Transaction


@pytest.fixture
def thread_that_takes_signals() -> Iterator[None]:
    """As a call to libvirt that was left behind is: it does not have signals blocked."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait, daemon=True)
    thread.start()
    yield
    end.set()
    thread.join(5)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As from a terminal: a run in the background of a shell ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("thread_that_takes_signals", "interruptible")
def test_signal_waits_until_everything_is_put_back() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), signals_held():
        for step in ("third", "second", "first"):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.02)  # Python looks for signals when it comes back
            done.append(step)
    assert done == ["third", "second", "first"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("helper", [False, True])
def test_failed_undo_is_told_rather_than_the_signal(
    helper: bool, request: pytest.FixtureRequest
) -> None:
    if helper:
        request.getfixturevalue("thread_that_takes_signals")
    with pytest.raises(NotUndone), signals_held():
        os.kill(os.getpid(), signal.SIGINT)
        raise NotUndone("something is left")
    assert signal.sigpending() == set()


class Listening(guard.Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def fails_with(error: Exception) -> Callable[[Step, str | None], None]:
    def take(step: Step, uri: str | None) -> None:
        raise error

    return take


def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> Transaction:
    monkeypatch.setenv("KVMNET_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(steps, "take", fails_with(error))
    step = SetAutostart(name="default", on=True)
    plan = Plan(title="change it", steps=(PlannedStep(step=step, undo=step),))
    found = Transaction(id="20261101T000000.1-1", began_at=0, command="c", uri=None, plan=plan,
                        begun=1)  # fmt: skip
    journal.begin(found)
    return found


def test_what_is_left_and_cuts_nobody_off_is_told_and_blocks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = PartlyDone("not all of eth1 could be set", why="no memory", hint="bridge vlan")
    watcher = Listening()
    rollback.undo(begun(tmp_path, monkeypatch, error), "it failed", watcher)
    (found,) = journal.transactions()
    assert found.outcome == "undone"
    assert found.why == "it failed; not all of eth1 could be set: no memory"
    assert watcher.said == ["not all of eth1 could be set: no memory (bridge vlan)"]


def test_an_undo_that_fails_is_stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transaction = begun(tmp_path, monkeypatch, Failed("no bridge", why="no memory"))
    with pytest.raises(NotUndone):
        rollback.undo(transaction, "it failed", Listening())
    (found,) = journal.transactions()
    assert found.outcome == "stuck"
