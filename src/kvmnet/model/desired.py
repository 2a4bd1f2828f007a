"""What users ask for. Absent means: kvmnet chooses, or leaves as it is."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.model.values import Cidr
from kvmnet.model.virt import DhcpRange

Mode = Literal["nat", "route", "open", "isolated", "bridge"]


class NetworkRequest(Struct, frozen=True, kw_only=True):
    """A network to be made (`kvmnet network create`)."""

    name: str
    mode: Mode = "nat"
    subnet: Cidr | Literal["auto"] | None = None
    """None: auto, or nothing for mode bridge."""
    ipv6: Cidr | Literal["auto", "off"] = "off"
    bridge: str | None = None
    """The bridge to be made; for mode bridge the host's bridge to be used."""
    dhcp_range: DhcpRange | None = None
    domain: str | None = None
    mtu: int | None = None
    uplink: str | None = None
    autostart: bool = True
    dhcp_ping: bool = False
    """Keep dnsmasq's check of dynamic addresses by ping, which takes three seconds a lease."""
