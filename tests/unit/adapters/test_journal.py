"""The journal: what is unfinished is found, and a long history is cut short."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmnet.adapters import journal
from kvmnet.errors import Failed
from kvmnet.model.plan import Plan
from kvmnet.model.transaction import Outcome, Transaction


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KVMNET_STATE_DIR", str(tmp_path))
    return tmp_path / "transactions"


def note(number: int, outcome: Outcome = "kept") -> str:
    name = f"20260101T{number:06}.000000-1"
    plan = Plan(title="t", steps=(), notes=())
    journal.write(
        Transaction(id=name, began_at=0, command="c", uri=None, plan=plan, outcome=outcome)
    )
    return name


def test_unfinished_ones_are_read_in_full() -> None:
    outcomes: tuple[Outcome, ...] = ("kept", "open", "undone", "stuck", "given-up")
    for number, outcome in enumerate(outcomes):
        note(number, outcome)
    assert [x.outcome for x in journal.unfinished()] == ["open", "stuck"]
    assert journal.unfinished()[0].plan.title == "t"


def test_what_is_over_need_not_be_understood_in_full(folder: Path) -> None:
    """A plan of a newer kvmnet that was kept keeps nobody from a change."""
    path = journal.path_of(note(1))
    text = path.read_text().replace('"steps":[]', '"steps":[{"step":{"type":"unheard-of"}}]')
    path.write_text(text)
    assert journal.unfinished() == ()
    path.write_text(text.replace('"kept"', '"open"'))
    with pytest.raises(Failed) as caught:
        journal.unfinished()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"null", b'{"id":"x"}', b"\x00\xff"])
def test_a_file_that_is_none_of_ours_is_named(folder: Path, content: bytes) -> None:
    path = journal.path_of(note(1))
    path.write_bytes(content)
    with pytest.raises(Failed, match=str(path)):
        journal.unfinished()


def test_the_oldest_go_and_the_unfinished_stay(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "KEPT_IN_HISTORY", 3)
    stuck = note(0, "stuck")
    for number in range(1, 6):
        note(number)
    journal.forget_old()
    left = [x.id for x in journal.transactions()]
    assert left[0] == stuck
    assert [int(x[9:15]) for x in left[1:]] == [3, 4, 5]
