"""What `ip -json -details` and `bridge -json` print, as model objects.

Facts: iproute2's `ip/ipaddress.c`, `ip/iplink_bridge.c`, `ip/ipneigh.c`, `bridge/fdb.c`.
Numbers of a bridge are in hundredths of a second (USER_HZ) there. Routes and rules are in
`iproute_routes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from kvmnet.errors import InvalidInput
from kvmnet.formats import port_options
from kvmnet.model.host import (
    Address,
    BridgeAttributes,
    Family,
    ForwardingEntry,
    Link,
    Neighbour,
    PortAttributes,
)
from kvmnet.model.values import Ip, Mac

T = TypeVar("T")
_FOREVER = 0xFFFFFFFF
_HZ = 100
_PORT_STATES: dict[str, Literal["disabled", "listening", "learning", "forwarding", "blocking"]] = {
    "disabled": "disabled",
    "listening": "listening",
    "learning": "learning",
    "forwarding": "forwarding",
    "blocking": "blocking",
}
_STACKED = frozenset({"vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "vxlan", "geneve"})
_UNTIMED = frozenset({"PERMANENT", "NOARP", "FAILED", "INCOMPLETE"})
_NO_FLAGS = frozenset({"dynamic"})


class _LinkInfo(Struct):
    info_kind: str | None = None
    info_data: dict[str, Any] = {}
    info_slave_kind: str | None = None
    info_slave_data: dict[str, Any] = {}


class _Device(Struct):
    ifindex: int = 0
    ifname: str = ""
    flags: list[str] = []
    mtu: int = 0
    link_type: str = ""
    address: str = ""
    operstate: str = "UNKNOWN"
    master: str | None = None
    link: str | None = None
    promiscuity: int = 0
    altnames: list[str] = []
    linkinfo: _LinkInfo = msgspec.field(default_factory=_LinkInfo)
    addr_info: list[dict[str, Any]] = []


class _Neighbour(Struct):
    dst: str
    dev: str = ""
    lladdr: str | None = None
    state: list[str] = []
    confirmed: int | None = None
    router: UnsetType | None = UNSET
    proxy: UnsetType | None = UNSET


class _FdbEntry(Struct):
    mac: str
    ifname: str = ""
    master: str | None = None
    vlan: int | None = None
    state: str = ""
    updated: int | None = None


def decode(text: str, kind: type[list[T]], source: str) -> list[T]:
    """`text` as a list of that type; a tool that has nothing to say prints nothing at all.

    Raises `InvalidInput`.
    """
    if not text.strip():
        return []
    try:
        return msgspec.json.decode(text.encode("utf-8", "replace"), type=kind)
    except msgspec.MsgspecError as error:
        raise InvalidInput(
            f"the answer of `{source}` is not understood",
            why=str(error),
            hint="is iproute2 older than 5.0?",
        ) from None


def mac_or_none(text: str | None) -> Mac | None:
    """An Ethernet address as the kernel prints it; None for none, all zeros and other kinds."""
    if text is None or len(text) != 17 or text == "00:00:00:00:00:00":
        return None
    return Mac(text.lower())


def _family(address: str) -> Family:
    return 6 if ":" in address else 4


def parse_links(text: str) -> tuple[Link, ...]:
    """Links of `ip -json -details addr show` (or `link show`)."""
    return tuple(_link(x) for x in decode(text, list[_Device], "ip addr") if x.ifname)


def parse_addresses(text: str) -> tuple[Address, ...]:
    """Addresses of `ip -json -details addr show`."""
    devices = decode(text, list[_Device], "ip addr")
    return tuple(_address(x.ifname, raw) for x in devices for raw in x.addr_info if "local" in raw)


def _link(raw: _Device) -> Link:
    info, up = raw.linkinfo, "UP" in raw.flags
    kind = _kind(raw)
    number = _int(info.info_data, "id", None)
    mode = info.info_data.get("mode")
    return Link(
        index=raw.ifindex,
        name=raw.ifname,
        kind=kind,
        mac=mac_or_none(raw.address),
        mtu=raw.mtu,
        up=up,
        carrier=("LOWER_UP" in raw.flags) if up else None,
        operstate=raw.operstate.lower(),
        master=raw.master,
        parent=_parent(raw, kind),
        altnames=tuple(raw.altnames),
        vlan_id=number if kind == "vlan" else None,
        vxlan_id=number if kind == "vxlan" else None,
        mode=str(mode) if mode is not None else None,
        promiscuity=raw.promiscuity,
        promisc="PROMISC" in raw.flags,
        allmulti="ALLMULTI" in raw.flags,
        bridge=_bridge(info.info_data) if kind == "bridge" else None,
        port=_port(info.info_slave_data) if info.info_slave_kind == "bridge" else None,
    )


def _kind(raw: _Device) -> str:
    kind = raw.linkinfo.info_kind
    if kind == "tun":
        return "tap" if raw.linkinfo.info_data.get("type") == "tap" else "tun"
    if kind:
        return kind
    return {"ether": "ethernet", "": "unknown"}.get(raw.link_type, raw.link_type)


def _parent(raw: _Device, kind: str) -> str | None:
    if kind not in _STACKED:
        return None
    below = raw.link or raw.linkinfo.info_data.get("link")
    return below if isinstance(below, str) else None


def _bridge(data: Mapping[str, Any]) -> BridgeAttributes:
    return BridgeAttributes(
        stp=bool(_int(data, "stp_state", 0)),
        forward_delay_s=(_int(data, "forward_delay", 0) or 0) / _HZ,
        vlan_filtering=bool(_int(data, "vlan_filtering", 0)),
        default_pvid=_int(data, "vlan_default_pvid", 1) or 0,
        multicast_snooping=bool(_int(data, "mcast_snooping", 1)),
        multicast_querier=bool(_int(data, "mcast_querier", 0)),
        ageing_s=(_int(data, "ageing_time", 30000) or 0) / _HZ,
        group_fwd_mask=_int(data, "group_fwd_mask", 0) or 0,
        nf_call_iptables=bool(_int(data, "nf_call_iptables", 0)),
        nf_call_ip6tables=bool(_int(data, "nf_call_ip6tables", 0)),
    )


def _port(data: Mapping[str, Any]) -> PortAttributes:
    return PortAttributes(
        state=_PORT_STATES.get(str(data.get("state")), "disabled"),
        learning=bool(data.get("learning", True)),
        flood=bool(data.get("flood", True)),
        isolated=bool(data.get("isolated", False)),
        hairpin=bool(data.get("hairpin", False)),
        cost=_int(data, "cost", None),
        options=port_options.parse(data),
    )


def _int(data: Mapping[str, Any], key: str, default: int | None) -> int | None:
    """A number that iproute2 prints as such, as a truth value, or as text in base 16."""
    value = data.get(key, default)
    if isinstance(value, str):
        try:
            return int(value, 16)
        except ValueError:
            return default
    return int(value) if isinstance(value, int) else default


def _address(link: str, raw: Mapping[str, Any]) -> Address:
    family: Family = 6 if raw.get("family") == "inet6" else 4
    flags = tuple(k for k, v in raw.items() if v is True and k not in _NO_FLAGS)
    return Address(
        link=link,
        ip=Ip(str(raw["local"])),
        prefix_len=_int(raw, "prefixlen", 128 if family == 6 else 32) or 0,
        family=family,
        scope=str(raw.get("scope", "global")),
        dynamic=raw.get("dynamic") is True,
        valid_s=_lifetime(raw, "valid_life_time"),
        preferred_s=_lifetime(raw, "preferred_life_time"),
        flags=flags,
        label=label if (label := raw.get("label")) not in (None, link) else None,
        peer=Ip(str(raw["address"])) if "address" in raw else None,
        broadcast=Ip(str(raw["broadcast"])) if "broadcast" in raw else None,
        metric=_int(raw, "metric", None),
    )


def _lifetime(raw: Mapping[str, Any], key: str) -> int | None:
    value = _int(raw, key, None)
    return None if value in (None, _FOREVER) else value


def parse_neighbours(text: str) -> tuple[Neighbour, ...]:
    """Entries of `ip -json -statistics neigh show` (both families), or of `… show proxy`."""
    return tuple(_neighbour(x) for x in decode(text, list[_Neighbour], "ip neigh"))


def _neighbour(raw: _Neighbour) -> Neighbour:
    state = raw.state[0] if raw.state else ""
    return Neighbour(
        link=raw.dev,
        ip=Ip(raw.dst),
        family=_family(raw.dst),
        mac=mac_or_none(raw.lladdr),
        state=state,
        router=raw.router is None,
        proxy=raw.proxy is None,
        age_s=None if state in _UNTIMED else raw.confirmed,
    )


def parse_forwarding(text: str) -> tuple[ForwardingEntry, ...]:
    """Unicast entries of `bridge -json -statistics -details fdb show`."""
    return tuple(
        _forwarding(x)
        for x in decode(text, list[_FdbEntry], "bridge fdb")
        if mac_or_none(x.mac) and not int(x.mac[1], 16) & 1
    )


def _forwarding(raw: _FdbEntry) -> ForwardingEntry:
    kind: Literal["learned", "local", "static"] = "learned"
    if raw.state == "permanent":
        kind = "local"
    elif raw.state in {"static", "noarp"}:
        kind = "static"
    return ForwardingEntry(
        mac=Mac(raw.mac.lower()),
        port=raw.ifname,
        bridge=raw.master,
        vlan=raw.vlan,
        kind=kind,
        age_s=raw.updated if kind == "learned" else None,
    )
