"""Reads which bridges the host network managers that run here are to make, and of which ports."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kvmnet.adapters import manager_networkd, manager_networkmanager, managers
from kvmnet.errors import KvmnetError
from kvmnet.formats import configured
from kvmnet.model.handover import FileState
from kvmnet.model.host import Link
from kvmnet.model.setup import ConfiguredBridge
from kvmnet.model.state import Unread


def read_configured(
    links: Iterable[Link], root: Path = Path("/")
) -> tuple[tuple[ConfiguredBridge, ...], tuple[Unread, ...]]:
    """The bridges in their files, each once; files of managers that do not run say nothing."""
    known, missing = tuple(links), list[Unread]()
    by_nm = (root / "run/NetworkManager").is_dir()
    by_networkd = (root / "run/systemd/netif").is_dir()
    found: list[ConfiguredBridge] = []
    if by_nm or by_networkd:
        found += configured.of_netplan(managers.read_netplan(root, missing), known)
    if by_nm:
        found += configured.of_networkmanager(_profiles(root, missing), known)
    if by_networkd:
        found += configured.of_networkd(_units(root, missing), known)
    # ifupdown is no process: where nobody else is there, its file counts.
    if (root / "run/network").is_dir() or not (by_nm or by_networkd):
        found += configured.of_ifupdown(managers.read_interfaces(root, missing), known)
    first: dict[str, ConfiguredBridge] = {}
    for bridge in found:
        first.setdefault(bridge.name, bridge)
    return tuple(first.values()), tuple(missing)


def _profiles(root: Path, missing: list[Unread]) -> list[tuple[str, str]]:
    try:
        profiles = manager_networkmanager.read_profiles(root, {})
    except KvmnetError as error:
        missing.append(_unread("NetworkManager's profiles", error))
        return []
    return [(x.file.path, x.text) for x in profiles]


def _units(root: Path, missing: list[Unread]) -> tuple[FileState, ...]:
    try:
        return manager_networkd.observe(root).files
    except KvmnetError as error:
        missing.append(_unread("networkd's units", error))
        return ()


def _unread(what: str, error: KvmnetError) -> Unread:
    return Unread(what=what, why=error.why or error.what, hint=error.hint)
