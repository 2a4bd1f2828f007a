"""A place that was tried, and what of a probe's steps did not go well."""

from __future__ import annotations

from msgspec import Struct

from kvmnet.core.dhcp_way import Way
from kvmnet.core.finding import Finding
from kvmnet.core.scope import Place
from kvmnet.model.probe import ProbeReport


class Probed(Struct, frozen=True, kw_only=True):
    """A place, and what a stand-in guest went through there."""

    place: Place
    report: ProbeReport | None = None
    skipped: str = ""
    """Why there is no report, or not all of it."""
    beyond_answers: bool | None = None
    """Whether the host itself gets an answer from where the stand-in got none; None: not asked."""
    beyond_named: str = ""
    """What the host asked there where a user named it; empty: its own default gateway."""
    beyond_error: str = ""
    """What came instead of an answer."""
    gateway_there: bool | None = None
    """Whether the host's own gateway answers it at least by ARP; None: not asked."""
    beyond_answers6: bool | None = None
    """The same by IPv6."""
    way: Way = Way()
    """What was seen of packets that got lost."""


class Symptom(Struct, frozen=True, kw_only=True):
    """A step that did not go well, and what it would be called."""

    step: str
    finding: Finding
    certain: bool = False
    """It is what it is called, whatever else is wrong; else another finding may explain it."""
