"""interfaces(5) line by line, so that everything that is not asked for stays as it is.

ifupdown reads a file in logical lines: a backslash at the end joins the next line to it, unless the
line is a comment. `iface` and `mapping` lines own the option lines below them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from msgspec import Struct

from kvmnet.model.handover import FileState

_WORD = re.compile(r"(?:[^\s\\]|\\(?!\n))+")
_INDENT = re.compile(r"[ \t]*")
_OWNERS = frozenset({"iface", "mapping", "template"})
_ALONE = frozenset({"auto", "source", "source-directory", "no-auto-down", "no-scripts", "rename"})


class Line(Struct, frozen=True, kw_only=True):
    """One logical line, with the physical lines that it takes."""

    raw: str
    number: int
    """Of its first physical line, from 1."""

    @property
    def is_blank(self) -> bool:
        """Empty or a comment."""
        start = self.raw.lstrip()
        return not start or start.startswith("#")

    @property
    def words(self) -> tuple[str, ...]:
        return () if self.is_blank else tuple(_WORD.findall(self.raw))

    @property
    def keyword(self) -> str:
        return next(iter(self.words), "")

    @property
    def option(self) -> str:
        """The keyword in the one of its two spellings that has dashes (`bridge_ports`)."""
        return self.keyword.replace("_", "-")

    @property
    def value(self) -> str:
        return " ".join(self.words[1:])

    @property
    def indent(self) -> str:
        found = _INDENT.match(self.raw)
        return found[0] if found else ""


class Block(Struct, frozen=True, kw_only=True):
    """An `iface`, `mapping` or `template` line with its options."""

    sheet: int
    head: int
    """Index of its line; `end` is that behind its last option."""
    end: int
    words: tuple[str, ...]
    """`iface eth0 inet static` → the words behind `iface`."""

    @property
    def name(self) -> str:
        return self.words[0] if self.words else ""

    @property
    def family(self) -> str:
        return self.words[1] if len(self.words) > 1 else ""

    @property
    def method(self) -> str:
        return self.words[2] if len(self.words) > 2 else ""


def split(text: str) -> tuple[Line, ...]:
    """The logical lines; joined together again they are the text."""
    lines: list[Line] = []
    number, physical = 1, [x for x in re.split(r"(?<=\n)", text) if x]
    while number <= len(physical):
        taken = 1
        if not physical[number - 1].lstrip().startswith("#"):
            while physical[number + taken - 2].endswith("\\\n") and number + taken <= len(physical):
                taken += 1
        lines.append(Line(raw="".join(physical[number - 1 : number - 1 + taken]), number=number))
        number += taken
    return tuple(lines)


def swap_words(raw: str, swap: Callable[[str], str]) -> str:
    """The line with each word but the first replaced; one that becomes empty goes, as the white
    space before it does."""
    pieces: list[str] = []
    at, first = 0, True
    for found in _WORD.finditer(raw):
        new = found[0] if first else swap(found[0])
        if new:
            pieces.append(raw[at : found.start()] + new)
        at, first = found.end(), False
    return "".join(pieces) + raw[at:]


def physical(raw: str) -> tuple[str, ...]:
    """The physical lines of a logical one, each with its newline."""
    return tuple(f"{x}\n" for x in raw.removesuffix("\n").split("\n"))


class Sheet:
    """A file that is being edited: its lines, and what takes the place of each."""

    def __init__(self, state: FileState) -> None:
        self.state = state
        self.lines = split(state.text or "")
        self._now = [[line.raw] for line in self.lines]

    def put(self, index: int, *raws: str) -> None:
        """Put these in a line's place; none: it goes."""
        self._now[index] = list(raws)

    def after(self, index: int, *raws: str) -> None:
        """Add lines behind a line, and behind what was added there before."""
        self._now[index].extend(raws)

    def append(self, *raws: str) -> None:
        """Add lines at the end of the file."""
        self._now.append(list(raws))

    def now(self, index: int) -> tuple[str, ...]:
        return tuple(self._now[index])

    def text(self) -> str:
        """The file as it is to be. The last line keeps having no newline if it has none."""
        pieces = [raw for group in self._now for raw in group if raw]
        whole = [x if x.endswith("\n") else f"{x}\n" for x in pieces[:-1]]
        return "".join(whole + pieces[-1:])


class Include(Struct, frozen=True, kw_only=True):
    """A file that a `source` or `source-directory` line reads."""

    path: str
    line: str
    """Its words, joined by spaces."""
    target: str


def blocks(sheets: tuple[Sheet, ...], includes: tuple[Include, ...]) -> tuple[Block, ...]:
    """All blocks in the order in which ifupdown reads them, the first file being the main one."""
    numbers = {sheet.state.path: number for number, sheet in enumerate(sheets)}
    seen: set[int] = set()

    def read(number: int) -> Iterator[Block]:
        seen.add(number)
        sheet = sheets[number]
        heads = {block.head: block for block in _blocks(number, sheet)}
        for index, line in enumerate(sheet.lines):
            if index in heads:
                yield heads[index]
            for other in includes:
                if other.path == sheet.state.path and other.line == " ".join(line.words):
                    target = numbers.get(other.target)
                    if target is not None and target not in seen:
                        yield from read(target)

    return tuple(read(0)) if sheets else ()


def _blocks(number: int, sheet: Sheet) -> Iterator[Block]:
    head, end = -1, -1
    for index, line in enumerate(sheet.lines):
        if line.is_blank:
            continue
        starts = is_stanza(line.keyword)
        if starts and head >= 0:
            yield _block(number, sheet, head, end)
            head = -1
        if line.keyword in _OWNERS:
            head = index
        end = index + 1
    if head >= 0:
        yield _block(number, sheet, head, end)


def _block(number: int, sheet: Sheet, head: int, end: int) -> Block:
    return Block(sheet=number, head=head, end=end, words=sheet.lines[head].words[1:])


def is_stanza(keyword: str) -> bool:
    """Whether a line with this keyword begins a stanza, and is not an option of one."""
    return keyword in _OWNERS or keyword in _ALONE or keyword.startswith("allow-")
