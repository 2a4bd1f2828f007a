"""The probe: a stand-in guest is plugged in and lives through what a guest would."""

from __future__ import annotations

from collections.abc import Callable

from kvmnet.errors import Unavailable
from kvmnet.model.probe import ProbeReport, ProbeStep, ProbeTarget


def _silent(step: ProbeStep) -> None:
    """Nobody wants to know about single steps."""


def probe(target: ProbeTarget, *, on_step: Callable[[ProbeStep], None] = _silent) -> ProbeReport:
    """Plug in a stand-in guest, go through all steps, take it away again.

    `on_step` is called as each step ends. Raises `PermissionDenied` (needs root), `NotFound` (no
    such network or bridge), `Refused` (not a plain Linux bridge), `Failed` (network not active,
    the stand-in could not be made). A step that fails is in the report, not an error.
    """
    raise Unavailable("the probe is not there yet")
