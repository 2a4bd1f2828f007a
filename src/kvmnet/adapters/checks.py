"""Carries out checks: sends real packets and looks whether they come back."""

from __future__ import annotations

from kvmnet.errors import Failed
from kvmnet.model.check import Check


def prove(checks: tuple[Check, ...], *, within_s: float) -> None:
    """Return once all checks pass at the same time. Raises `Failed`, naming those that do not."""
    del checks, within_s
    raise Failed("checks can not be made yet")
