"""Values of options that are checked here and not by argparse, to be refused in our own words."""

from __future__ import annotations

from kvmnet.errors import InvalidInput

MAX_DIGITS = 15


def integer(text: str, option: str) -> int:
    """A whole number from the command line: digits, not too many for anything here."""
    if not text.isascii() or not text.isdigit() or len(text) > MAX_DIGITS:
        raise InvalidInput(
            f"{option} takes a whole number of 0 or more", why=f"this is none: {text[:40]!a}"
        )
    return int(text)
