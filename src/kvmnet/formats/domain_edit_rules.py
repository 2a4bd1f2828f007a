"""What of a NIC's definition is still valid on another kind of network, and why the rest is not.

Sources: https://libvirt.org/formatdomain.html#network-interfaces; libvirt's schema
(domaincommon.rng, `interface`); what its parser and checks refuse or drop without a word
(virDomainNetDefParseXML, virDomainNetDefValidate, virDomainActualNetDefValidate,
qemuValidateDomainDeviceDefNetwork, qemuDomainValidateActualNetDef, virNetDevSupportsBandwidth;
read in libvirt 9.0). What is not known here stays: it was put there by somebody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct

from kvmnet.formats.domain_edit_markup import Attribute, Element
from kvmnet.model.target import (
    BridgeTarget,
    DirectTarget,
    NetworkTarget,
    Target,
    UserTarget,
    place,
)
from kvmnet.model.virt import GuestNic

CONVERTIBLE = frozenset(
    {"network", "bridge", "direct", "user", "ethernet", "server", "client", "mcast", "udp",
     "internal", "null"}
)  # fmt: skip
"""Kinds of NIC that differ only in what is behind them on the host: guests see no difference."""

REFUSED = {
    "hostdev": "it is a device of the host that is handed to the guest (hostdev), and no virtual "
    "NIC: the guest would need another driver",
    "vhostuser": "it is shared memory between the guest and a program like Open vSwitch with DPDK "
    "(vhostuser), and needs the guest's memory to be shared",
    "vdpa": "it is a device of the host that speaks virtio itself (vdpa)",
    "vds": "it is a port of a VMware distributed switch, which only ESX has",
}

INSTEAD = "take this NIC away and add a new one: virsh detach-device, virsh attach-interface"

GENERATED = ("vnet", "macvtap", "macvlan", "vif")
"""Beginnings of names that libvirt gives to a NIC's end on the host, and drops when it reads them
in a definition (VIR_NET_GENERATED_*_PREFIX; `vif` is Xen's)."""

_QEMU = frozenset({"kvm", "qemu", "kqemu", "hvf"})
_PASSTHROUGH_DRIVERS = frozenset({"kvm", "vfio", "xen"})


class Setting(Struct, frozen=True, kw_only=True):
    """What the rules look at beside the element itself."""

    kind: str
    """The hypervisor, as the domain's `type` says it."""
    nic: GuestNic
    """As it was."""
    target: Target
    """Complete: with the mode or backend that it will have."""


class Goes(Struct, frozen=True, kw_only=True):
    """A part that has to go. Without an attribute it is the whole element."""

    element: Element
    attribute: Attribute | None = None
    what: str
    """For people: `mtu`, `source portgroup='lab'`."""
    why: str


Rule = Callable[[Element, Setting], Iterator[Goes]]


def losses(nic: Element, setting: Setting) -> Iterator[Goes]:
    """Everything of the `<interface>` that is not valid on the target, in the file's order."""
    if isinstance(setting.target, UserTarget):
        yield from _attribute(nic, "trustGuestRxFilters", "only a tap has such filters")
    for element in nic.children:
        rule = RULES.get(element.name)
        if rule is not None:
            yield from rule(element, setting)


def _whole(element: Element, why: str, detail: str = "") -> Iterator[Goes]:
    what = f"{element.name} {detail}".strip()
    yield Goes(element=element, what=what, why=why)


def _attribute(element: Element, name: str, why: str) -> Iterator[Goes]:
    for found in element.attributes:
        if found.name == name:
            prefix = "" if element.name == "interface" else f"{element.name} "
            what = f"{prefix}{name}='{found.value}'"
            yield Goes(element=element, attribute=found, what=what, why=why)


def _virtualport(element: Element, setting: Setting) -> Iterator[Goes]:
    kind = element.get("type")
    detail = kind or "without a type"
    match setting.target:
        case UserTarget():
            yield from _whole(element, "a user's network has no virtual port", detail)
        case NetworkTarget():
            if setting.nic.type != "network":
                yield from _whole(element, "the network says what kind of port it gives", detail)
        case BridgeTarget() | DirectTarget():
            on_bridge = isinstance(setting.target, BridgeTarget)
            fitting = {"openvswitch", "midonet"} if on_bridge else {"802.1Qbg", "802.1Qbh"}
            missing = _missing(element, kind or "")
            if kind not in fitting:
                which = "a bridge" if on_bridge else "a macvtap"
                yield from _whole(element, f"it is no kind of port that {which} has", detail)
            elif missing:
                why = f"without a network to complete it, it lacks {missing}"
                yield from _whole(element, why, detail)


_REQUIRED = {
    "802.1Qbg": ("managerid", "typeid", "typeidversion"),
    "802.1Qbh": ("profileid",),
    "midonet": ("interfaceid",),
}
"""What libvirt does not make up itself (virNetDevVPortProfileCheckComplete)."""


def _missing(element: Element, kind: str) -> str:
    parameters = element.child("parameters")
    given = {x.name for x in parameters.attributes} if parameters is not None else set()
    return ", ".join(x for x in _REQUIRED.get(kind, ()) if x not in given)


def _vlan(element: Element, setting: Setting) -> Iterator[Goes]:
    tags = ", ".join(x.get("id") or "?" for x in element.children if x.name == "tag")
    match setting.target:
        case UserTarget():
            yield from _whole(element, "a user's network has no VLANs", tags)
        case DirectTarget(mode=mode) if mode != "passthrough":
            yield from _whole(element, "of macvtap's modes only passthrough can tag", tags)


def _target(element: Element, setting: Setting) -> Iterator[Goes]:
    name = element.get("dev") or ""
    detail = f"dev='{name}'"
    if element.get("managed") == "no":
        yield from _whole(element, "it names a device that is made without libvirt", detail)
    elif isinstance(setting.target, UserTarget):
        yield from _whole(element, "a user's network has no device on the host", detail)
    elif name.startswith(GENERATED):
        yield from _whole(element, "libvirt made this name up, and makes up a new one", detail)


def _bandwidth(element: Element, setting: Setting) -> Iterator[Goes]:
    if isinstance(setting.target, UserTarget):
        yield from _whole(element, "libvirt can not limit a user's network")
        return
    yield from _attribute(element, "classID", "it is a number in the old network's queues")
    if isinstance(setting.target, NetworkTarget):
        return
    for direction in element.children:
        if direction.get("floor") is None or direction.name not in {"inbound", "outbound"}:
            continue
        why = "only a network can guarantee a rate"
        what = f"bandwidth {direction.name} floor='{direction.get('floor')}'"
        # Without a floor libvirt wants an average.
        alone = direction.get("average") is None
        found = None if alone else next(x for x in direction.attributes if x.name == "floor")
        yield Goes(element=direction, attribute=found, what=what, why=why)


def _filterref(element: Element, setting: Setting) -> Iterator[Goes]:
    if isinstance(setting.target, DirectTarget | UserTarget):
        why = "libvirt filters only behind taps: nothing will filter this NIC's packets"
        yield from _whole(element, why, f"filter='{element.get('filter') or ''}'")


def _mtu(element: Element, setting: Setting) -> Iterator[Goes]:
    match setting.target:
        case DirectTarget():
            why = "libvirt sets no MTU on a macvtap: it has that of its NIC"
            yield from _whole(element, why, f"size='{element.get('size') or ''}'")
        case UserTarget(backend=backend) if backend != "passt":
            why = "libvirt sets no MTU without passt"
            yield from _whole(element, why, f"size='{element.get('size') or ''}'")


def _coalesce(element: Element, setting: Setting) -> Iterator[Goes]:
    if isinstance(setting.target, DirectTarget | UserTarget):
        yield from _whole(element, "libvirt has it for networks and bridges only")


def _tune(element: Element, setting: Setting) -> Iterator[Goes]:
    if isinstance(setting.target, UserTarget):
        yield from _whole(element, "only a tap has such a buffer")


def _port(element: Element, setting: Setting) -> Iterator[Goes]:
    if isinstance(setting.target, DirectTarget | UserTarget):
        why = "only ports of a bridge can be isolated from each other"
        yield from _whole(element, why, f"isolated='{element.get('isolated') or ''}'")


def _teaming(element: Element, setting: Setting) -> Iterator[Goes]:
    if element.get("type") == "transient" and not isinstance(setting.target, NetworkTarget):
        yield from _whole(element, "only a device of the host can be the fast half", "transient")


def _script(element: Element, setting: Setting) -> Iterator[Goes]:
    if setting.kind == "xen" and isinstance(setting.target, BridgeTarget):
        return  # Xen's tool stack runs one for bridges
    why = "libvirt runs scripts only for NICs of type ethernet"
    yield from _whole(element, why, f"path='{element.get('path') or ''}'")


def _guest_ip(element: Element, setting: Setting) -> Iterator[Goes]:
    detail = f"address='{element.get('address') or ''}'"
    if isinstance(setting.target, UserTarget):
        # slirp takes it for its subnet, passt for the guest's own address.
        yield from _whole(element, f"it was for {place(setting.nic)}", detail)
    elif setting.kind in _QEMU:  # containers and Xen's guests get their address this way
        why = "QEMU can give a guest an address on a user's network only"
        yield from _whole(element, why, detail)


def _port_forward(element: Element, setting: Setting) -> Iterator[Goes]:
    match setting.target:
        case UserTarget(backend="passt"):
            return
        case _:
            detail = element.get("proto") or ""
            ranges = ", ".join(x.get("start") or "all" for x in element.children)
            yield from _whole(element, "only passt forwards ports", f"{detail} {ranges}".strip())


_BACKEND_WHY = {
    "type": "it is a backend of a user's network",
    "logFile": "it is passt's log",
    "hostname": "passt tells it to the guest",
    "fqdn": "passt tells it to the guest",
    "tap": "there is no tap that it could make",
    "vhost": "only a tap can use vhost",
}


def _backend(element: Element, setting: Setting) -> Iterator[Goes]:
    match setting.target:
        case NetworkTarget() | BridgeTarget():
            fitting = {"tap", "vhost"}
        case DirectTarget():
            fitting = {"vhost"}
        case UserTarget(backend="passt"):
            fitting = {"type", "logFile", "hostname", "fqdn"}
        case _:
            fitting = set()
    gone = [x for x in element.attributes if x.name in _BACKEND_WHY and x.name not in fitting]
    if len(gone) == len(element.attributes) and "type" not in fitting:
        detail = " ".join(f"{x.name}='{x.value}'" for x in gone)
        why = _BACKEND_WHY[gone[0].name] if gone else "nothing is left of it"
        yield from _whole(element, why, detail)
        return
    for attribute in gone:
        yield from _attribute(element, attribute.name, _BACKEND_WHY[attribute.name])


def _driver(element: Element, setting: Setting) -> Iterator[Goes]:
    gone: list[Goes] = []
    name = element.get("name")
    to_user = isinstance(setting.target, UserTarget)
    if name in _PASSTHROUGH_DRIVERS and not isinstance(setting.target, NetworkTarget):
        gone += _attribute(element, "name", "it is a way to hand over a device of the host")
    elif name == "vhost" and to_user:
        gone += _attribute(element, "name", "only a tap can use vhost")
    if to_user:
        gone += _attribute(element, "queues", "a user's network has one queue")
    if gone and len(gone) == len(element.attributes) and not element.children:
        detail = " ".join(f"{x.name}='{x.value}'" for x in element.attributes)
        yield from _whole(element, gone[0].why, detail)
    else:
        yield from gone


RULES: dict[str, Rule] = {
    "virtualport": _virtualport,
    "vlan": _vlan,
    "target": _target,
    "bandwidth": _bandwidth,
    "filterref": _filterref,
    "mtu": _mtu,
    "coalesce": _coalesce,
    "tune": _tune,
    "port": _port,
    "teaming": _teaming,
    "script": _script,
    "downscript": _script,
    "ip": _guest_ip,
    "route": _guest_ip,
    "portForward": _port_forward,
    "backend": _backend,
    "driver": _driver,
}
"""Elements that need a look; `<source>` is the conversion itself, all others stay."""

_SOURCE_WHY = {
    "portgroup": "it is of the network {here}",
    "portid": "it is the port that the network {here} gave",
    "macTableManager": "libvirt says there who keeps the old bridge's table",
    "mode": "only a macvtap has one",
    "dev": "passt took the host's address from there",
}

_IDENTITY = {
    "network": {"network"},
    "bridge": {"bridge"},
    "direct": {"dev"},
    "internal": {"name"},
    "server": {"address", "port"},
    "client": {"address", "port"},
    "mcast": {"address", "port"},
    "udp": {"address", "port"},
}
"""The attributes of `<source>` that say what the NIC was on: they are exchanged, not lost."""


def source_losses(source: Element, setting: Setting, wanted: frozenset[str]) -> Iterator[Goes]:
    """What goes of the `<source>` beside what is exchanged; `wanted`: attributes it will have."""
    said = _IDENTITY.get(setting.nic.type, set()) | wanted
    for attribute in source.attributes:
        if attribute.is_own and attribute.name not in said:
            why = _SOURCE_WHY.get(attribute.name, "it is of {here}")
            if setting.nic.type == "network" and attribute.name in {"bridge", "dev", "mode"}:
                why = "it is what the network {here} led to"
            what = f"source {attribute.name}='{attribute.value}'"
            here = setting.nic.source if setting.nic.type == "network" else place(setting.nic)
            yield Goes(element=source, attribute=attribute, what=what, why=why.format(here=here))
    for child in source.children:
        if child.name in {"ip", "route"}:
            what = f"source {child.name} address='{child.get('address') or ''}'"
            yield Goes(element=child, what=what, why="libvirt has it for type ethernet only")


def remarks(nic: Element, setting: Setting, gone: frozenset[str]) -> Iterator[str]:
    """What stays and may surprise; `gone`: names of elements that go."""
    port = nic.child("virtualport")
    kind = port.get("type") if port is not None and "virtualport" not in gone else None
    to_bridge = isinstance(setting.target, BridgeTarget)
    if to_bridge and kind == "openvswitch":
        yield f"its virtualport stays: {setting.target} has to be one of Open vSwitch"
    if nic.child("vlan") is not None and "vlan" not in gone and kind != "openvswitch":
        if to_bridge:
            yield "its VLAN stays: libvirt before 11.0 starts no guest with one on a Linux bridge"
        elif isinstance(setting.target, NetworkTarget):
            yield f"its VLAN stays: libvirt starts the guest only if {setting.target} can tag"
    if isinstance(setting.target, UserTarget) and setting.target.backend == "passt":
        yield (
            "passt will carry it: the program passt has to be there, and a libvirt with it "
            "(from 9.0 on, but not Debian 12's)"
        )
