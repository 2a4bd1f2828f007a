"""A small BPF program that reads of every packet the kernel drops whether it is one of ours.

It is put together here, without a compiler: some ninety instructions that run at the tracepoint
`skb:kfree_skb`, read the packet's first bytes and compare them with the pattern's words. Only of
a packet that matches anything is kept. Facts: https://docs.kernel.org/bpf/standardization and
bpf-helpers(7).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from msgspec import Struct

from kvmnet.formats.btf import Types
from kvmnet.formats.trace_packet import decode
from kvmnet.model.trace import Packet, Pattern

HEAD_BYTES = 96
"""So much of a packet is kept, from its IP header on."""
RECORD = struct.Struct("<QQIII4x")
"""Time (ns, monotonic), place (address in the kernel), reason, link's index, namespace's number."""
RECORD_SIZE = RECORD.size + HEAD_BYTES

STRUCTS = ("sk_buff", "net_device", "net", "skb_drop_reason")
_MAP_PUSH, _KTIME, _READ_KERNEL = 87, 5, 113
_BPF_ANY = 0


class Offsets(Struct, frozen=True, kw_only=True):
    """Where this kernel has what the program reads, in bytes."""

    head: int
    network_header: int
    device: int
    ifindex: int
    net: int
    inum: int
    has_reason: bool

    @classmethod
    def of(cls, types: Types) -> Offsets:
        """Raises `InvalidInput` where a member is missing."""
        return cls(
            head=types.offset("sk_buff.head"),
            network_header=types.offset("sk_buff.network_header"),
            device=types.offset("sk_buff.dev"),
            ifindex=types.offset("net_device.ifindex"),
            net=types.offset("net_device.nd_net.net"),
            inum=types.offset("net.ns.inum"),
            has_reason=bool(types.enum("skb_drop_reason")),
        )


class RawDrop(Struct, frozen=True, kw_only=True):
    """One dropped packet, as the program noted it."""

    at: float
    place: int
    """Address of the kernel's code that dropped it."""
    reason: int
    ifindex: int
    """0: it belonged to no link then."""
    namespace: int
    """Inode number of the link's network namespace; 0 without a link."""
    packet: Packet | None


def parse_record(raw: bytes, patterns: tuple[Pattern, ...]) -> RawDrop:
    at, place, reason, ifindex, namespace = RECORD.unpack_from(raw)
    return RawDrop(
        at=at / 1e9, place=place, reason=reason, ifindex=ifindex, namespace=namespace,
        packet=decode(raw[RECORD.size :], patterns),
    )  # fmt: skip


class _Code:
    """Instructions, with jumps to one label: the end."""

    def __init__(self) -> None:
        self._words: list[tuple[int, int, int, int, int]] = []
        self._labels: dict[str, int] = {}
        self._jumps: dict[int, str] = {}

    def add(self, code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> None:
        self._words.append((code, dst, src, off, imm))

    def jump(self, code: int, dst: int, imm: int, label: str) -> None:
        self._jumps[len(self._words)] = label
        self.add(code, dst, imm=imm)

    def label(self, name: str) -> None:
        self._labels[name] = len(self._words)

    def read(self, into: int, size: int, base: int, offset: int) -> None:
        """probe_read_kernel(fp + into, size, base + offset); the end is next if it fails."""
        self.add(0xBF, 1, 10)  # r1 = fp
        self.add(0x07, 1, imm=into)
        self.add(0xB7, 2, imm=size)
        self.add(0xBF, 3, base)
        self.add(0x07, 3, imm=offset)
        self.add(0x85, imm=_READ_KERNEL)

    def bytes(self) -> bytes:
        out = bytearray()
        for at, (code, dst, src, off, imm) in enumerate(self._words):
            if at in self._jumps:
                off = self._labels[self._jumps[at]] - at - 1
            out += struct.pack("<BBhI", code, src << 4 | dst, off, imm & 0xFFFFFFFF)
        return bytes(out)


_RECORD_AT = -RECORD_SIZE
_HEAD_AT = _RECORD_AT + RECORD.size
_SCRATCH = _RECORD_AT - 16


def assemble(offsets: Offsets, patterns: Iterable[Pattern], map_fd: int) -> bytes:
    """The program for one queue map. All patterns' words have to be in the first bytes."""
    code = _Code()
    code.add(0x79, 6, 1, 0)  # r6 = skb
    code.add(0x79, 7, 1, 8)  # r7 = place
    code.add(0xB7, 8, imm=0)
    if offsets.has_reason:
        code.add(0x79, 8, 1, 16)  # r8 = reason
    code.read(_SCRATCH, 8, 6, offsets.head)
    code.jump(0x55, 0, 0, "end")
    code.add(0x7A, 10, 0, _SCRATCH + 8, 0)
    code.read(_SCRATCH + 8, 2, 6, offsets.network_header)
    code.jump(0x55, 0, 0, "end")
    code.add(0x79, 9, 10, _SCRATCH)  # r9 = head + network_header
    code.add(0x79, 2, 10, _SCRATCH + 8)
    code.add(0x0F, 9, 2)
    code.read(_HEAD_AT, HEAD_BYTES, 9, 0)
    code.jump(0x55, 0, 0, "end")
    _match(code, patterns)
    code.jump(0x05, 0, 0, "end")
    code.label("ours")
    _fill(code, offsets)
    code.add(0x18, 1, 1, imm=map_fd)  # r1 = map, in two halves
    code.add(0x00)
    code.add(0xBF, 2, 10)
    code.add(0x07, 2, imm=_RECORD_AT)
    code.add(0xB7, 3, imm=_BPF_ANY)
    code.add(0x85, imm=_MAP_PUSH)
    code.label("end")
    code.add(0xB7, 0, imm=0)
    code.add(0x95)
    return code.bytes()


def _match(code: _Code, patterns: Iterable[Pattern]) -> None:
    """Go to `ours` as soon as all words of one pattern are as they should be."""
    for number, pattern in enumerate(patterns):
        following = f"pattern {number + 1}"
        for word in pattern.words:
            code.add(0x61, 1, 10, _HEAD_AT + word.offset)  # little endian, as loaded
            value, mask = _swapped(word.value), _swapped(word.mask)
            if mask != 0xFFFFFFFF:
                code.add(0x54, 1, imm=mask)  # w1 &= mask
            code.jump(0x56, 1, value, following)  # if w1 != value
        code.jump(0x05, 0, 0, "ours")
        code.label(following)


def _swapped(value: int) -> int:
    return int.from_bytes(value.to_bytes(4, "big"), "little")


def _fill(code: _Code, offsets: Offsets) -> None:
    """Time, place, reason and, where the packet has a link, its index and namespace."""
    code.add(0x85, imm=_KTIME)
    code.add(0x7B, 10, 0, _RECORD_AT)
    code.add(0x7B, 10, 7, _RECORD_AT + 8)
    code.add(0x63, 10, 8, _RECORD_AT + 16)
    for at in (20, 24, 28):
        code.add(0x62, 10, 0, _RECORD_AT + at, 0)
    code.read(_SCRATCH, 8, 6, offsets.device)
    code.jump(0x55, 0, 0, "push")
    code.add(0x79, 9, 10, _SCRATCH)
    code.jump(0x15, 9, 0, "push")
    code.read(_RECORD_AT + 20, 4, 9, offsets.ifindex)
    code.read(_SCRATCH, 8, 9, offsets.net)
    code.jump(0x55, 0, 0, "push")
    code.add(0x79, 9, 10, _SCRATCH)
    code.read(_RECORD_AT + 24, 4, 9, offsets.inum)
    code.label("push")
