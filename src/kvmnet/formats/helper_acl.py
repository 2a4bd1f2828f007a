"""bridge.conf of QEMU's bridge helper. Facts: qemu's `qemu-bridge-helper.c`."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class AclLine(Struct, frozen=True, kw_only=True):
    """One line that says something."""

    verb: Literal["allow", "deny", "include"]
    word: str
    """A bridge, `all`, or the file to read there."""


def parse(text: str) -> tuple[AclLine, ...]:
    """Its lines, but for those that the helper would not understand either."""
    found: list[AclLine] = []
    for raw in text.splitlines():
        line = raw.strip()
        words = line.split(maxsplit=1)
        if len(words) != 2 or line.startswith("#"):
            continue
        match words[0]:
            case "allow" | "deny" | "include" as verb:
                found.append(AclLine(verb=verb, word=words[1].strip()))
    return tuple(found)
