"""Writes an initramfs: a cpio archive in the `newc` format.

The kernel's Documentation/driver-api/early-userspace/buffer-format.rst describes it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable

from msgspec import Struct

_MAGIC = b"070701"


class Entry(Struct, frozen=True, kw_only=True):
    """One file, folder, symbolic link or character device; owned by root."""

    path: str
    """Without a leading slash."""
    mode: int
    """File type and permission bits, as in `stat`."""
    data: bytes = b""
    """Content; for a symbolic link its target."""
    device: tuple[int, int] = (0, 0)
    """Major and minor number of a device."""


def folder(path: str, permissions: int = 0o755) -> Entry:
    return Entry(path=path, mode=stat.S_IFDIR | permissions)


def file(path: str, data: bytes, permissions: int = 0o644) -> Entry:
    return Entry(path=path, mode=stat.S_IFREG | permissions, data=data)


def link(path: str, target: str) -> Entry:
    return Entry(path=path, mode=stat.S_IFLNK | 0o777, data=target.encode())


def device(path: str, major: int, minor: int) -> Entry:
    return Entry(path=path, mode=stat.S_IFCHR | 0o600, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive; folders that are missing in `entries` are added before their first file."""
    out: list[bytes] = []
    known: set[str] = set()
    for entry in entries:
        parts = entry.path.split("/")
        for depth in range(1, len(parts)):
            above = "/".join(parts[:depth])
            if above not in known:
                known.add(above)
                out.append(_record(folder(above), len(known)))
        if entry.path in known:
            continue
        known.add(entry.path)
        out.append(_record(entry, len(known)))
    out.append(_record(Entry(path="TRAILER!!!", mode=0), 0))
    return b"".join(out)


def _record(entry: Entry, inode: int) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    major, minor = entry.device
    numbers = (
        inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, major, minor, len(name), 0,
    )  # fmt: skip
    header = _MAGIC + b"".join(b"%08X" % number for number in numbers)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
