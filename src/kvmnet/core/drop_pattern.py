"""Whether drops that the kernel only counts and places, without saying of what, are of our packets.

Several packets are sent at irregular moments. Drops of one reason at one place are taken for theirs
only if one follows each packet at once, and if it is next to impossible that drops of other
packets, as often as they happen between those moments, fall so by chance.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from kvmnet.model.trace import KernelDrop, LoggedDrop

WINDOW_S = 0.012
"""A dropped packet is dropped within microseconds; this leaves room for a busy processor."""
_EARLY_S = 0.0005
_BY_CHANCE = 1e-6
_AT_LEAST = 5


def tied(
    sent_at: Sequence[float], logged: Sequence[LoggedDrop], until: float
) -> tuple[KernelDrop, ...]:
    """The kinds of drops that are of the packets sent at those moments; seen up to `until`."""
    if len(sent_at) < _AT_LEAST:
        return ()
    kinds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for drop in logged:
        kinds[drop.reason, drop.function].append(drop.at)
    found = []
    for (reason, function), times in kinds.items():
        first = _follow(sent_at, times, until)
        if first is not None:
            found.append(
                KernelDrop(at=first, reason=reason, function=function, tied_by="pattern",
                           count=len(sent_at))
            )  # fmt: skip
    return tuple(sorted(found, key=lambda x: x.at))


def _follow(sent_at: Sequence[float], times: Sequence[float], until: float) -> float | None:
    """When the first of them fell, if they follow the packets; None if that may be chance."""
    inside = 0
    first: float | None = None
    for moment in sent_at:
        hits = [x for x in times if moment - _EARLY_S <= x <= moment + WINDOW_S]
        if not hits:
            return None
        inside += len(hits)
        first = min(hits) if first is None else first
    between_s = until - min(sent_at) - len(sent_at) * (WINDOW_S + _EARLY_S)
    if between_s <= 0:
        return None
    elsewhere = sum(1 for x in times if min(sent_at) - _EARLY_S <= x <= until) - inside
    expected = (elsewhere + 1) / between_s * (WINDOW_S + _EARLY_S)
    chance = (1 - math.exp(-expected)) ** len(sent_at)
    return first if chance < _BY_CHANCE else None
