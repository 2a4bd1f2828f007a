"""Changes a NetworkManager keyfile line by line: comments, order and unknown keys stay.

The format is GLib's (Desktop Entry files): groups may come more than once, of a key that comes
more than once the last one counts, `#` begins a comment at the start of a line only.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

ALIASES = {"802-3-ethernet": "ethernet"}
"""Old names of groups (nm-settings-keyfile(5))."""


class Group(Struct, frozen=True, kw_only=True):
    """A group with everything that belongs to it; the first one of a file has no name."""

    name: str
    lines: tuple[str, ...]
    """With their ends; comments above its head come first."""

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        found = (_pair(x) for x in self.lines)
        return tuple(x for x in found if x is not None)


def groups(text: str) -> list[Group]:
    """The file in pieces; joined they are the file again."""
    found: list[Group] = []
    name, lines = "", list[str]()
    for line in text.splitlines(keepends=True):
        head = _head(line)
        if head is not None:
            lead = _lead(lines)
            found.append(Group(name=name, lines=tuple(lines[: len(lines) - lead])))
            name, lines = head, lines[len(lines) - lead :]
        lines.append(line)
    found.append(Group(name=name, lines=tuple(lines)))
    return [x for x in found if x.lines]


def text_of(parts: Iterable[Group]) -> str:
    return "".join(line for part in parts for line in part.lines)


def get(text: str, group: str, key: str) -> str | None:
    """The value in force, as it is written."""
    found = [v for g in groups(text) if g.name == group for k, v in g.pairs if k == key]
    return found[-1] if found else None


def put(text: str, group: str, key: str, value: str) -> str:
    """The text with that key set: where it stands, or at the end of its group."""
    parts = groups(without(text, group, key) if _count(text, group, key) > 1 else text)
    if text and not text.endswith("\n"):
        parts = groups(text + "\n")
    line = f"{key}={value}\n"
    for number, part in enumerate(parts):
        if part.name == group and any(k == key for k, _ in part.pairs):
            lines = [line if (_pair(x) or ("",))[0] == key else x for x in part.lines]
            parts[number] = Group(name=group, lines=tuple(lines))
            return text_of(parts)
    for number, part in enumerate(parts):
        if part.name == group:
            at = max(n for n, x in enumerate(part.lines) if _pair(x) or _head(x) is not None) + 1
            lines = [*part.lines[:at], line, *part.lines[at:]]
            parts[number] = Group(name=group, lines=tuple(lines))
            return text_of(parts)
    gap = "\n" if parts and parts[-1].lines[-1].strip() else ""
    return f"{text_of(parts)}{gap}[{group}]\n{line}"


def without(text: str, group: str, key: str) -> str:
    """The text without that key."""
    parts = groups(text)
    kept = (
        Group(name=x.name, lines=tuple(y for y in x.lines if (_pair(y) or ("",))[0] != key))
        if x.name == group
        else x
        for x in parts
    )
    return text_of(kept)


def without_groups(text: str, names: Iterable[str]) -> str:
    gone = set(names)
    return text_of(x for x in groups(text) if x.name not in gone)


def joined(parts: Iterable[Group]) -> str:
    """Groups of several files as one text, with one blank line between them."""
    pieces = ["".join(x.lines).strip("\n") for x in parts]
    return "\n\n".join(x for x in pieces if x) + "\n"


def _count(text: str, group: str, key: str) -> int:
    return sum(k == key for g in groups(text) if g.name == group for k, _ in g.pairs)


def _head(line: str) -> str | None:
    bare = line.strip()
    if not (bare.startswith("[") and bare.endswith("]")):
        return None
    return ALIASES.get(bare[1:-1], bare[1:-1])


def _pair(line: str) -> tuple[str, str] | None:
    bare = line.strip()
    if bare.startswith("#") or "=" not in bare or _head(line) is not None:
        return None
    key, _, value = bare.partition("=")
    return key.rstrip(), value.lstrip()


def _lead(lines: list[str]) -> int:
    """How many of the last lines are comments that stand above the next group's head."""
    count = 0
    while count < len(lines) and lines[-1 - count].lstrip().startswith("#"):
        count += 1
    before = lines[-1 - count] if count < len(lines) else ""
    return count if not before.strip() else 0
