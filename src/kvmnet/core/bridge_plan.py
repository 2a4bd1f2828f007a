"""Plans that make, change and delete host bridges: pure functions of the State."""

from __future__ import annotations

import msgspec

from kvmnet.core import bridge_address
from kvmnet.core.bridge_change import (
    BridgeChange,
    find_bridge,
    heir_of,
    kept_as,
    mac_of_name,
    nics_of,
    port_of,
    shown_addresses,
)
from kvmnet.core.bridge_checks import (
    check_cut_off,
    check_loop,
    check_name,
    check_networks,
    check_parts,
    check_stp,
    lost_with_the_port,
)
from kvmnet.core.bridge_guests import check_guests, shown_guests
from kvmnet.core.bridge_picture import (
    as_is,
    freed,
    global_addresses,
    moved_addresses,
    moved_neighbours,
    moved_routes,
    moved_rules,
    moved_sysctls,
)
from kvmnet.core.bridge_ports import plan_add_port, plan_remove_port
from kvmnet.core.finding import some
from kvmnet.core.uplinks import check_port, find_nic, port_notes
from kvmnet.errors import Refused
from kvmnet.model.arrangement import Arrangement, LinkTarget
from kvmnet.model.desired import BridgeRequest
from kvmnet.model.host import BridgeAttributes, Link
from kvmnet.model.plan import Arrange, PlannedStep
from kvmnet.model.state import State
from kvmnet.model.takeover import Takeover
from kvmnet.model.values import Mac

__all__ = [
    "BridgeChange",
    "plan_add_port",
    "plan_create",
    "plan_delete",
    "plan_forced_delete",
    "plan_remove_port",
]

KERNEL_FORWARD_DELAY_S = 15.0


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
        check_networks(state, link.name, request.name)
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
    if request.mac != "keep" and link.mac != request.mac:
        return False
    addresses = {f"{x.ip}/{x.prefix_len}" for x in global_addresses(state, link.name)}
    if request.address not in {"keep", "dhcp", "none"} and request.address not in addresses:
        return False
    if request.address == "none" and addresses:
        return False
    return bool(request.ports) and nics == set(request.ports) and same


def _check_others(state: State, request: BridgeRequest) -> None:
    """Ports beside the first one give up their addresses to nobody, so they may have none."""
    for number, name in enumerate(request.ports[1:], start=1):
        if global_addresses(state, name):
            raise Refused(
                f"{name} can not become a port of {request.name}",
                why=f"it has addresses of its own ({shown_addresses(state, name)}), and "
                f"{request.name} takes over those of {request.ports[0]} only",
                hint=f"name {name} first, or take them away: ip address flush dev {name}",
            )
        if not request.stp:
            check_loop(state, request.ports[:number], name, request.name)


def _new_bridge(
    state: State, request: BridgeRequest, ports: tuple[Link, ...], spare: Mac | None
) -> LinkTarget:
    mac: Mac | None
    if request.mac != "keep":
        mac = request.mac
    else:
        mac = ports[0].mac if ports else spare or mac_of_name(state, request.name)
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
    made = f"make bridge {bridge.name}{of}, with MAC {bridge.mac}"
    taken = [_count(len(target.links[0].addresses), "address", "addresses"),
             _count(len(target.routes), "route", "routes")]  # fmt: skip
    return f"{made}, {' and '.join(taken)}" if request.ports else made


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


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
    if request.vlan_filtering:
        notes.append(
            f"{request.name} passes untagged frames; those of a VLAN only where it is allowed, on "
            f"the way in and out: bridge vlan add dev {ports[0].name if ports else 'PORT'} vid N"
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
    bridge = find_bridge(state, name)
    check_guests(state, bridge.name)
    return _deletion(state, bridge)


def plan_forced_delete(state: State, name: str) -> BridgeChange:
    """The same although running guests are plugged into it: they are cut off."""
    return _deletion(state, find_bridge(state, name))


def _deletion(state: State, bridge: Link) -> BridgeChange:
    heir, ports = heir_of(state, bridge), state.ports(bridge.name)
    if heir is None:
        check_cut_off(state, bridge.name, f"bridge {bridge.name} can not be deleted")
    before = as_is(state, (bridge.name, *(x.name for x in ports)))
    check_parts(before, (bridge.name,))
    nics = tuple(x.name for x in nics_of(state, bridge.name))
    guests = shown_guests(state, bridge.name)
    return BridgeChange(
        title=f"delete bridge {bridge.name}",
        bridge=bridge.name,
        nics=(bridge.name,),
        arrange=PlannedStep(
            step=Arrange(what=_what_back(bridge.name, nics), target=_given_back(before, heir)),
            undo=Arrange(what=f"make bridge {bridge.name} again", target=before),
            disturbs=f"{guests}: cut off" if guests else "nobody",
        ),
        before=kept_as(state, bridge),
        heir=heir.name if heir is not None else None,
        notes=(*_deletion_notes(state, bridge, heir), *lost_with_the_port(state, bridge, ports)),
    )


def _given_back(before: Arrangement, heir: Link | None) -> Arrangement:
    """The arrangement with a NIC where its bridge was."""
    bridge, ports = before.links[0], before.links[1:]
    free = tuple(map(freed, ports))
    if heir is None:
        return Arrangement(links=free, absent=(bridge.name,))
    new = [
        msgspec.structs.replace(
            x,
            addresses=moved_addresses(bridge.addresses, heir.name),
            sysctls=moved_sysctls(bridge.sysctls, bridge.name, heir.name),
        )
        if x.name == heir.name else x
        for x in free
    ]  # fmt: skip
    mine = [x for x in before.neighbours if x.link == bridge.name]
    return Arrangement(
        links=tuple(new),
        absent=(bridge.name,),
        routes=moved_routes(before.routes, bridge.name, heir.name),
        rules=moved_rules(before.rules, bridge.name, heir.name),
        neighbours=moved_neighbours(mine, heir.name),
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
