"""Which VLAN a port's untagged frames are in, and where the host itself is in it.

Facts: bridge(8) on `vlan`; a VLAN link on a bridge gets the frames that the bridge's own entry has.
"""

from __future__ import annotations

from kvmnet.core.plugged import taps
from kvmnet.model.host import Link
from kvmnet.model.setup import PortVlans, VlanRange
from kvmnet.model.state import State

VLANS_PART = "VLANs of bridge ports"
"""What an observation calls them where it could not read them."""


def filters(link: Link | None) -> bool:
    """Whether it is a bridge with VLAN filtering."""
    return link is not None and link.bridge is not None and link.bridge.vlan_filtering


def of_port(state: State, port: str) -> PortVlans | None:
    """The port's VLANs, or the bridge's own; None: nobody could read them.

    `bridge vlan show` leaves out ports that are in no VLAN.
    """
    found = next((x for x in state.port_vlans if x.port == port), None)
    if found is None and not any(VLANS_PART in x.what for x in state.unread):
        return PortVlans(port=port)
    return found


def carried(state: State, link: Link) -> PortVlans | None:
    """Those of a port, or a bridge's own, that somebody has set and that are lost with the bridge.

    None: as the kernel gives them, or not known (it may have no VLAN filtering at all).
    """
    name = link.name if link.bridge is not None else link.master
    there = state.link(name) if name is not None else None
    if there is None or there.bridge is None:
        return None
    around = {there.name, *(x.name for x in state.ports(there.name))}
    if not any(x.port in around for x in state.port_vlans):
        return None
    found = of_port(state, link.name)
    return None if found == _usual(link.name, there.bridge.default_pvid) else found


def _usual(port: str, default: int) -> PortVlans:
    """What a new port gets (br_vlan.c, nbp_vlan_init); `default` 0: nothing."""
    if not default:
        return PortVlans(port=port)
    ranges = (VlanRange(first=default, last=default, untagged=True),)
    return PortVlans(port=port, ranges=ranges, pvid=default)


def host_link(state: State, bridge: str, vlan: int) -> str | None:
    """The host's link in a VLAN of its bridge: the bridge, a VLAN link on it, or None."""
    own = of_port(state, bridge)
    if own is None or own.pvid == vlan:
        return bridge
    return next(
        (x.name for x in state.links
         if x.kind == "vlan" and x.parent == bridge and x.vlan_id == vlan and own.has(vlan)), None
    )  # fmt: skip


def elsewhere(state: State, bridge: str) -> tuple[int, ...]:
    """The VLANs of the bridge's guests, if none is where a new port would be; else nothing."""
    link = state.link(bridge)
    if link is None or link.bridge is None or not link.bridge.vlan_filtering:
        return ()
    ports = [of_port(state, x.name) for x in state.ports(bridge) if x.name in taps(state)]
    used = {x.pvid for x in ports if x is not None and x.pvid is not None}
    return () if link.bridge.default_pvid in used else tuple(sorted(used))
