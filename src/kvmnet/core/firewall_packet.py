"""A packet as the host's firewall sees it at one hook: what rules can ask it for."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Hook = Literal["ingress", "prerouting", "input", "forward", "output", "postrouting", "egress"]


class Packet(Struct, frozen=True, kw_only=True):
    """One packet of something a guest does, at one of netfilter's hooks.

    What is None or 0 is not known, except the links: a packet that the host itself sends has no
    `iif`, one that is for the host has no `oif`.
    """

    hook: Hook
    what: str
    """For people: `a guest's DHCP request`."""
    layer: Literal["ip", "bridge", "netdev"] = "ip"
    """Whose hook it is: the IP stack's, the bridge's, or a link's own."""
    family: Literal["ip", "ip6"] = "ip"
    iif: str | None = None
    oif: str | None = None
    physin: str | None = None
    """The bridge's port that a bridged frame came in by (br_netfilter shows it to IP's hooks)."""
    physout: str | None = None
    protocol: Literal["udp", "tcp", "icmp", "ipv6-icmp"] = "udp"
    sport: int = 0
    dport: int = 0
    icmp_type: int | None = None
    source: str | None = None
    destination: str | None = None
    destination_type: Literal["local", "unicast", "broadcast", "multicast"] | None = None
    """What the host's routing table makes of the destination; None: not known."""
    ct_state: str = "new"
    ct_status: tuple[str, ...] = ()
    """What connection tracking did to it, of: dnat, snat."""
    mac: str | None = None
    """The source MAC, where it is known."""
