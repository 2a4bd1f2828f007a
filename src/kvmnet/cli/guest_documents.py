"""The JSON documents about changes of guests; see `documents` for what `version` means."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.formats.domain_edit import NicChange


class GuestConvertDocument(Struct, frozen=True, kw_only=True):
    """`kvmnet guest convert FILE --to TARGET --json`."""

    format: Literal["kvmnet.guest-convert"] = "kvmnet.guest-convert"
    version: int = 1
    guest: str
    """Its name; empty if the file gives none."""
    changed: bool
    nics: tuple[NicChange, ...]
    """Those that were chosen."""
    xml: str | None = None
    """The whole definition; null if it was written to a file or a diff was asked for."""
    diff: str | None = None
    """With --diff."""
    written: str | None = None
    """The file that was written."""
    backup: str | None = None
    """Where its old content is."""
