"""What netplan has to work with: its files, what made them, and how its renderer sees the links."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.model.handover import FileState
from kvmnet.model.networkd import NetworkdView
from kvmnet.model.networkmanager import NmView

CloudInit = Literal["absent", "writes", "keeps-off"]
"""absent: not installed; writes: it makes netplan's file anew; keeps-off: it was told not to."""


class NetplanView(Struct, frozen=True, kw_only=True):
    """All that has to be known of netplan to hand a NIC's place over to a bridge."""

    files: tuple[FileState, ...] = ()
    """Those that count, in the order in which netplan reads them (netplan-generate(8))."""
    networkd: NetworkdView = NetworkdView()
    nm: NmView = NmView()
    """Empty where no file names NetworkManager as renderer."""
    cloud_init: CloudInit = "absent"
