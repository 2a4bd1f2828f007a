"""What users ask for. Absent means: kvmnet chooses, or leaves as it is."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.model.takeover import AddressPlan
from kvmnet.model.values import Cidr, Mac
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
    lan_range: DhcpRange | None = None
    """Addresses of the uplink's LAN for guests, which the host answers ARP for; mode route."""
    lan_range6: DhcpRange | None = None
    """The same for IPv6, beside `lan_range`: the host answers neighbour solicitations for them."""
    autostart: bool = True
    dhcp_ping: bool = False
    """Keep dnsmasq's check of dynamic addresses by ping, which takes three seconds a lease."""


class BridgeRequest(Struct, frozen=True, kw_only=True):
    """A bridge to be made of the host's NICs (`kvmnet bridge create`)."""

    name: str
    ports: tuple[str, ...] = ()
    """NICs; the bridge becomes the heir of the first one."""
    address: AddressPlan = "keep"
    stp: bool = False
    forward_delay_s: float | None = None
    vlan_filtering: bool = False
    mac: Mac | Literal["keep"] = "keep"
    """keep: the first port's; without ports, one made of the name and this host's machine-id."""
    persist: bool = True
    """Also in the files of the host network manager."""
