"""A bridge that takes over a NIC's place: what its host network manager has to be told."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.model.values import Cidr, Mac

AddressPlan = Cidr | Literal["keep", "dhcp", "none"]
"""keep: what the first port has, in the way it got it; none: no addresses at all."""


class BridgePort(Struct, frozen=True, kw_only=True):
    """A NIC that is, or is to be, a port of the bridge."""

    name: str
    mac: Mac | None = None
    """Its own MAC, by which files match it so that a renamed NIC does not lose its bridge."""
    kind: str = "ethernet"
    """As in `Link.kind`: ethernet, bond, vlan, veth …"""
    mtu: int = 1500


class Takeover(Struct, frozen=True, kw_only=True):
    """One bridge as it is to be kept by a host network manager."""

    bridge: str
    mac: Mac
    """Always pinned: udev's MACAddressPolicy would give the bridge one of its own, and the DHCP
    server another address (systemd.link(5))."""
    mtu: int = 1500
    ports: tuple[BridgePort, ...] = ()
    heir_of: str | None = None
    """The port whose addresses, routes and DNS settings the bridge takes over (the first one);
    None: the bridge is not anybody's heir (`--address none`, or no ports)."""
    address: AddressPlan = "keep"
    stp: bool = False
    forward_delay_s: float | None = None
    """None: the kernel's, which counts only with STP on."""
    vlan_filtering: bool = False
