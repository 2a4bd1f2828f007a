"""Plans that make, change and delete host bridges: pure functions of the State."""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import Struct

from kvmnet.core import bridge_address
from kvmnet.core.bridge_checks import (
    check_cut_off,
    check_guests,
    check_loop,
    check_name,
    check_owned,
    check_parts,
    check_stp,
    guests_on,
)
from kvmnet.core.bridge_picture import (
    as_is,
    global_addresses,
    moved_addresses,
    moved_neighbours,
    moved_routes,
    moved_rules,
    moved_sysctls,
)
from kvmnet.core.finding import command, some
from kvmnet.core.uplinks import check_port, find_nic, port_notes
from kvmnet.errors import NotFound, Refused
from kvmnet.model.arrangement import Arrangement, LinkTarget
from kvmnet.model.desired import BridgeRequest
from kvmnet.model.host import BridgeAttributes, Link
from kvmnet.model.plan import Arrange, PlannedStep
from kvmnet.model.state import State
from kvmnet.model.takeover import BridgePort, Takeover
from kvmnet.model.values import Mac

KERNEL_FORWARD_DELAY_S = 15.0


class BridgeChange(Struct, frozen=True, kw_only=True):
    """What is to be done about one bridge: live, and in the files of the host network manager."""

    title: str
    bridge: str
    nics: tuple[str, ...] = ()
    """Links whose traffic must not suffer: what works by them before has to work after."""
    arrange: PlannedStep | None = None
    """The live change; None: it is so already."""
    takeover: Takeover | None = None
    """The bridge as it is to be kept; None: it is not to be kept (any more)."""
    before: Takeover | None = None
    """The bridge as it is kept now: for deleting, and for other ports."""
    heir: str | None = None
    """The NIC whose owner decides which manager keeps it."""
    notes: tuple[str, ...] = ()


def plan_create(state: State, request: BridgeRequest, spare_mac: Mac | None = None) -> BridgeChange:
    """The bridge that is asked for. `spare_mac` is for one without ports.

    Raises `NotFound` (no such NIC), `InvalidInput`, `Refused`.
    """
    title = f"make bridge {request.name}"
    check_stp(request)
    ports = tuple(find_nic(state, x) for x in request.ports)
    request = msgspec.structs.replace(request, ports=tuple(x.name for x in ports))
    if ports:
        title += f" of {some(request.ports)}"
    if _is_so(state, request):
        note = f"{request.name} is there already, as asked"
        return BridgeChange(title=title, bridge=request.name, notes=(note,))
    check_name(state, request.name)
    for link in ports:
        check_port(state, link, request.name)
    _check_others(state, request)
    before = as_is(state, request.ports, absent=(request.name,))
    check_parts(before, request.ports)
    heir = request.ports[0] if ports and request.address != "none" else None
    bridge = _new_bridge(state, request, ports, spare_mac)
    given = bridge_address.decide(state, request, before)
    target = _in_place_of(before, bridge, given, request)
    return BridgeChange(
        title=title,
        bridge=request.name,
        nics=request.ports,
        arrange=PlannedStep(
            step=Arrange(what=_what(request, target, bridge), target=target),
            undo=Arrange(what=_what_back(request.name, request.ports), target=before),
            disturbs=f"nobody: {some(request.ports)} goes on without a gap" if ports else "nobody",
        ),
        takeover=_takeover(request, bridge, ports, heir) if request.persist else None,
        heir=request.ports[0] if ports else None,
        notes=(*given.notes, *_creation_notes(state, request, ports, bridge)),
    )


def _is_so(state: State, request: BridgeRequest) -> bool:
    """Whether there is such a bridge with just these NICs as ports."""
    link = state.link(request.name)
    if link is None or link.bridge is None:
        return False
    nics = {x.name for x in state.ports(link.name) if x.kind != "tap"}
    same = link.bridge.stp == request.stp and link.bridge.vlan_filtering == request.vlan_filtering
    return bool(request.ports) and nics == set(request.ports) and same


def _check_others(state: State, request: BridgeRequest) -> None:
    """Ports beside the first one give up their addresses to nobody, so they may have none."""
    for number, name in enumerate(request.ports[1:], start=1):
        if global_addresses(state, name):
            raise Refused(
                f"{name} can not become a port of {request.name}",
                why=f"it has addresses of its own ({_addresses(state, name)}), and "
                f"{request.name} takes over those of {request.ports[0]} only",
                hint=f"name {name} first, or take them away: ip address flush dev {name}",
            )
        if not request.stp:
            check_loop(state, request.ports[:number], name, request.name)


def _addresses(state: State, name: str) -> str:
    return some(f"{x.ip}/{x.prefix_len}" for x in global_addresses(state, name))


def _new_bridge(
    state: State, request: BridgeRequest, ports: tuple[Link, ...], spare: Mac | None
) -> LinkTarget:
    mac: Mac | None
    if request.mac != "keep":
        mac = request.mac
    else:
        mac = ports[0].mac if ports else spare or _mac_of_name(state, request.name)
    delay = request.forward_delay_s
    return LinkTarget(
        name=request.name,
        bridge=BridgeAttributes(
            stp=request.stp,
            forward_delay_s=delay if delay is not None else KERNEL_FORWARD_DELAY_S * request.stp,
            vlan_filtering=request.vlan_filtering,
        ),
        mac=mac,
        mtu=min((x.mtu for x in ports), default=1500),
    )


def _mac_of_name(state: State, bridge: str) -> Mac:
    """The same at every try; locally administered (IEEE 802c)."""
    digest = hashlib.sha256(f"{state.hostname}\0{bridge}".encode()).digest()
    return Mac(bytes([0x02, *digest[:5]]).hex(":"))


def _in_place_of(
    before: Arrangement, bridge: LinkTarget, given: bridge_address.Given, request: BridgeRequest
) -> Arrangement:
    """The arrangement with the bridge where the first port was."""
    old = before.links[0] if before.links else None
    if old is not None:
        settings = moved_sysctls(old.sysctls, old.name, bridge.name)
        bridge = msgspec.structs.replace(
            bridge,
            addresses=given.addresses,
            sysctls=bridge_address.without_any(settings) if request.address == "none" else settings,
        )
    ports = tuple(
        msgspec.structs.replace(x, master=bridge.name, up=True, addresses=(), sysctls=())
        for x in before.links
    )
    mine = [x for x in before.neighbours if old is not None and x.link == old.name]
    return Arrangement(
        links=(bridge, *ports),
        routes=given.routes,
        rules=moved_rules(before.rules, old.name, bridge.name) if old is not None else (),
        neighbours=moved_neighbours(mine, bridge.name) if given.addresses else (),
    )


def _what(request: BridgeRequest, target: Arrangement, bridge: LinkTarget) -> str:
    of = f" of {some(request.ports)}" if request.ports else " without ports"
    return (
        f"make bridge {bridge.name}{of}, with MAC {bridge.mac}, {len(bridge.addresses)} addresses "
        f"and {len(target.routes)} routes"
    )


def _what_back(bridge: str, ports: tuple[str, ...]) -> str:
    back = f", give {some(ports)} back what it had" if ports else ""
    return f"take bridge {bridge} away{back}"


def _takeover(
    request: BridgeRequest, bridge: LinkTarget, ports: tuple[Link, ...], heir: str | None
) -> Takeover:
    assert bridge.mac is not None and bridge.mtu is not None
    return Takeover(
        bridge=bridge.name,
        mac=bridge.mac,
        mtu=bridge.mtu,
        ports=tuple(map(port_of, ports)),
        heir_of=heir,
        address=request.address if ports else "none",
        stp=request.stp,
        forward_delay_s=request.forward_delay_s,
        vlan_filtering=request.vlan_filtering,
    )


def port_of(link: Link) -> BridgePort:
    return BridgePort(name=link.name, mac=link.mac, kind=link.kind, mtu=link.mtu)


def _creation_notes(
    state: State, request: BridgeRequest, ports: tuple[Link, ...], bridge: LinkTarget
) -> tuple[str, ...]:
    notes = [note for link in ports for note in port_notes(state, link, request.name)]
    if len({x.mtu for x in ports}) > 1:
        notes.append(f"{request.name} gets MTU {bridge.mtu}, the smallest of its ports")
    if request.mac != "keep" and ports and request.mac != ports[0].mac:
        notes.append(
            f"{request.name} has another MAC than {ports[0].name}: a DHCP server may give it "
            "another address"
        )
    if request.stp:
        notes.append(
            f"spanning tree is on: what is plugged into {request.name} later, a guest too, is "
            f"silent for {2 * (bridge.bridge.forward_delay_s if bridge.bridge else 0):g} s at first"
        )
    if not ports:
        notes.append(
            f"{request.name} has no port yet, so it has no link, and host network managers may "
            "take such a bridge for unplugged"
        )
    return tuple(notes)


def plan_delete(state: State, name: str) -> BridgeChange:
    """The bridge goes, and its NIC gets addresses, routes and rules back.

    Raises `NotFound`, `Refused`: guests are plugged into it, somebody else's bridge.
    """
    bridge = _find_bridge(state, name)
    check_guests(state, bridge.name)
    return _deletion(state, bridge)


def plan_forced_delete(state: State, name: str) -> BridgeChange:
    """The same although running guests are plugged into it: they are cut off."""
    return _deletion(state, _find_bridge(state, name))


def _find_bridge(state: State, name: str) -> Link:
    link = state.link(name)
    if link is None or link.bridge is None:
        bridges = some(x.name for x in state.links if x.bridge is not None)
        raise NotFound(
            f"there is no bridge {command(name)}",
            why=f"there are: {bridges}" if bridges else "there is no bridge at all",
            hint="kvmnet bridge list",
        )
    check_owned(state, link)
    return link


def _nics(state: State, bridge: str) -> tuple[Link, ...]:
    """The bridge's ports that lead out of the host; guests' taps do not."""
    return tuple(x for x in state.ports(bridge) if x.kind != "tap")


def _heir(state: State, bridge: Link) -> Link | None:
    """The NIC in whose place the bridge is: that of its MAC, else the first one."""
    nics = _nics(state, bridge.name)
    return next((x for x in nics if x.mac == bridge.mac), nics[0] if nics else None)


def _deletion(state: State, bridge: Link) -> BridgeChange:
    heir, ports = _heir(state, bridge), state.ports(bridge.name)
    if heir is None:
        check_cut_off(state, bridge.name, f"bridge {bridge.name} can not be deleted")
    before = as_is(state, (bridge.name, *(x.name for x in ports)))
    check_parts(before, (bridge.name,))
    nics = tuple(x.name for x in _nics(state, bridge.name))
    guests = guests_on(state, bridge.name)
    return BridgeChange(
        title=f"delete bridge {bridge.name}",
        bridge=bridge.name,
        nics=(bridge.name,),
        arrange=PlannedStep(
            step=Arrange(what=_what_back(bridge.name, nics), target=_given_back(before, heir)),
            undo=Arrange(what=f"make bridge {bridge.name} again", target=before),
            disturbs=f"guests {some(guests)}: cut off" if guests else "nobody",
        ),
        before=_kept(state, bridge),
        heir=heir.name if heir is not None else None,
        notes=_deletion_notes(state, bridge, heir),
    )


def _given_back(before: Arrangement, heir: Link | None) -> Arrangement:
    """The arrangement with a NIC where its bridge was."""
    bridge, ports = before.links[0], before.links[1:]
    freed = [msgspec.structs.replace(x, master=None) for x in ports]
    if heir is None:
        return Arrangement(links=tuple(freed), absent=(bridge.name,))
    new = [
        msgspec.structs.replace(
            x,
            addresses=moved_addresses(bridge.addresses, heir.name),
            sysctls=moved_sysctls(bridge.sysctls, bridge.name, heir.name),
        )
        if x.name == heir.name else x
        for x in freed
    ]  # fmt: skip
    mine = [x for x in before.neighbours if x.link == bridge.name]
    return Arrangement(
        links=tuple(new),
        absent=(bridge.name,),
        routes=moved_routes(before.routes, bridge.name, heir.name),
        rules=moved_rules(before.rules, bridge.name, heir.name),
        neighbours=moved_neighbours(mine, heir.name),
    )


def _kept(state: State, bridge: Link) -> Takeover:
    """The bridge as it is now, in the words in which it was handed over."""
    has, heir = bridge.bridge, _heir(state, bridge)
    assert has is not None
    addressed = bool(global_addresses(state, bridge.name))
    return Takeover(
        bridge=bridge.name,
        mac=bridge.mac or _mac_of_name(state, bridge.name),
        mtu=bridge.mtu,
        ports=tuple(map(port_of, _nics(state, bridge.name))),
        heir_of=heir.name if heir is not None and addressed else None,
        address="keep" if addressed else "none",
        stp=has.stp,
        forward_delay_s=has.forward_delay_s if has.stp else None,
        vlan_filtering=has.vlan_filtering,
    )


def _deletion_notes(state: State, bridge: Link, heir: Link | None) -> tuple[str, ...]:
    notes = []
    if heir is not None and heir.mac != bridge.mac:
        notes.append(
            f"{heir.name} has another MAC than {bridge.name}: a DHCP server may give it another "
            "address"
        )
    idle = [
        x.name for x in state.guests
        if not x.active and any(n.source == bridge.name for n in x.saved_nics if n.type == "bridge")
    ]  # fmt: skip
    idle += [
        f"network {x.name}" for x in state.networks
        if x.config is not None and x.config.bridge == bridge.name
    ]  # fmt: skip
    if idle:
        notes.append(f"{some(idle)} can not start without {bridge.name}")
    return tuple(notes)


def plan_add_port(state: State, bridge: str, nic: str) -> BridgeChange:
    """One more NIC becomes a port. Raises `NotFound`, `Refused`."""
    there, link = _find_bridge(state, bridge), find_nic(state, nic)
    title = f"plug {link.name} into bridge {there.name}"
    if link.master == there.name:
        note = f"{link.name} is a port of {there.name} already"
        return BridgeChange(title=title, bridge=there.name, notes=(note,))
    check_port(state, link, there.name)
    if global_addresses(state, link.name):
        raise Refused(
            f"{link.name} can not become a port of {there.name}",
            why=f"it has addresses of its own ({_addresses(state, link.name)}), which would stop "
            "working",
            hint=f"take them away first: {command('ip', 'address', 'flush', 'dev', link.name)}",
        )
    beside = [there.name, *(x.name for x in _nics(state, there.name))]
    if there.bridge is not None and not there.bridge.stp:
        check_loop(state, beside, link.name, there.name)
    notes = port_notes(state, link, there.name)
    if link.mtu < there.mtu:
        notes += (f"{there.name} gets MTU {link.mtu}, that of {link.name}",)
    return _with_ports(state, there, link, title, master=there.name, notes=notes)


def plan_remove_port(state: State, bridge: str, nic: str) -> BridgeChange:
    """A NIC ceases to be a port, and has no addresses. Raises `NotFound`, `Refused`."""
    there, link = _find_bridge(state, bridge), find_nic(state, nic)
    title = f"take {link.name} out of bridge {there.name}"
    if link.master != there.name:
        note = f"{link.name} is no port of {there.name}"
        return BridgeChange(title=title, bridge=there.name, notes=(note,))
    what = f"{link.name} can not be taken out of {there.name}"
    if link.kind == "tap":
        raise Refused(what, why="it is the host's end of a guest's NIC")
    if _nics(state, there.name) == (link,) and global_addresses(state, there.name):
        raise Refused(
            what,
            why=f"it is the only way out of {there.name}, which has the host's addresses "
            f"({_addresses(state, there.name)})",
            hint=f"have it get them back: {command('kvmnet', 'bridge', 'delete', there.name)}",
        )
    return _with_ports(state, there, link, title, master=None, notes=())


def _with_ports(
    state: State, bridge: Link, link: Link, title: str, *, master: str | None,
    notes: tuple[str, ...],
) -> BridgeChange:  # fmt: skip
    """The change of one port, live and for the manager."""
    before, kept = as_is(state, (link.name,)), _kept(state, bridge)
    port = msgspec.structs.replace(
        before.links[0], master=master, addresses=(), sysctls=(), up=True
    )
    others = tuple(x for x in kept.ports if x.name != link.name)
    ports = others if master is None else (*others, port_of(link))
    heir = kept.heir_of if kept.heir_of in {x.name for x in ports} else None
    if heir is None and kept.heir_of is not None and ports:
        heir = ports[0].name
    guests = guests_on(state, bridge.name) if master is None else ()
    return BridgeChange(
        title=title,
        bridge=bridge.name,
        nics=(bridge.name,),
        arrange=PlannedStep(
            step=Arrange(what=title, target=Arrangement(links=(port,))),
            undo=Arrange(what=f"have {link.name} as it was", target=before),
            disturbs=f"guests {some(guests)}: they reach nobody by {link.name}"
            if guests else "nobody",
        ),
        takeover=msgspec.structs.replace(kept, ports=ports, heir_of=heir),
        before=kept,
        heir=kept.heir_of or link.name,
        notes=notes,
    )  # fmt: skip
