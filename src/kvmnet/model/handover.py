"""Handing a host's network over to its manager: files in its own format, and what it is told.

The files are written first, all of them, then the calls are made in their order. Both can be done
twice without harm.
"""

from __future__ import annotations

from msgspec import Struct


class FileState(Struct, frozen=True, kw_only=True):
    """A file as it is, or as it is to be."""

    path: str
    text: str | None
    """None: there is no such file. Bytes that are not UTF-8 are kept (surrogateescape)."""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


class NetplanGenerate(Struct, frozen=True, kw_only=True, tag="netplan-generate"):
    """Have netplan write its renderer's files anew (netplan-generate(8)); touches no link."""

    def __str__(self) -> str:
        return "netplan generate"


ManagerCall = NetplanGenerate
"""What a manager is told; each is carried out by `adapters/manager_calls.py`."""


class HandedOver(Struct, frozen=True, kw_only=True):
    """What a manager's own module makes of a `Takeover`: the files and calls, there and back."""

    files: tuple[FileState, ...]
    """As they are to be; only those that change."""
    files_before: tuple[FileState, ...]
    """The same paths, as they are now."""
    calls: tuple[ManagerCall, ...] = ()
    calls_back: tuple[ManagerCall, ...] = ()
    """To be made after the files are as they were before, on a host that has not rebooted."""
    calls_back_at_boot: tuple[ManagerCall, ...] = ()
    """The same, where a reboot came between: before the manager starts. Most need none."""
    notes: tuple[str, ...] = ()
    """What people should know: what was chosen, and what the manager does differently from now."""
    disturbs: str = "nobody"
