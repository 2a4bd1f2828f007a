"""Carries out a hand-over: the manager's files first, then what it is told."""

from __future__ import annotations

import contextlib
from pathlib import Path

from kvmnet.adapters import files, manager_calls
from kvmnet.model.handover import FileState
from kvmnet.model.plan import HandOver


def carry_out(step: HandOver) -> None:
    """Write all files, then make all calls. Raises `KvmnetError`; can be done again."""
    write(step.files)
    for call in step.calls:
        manager_calls.make(call)


def write(states: tuple[FileState, ...]) -> None:
    """Bring the files into these states, owner and mode included."""
    for state in states:
        path = Path(state.path)
        if state.text is None:
            files.remove(path)
            if path.parent.name.endswith((".network.d", ".netdev.d")):
                with contextlib.suppress(OSError):  # others' drop-ins are in it, or it is gone
                    path.parent.rmdir()
        else:
            files.put(path, state.text, mode=state.mode, owner=(state.uid, state.gid))
