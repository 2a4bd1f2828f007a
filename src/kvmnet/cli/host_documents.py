"""The JSON documents about the picture of the host; see `documents` for what `version` means."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.cli.finding_view import FindingView
from kvmnet.core.views import BridgeView, GuestView, NetworkView, UplinkView
from kvmnet.model.state import Unread


class BridgeDocument(Struct, frozen=True, kw_only=True):
    """`kvmnet bridge show NAME --json`."""

    format: Literal["kvmnet.bridge"] = "kvmnet.bridge"
    version: int = 1
    bridge: BridgeView
    unread: tuple[Unread, ...] = ()


class BridgeListDocument(Struct, frozen=True, kw_only=True):
    """`kvmnet bridge list --json`."""

    format: Literal["kvmnet.bridge-list"] = "kvmnet.bridge-list"
    version: int = 1
    bridges: tuple[BridgeView, ...]
    unread: tuple[Unread, ...] = ()


class GuestDocument(Struct, frozen=True, kw_only=True):
    """`kvmnet guest show NAME --json`."""

    format: Literal["kvmnet.guest"] = "kvmnet.guest"
    version: int = 1
    guest: GuestView
    unread: tuple[Unread, ...] = ()


class GuestListDocument(Struct, frozen=True, kw_only=True):
    """`kvmnet guest list --json`."""

    format: Literal["kvmnet.guest-list"] = "kvmnet.guest-list"
    version: int = 1
    guests: tuple[GuestView, ...]
    unread: tuple[Unread, ...] = ()


class NetworkShowDocument(Struct, frozen=True, kw_only=True):
    """`kvmnet network show NAME --json`."""

    format: Literal["kvmnet.network"] = "kvmnet.network"
    version: int = 1
    network: NetworkView
    unread: tuple[Unread, ...] = ()


class NetworkListDocument(Struct, frozen=True, kw_only=True):
    """`kvmnet network list --json`."""

    format: Literal["kvmnet.network-list"] = "kvmnet.network-list"
    version: int = 1
    networks: tuple[NetworkView, ...]
    unread: tuple[Unread, ...] = ()


class StatusDocument(Struct, frozen=True, kw_only=True):
    """`kvmnet status --json`."""

    format: Literal["kvmnet.status"] = "kvmnet.status"
    version: int = 1
    hostname: str
    taken_at: int
    """Seconds since the epoch."""
    uplinks: tuple[UplinkView, ...]
    bridges: tuple[BridgeView, ...]
    networks: tuple[NetworkView, ...]
    guests: tuple[GuestView, ...]
    findings: tuple[FindingView, ...]
    unread: tuple[Unread, ...] = ()
