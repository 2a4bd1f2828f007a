"""Which guests are meant: names, UUIDs, patterns, all that are on something."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence

from kvmnet.core.finding import some
from kvmnet.errors import InvalidInput, NotFound

_WILD = frozenset("*?[")


def matcher(patterns: Sequence[str]) -> Callable[[str, str], bool]:
    """Whether a guest of that name and UUID is one of those; without patterns each is.

    A name that is written out comes first: a guest may really be called `web*`.
    """

    def wanted(name: str, uuid: str) -> bool:
        return not patterns or any(_fits(x, name, uuid) for x in patterns)

    return wanted


def _fits(pattern: str, name: str, uuid: str) -> bool:
    if pattern in {name, uuid}:
        return True
    return bool(_WILD & set(pattern)) and fnmatch.fnmatchcase(name, pattern)


def check_found(
    patterns: Sequence[str],
    found: Sequence[tuple[str, str]],
    everyone: Sequence[str],
    elsewhere: Callable[[], str] = lambda: "",
) -> None:
    """Raise `NotFound` for a pattern that fits no guest, naming those that there are.

    `elsewhere` tells where else guests may be, if they may.
    """
    for pattern in patterns:
        if not pattern:
            raise InvalidInput("an empty name names no guest")
        if not any(_fits(pattern, name, uuid) for name, uuid in found):
            names = some(sorted(everyone))
            what = "no guest fits" if _WILD & set(pattern) else "there is no guest"
            raise NotFound(
                f"{what} {pattern[:80]!a}",
                why=f"there are: {names}" if names else "there is no guest at all",
                hint=elsewhere() or "kvmnet guest list",
            )
