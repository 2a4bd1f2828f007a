"""Steps that change single attributes of the kernel's links; the kernel forgets them at a reboot.

A link that went away meanwhile (a guest was shut down, a NIC pulled out) needs none of them.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.model.arrangement import LinkTarget
from kvmnet.model.host import Address
from kvmnet.model.values import Cidr

BridgeAttribute = Literal[
    "stp_state", "forward_delay", "mcast_snooping", "mcast_querier",
    "nf_call_iptables", "nf_call_ip6tables",
]  # fmt: skip
"""In the words of ip-link(8). `forward_delay` is in hundredths of a second."""

Feature = Literal["lro", "tx", "rx", "tso", "gso", "gro"]
"""In the words of ethtool(8), -K."""


class PlugTap(Struct, frozen=True, kw_only=True, tag="plug-tap"):
    """Make a tap (or any other link) a port of a bridge, whatever it was a port of."""

    tap: str
    bridge: str

    def __str__(self) -> str:
        return f"plug {self.tap} into bridge {self.bridge}"


class UnplugTap(Struct, frozen=True, kw_only=True, tag="unplug-tap"):
    """Take a port out of a bridge; nothing to do if it is in none, or in another by now."""

    tap: str
    bridge: str

    def __str__(self) -> str:
        return f"take {self.tap} out of bridge {self.bridge}"


class SetBridge(Struct, frozen=True, kw_only=True, tag="set-bridge"):
    """Set one attribute of a bridge. A forward delay below 2 s needs spanning tree off before."""

    bridge: str
    attribute: BridgeAttribute
    value: int

    def __str__(self) -> str:
        return f"set {self.attribute} of bridge {self.bridge} to {self.value}"


class SetOffload(Struct, frozen=True, kw_only=True, tag="set-offload"):
    """Switch work that a NIC does for the kernel on or off."""

    nic: str
    feature: Feature
    on: bool

    def __str__(self) -> str:
        return f"switch {self.feature} of {self.nic} {'on' if self.on else 'off'}"


class SetLink(Struct, frozen=True, kw_only=True, tag="set-link"):
    """Switch a link on or off."""

    link: str
    up: bool

    def __str__(self) -> str:
        return f"switch {self.link} {'on' if self.up else 'off'}"


class AddAddress(Struct, frozen=True, kw_only=True, tag="add-address"):
    """Give a link an address, with all that it had; nothing to do if the link has it."""

    address: Address

    def __str__(self) -> str:
        return f"give {self.address.link} the address {self.cidr}"

    @property
    def cidr(self) -> Cidr:
        return Cidr(f"{self.address.ip}/{self.address.prefix_len}")


class RemoveAddress(Struct, frozen=True, kw_only=True, tag="remove-address"):
    """Take an address from a link, and with it the routes that need it."""

    link: str
    address: Cidr

    def __str__(self) -> str:
        return f"take the address {self.address} from {self.link}"


class SetPorts(Struct, frozen=True, kw_only=True, tag="set-ports"):
    """Set VLANs and flags of ports, and a bridge's own VLANs; nothing else of these links. One that
    does not become a port of its bridge in time needs none."""

    links: tuple[LinkTarget, ...]

    def __str__(self) -> str:
        return f"VLANs and flags of {', '.join(x.name for x in self.links)}: as they were"


LinkStep = (
    PlugTap | UnplugTap | SetBridge | SetOffload | SetLink | AddAddress | RemoveAddress | SetPorts
)

LINK_STEPS = (
    PlugTap, UnplugTap, SetBridge, SetOffload, SetLink, AddAddress, RemoveAddress, SetPorts,
)  # fmt: skip

GUARDED = (SetLink, AddAddress, RemoveAddress)
"""Those that may cut the host itself off."""
