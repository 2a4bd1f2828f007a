"""A stand-in whose owner dies gives its lease back, whenever the news of it comes.

It comes twice, some microseconds apart: the lifeline closes, then the kernel sends SIGTERM. Here
the signal comes at each single instruction after the first news.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from kvmnet.adapters import standin
from kvmnet.adapters.packets import OwnerGone


def closed(guest: standin.StandInGuest) -> None:
    """The lifeline closed between two orders."""


def closed_while_waiting(guest: standin.StandInGuest) -> None:
    raise OwnerGone


def signalled_at(instruction: int, sent: list[bool]) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that sends the signal at that instruction."""
    seen = 0

    def look(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal seen
        frame.f_trace_opcodes = True
        if event == "opcode":
            if seen == instruction:
                sent.append(True)
                os.kill(os.getpid(), signal.SIGTERM)
            seen += 1
        return look

    return look


def life(
    end: Callable[[standin.StandInGuest], None], instruction: int, patch: pytest.MonkeyPatch
) -> int:
    """In a process of its own: 0 if the lease was given back and the NIC deleted, 2 if so much so
    that the instruction never came."""
    did: list[str] = []
    sent: list[bool] = []

    def serve(guest: standin.StandInGuest) -> None:
        patch.setattr(guest, "give_back", lambda: did.append("given back"))
        sys.settrace(trace := signalled_at(instruction, sent))
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename == standin.__file__:
            frame.f_trace, frame.f_trace_opcodes = trace, True
            frame = frame.f_back
        end(guest)

    for name in ("leave_network", "die_with_parent", "_say"):
        patch.setattr(standin, name, lambda *_: None)
    patch.setattr(standin, "run", lambda *_, **__: did.append("deleted"))
    patch.setattr(standin, "_serve", serve)
    status = standin.main()
    sys.settrace(None)
    if (status, did) != (0, ["given back", "deleted"]):
        return 3
    return 0 if sent else 2


@pytest.mark.parametrize("end", [closed, closed_while_waiting])
def test_told_twice_at_any_two_moments(
    monkeypatch: pytest.MonkeyPatch, end: Callable[[standin.StandInGuest], None]
) -> None:
    for instruction in range(1000):
        child = os.fork()
        if child == 0:
            status = 4
            try:
                status = life(end, instruction, monkeypatch)
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 2:
            break
        assert status == 0, instruction
    assert 50 < instruction < 999


def test_a_bug_is_told_when_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[str] = []

    def serve(guest: standin.StandInGuest) -> None:
        monkeypatch.setattr(guest, "give_back", lambda: did.append("given back"))
        raise ValueError("odd")

    before = signal.getsignal(signal.SIGTERM)
    for name in ("leave_network", "die_with_parent", "_say"):
        monkeypatch.setattr(standin, name, lambda *_: None)
    monkeypatch.setattr(standin, "run", lambda *_, **__: did.append("deleted"))
    monkeypatch.setattr(standin, "_serve", serve)
    try:
        with pytest.raises(ValueError, match="odd"):
            standin.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert did == ["given back", "deleted"]
