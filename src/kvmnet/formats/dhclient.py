"""ISC dhclient's lease database (dhclient.leases(5))."""

from __future__ import annotations

import ipaddress
import re

from msgspec import Struct


class Lease(Struct, frozen=True, kw_only=True):
    """An IPv4 lease as dhclient wrote it down."""

    address: str
    prefix_len: int | None = None
    seconds: int | None = None
    """How long it was given for."""


_BLOCK = re.compile(r"^lease \{$(.*?)^\}$", re.MULTILINE | re.DOTALL)


def rename_link(text: str, old: str, new: str) -> str:
    """The database with one link's leases made another's; all else stays as it is."""
    return re.sub(
        rf'^(\s*interface\s+"){re.escape(old)}(";)',
        lambda m: f"{m[1]}{new}{m[2]}",
        text,
        flags=re.MULTILINE,
    )


def last_lease(text: str) -> Lease | None:
    """The newest lease: dhclient appends, and only the last one of a link counts."""
    blocks = _BLOCK.findall(text)
    if not blocks:
        return None
    address = _value(blocks[-1], "fixed-address")
    mask = _value(blocks[-1], "option subnet-mask")
    seconds = _value(blocks[-1], "option dhcp-lease-time")
    if address is None:
        return None
    return Lease(
        address=address,
        prefix_len=ipaddress.ip_network(f"0.0.0.0/{mask}").prefixlen if mask else None,
        seconds=int(seconds) if seconds and seconds.isdecimal() else None,
    )


def _value(block: str, name: str) -> str | None:
    found = re.search(rf"^\s*{re.escape(name)}\s+([^;]+);", block, re.MULTILINE)
    return found[1] if found else None
