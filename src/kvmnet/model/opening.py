"""An opening: one rule that lets a network's guests through a chain that would drop them."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.model.values import Ip


class Opening(Struct, frozen=True, kw_only=True):
    """An accept rule to be inserted before all others of a chain; it is known by its comment."""

    backend: Literal["nft", "iptables-nft", "iptables-legacy"]
    family: Literal["ip", "ip6", "inet"]
    table: str
    chain: str
    comment: str
    """Marks the rule as kvmnet's: `kvmnet:default`."""
    iif: str | None = None
    oif: str | None = None
    protocol: Literal["udp", "tcp", "ipv6-icmp"] | None = None
    dport: int | None = None
    destination: Ip | None = None
    """Only packets for this address."""
    established: bool = False
    """Only packets of connections that exist already (and errors about them)."""
