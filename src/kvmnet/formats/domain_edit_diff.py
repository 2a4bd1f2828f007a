"""What a conversion changes, as a unified diff that shows nothing else.

A guest's definition has secrets (the password of its screen), and context lines of an ordinary diff
would show them. So the context stays within the `<interface>`. Where one shares a line with
something else, that something is shown as `…`; otherwise `patch` takes the diff.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from kvmnet.formats.domain_edit import Converted, DomainText, Span

CONTEXT = 3
"""Lines around a change, as diff(1) shows."""

HIDDEN = "…"
_NO_NEWLINE = "\\ No newline at end of file"


def unified(domain: DomainText, converted: Converted, old: str, new: str) -> str:
    """The diff from the file named `old` to the one named `new`; empty if nothing changed."""
    lines: list[str] = []
    shift = 0
    located = domain.located
    text = located.data.decode(located.codec)
    ends = dict(located.nics)
    for span in converted.spans:
        first = located.data[: span.start].decode(located.codec)
        behind = len(first) + len(located.data[span.start : ends[span.start]].decode(located.codec))
        lines += _hunks(_Place(text, len(first), behind), span, shift)
        shift += span.new.count("\n") - span.old.count("\n")
    if not lines:
        return ""
    return "\n".join((f"--- {old}", f"+++ {new}", *lines)) + "\n"


class _Place:
    """Where an element begins and ends in a text, and what shares its first and last line."""

    def __init__(self, text: str, start: int, end: int) -> None:
        line = text.rfind("\n", 0, start) + 1
        after = text.find("\n", end)
        self.last = after < 0
        stop = len(text) if self.last else after
        self.first_line = text.count("\n", 0, line) + 1
        self.before = _hidden(text[line:start])
        self.after = _hidden(text[end:stop])


def _hidden(text: str) -> str:
    """The text if it is white space, else a mark for it."""
    return HIDDEN if text.strip("\ufeff \t\r") else text


def _hunks(place: _Place, span: Span, shift: int) -> Iterator[str]:
    old = f"{place.before}{span.old}{place.after}".split("\n")
    new = f"{place.before}{span.new}{place.after}".split("\n")
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    for group in matcher.get_grouped_opcodes(CONTEXT):
        first, last = group[0], group[-1]
        yield (
            f"@@ -{_range(place.first_line, first[1], last[2])} "
            f"+{_range(place.first_line + shift, first[3], last[4])} @@"
        )
        for kind, i1, i2, j1, j2 in group:
            if kind == "equal":
                yield from _marked(" ", old, i1, i2, place.last)
                continue
            yield from _marked("-", old, i1, i2, place.last)
            yield from _marked("+", new, j1, j2, place.last)


def _marked(mark: str, lines: Sequence[str], begin: int, end: int, at_end: bool) -> Iterator[str]:
    for number in range(begin, end):
        yield mark + lines[number]
        if at_end and number == len(lines) - 1:
            yield _NO_NEWLINE


def _range(first_line: int, begin: int, end: int) -> str:
    count = end - begin
    start = first_line + begin - (1 if count == 0 else 0)
    return str(start) if count == 1 else f"{start},{count}"
