"""Who is told when libvirt keeps a command waiting: set by what talks to people.

A module of its own, so that setting it does not load libvirt's readers.
"""

from __future__ import annotations

from collections.abc import Callable

PATIENCE_S = 1.0
"""How long libvirt may be silent before people are told."""


def _nobody() -> None:
    """Nobody is told."""


on_wait: Callable[[], None] = _nobody
