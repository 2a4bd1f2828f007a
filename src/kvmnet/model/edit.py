"""An edit of a libvirt network's saved definition: what is None stays as it is."""

from __future__ import annotations

from msgspec import Struct

from kvmnet.model.values import Cidr
from kvmnet.model.virt import DhcpRange


class NetworkEdit(Struct, frozen=True, kw_only=True):
    """What a mended network gets instead of what stood in its way."""

    subnet: Cidr | None = None
    """Its first IPv4 subnet; ranges and reservations move along, each to its place."""
    bridge: str | None = None
    dhcp_range: DhcpRange | None = None
    """One more range that DHCP gives out."""
    stp: bool | None = None
    """Spanning tree of its bridge; False: off, and without a delay if it comes on again."""

    def __str__(self) -> str:
        parts = []
        if self.subnet is not None:
            parts.append(f"subnet {self.subnet}")
        if self.bridge is not None:
            parts.append(f"bridge {self.bridge}")
        if self.dhcp_range is not None:
            parts.append(f"dynamic addresses {self.dhcp_range.start} to {self.dhcp_range.end}")
        if self.stp is not None:
            parts.append(f"spanning tree {'on' if self.stp else 'off'}")
        return ", ".join(parts)
