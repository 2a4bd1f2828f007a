"""The JSON documents that `--json` prints: one type each, named and versioned.

A field may be added without a new `version`; a change that an old reader would misunderstand
raises it. The schemas in docs/schema are generated from these types.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.cli.finding_view import FindingView
from kvmnet.core.macs import MacUse
from kvmnet.lab.status import GuestStatus, PlaceStatus
from kvmnet.model.plan import Plan
from kvmnet.model.probe import ProbeReport
from kvmnet.model.state import Unread
from kvmnet.model.trace import TraceReport
from kvmnet.model.transaction import Outcome
from kvmnet.model.values import Mac


class LabStatus(Struct, frozen=True, kw_only=True):
    """One lab that is up."""

    name: str
    pid: int
    """Its init, as this machine sees it."""
    started_at: int
    """Seconds since the epoch."""
    places: tuple[PlaceStatus, ...]
    guests: tuple[GuestStatus, ...]
    faults: tuple[str, ...] = ()
    """What is broken in it on purpose, the oldest first."""


class LabDocument(Struct, frozen=True, kw_only=True):
    """`kvmnet lab status --json`."""

    format: Literal["kvmnet.lab"] = "kvmnet.lab"
    version: int = 1
    labs: tuple[LabStatus, ...]
    crashed: tuple[str, ...]
    """Labs that had ended without `lab down`, whose records were removed just now."""


class FaultView(Struct, frozen=True, kw_only=True):
    """A fault that can be put into a lab."""

    name: str
    problem: str
    """The name of the finding that `kvmnet doctor` comes to."""
    seen: str
    """What a user sees."""


class FaultsDocument(Struct, frozen=True, kw_only=True):
    """`kvmnet lab break --list --json`."""

    format: Literal["kvmnet.lab-faults"] = "kvmnet.lab-faults"
    version: int = 1
    faults: tuple[FaultView, ...]


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


class ProbeDocument(Struct, frozen=True, kw_only=True):
    """`kvmnet probe TARGET --json`."""

    format: Literal["kvmnet.probe"] = "kvmnet.probe"
    version: int = 1
    ok: bool
    """No step failed."""
    report: ProbeReport


class PlanDocument(Struct, frozen=True, kw_only=True):
    """What a command that changes something did, or with --dry-run would do."""

    format: Literal["kvmnet.plan"] = "kvmnet.plan"
    version: int = 1
    plan: Plan
    applied: bool


class HistoryEntry(Struct, frozen=True, kw_only=True):
    """One change."""

    id: str
    began_at: int
    """Seconds since the epoch."""
    ended_at: int | None
    """None: it is under way, or was cut off."""
    command: str
    title: str
    outcome: Outcome
    why: str
    steps: int
    begun: int
    """How many of the steps were begun."""
    undoes: str | None
    """The id of the kept change that this one took back."""
    taken_back_by: str | None


class HistoryDocument(Struct, frozen=True, kw_only=True):
    """`kvmnet history --json`, the oldest first."""

    format: Literal["kvmnet.history"] = "kvmnet.history"
    version: int = 1
    transactions: tuple[HistoryEntry, ...]


class TraceDocument(Struct, frozen=True, kw_only=True):
    """`kvmnet trace --json`."""

    format: Literal["kvmnet.trace"] = "kvmnet.trace"
    version: int = 1
    ok: bool
    """It arrived, and was answered where an answer is to be expected."""
    report: TraceReport


class UpDocument(Struct, frozen=True, kw_only=True):
    """`kvmnet up --json`."""

    format: Literal["kvmnet.up"] = "kvmnet.up"
    version: int = 1
    applied: bool
    findings: tuple[FindingView, ...]
    plan: Plan
    probe: ProbeReport | None
    """None with --dry-run."""
