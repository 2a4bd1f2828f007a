"""What is printed: tables and lines for people, JSON documents for programs.

On a terminal tables are drawn by rich (imported only then); in a pipe they are plain columns.
Text from guests, libvirt or files is made safe before it reaches a terminal.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterable, Sequence

import msgspec


def safe(text: str) -> str:
    """`text` without anything that a terminal would obey: control characters become visible."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def wants_json(args: argparse.Namespace) -> bool:
    return bool(getattr(args, "json", False))


def is_quiet(args: argparse.Namespace) -> bool:
    return bool(getattr(args, "quiet", False))


def use_color(args: argparse.Namespace) -> bool:
    """`--color`, else colours on a terminal that is not dumb and where NO_COLOR is not set."""
    choice = getattr(args, "color", "auto")
    if choice != "auto":
        return bool(choice == "always")
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def print_json(document: msgspec.Struct) -> None:
    """Print one JSON document, indented, with a newline at its end."""
    raw = msgspec.json.format(msgspec.json.encode(document), indent=2)
    sys.stdout.write(raw.decode("utf-8") + "\n")


def print_table(
    args: argparse.Namespace, headers: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    """Print rows under headers: a drawn table on a terminal, plain columns in a pipe.

    Nothing is ever cut off: where the terminal is narrow, cells are wrapped between words.
    """
    cells = [[safe(cell) for cell in row] for row in rows]
    if use_color(args):
        _draw_table(headers, cells)
        return
    lines = [[h.upper() for h in headers], *cells]
    widths = [max(map(width, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (c + " " * (w - width(c)) for c, w in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())


def _draw_table(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(force_terminal=True, highlight=False)
    between = 2 * (len(headers) - 1)
    widths = fitted_widths([[h.upper() for h in headers], *cells], console.width - between)
    console.width = max(console.width, sum(widths) + between)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for header, size in zip(headers, widths, strict=True):
        table.add_column(header.upper(), width=size)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def fitted_widths(lines: Sequence[Sequence[str]], available: int) -> list[int]:
    """Widths of the columns, in all at most `available` if wrapping between words allows it.

    The widest columns give way first, and none below its longest word: an address that is cut off
    tells nobody anything.
    """
    columns = list(zip(*lines, strict=True))
    widths = [max(map(width, column)) for column in columns]
    least = [max(width(word) for c in column for word in c.split() or [""]) for column in columns]
    while sum(widths) > available:
        movable = [i for i, size in enumerate(widths) if size > least[i]]
        if not movable:
            break
        widths[max(movable, key=widths.__getitem__)] -= 1
    return widths


def width(text: str) -> int:
    """How many columns of a terminal the text takes: two for wide letters, none for accents."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def say(args: argparse.Namespace, text: str) -> None:
    """A line for people about what is going on: standard error, silent with --quiet.

    A terminal that went away is no reason to stop, least of all in the middle of an undo.
    """
    if not is_quiet(args):
        with contextlib.suppress(OSError):
            print(safe(text), file=sys.stderr, flush=True)
