"""The JSON documents that `--json` prints: one type each, named and versioned.

A field may be added without a new `version`; a change that an old reader would misunderstand
raises it. The schemas in docs/schema are generated from these types.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.core.macs import MacUse
from kvmnet.model.state import Unread
from kvmnet.model.values import Mac


class MacCheckDocument(Struct, frozen=True, kw_only=True):
    """`kvmnet mac --check MAC --json`."""

    format: Literal["kvmnet.mac-check"] = "kvmnet.mac-check"
    version: int = 1
    mac: Mac
    free: bool
    uses: tuple[MacUse, ...]
    unread: tuple[Unread, ...]


class MacDocument(Struct, frozen=True, kw_only=True):
    """`kvmnet mac --json`."""

    format: Literal["kvmnet.mac"] = "kvmnet.mac"
    version: int = 1
    macs: tuple[Mac, ...]
    prefix: str
    known_in_use: int
    """Addresses under that prefix that kvmnet found in use."""
    chance_of_collision: float
    """That one of `macs` equals one of `among` addresses which kvmnet can't see."""
    among: int
    unread: tuple[Unread, ...]
