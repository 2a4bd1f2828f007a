"""What a plan writes into files, as people read it: a diff of each, without secrets."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import msgspec

from kvmnet.model import guest_steps
from kvmnet.model.handover import FileState
from kvmnet.model.plan import HandOver, Plan, Step

_SECRET = re.compile(
    r"^(?P<key>[\s+-]*[\w.-]*(?:password|passphrase|psk|secret|wep-key|private-key|pin)[\w-]*\s*[=:])"
    r"\s*\S.*$",
    re.IGNORECASE,
)
"""A line of netplan, NetworkManager or interfaces(5) that sets a secret."""


def differences(plan: Plan, step: HandOver) -> Iterator[str]:
    """Lines of a unified diff of each file that the step changes; kept copies are left out."""
    before = {x.path: x for x in _files_before(plan)}
    for state in step.files:
        if state.path in before and not PurePosixPath(state.path).name.startswith("."):
            yield from _difference(before[state.path], state)


def _files_before(plan: Plan) -> Iterator[FileState]:
    for planned in plan.steps:
        if isinstance(planned.undo, HandOver):
            yield from planned.undo.files


def _difference(old: FileState, new: FileState) -> Iterator[str]:
    lines = difflib.unified_diff(
        (old.text or "").splitlines(),
        (new.text or "").splitlines(),
        fromfile=old.path if old.text is not None else "/dev/null",
        tofile=new.path if new.text is not None else "/dev/null",
        lineterm="",
    )
    return map(_shown, lines)


def _shown(line: str) -> str:
    return _SECRET.sub(r"\g<key> (not shown)", line)


def without_secrets(plan: Plan) -> Plan:
    """The plan for a JSON document: what its files keep secret is left out."""
    steps = tuple(
        msgspec.structs.replace(x, step=_cleared(x.step), undo=x.undo and _cleared(x.undo))
        for x in plan.steps
    )
    return msgspec.structs.replace(plan, steps=steps)


def _cleared(step: Step) -> Step:
    if isinstance(step, guest_steps.GUEST_STEPS):
        return guest_steps.shown(step)
    if not isinstance(step, HandOver):
        return step
    return msgspec.structs.replace(step, files=tuple(map(_cleared_file, step.files)))


def _cleared_file(state: FileState) -> FileState:
    if state.text is None:
        return state
    text = "".join(
        _shown(line.rstrip("\r\n")) + line[len(line.rstrip("\r\n")) :]
        for line in state.text.splitlines(keepends=True)
    )
    return msgspec.structs.replace(state, text=text)
