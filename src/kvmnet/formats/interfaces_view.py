"""What ifupdown's files and processes say: the input of `interfaces_bridge`."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.formats.interfaces_lines import Include
from kvmnet.model.handover import DhcpClient, FileState


class IfupdownView(Struct, frozen=True, kw_only=True):
    """ifupdown as far as it matters to one bridge."""

    program: Literal["ifupdown", "ifupdown2"] = "ifupdown"
    files: tuple[FileState, ...]
    """/etc/network/interfaces first, then all that it reads."""
    includes: tuple[Include, ...] = ()
    has_bridge_utils: bool = True
    """Whether bridge-utils' hook is there; without it `bridge_ports` does nothing."""
    up: tuple[str, ...] = ()
    """What /run/network/ifstate says is up."""
    clients: tuple[DhcpClient, ...] = ()
    """dhclient processes of the heir and the bridge."""
    other_clients: tuple[str, ...] = ()
    """Other DHCP clients that serve the heir or the bridge: their programs' names."""
    tells_dns: bool = False
    """Whether ifupdown's hooks for resolvconf or systemd-resolved are there."""
    cloud_init: Literal["absent", "writes", "keeps-off"] = "absent"
    """keeps-off: it is there, and was told to leave the network alone."""
