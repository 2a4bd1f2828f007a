"""A guard that has started before it is known what there is to watch."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmnet.flow import guard

END_S = 20.0


@pytest.fixture(autouse=True)
def _own_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVMNET_STATE_DIR", str(tmp_path))


def test_it_ends_by_itself_when_nobody_can_tell_it_anything_any_more() -> None:
    standby = guard.Standby()
    running = standby._running
    assert running.stdin is not None
    running.stdin.close()  # what the kernel does when kvmnet dies
    assert running.wait(END_S) == 0
    assert standby.take("20260101T000000.000000-1") is None
    standby.dismiss()


def test_it_ends_when_it_is_not_needed() -> None:
    with guard.standing_by() as standby:
        running = standby._running
        assert running.poll() is None
    assert running.wait(END_S) != 0


def test_it_watches_what_it_is_told_once() -> None:
    with guard.standing_by() as standby:
        running = standby.take("20260101T000000.000000-1")
        assert running is not None and running.stdout is not None
        assert standby.take("20260101T000000.000000-2") is None
        with running.stdout as stream:
            assert stream.readline().decode().strip() == guard.READY
    assert running.wait(END_S) == 0  # there is no such transaction: nothing to watch
