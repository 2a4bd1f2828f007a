"""Units of systemd as they lie on disk, so that their lines can be moved with their comments.

systemd.syntax(7) for the text, systemd.network(5) for drop-ins and which file of a name counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from msgspec import Struct

from kvmnet.errors import InvalidInput
from kvmnet.model.handover import FileState


class Entry(Struct, frozen=True, kw_only=True):
    """One assignment with the comments above it."""

    key: str
    value: str
    text: str
    """Its lines as they are, each with its newline."""


class Section(Struct, frozen=True, kw_only=True):
    """One section with the comments above it; sections of a name may repeat."""

    name: str
    header: str
    entries: tuple[Entry, ...] = ()

    def of(self, keep: Iterable[Entry]) -> Section:
        return Section(name=self.name, header=self.header, entries=tuple(keep))

    @property
    def text(self) -> str:
        return self.header + "".join(x.text for x in self.entries)


def parse(text: str, path: str) -> tuple[Section, ...]:
    """The unit's sections; together their texts are the whole text, but for comments at its end.

    Raises `InvalidInput` for a line that is neither section, assignment nor comment.
    """
    sections: list[tuple[str, str, list[Entry]]] = []
    pending = ""
    for line in _logical_lines(text):
        bare = line.strip()
        if not bare or bare[0] in "#;":
            pending += line
        elif bare.startswith("[") and bare.endswith("]"):
            sections.append((bare[1:-1], pending + line, []))
            pending = ""
        elif sections and "=" in bare:
            key, _, value = bare.replace("\\\n", " ").partition("=")
            entry = Entry(key=key.strip(), value=value.strip(), text=pending + line)
            sections[-1][2].append(entry)
            pending = ""
        else:
            raise InvalidInput(f"{path} is no unit of systemd", why=f"a line says {bare[:40]!a}")
    return tuple(Section(name=n, header=h, entries=tuple(e)) for n, h, e in sections)


def _logical_lines(text: str) -> Iterable[str]:
    """Lines with their newline; a backslash at a line's end continues it, but not in a comment."""
    held = ""
    for line in text.splitlines(keepends=True):
        whole = line if line.endswith("\n") else line + "\n"
        if whole.endswith("\\\n") and (held or whole.lstrip()[:1] not in ("#", ";")):
            held += whole
        else:
            yield held + whole
            held = ""
    if held:
        yield held


def values(sections: Iterable[Section], name: str, key: str) -> tuple[str, ...]:
    """All values of a key, in their order; an empty one takes back those before it."""
    found: list[str] = []
    for section in sections:
        for entry in section.entries:
            if section.name == name and entry.key == key:
                found = [*found, entry.value] if entry.value else []
    return tuple(found)


def effective(files: Iterable[FileState], suffix: str) -> dict[str, FileState]:
    """The files of a kind by name, those that count: the first of each name, unless it is empty."""
    first: dict[str, FileState] = {}
    for file in files:
        if file.path.endswith(suffix):
            first.setdefault(PurePosixPath(file.path).name, file)
    return {name: x for name, x in sorted(first.items()) if (x.text or "").strip()}


def drop_ins(files: Iterable[FileState], unit: str) -> tuple[FileState, ...]:
    """The drop-ins of a unit (its path or name) that count, in the order in which they are read."""
    folder = f"{PurePosixPath(unit).name}.d"
    first: dict[str, FileState] = {}
    for file in files:
        path = PurePosixPath(file.path)
        if path.parent.name == folder and path.suffix == ".conf":
            first.setdefault(path.name, file)
    return tuple(x for _, x in sorted(first.items()) if (x.text or "").strip())


def merged(files: tuple[FileState, ...], unit: FileState) -> tuple[Section, ...]:
    """A unit's sections and then those of its drop-ins, which is how networkd reads them."""
    parts = [unit, *drop_ins(files, unit.path)]
    return tuple(x for part in parts for x in parse(part.text or "", part.path))
