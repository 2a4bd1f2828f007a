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
    """Print rows under headers: a drawn table on a terminal, plain columns in a pipe."""
    cells = [[safe(cell) for cell in row] for row in rows]
    if use_color(args):
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*headers, box=SIMPLE_HEAD, pad_edge=False)
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))
        Console(force_terminal=True, highlight=False).print(table)
        return
    widths = [max(len(line[i]) for line in [list(headers), *cells]) for i in range(len(headers))]
    for line in [[h.upper() for h in headers], *cells]:
        print("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())


def say(args: argparse.Namespace, text: str) -> None:
    """A line for people about what is going on: standard error, silent with --quiet.

    A terminal that went away is no reason to stop, least of all in the middle of an undo.
    """
    if not is_quiet(args):
        with contextlib.suppress(OSError):
            print(safe(text), file=sys.stderr, flush=True)
