"""The kernel's own description of its types (`/sys/kernel/btf/vmlinux`): where a member stands.

Facts: https://docs.kernel.org/bpf/btf.html. Only what is asked for is decoded: a kernel has some
hundred thousand types, and a walk over their heads costs a few dozen milliseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from kvmnet.errors import InvalidInput

_MAGIC = 0xEB9F
_INT, _ARRAY, _STRUCT, _UNION, _ENUM, _FUNC_PROTO = 1, 3, 4, 5, 6, 13
_VAR, _DATASEC, _DECL_TAG, _ENUM64 = 14, 15, 17, 19
_OTHER_NAMES = frozenset({8, 9, 10, 11, 18})
"""typedef, volatile, const, restrict, type tag."""
_AGGREGATES = frozenset({_STRUCT, _UNION})
_FIXED = {_INT: 1, _ARRAY: 3, _VAR: 1, _DECL_TAG: 1}
_EACH = {_STRUCT: 3, _UNION: 3, _ENUM: 2, _FUNC_PROTO: 2, _DATASEC: 3, _ENUM64: 3}
"""How many words follow a type's head: so many, or so many for each of its members."""


class Btf:
    """All types of one kernel. Raises `InvalidInput` where the bytes are no BTF."""

    def __init__(self, raw: bytes) -> None:
        if len(raw) < 24 or struct.unpack_from("<H", raw)[0] != _MAGIC:
            raise InvalidInput("the kernel's type information is not understood")
        head, type_at, type_size, text_at, text_size = struct.unpack_from("<IIIII", raw, 4)
        self._words = memoryview(raw)[head + type_at : head + type_at + type_size].cast("I")
        self._text = raw[head + text_at : head + text_at + text_size]
        self._starts: list[int] = [0]

    def read(self, names: Iterable[str]) -> Types:
        """Find the named structs and enums."""
        wanted = {at: name for name in names for at in self._offsets(name)}
        found: dict[str, int] = {}
        words, at, end = self._words.tolist(), 0, len(self._words)  # a list is read faster
        note, fixed = self._starts.append, [3 + _FIXED.get(kind, 0) for kind in range(32)]
        each = [_EACH.get(kind, 0) for kind in range(32)]
        try:
            while at < end:
                note(at)
                info = words[at + 1]
                kind = info >> 24 & 31
                if words[at] in wanted and kind in (_STRUCT, _ENUM) and info & 0xFFFF:
                    found.setdefault(wanted[words[at]], at)
                at += fixed[kind] + each[kind] * (info & 0xFFFF)
        except IndexError:
            at = end + 1
        if at != end:
            raise InvalidInput("the kernel's type information is cut off")
        return Types(self, found)

    def _offsets(self, name: str) -> list[int]:
        """Where the name stands in the table of strings: it may be there more than once."""
        needle, found, at = b"\0" + name.encode() + b"\0", list[int](), -1
        while (at := self._text.find(needle, at + 1)) >= 0:
            found.append(at + 1)
        return found

    def text(self, offset: int) -> str:
        return self._text[offset : self._text.index(b"\0", offset)].decode("utf-8", "replace")

    def aggregate(self, number: int) -> int | None:
        """Where the head of a struct or union of that number stands, other names looked through."""
        for _ in range(8):
            if not 0 < number < len(self._starts):
                return None
            at = self._starts[number]
            kind = self._words[at + 1] >> 24 & 31
            if kind not in _OTHER_NAMES:
                return at if kind in _AGGREGATES else None
            number = self._words[at + 2]
        return None

    def members(self, at: int) -> list[tuple[str, int, int]]:
        """Name, type and bit offset of each member of the struct or union whose head is at `at`."""
        words, bits = self._words, self._words[at + 1] >> 31
        rows = range(at + 3, at + 3 + 3 * (words[at + 1] & 0xFFFF), 3)
        mask = 0xFFFFFF if bits else 0xFFFFFFFF
        return [(self.text(words[i]), words[i + 1], words[i + 2] & mask) for i in rows]

    def values(self, at: int) -> dict[int, str]:
        words = self._words
        rows = range(at + 3, at + 3 + 2 * (words[at + 1] & 0xFFFF), 2)
        return {words[i + 1]: self.text(words[i]) for i in rows}


class Types:
    """Those types that were asked for."""

    def __init__(self, btf: Btf, found: Mapping[str, int]) -> None:
        self._btf = btf
        self._found = found

    def offset(self, path: str) -> int:
        """Bytes from a struct's begin to a member: `net_device.nd_net.net`.

        Members of unnamed structs and unions inside count as the struct's own. Raises
        `InvalidInput` if this kernel has no such member.
        """
        name, *members = path.split(".")
        at: int | None = self._found.get(name)
        bits = 0
        for member in members:
            step = None if at is None else self._member(at, member)
            if step is None:
                raise InvalidInput(f"this kernel has no {path}")
            at, bits = self._btf.aggregate(step[0]), bits + step[1]
        return bits // 8

    def _member(self, at: int, wanted: str) -> tuple[int, int] | None:
        for name, kind, bits in self._btf.members(at):
            if name == wanted:
                return kind, bits
            inner = self._btf.aggregate(kind) if not name else None
            deeper = None if inner is None else self._member(inner, wanted)
            if deeper is not None:
                return deeper[0], bits + deeper[1]
        return None

    def enum(self, name: str) -> dict[int, str]:
        """Names of an enum's values; empty if this kernel has no such enum."""
        at = self._found.get(name)
        return {} if at is None else self._btf.values(at)
