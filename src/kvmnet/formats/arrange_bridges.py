"""Bridges of an `Arrangement`: the command that makes one, and those that set what it is to be.

A new one forwards at once and gives its ports no VLAN; what else is asked of it comes last.
"""

from __future__ import annotations

from collections.abc import Iterator

from kvmnet.formats import ip_batch
from kvmnet.model.arrangement import LinkTarget
from kvmnet.model.host import BridgeAttributes, Link

_HZ = 100
"""In which `ip` takes times of a bridge (USER_HZ)."""


def new_bridge(link: LinkTarget, has: BridgeAttributes) -> str:
    """The command that makes it."""
    words = ["link", "add", "name", link.name]
    words += ["address", link.mac] if link.mac else []
    words += ["mtu", str(link.mtu)] if link.mtu else []
    # STP comes last: a port that is forwarding by then goes on, a new one would be silent first.
    words += ["type", "bridge", "stp_state", "0", "forward_delay", "0"]
    words += ["vlan_filtering", "1"] if _filters_at_once(link) else ["vlan_default_pvid", "0"]
    words += [] if has.multicast_snooping else ["mcast_snooping", "0"]
    words += ["mcast_querier", "1"] if has.multicast_querier else []
    words += ["ageing_time", str(round(has.ageing_s * _HZ))] if has.ageing_s != 300 else []
    words += ["group_fwd_mask", str(has.group_fwd_mask)] if has.group_fwd_mask else []
    return ip_batch.line(*words)


def _filters_at_once(link: LinkTarget) -> bool:
    """The default VLAN is 1, and changes only while there is no filtering (br_vlan.c).

    Where ports are to get VLANs of their own they have to have them first.
    """
    has = link.bridge
    return has is not None and has.vlan_filtering and has.default_pvid == 1 and link.vlans is None


def attributes(has: Link | None, link: LinkTarget) -> Iterator[str]:
    """Commands for what differs, but the filtering; `has` None: it has just been made.

    STP goes off before the forward delay changes, and on after it (the kernel's limits).
    """
    want = link.bridge
    if want is None:
        return
    old = _as_found(has, link)
    words = ("link", "set", "dev", link.name, "type", "bridge")
    if old.stp and not want.stp:
        yield ip_batch.line(*words, "stp_state", "0")
    if old.forward_delay_s != want.forward_delay_s:
        yield ip_batch.line(*words, "forward_delay", str(round(want.forward_delay_s * _HZ)))
    if want.stp and not old.stp:
        yield ip_batch.line(*words, "stp_state", "1")
    if not old.vlan_filtering and old.default_pvid != want.default_pvid:
        yield ip_batch.line(*words, "vlan_default_pvid", str(want.default_pvid))


def filtering(has: Link | None, link: LinkTarget) -> Iterator[str]:
    """The command that sets whether it filters VLANs, if it does not so already."""
    want = link.bridge
    if want is not None and _as_found(has, link).vlan_filtering != want.vlan_filtering:
        words = ("link", "set", "dev", link.name, "type", "bridge")
        yield ip_batch.line(*words, "vlan_filtering", str(int(want.vlan_filtering)))


def _as_found(has: Link | None, link: LinkTarget) -> BridgeAttributes:
    if has is not None and has.bridge is not None:
        return has.bridge
    at_once = _filters_at_once(link)
    return BridgeAttributes(
        stp=False, forward_delay_s=0, vlan_filtering=at_once, default_pvid=int(at_once)
    )
