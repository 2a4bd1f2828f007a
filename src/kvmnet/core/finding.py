"""The one shape of everything that is found wrong."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from kvmnet.model.plan import PlannedStep

Severity = Literal["problem", "warning", "note"]
MANY = 5


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that is wrong, or will be."""

    name: str
    """The problem's stable name, for example `network-inactive`."""
    severity: Severity
    """problem: something does not work now. warning: it will fail. note: good to know."""
    subject: str
    """What it is about: `network default`, `guest web`, `bridge br0`."""
    what: str
    breaks: str = ""
    """What does not work because of it, and for whom: `guests on br0 get no address`."""
    evidence: tuple[str, ...] = ()
    """What shows it: the file, key, rule with its handle, counter or packet."""
    fix: tuple[str, ...] = ()
    """Commands that mend it, one after the other; empty where people have to decide.

    Those that only look (`core/looking.py`) are shown as such.
    """
    lasts: str = ""
    """Where these commands do not outlast a boot: until when they hold, and what keeps it so."""
    mend: tuple[PlannedStep, ...] = ()
    """The same as steps with their undo, which `kvmnet doctor --fix` takes; empty: it does not."""


def some(names: Iterable[str]) -> str:
    """Names for a sentence: all of a few, else the first few and how many more."""
    every = list(dict.fromkeys(names))
    if len(every) <= MANY:
        return ", ".join(every)
    return f"{', '.join(every[:MANY])} and {len(every) - MANY} more"


def command(*words: str) -> str:
    """A command line that a shell takes as these words: names may hold anything."""
    return shlex.join(words)
