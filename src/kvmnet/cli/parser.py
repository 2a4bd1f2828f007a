"""argparse's parser, which does not load what only a help text needs.

For each option it makes a formatter, to see whether its help could be printed; that asks how wide
the terminal is, by `shutil`, which loads three libraries of compression: a tenth of the time that
kvmnet takes to load.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
from typing import Any

_WIDTH = 80


@functools.cache
def _columns() -> int:
    """As `shutil.get_terminal_size` has it: what COLUMNS says, else the terminal, else 80."""
    with contextlib.suppress(ValueError):
        if (told := int(os.environ.get("COLUMNS", ""))) > 0:
            return told
    stream = sys.__stdout__
    with contextlib.suppress(ValueError, OSError):  # it is closed, or no terminal
        if stream is not None and (shown := os.get_terminal_size(stream.fileno()).columns) > 0:
            return shown
    return _WIDTH


class Formatter(argparse.HelpFormatter):
    """Help as wide as the terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


class RawFormatter(argparse.RawDescriptionHelpFormatter):
    """The same, with the description's own lines."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


class Parser(argparse.ArgumentParser):
    """The parser of a command, and of its verbs."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", Formatter)
        super().__init__(**options)
