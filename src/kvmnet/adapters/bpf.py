"""The one door to bpf(2): loads the program that watches drops, and reads what it found.

Program and map are held by file descriptors only: they end with this process, however it ends.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from kvmnet.errors import InvalidInput, Unavailable
from kvmnet.formats.btf import Btf, Types
from kvmnet.formats.drop_program import (
    RECORD_SIZE,
    STRUCTS,
    Offsets,
    RawDrop,
    assemble,
    parse_record,
)
from kvmnet.formats.kallsyms import find
from kvmnet.model.trace import KernelDrop, Pattern

_CALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
"""The number of the system call (syscalls(2))."""
_MAP_CREATE, _PROG_LOAD, _RAW_TRACEPOINT_OPEN, _LOOKUP_AND_DELETE = 0, 5, 17, 21
_QUEUE = 22
_RAW_TRACEPOINT = 17
_PLACES = 1024
_SYMBOLS = Path("/proc/kallsyms")
_BTF = Path("/sys/kernel/btf/vmlinux")
_LITTLE = {"x86_64", "aarch64", "riscv64", "ppc64le"}


class DropWatch:
    """Every packet that fits a pattern and that the kernel drops from now on, until closed.

    Raises `Unavailable`: no BTF, no bpf(2), not allowed, an unknown machine.
    """

    def __init__(self, patterns: tuple[Pattern, ...]) -> None:
        types = _types()
        self._patterns = patterns
        self._reasons = types.enum("skb_drop_reason")
        self._handles: list[int] = []
        try:
            offsets = Offsets.of(types)
            self._map = self._call(
                _MAP_CREATE, struct.pack("<IIII", _QUEUE, 0, RECORD_SIZE, _PLACES)
            )
            program = self._load(assemble(offsets, patterns, self._map))
            name = ctypes.create_string_buffer(b"kfree_skb")
            self._call(_RAW_TRACEPOINT_OPEN, struct.pack("<QI4x", ctypes.addressof(name), program))
        except InvalidInput as error:
            self.close()
            raise Unavailable("drops can not be watched by BPF", why=error.what) from None
        except Unavailable:
            self.close()
            raise

    def __enter__(self) -> DropWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for handle in reversed(self._handles):
            os.close(handle)
        self._handles.clear()

    def take(self) -> list[RawDrop]:
        """The drops since the last call."""
        found: list[RawDrop] = []
        value = ctypes.create_string_buffer(RECORD_SIZE)
        order = struct.pack("<I4xQQQ", self._map, 0, ctypes.addressof(value), 0)
        while len(found) < _PLACES and _bpf(_LOOKUP_AND_DELETE, order) >= 0:
            found.append(parse_record(value.raw, self._patterns))
        return found

    def explain(self, drops: Sequence[RawDrop]) -> tuple[KernelDrop, ...]:
        """The same with the kernel's names for reasons, functions and links."""
        functions = function_names({x.place for x in drops})
        here = os.stat("/proc/self/ns/net").st_ino
        return tuple(
            KernelDrop(
                at=x.at,
                reason=self._reasons.get(x.reason, "").removeprefix("SKB_DROP_REASON_"),
                function=functions.get(x.place, ""),
                packet=x.packet,
                link=_link(x.ifindex) if x.namespace == here else None,
                here=x.namespace in (0, here),
            )
            for x in drops
        )

    def _load(self, program: bytes) -> int:
        code = ctypes.create_string_buffer(program, len(program))
        licence = ctypes.create_string_buffer(b"Dual BSD/GPL")
        order = struct.pack(
            "<IIQQIIQII16s", _RAW_TRACEPOINT, len(program) // 8, ctypes.addressof(code),
            ctypes.addressof(licence), 0, 0, 0, 0, 0, b"kvmnet_drops",
        )  # fmt: skip
        return self._call(_PROG_LOAD, order)

    def _call(self, command: int, order: bytes) -> int:
        handle = _bpf(command, order)
        if handle < 0:
            raise Unavailable(
                "drops can not be watched by BPF",
                why=f"bpf(2) command {command}: {os.strerror(-handle)}",
            )
        self._handles.append(handle)
        return handle


def _bpf(command: int, order: bytes) -> int:
    """The call's result, or the negative error number."""
    buffer = ctypes.create_string_buffer(order, len(order))
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(_CALL[os.uname().machine], command, buffer, len(order))
    return result if result >= 0 else -ctypes.get_errno()


def function_names(places: set[int]) -> dict[int, str]:
    """The kernel's functions at those addresses; empty where it does not tell them."""
    if not places:
        return {}
    try:
        return find(_SYMBOLS.read_bytes(), places)
    except OSError:
        return {}


def _link(ifindex: int) -> str | None:
    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return None  # it is gone by now


def _types() -> Types:
    what = "drops can not be watched by BPF"
    if os.uname().machine not in _CALL.keys() & _LITTLE:
        raise Unavailable(what, why=f"kvmnet has no program for {os.uname().machine}")
    try:
        return Btf(_BTF.read_bytes()).read(STRUCTS)
    except OSError as error:
        raise Unavailable(what, why=f"{_BTF}: {error.strerror}") from None
    except InvalidInput as error:
        raise Unavailable(what, why=error.what) from None
