"""What bridges know beside their forwarding databases: VLANs of ports, multicast listeners."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from kvmnet.errors import InvalidInput
from kvmnet.model.setup import BridgeMulticast, MulticastListener, PortVlans, VlanRange


class _Vlan(Struct):
    vlan: int
    end: int | None = msgspec.field(name="vlanEnd", default=None)
    flags: list[str] = []


class _Port(Struct):
    ifname: str = ""
    vlans: list[_Vlan] = []


class _Entry(Struct):
    dev: str = ""
    port: str = ""
    grp: str = ""


class _Router(Struct):
    port: str = ""


class _Mdb(Struct):
    mdb: list[_Entry] = []
    router: dict[str, list[_Router]] = {}


def parse_vlans(text: str) -> tuple[PortVlans, ...]:
    """What `bridge -json vlan show` prints; nothing of a kernel without VLAN filtering."""
    if not text.strip():
        return ()
    try:
        ports = msgspec.json.decode(text, type=list[_Port])
    except msgspec.MsgspecError as error:
        raise InvalidInput(
            "the answer of `bridge vlan` is not understood", why=str(error)
        ) from None
    return tuple(
        PortVlans(
            port=port.ifname,
            ranges=tuple(
                VlanRange(first=x.vlan, last=x.end or x.vlan, untagged="Egress Untagged" in x.flags)
                for x in port.vlans
            ),
            pvid=next((x.vlan for x in port.vlans if "PVID" in x.flags), None),
        )
        for port in ports
    )


def parse_listeners(text: str) -> tuple[BridgeMulticast, ...]:
    """What `bridge -json -details mdb show` prints; whether there is a querier it does not say."""
    if not text.strip():
        return ()
    try:
        (found,) = msgspec.json.decode(text, type=list[_Mdb]) or [_Mdb()]
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidInput("the answer of `bridge mdb` is not understood", why=str(error)) from None
    bridges = dict.fromkeys((*(x.dev for x in found.mdb), *found.router))
    return tuple(
        BridgeMulticast(
            bridge=bridge,
            routers=tuple(x.port for x in found.router.get(bridge, ())),
            listeners=tuple(
                MulticastListener(port=x.port, group=x.grp) for x in found.mdb if x.dev == bridge
            ),
        )
        for bridge in bridges
        if bridge
    )
