"""Steps of a probe that are about the guest itself, and not about where it is plugged in."""

from __future__ import annotations

STEPS = frozenset(
    {"guest", "cable", "tap", "port", "answers", "inside-address", "inside-routes", "inside-dns",
     "inside-target"}
)  # fmt: skip
