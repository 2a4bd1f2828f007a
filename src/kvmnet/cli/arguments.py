"""Options that commands share, and values that are checked here and not by argparse, to be refused
in our own words."""

from __future__ import annotations

import argparse

from kvmnet.errors import InvalidInput

MAX_DIGITS = 15


def integer(text: str, option: str) -> int:
    """A whole number from the command line: digits, not too many for anything here."""
    if not text.isascii() or not text.isdigit() or len(text) > MAX_DIGITS:
        raise InvalidInput(
            f"{option} takes a whole number of 0 or more", why=f"this is none: {text[:40]!a}"
        )
    return int(text)


def add_state_option(parser: argparse.ArgumentParser) -> None:
    """`--state FILE`, of every command that only looks."""
    parser.add_argument(
        "--state",
        metavar="FILE",
        help="look at a State saved by `kvmnet state save` instead of this host (-: stdin)",
    )
