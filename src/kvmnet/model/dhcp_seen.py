"""A DHCP packet that passed a link of the host."""

from __future__ import annotations

from msgspec import Struct

from kvmnet.model.values import Ip, Mac


class DhcpSeen(Struct, frozen=True, kw_only=True):
    """One packet on one link; the same packet is seen on each link that it passes."""

    mac: Mac
    """The client's own address (`chaddr`)."""
    link: str
    out: bool
    """It left the host's stack through the link; else it came in."""
    reply: bool
    """From a server to the client; else the other way."""
    source: Ip
    """The sender's IP address, 0.0.0.0 of a client without one."""
