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


class LinkUnit(Struct, frozen=True, kw_only=True):
    """Which .network file networkd is to use for a link."""

    link: str
    unit: str | None
    """Its path; None: networkd is to leave the link alone."""


class NetworkdReload(Struct, frozen=True, kw_only=True, tag="networkd-reload"):
    """Have systemd-networkd read its files (networkctl(1), reload) and wait until it is done.

    Only links whose files changed are configured anew.
    """

    volatile: tuple[FileState, ...] = ()
    """Files below /run, written before: they are gone after the next boot by themselves."""
    bridges: tuple[str, ...] = ()
    """Bridges that were there before networkd heard of them: the kernel announces them again, or
    networkd waits for ever to enslave their ports (seen with systemd 252)."""
    links: tuple[LinkUnit, ...] = ()
    """Waited for until networkd has configured them so."""

    def __str__(self) -> str:
        return "networkctl reload"


ManagerCall = NetplanGenerate | NetworkdReload
"""What a manager is told; each is carried out by `adapters/manager_calls.py`."""


class HandedOver(Struct, frozen=True, kw_only=True):
    """What a manager's own module makes of a `Takeover`: the files and calls, there and back."""

    files: tuple[FileState, ...]
    """As they are to be; only those that change."""
    files_before: tuple[FileState, ...]
    """The same paths, as they are now."""
    calls_first: tuple[ManagerCall, ...] = ()
    """To be made before the kernel's links are changed: the manager lets go of them. networkd does
    not forgive that a port is taken out of its bridge behind its back."""
    calls: tuple[ManagerCall, ...] = ()
    calls_back_first: tuple[ManagerCall, ...] = ()
    """As `calls_first`, on the way back: before the links are put back as they were, while the
    files are still as they are to be."""
    calls_back: tuple[ManagerCall, ...] = ()
    """To be made after the links and then the files are as they were before, on a host that has
    not rebooted."""
    calls_back_at_boot: tuple[ManagerCall, ...] = ()
    """The same, where a reboot came between: before the manager starts. Most need none."""
    notes: tuple[str, ...] = ()
    """What people should know: what was chosen, and what the manager does differently from now."""
    disturbs: str = "nobody"
