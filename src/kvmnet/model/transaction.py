"""A transaction: a plan that was begun, how far it came, and how it ended."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.model.plan import Plan

Outcome = Literal["open", "kept", "undone", "stuck"]

TRANSACTION_VERSION = 1


class Transaction(Struct, frozen=True, kw_only=True):
    """What the journal keeps of one change."""

    version: int = TRANSACTION_VERSION
    id: str
    """Sorts by time: `20261123T204105-4711`."""
    began_at: int
    """Seconds since the epoch."""
    ended_at: int | None = None
    command: str
    """What the user typed, for people."""
    uri: str | None
    """The libvirt connection that the steps are for; None: the default of the user who began."""
    plan: Plan
    begun: int = 0
    """How many steps were begun; the last of them may be half done."""
    outcome: Outcome = "open"
    """open: under way, or cut off; stuck: undoing failed."""
    why: str = ""
