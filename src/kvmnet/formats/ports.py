"""What iproute2 tells about one port of a bridge: its packet counters and VLANs."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Struct

from kvmnet.errors import InvalidInput

T = TypeVar("T")


class Counters(Struct, frozen=True, kw_only=True):
    """Packets since the link was made, as the host counts them."""

    received: int
    sent: int


class PortVlan(Struct, frozen=True, kw_only=True):
    """One VLAN that a port of a bridge with VLAN filtering belongs to."""

    vid: int
    end: int
    """The last one of a range."""
    pvid: bool = False
    """What comes in without a tag belongs to it."""
    untagged: bool = False
    """It goes out without a tag."""


class _Packets(Struct, frozen=True):
    packets: int = 0


class _Stats(Struct, frozen=True):
    rx: _Packets = _Packets()
    tx: _Packets = _Packets()


class _Link(Struct):
    stats64: _Stats = _Stats()


class _Vlan(Struct, rename="camel"):
    vlan: int
    vlan_end: int | None = None
    flags: list[str] = []


class _Port(Struct):
    vlans: list[_Vlan] = []


def counters(text: str) -> Counters | None:
    """Of `ip -json -statistics link show dev X`; None: there is no such link any more."""
    links = _decoded(text, list[_Link])
    if not links:
        return None
    return Counters(received=links[0].stats64.rx.packets, sent=links[0].stats64.tx.packets)


def vlans(text: str) -> tuple[PortVlan, ...]:
    """Of `bridge -json vlan show dev X`."""
    return tuple(
        PortVlan(
            vid=x.vlan, end=x.vlan_end or x.vlan, pvid="PVID" in x.flags,
            untagged="Egress Untagged" in x.flags,
        )
        for port in _decoded(text, list[_Port])
        for x in port.vlans
    )  # fmt: skip


def _decoded(text: str, kind: type[list[T]]) -> list[T]:
    try:
        return msgspec.json.decode(text or "[]", type=kind)
    except msgspec.MsgspecError as error:
        raise InvalidInput("the output of iproute2 is not understood", why=str(error)) from None
