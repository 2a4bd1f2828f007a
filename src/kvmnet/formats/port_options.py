"""What can be set of a bridge's port, as `ip` prints it and as it takes it (ip-link(8)).

Facts: iproute2's `ip/iplink_bridge_slave.c`; what a new port has: the kernel's `new_nbp` (br_if.c).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvmnet.model.host import PortAttributes

BACKUP = "backup_port"
_NONE = ""
_OPTIONS = {
    "priority": ("priority", "32"),
    "guard": ("guard", "off"),
    "root_block": ("root_block", "off"),
    "fastleave": ("fastleave", "off"),
    "proxy_arp": ("proxy_arp", "off"),
    "proxy_arp_wifi": ("proxy_arp_wifi", "off"),
    "multicast_router": ("mcast_router", "1"),
    "mcast_flood": ("mcast_flood", "on"),
    "bcast_flood": ("bcast_flood", "on"),
    "mcast_to_unicast": ("mcast_to_unicast", "off"),
    "group_fwd_mask": ("group_fwd_mask", "0"),
    "neigh_suppress": ("neigh_suppress", "off"),
    "vlan_tunnel": ("vlan_tunnel", "off"),
    "locked": ("locked", "off"),
    "mab": ("mab", "off"),
    "backup_port": (BACKUP, _NONE),
}
"""By the name that `ip -json` prints: the word that sets it, and what a new port has."""
_USUAL = dict(_OPTIONS.values())


def parse(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Of the `info_slave_data` of a port: the options that a new port does not have."""
    found: list[str] = []
    for key, (word, usual) in _OPTIONS.items():
        if key in data and (value := _value(data[key], usual)) != usual:
            found += (word, value)
    return tuple(found)


def _value(raw: object, usual: str) -> str:
    if isinstance(raw, bool):
        return "on" if raw else "off"
    if isinstance(raw, str) and usual.isdecimal():  # a mask, in base 16
        try:
            return str(int(raw, 16))
        except ValueError:
            return usual
    return str(raw)


def changes(has: PortAttributes, want: PortAttributes) -> list[str]:
    """The words after `type bridge_slave` that make `want` of `has`; none: it is so."""
    old, new = _all(has), _all(want)
    words: list[str] = []
    for name, usual in {**dict.fromkeys(("learning", "flood", "isolated", "hairpin"), ""),
                        **_USUAL}.items():  # fmt: skip
        value = new.get(name, usual)
        if value == old.get(name, usual):
            continue
        words += ["nobackup_port"] if value == _NONE else [name, value]
    return words


def _all(port: PortAttributes) -> dict[str, str]:
    flags = {
        "learning": port.learning, "flood": port.flood, "isolated": port.isolated,
        "hairpin": port.hairpin,
    }  # fmt: skip
    pairs = zip(port.options[::2], port.options[1::2], strict=False)
    return {**{name: "on" if on else "off" for name, on in flags.items()}, **dict(pairs)}
