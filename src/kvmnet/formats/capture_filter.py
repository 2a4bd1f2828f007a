"""The classic BPF filter of a capture: only packets of a trace pass, the rest is never copied.

Facts: Documentation/networking/filter.rst. Offsets count from the IP header (SKF_NET_OFF), so the
same filter is right on links of every kind.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from kvmnet.model.trace import Pattern

_LOAD, _AND, _JUMP_IF, _RETURN = 0x20, 0x54, 0x15, 0x06
_NETWORK_HEADER = 0xFFF00000
_SNAP = 256
"""Bytes of a packet that are kept."""


def instructions(patterns: Sequence[Pattern]) -> bytes:
    """The filter, as SO_ATTACH_FILTER takes it."""
    out: list[tuple[int, int, int, int]] = []
    for pattern in patterns:
        left = sum(2 if w.mask == 0xFFFFFFFF else 3 for w in pattern.words)
        for word in pattern.words:
            out.append((_LOAD, 0, 0, _NETWORK_HEADER + word.offset))
            left -= 1
            if word.mask != 0xFFFFFFFF:
                out.append((_AND, 0, 0, word.mask))
                left -= 1
            left -= 1
            # Over the rest of this pattern and its return to the next pattern.
            out.append((_JUMP_IF, 0, left + 1, word.value))
        out.append((_RETURN, 0, 0, _SNAP))
    out.append((_RETURN, 0, 0, 0))
    return b"".join(struct.pack("HBBI", *x) for x in out)
