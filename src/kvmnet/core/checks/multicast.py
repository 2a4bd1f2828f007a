"""Check of multicast snooping: does a bridge keep IPv6's questions from a guest?"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from kvmnet.core import mending
from kvmnet.core.finding import Finding, command, some
from kvmnet.core.guest_addresses import guest_addresses
from kvmnet.core.plugged import Plug
from kvmnet.model.setup import BridgeMulticast
from kvmnet.model.state import State

_GROUP = int(ipaddress.IPv6Address("ff02::1:ff00:0"))


def multicast_snooping(state: State) -> Iterator[Finding]:
    """A bridge that forwards to listeners only, and does not know that a guest listens.

    Without a querier a bridge floods all multicast, and snooping does no harm: so only a bridge
    that hears one is looked at (kernel: net/bridge/br_multicast.c). A neighbour solicitation goes
    to the group of the last 24 bits of the address asked for (RFC 4291, section 2.7.1).
    """
    links = {x.name: x for x in state.links}
    unanswered = {(x.link, x.ip) for x in state.neighbours if x.state in {"FAILED", "INCOMPLETE"}}
    asked = {x.bridge: x for x in state.multicast if x.querier6}
    known = zip(state.guests, guest_addresses(state), strict=True) if asked else ()
    for guest, found in known:
        for nic, addresses in zip(guest.nics, found.nics, strict=True):
            tap = links.get(nic.target or "")
            bridge = links.get(tap.master) if tap is not None and tap.master else None
            if guest.state != "running" or tap is None or bridge is None or bridge.bridge is None:
                continue
            listeners = asked.get(bridge.name)
            if listeners is None or not bridge.bridge.multicast_snooping:
                continue
            lost = [
                str(x.ip)
                for x in addresses.addresses
                if x.family == 6
                and any(s.source in {"agent", "lease"} for s in x.sources)
                and not _reaches(listeners, tap.name, x.ip)
            ]
            if lost:
                failed = [x for x in lost if (bridge.name, x) in unanswered]
                yield _deaf(Plug(guest, nic), bridge.name, lost, failed)


def _deaf(plug: Plug, bridge: str, lost: list[str], failed: list[str]) -> Finding:
    guest, tap = plug.guest.name, plug.nic.target
    return Finding(
        name="multicast-snooping", severity="problem" if failed else "warning",
        subject=f"guest {guest}",
        what=f"{bridge} keeps neighbour solicitations for {some(lost)} from it: multicast snooping",
        breaks=f"nobody on {bridge} finds guest {guest} by IPv6 once old entries are forgotten",
        evidence=(f"ip -d link show {bridge}: mcast_snooping 1, and it hears a querier",
                  *dict.fromkeys(f"bridge mdb: no {solicited(x)} behind {tap}" for x in lost),
                  *(f"ip neigh show dev {bridge}: {x} FAILED" for x in failed)),
        fix=(command("ip", "link", "set", bridge, "type", "bridge", "mcast_snooping", "0"),),
        mend=(mending.set_bridge(bridge, "mcast_snooping", 0, 1),),
    )  # fmt: skip


def solicited(ip: str) -> str:
    """The group that is asked for the owner of an IPv6 address."""
    return str(ipaddress.IPv6Address(_GROUP | int(ipaddress.IPv6Address(ip)) & 0xFFFFFF))


def _reaches(listeners: BridgeMulticast, tap: str, ip: str) -> bool:
    group = solicited(ip)
    return tap in listeners.routers or any(
        x.port == tap and x.group == group for x in listeners.listeners
    )
