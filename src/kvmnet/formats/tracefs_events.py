"""Lines of tracefs' `trace_pipe` about packets that the kernel dropped (skb:kfree_skb)."""

from __future__ import annotations

import re

from kvmnet.model.trace import LoggedDrop

_LINE = re.compile(r"\s(\d+\.\d+): kfree_skb: .*?location=(\S+)(?: reason: (\S+))?")
_ADDRESS = re.compile(r"(0x)?[0-9a-f]{8,}")


def parse(line: str) -> LoggedDrop | None:
    """None for all other lines: those of other events, and notes of lost ones.

    Kernels before 6.0 print a scrambled address as the place, those before 5.17 no reason.
    """
    found = _LINE.search(line)
    if found is None:
        return None
    place = found[2].partition("+")[0].partition(".")[0]
    return LoggedDrop(
        at=float(found[1]),
        reason=found[3] or "",
        function="" if _ADDRESS.fullmatch(place) else place,
    )
