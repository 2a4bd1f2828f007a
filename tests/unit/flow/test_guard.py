"""When the guard acts, and what counts as its clock."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import msgspec
import pytest

from kvmnet.adapters import process
from kvmnet.flow import guard, rollback
from kvmnet.flow.taking_back import taken_back_by
from kvmnet.model import plan
from kvmnet.model.plan import Plan, PlannedStep
from kvmnet.model.transaction import Outcome, Transaction

STEP = plan.WriteFile(path="/etc/x", text="x")


def transaction(**changes: object) -> Transaction:
    made = Transaction(
        id="1", began_at=0, command="c", uri=None, begun=1,
        plan=Plan(title="p", steps=(PlannedStep(step=STEP, undo=None),)),
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for a kvmnet."""
    running = subprocess.Popen(["sleep", "60"])
    yield running
    running.kill()
    running.wait(5)


def of(other: subprocess.Popen[bytes], deadline: float | None) -> Transaction:
    return transaction(pid=other.pid, pid_started=process.started(other.pid), deadline=deadline)


def judge(found: Transaction) -> str | None:
    return guard.verdict(found, process.hold(found.pid, found.pid_started))


def test_a_kvmnet_in_time_is_left_alone(other: subprocess.Popen[bytes]) -> None:
    assert judge(of(other, process.now() + 5)) is None
    assert judge(of(other, None)) is None


def test_a_kvmnet_that_ended_is_noticed(other: subprocess.Popen[bytes]) -> None:
    found = of(other, process.now() + 5)
    other.kill()
    other.wait(5)
    why = judge(found)
    assert why is not None and "was gone at step 1 of 1 (write /etc/x)" in why


def test_another_process_of_the_same_pid_is_not_taken_for_it(
    other: subprocess.Popen[bytes],
) -> None:
    found = of(other, process.now() - 5)
    earlier = msgspec.structs.replace(found, pid_started=(found.pid_started or 0) - 1)
    why = judge(earlier)
    assert why is not None and "was gone" in why
    assert other.poll() is None, "it was not killed"


def test_a_kvmnet_that_hangs_is_killed(other: subprocess.Popen[bytes]) -> None:
    why = judge(of(other, process.now() - 0.01))
    assert why is not None and "hung at step 1 of 1" in why
    assert other.wait(5) == -9


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
def test_a_clock_that_is_set_changes_no_deadline(
    other: subprocess.Popen[bytes], jump_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    until = rollback.deadline(STEP)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + jump_s)
    assert judge(of(other, until)) is None
    assert 0 < rollback.deadline(STEP) - until < 5


def test_journals_of_older_versions_are_understood() -> None:
    old = """{"id": "20260101T000000.000000-1", "began_at": 1, "command": "kvmnet up", "uri": null,
              "plan": {"title": "t"}, "begun": 0, "outcome": "kept", "why": "", "version": 1}"""
    found = msgspec.json.decode(old, type=Transaction)
    assert (found.deadline, found.boot_id, found.confirm.by) == (None, None, "auto")
    assert not rollback.is_of_another_boot(found)


Links = tuple[tuple[str, str | None, Outcome], ...]


def chain(*links: tuple[str, str | None, Outcome]) -> dict[str, str]:
    return taken_back_by(tuple(transaction(id=i, undoes=u, outcome=o) for i, u, o in links))


def test_which_changes_were_taken_back() -> None:
    assert chain(("a", None, "kept"), ("b", "a", "kept")) == {"a": "b"}
    assert chain(("a", None, "kept"), ("b", "a", "undone")) == {}
    assert chain(("a", None, "kept"), ("b", "a", "kept"), ("c", "b", "kept")) == {"b": "c"}
    four: Links = (("a", None, "kept"), ("b", "a", "kept"), ("c", "b", "kept"), ("d", "c", "kept"))
    assert chain(*four) == {"a": "b", "c": "d"}
    again: Links = (("a", None, "kept"), ("b", "a", "kept"), ("c", "b", "kept"), ("0", "a", "kept"))
    assert chain(*again) == {"a": "0", "b": "c"}
