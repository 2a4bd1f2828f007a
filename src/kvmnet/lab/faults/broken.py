"""The record of what is broken in a lab, beside the lab's own."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from kvmnet.adapters.files import read_optional, write_atomic
from kvmnet.errors import Failed
from kvmnet.lab import record
from kvmnet.lab.faults.fault import Command


class Broken(Struct, frozen=True, kw_only=True):
    """A fault that is in a lab now, with the commands that take it out again."""

    name: str
    mend: tuple[Command, ...]


def active(name: str) -> tuple[Broken, ...]:
    """What is broken in the lab of that name, the oldest first."""
    text = read_optional(_path(name))
    if text is None:
        return ()
    try:
        return msgspec.json.decode(text, type=tuple[Broken, ...])
    except msgspec.DecodeError as error:
        raise Failed(
            f"the record of what is broken in the lab {name} can not be read",
            why=str(error),
            hint="a lab that is started anew is whole: kvmnet lab down, kvmnet lab up",
        ) from None


def write(name: str, broken: tuple[Broken, ...]) -> None:
    """Remember that this is what is broken now. Call it under the lab's lock."""
    write_atomic(_path(name), msgspec.json.encode(broken).decode() + "\n", mode=0o600)


def _path(name: str) -> Path:
    return record.folder(name) / "faults.json"
