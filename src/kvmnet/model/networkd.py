"""What systemd-networkd has read and what it does: its files, and its links with their identity."""

from __future__ import annotations

from msgspec import Struct

from kvmnet.model.handover import FileState
from kvmnet.model.values import Mac


class NetworkdLink(Struct, frozen=True, kw_only=True):
    """One of the host's NICs, and what networkd does with it."""

    name: str
    unit: str | None = None
    """The .network file that is in force; None: networkd does not manage the link."""
    state: str = ""
    """configured, configuring, pending, failed, unmanaged, linger."""
    mac: Mac | None = None
    permanent_mac: Mac | None = None
    """The one that was burnt in; None for software devices."""
    virtual: bool = False
    """A software device: a bond, VLAN, veth …"""
    driver: str | None = None
    client_id: str | None = None
    """DHCPv4 client identifier in use (RFC 2132, option 61), as hexadecimal digits."""
    iaid6: int | None = None
    """DHCPv6 identity association in use (RFC 8415, section 4.2)."""

    @property
    def iaid4(self) -> int | None:
        """The IAID inside a client identifier of RFC 4361; None if it is of another kind."""
        if self.client_id is None or len(self.client_id) < 14 or self.client_id[:2] != "ff":
            return None
        return int(self.client_id[2:10], 16)


class NetworkdView(Struct, frozen=True, kw_only=True):
    """All that has to be known of networkd to hand a NIC's place over to a bridge."""

    files: tuple[FileState, ...] = ()
    """All unit files and drop-ins; one that is replaced by another of its name comes later."""
    links: tuple[NetworkdLink, ...] = ()

    def link(self, name: str) -> NetworkdLink | None:
        return next((x for x in self.links if x.name == name), None)
