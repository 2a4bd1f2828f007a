"""interfaces(5) files while they are edited for one bridge."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from typing import NoReturn

import msgspec

from kvmnet.errors import Refused
from kvmnet.formats import interfaces_marks as marks
from kvmnet.formats.interfaces_hooks import HOOKS, rewire
from kvmnet.formats.interfaces_lines import Block, Line, Sheet, blocks, swap_words
from kvmnet.formats.interfaces_view import IfupdownView
from kvmnet.model.handover import FileState
from kvmnet.model.takeover import Takeover

_LISTS = frozenset({"auto", "no-auto-down", "no-scripts"})


class Work:
    """The files of a view, their blocks, and what is to become of them."""

    def __init__(
        self, view: IfupdownView, takeover: Takeover, prepare: Callable[[str], str] = str
    ) -> None:
        """`prepare` is applied to each file's text first."""
        self.view = view
        self.takeover = takeover
        self.bridge = takeover.bridge
        prepared = [msgspec.structs.replace(x, text=prepare(x.text or "")) for x in view.files]
        self.sheets = tuple(Sheet(x) for x in prepared)
        self.blocks = blocks(self.sheets, view.includes)
        self.notes: list[str] = []

    def of(self, name: str) -> tuple[Block, ...]:
        return tuple(x for x in self.blocks if x.name == name)

    def aliases(self, name: str) -> tuple[str, ...]:
        """`eth0:1` and the like, each once."""
        found = [x.name for x in self.blocks if x.name.startswith(f"{name}:")]
        return tuple(dict.fromkeys(found))

    def options(self, block: Block) -> Iterator[tuple[int, Line]]:
        """The block's lines below its first that are not comments, each with its index."""
        for index in range(block.head + 1, block.end):
            line = self.sheets[block.sheet].lines[index]
            if not line.is_blank:
                yield index, line

    def indent(self, block: Block) -> str:
        return next((line.indent for _, line in self.options(block)), "    ")

    def lists(self) -> Iterator[tuple[Sheet, int, Line]]:
        """The lines that name NICs: auto, allow-hotplug, no-auto-down, no-scripts …"""
        for sheet in self.sheets:
            for index, line in enumerate(sheet.lines):
                if line.keyword in _LISTS or line.keyword.startswith("allow-"):
                    yield sheet, index, line

    def rename(self, block: Block, old: str, new: str) -> None:
        """Have the block be another link's."""
        sheet = self.sheets[block.sheet]
        line = sheet.lines[block.head]
        sheet.put(block.head, swap_words(line.raw, lambda x: new if x == old else x))

    def put_aside(self, sheet: Sheet, index: int, port: str, *instead: str) -> None:
        sheet.put(index, *marks.aside(sheet.lines[index].raw, self.bridge, port, instead))

    def rewire(self, old: str, new: str) -> None:
        """Have every hook that names the old link name the new one. Raises `Refused`."""
        for block in self.blocks:
            sheet = self.sheets[block.sheet]
            for index, line in self.options(block):
                if line.option not in HOOKS or sheet.now(index) != (line.raw,):
                    continue
                text, clear = rewire(line.raw, old, new)
                if not clear:
                    self.refuse(sheet, line, f"its hook names {old}, and it is not clear whether "
                                f"that means {old} or its place, which {new} takes",
                                hint="write $IFACE, or `dev` before the name")  # fmt: skip
                if text != line.raw:
                    sheet.put(index, text)
                    where = f"{sheet.state.path}:{line.number}"
                    self.notes.append(
                        f"{where}: the hook speaks of {new} now: {' '.join(text.split())}"
                    )

    def check_names(self, name: str) -> None:
        """Refuse what names the link in a way that is not followed here."""
        for sheet, _, line in self.lists():
            for word in line.words[1:]:
                if "=" in word and word.split("=")[0] == name:
                    self.refuse(sheet, line, "it gives the NIC a logical name")
                if word.startswith("/") and _may_match(word, name):
                    self.refuse(sheet, line, "its pattern may stand for the NIC",
                                hint=f"name {name} itself there")  # fmt: skip
        for sheet in self.sheets:
            for line in sheet.lines:
                if line.keyword == "rename" and any(name in x for x in line.words[1:]):
                    self.refuse(sheet, line, "ifupdown renames the NIC")
        for block in self.blocks:
            self._check_block(block, name)

    def _check_block(self, block: Block, name: str) -> None:
        sheet = self.sheets[block.sheet]
        head = sheet.lines[block.head]
        if head.keyword == "mapping" and any(fnmatch.fnmatchcase(name, x) for x in block.words):
            self.refuse(sheet, head, "a script chooses the NIC's configuration")
        if "inherits" in block.words and name in block.words[block.words.index("inherits") :]:
            self.refuse(sheet, head, f"another stanza is built on {name}'s")
        for _, line in self.options(block):
            owns = {"bridge-ports": "another bridge", "bond-slaves": "a bond"}.get(line.option)
            if owns and name in line.words[1:] and block.name != self.bridge:
                self.refuse(sheet, line, f"{name} belongs to {owns}, {block.name}")

    def place(self, block: Block) -> str:
        sheet = self.sheets[block.sheet]
        return f"{sheet.state.path}:{sheet.lines[block.head].number}"

    def refuse_block(self, block: Block, why: str) -> NoReturn:
        """Raise `Refused` for a block."""
        sheet = self.sheets[block.sheet]
        self.refuse(sheet, sheet.lines[block.head], why)

    def refuse(self, sheet: Sheet, line: Line, why: str, *, hint: str = "") -> NoReturn:
        """Raise `Refused` for a line."""
        raise Refused(
            f"{sheet.state.path} can not be changed for bridge {self.bridge}",
            why=f"line {line.number}, `{' '.join(line.words)}`: {why}",
            hint=hint or f"change it by hand, then try again: {sheet.state.path}",
        )

    def files(self) -> tuple[tuple[FileState, ...], tuple[FileState, ...]]:
        """The files that change: as they are to be, and as they are."""
        new = [msgspec.structs.replace(x.state, text=x.text()) for x in self.sheets]
        pairs = [(a, b) for a, b in zip(new, self.view.files, strict=True) if a != b]
        return tuple(a for a, _ in pairs), tuple(b for _, b in pairs)


def _may_match(pattern: str, name: str) -> bool:
    """`/eth*`, `/mac/52:54:…`: by anything but its name it could be any NIC (interfaces(5))."""
    body = pattern.split("=")[0]
    variable, _, rest = body[1:].rpartition("/") if body.count("/") > 1 else ("", "", body[1:])
    if rest.isdecimal() and "/" in variable:
        variable, _, rest = variable.rpartition("/")
    if body.count("/") > 1 and variable:
        return True
    return fnmatch.fnmatchcase(name, rest)
