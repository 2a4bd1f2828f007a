"""A transaction: a plan that was begun, how far it came, and how it ended."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.model.plan import Plan

Outcome = Literal["open", "kept", "undone", "stuck", "given-up"]

TRANSACTION_VERSION = 1

CONFIRM_S = 60
"""How long a person has to confirm, unless they say otherwise."""


class Confirm(Struct, frozen=True, kw_only=True):
    """Who decides whether a change that worked is kept."""

    by: Literal["auto", "manual", "none"] = "auto"
    """auto: the plan's checks; manual: the checks, and then a person; none: nobody, checks are
    left out."""
    within_s: int = CONFIRM_S
    """How long the person has. Only for `manual`."""


class LeftOut(Struct, frozen=True, kw_only=True):
    """A group of steps that failed and was put back, while the others went on."""

    group: str
    why: str


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
    """open: under way, or cut off; stuck: undoing failed; given-up: the same, and a person decided
    to leave it so."""
    why: str = ""
    confirm: Confirm = Confirm()
    boot_id: str | None = None
    """Of the boot in which it was begun (/proc/sys/kernel/random/boot_id): what only the running
    kernel knew is gone in any other."""
    pid: int | None = None
    """The process that began it …"""
    pid_started: int | None = None
    """… and when that was started (proc(5), stat, field 22), since pids are used again."""
    deadline: float | None = None
    """When the present step has to be over, in seconds of CLOCK_BOOTTIME, which nobody can set;
    later the guard kills the process and undoes it. None: there is no guard."""
    waits_until: float | None = None
    """Not None: every step is proven, and a person has until then (CLOCK_BOOTTIME) to confirm."""
    undoes: str | None = None
    """The id of the kept transaction that this one takes back."""
    left_out: tuple[LeftOut, ...] = ()
