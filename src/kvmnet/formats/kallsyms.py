"""`/proc/kallsyms`: which function of the kernel an address belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_CODE = frozenset(b"tTwW")
_MODULE = b"\t["


def find(raw: bytes, places: Iterable[int]) -> dict[int, str]:
    """The function that each address is in: the last that begins at or before it.

    Empty where the kernel shows no addresses (`kptr_restrict`): all are zero then. The kernel's own
    lines come first, in the order of their addresses; those of modules follow.
    """
    first = raw.find(_MODULE)
    end = len(raw) if first < 0 else raw.rfind(b"\n", 0, first) + 1
    found: dict[int, str] = {}
    for place in places:
        name = _in_kernel(raw, end, place) or _in_modules(raw[end:], place)
        if name:
            found[place] = name
    return found


def _in_kernel(raw: bytes, end: int, place: int) -> str:
    """By halving: there are some hundred thousand lines. Empty beyond the kernel's own code."""
    low, high = 0, end  # both begin a line; the one at `low` is not after the place
    if not end or _address(raw, 0) > place:
        return ""
    while True:
        middle = raw.rfind(b"\n", 0, (low + high) // 2) + 1
        if middle <= low:
            middle = raw.find(b"\n", low, high) + 1
            if not low < middle < high:
                break
        if _address(raw, middle) <= place:
            low = middle
        else:
            high = middle
    if high >= end:
        return ""
    while raw[low + 17] not in _CODE and low > 0:
        low = raw.rfind(b"\n", 0, low - 1) + 1
    return _name(raw[low : raw.find(b"\n", low)]) if _address(raw, low) else ""


def _in_modules(raw: bytes, place: int) -> str:
    best, name = 0, b""
    for line in _lines(raw):
        at = int(line[:16], 16)
        if best < at <= place:
            best, name = at, line
    return _name(name)


def _lines(raw: bytes) -> Iterator[bytes]:
    return (x for x in raw.splitlines() if len(x) > 19 and x[17] in _CODE)


def _address(raw: bytes, line: int) -> int:
    return int(raw[line : line + 16], 16)


def _name(line: bytes) -> str:
    """Without what the compiler adds to a function's parts: `.constprop.0`."""
    return line[19:].split(b"\t", 1)[0].split(b".", 1)[0].decode("utf-8", "replace")
