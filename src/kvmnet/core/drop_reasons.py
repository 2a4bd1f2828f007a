"""What the kernel's reasons for dropping a packet mean for people, and what helps.

Facts: include/net/dropreason-core.h of the kernel; ip-sysctl.rst for the settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Meaning(NamedTuple):
    """`{link}` stands for the link through which it came in, `{to}` and `{sender}` for the packet's
    addresses, `{hop}` for the next hop, `{who}` for the host, or for what dropped it elsewhere."""

    what: str
    hint: str = ""


BENIGN = frozenset({"NO_SOCKET", "TCP_INVALID_ACK_SEQUENCE", "TCP_RESET", "TCP_FLAGS", "TCP_CLOSE",
                    "CONSUMED", "NOT_DROPPED_YET"})  # fmt: skip
"""The packet got to where programs listen: how it ends there is the answer's business."""

BY_FIREWALL = "NETFILTER_DROP"

_MEANINGS: Mapping[str, Meaning] = {
    "NETFILTER_DROP": Meaning("a firewall hook dropped it"),
    "IP_RPFILTER": Meaning(
        "reverse path filter: the way back to its sender does not lead through {link}",
        "ip route get {sender}; or sysctl -w net.ipv4.conf.{link}.rp_filter=2",
    ),
    "IP_LOCAL_SOURCE": Meaning("its sender's address is one of this host's own"),
    "IP_INVALID_SOURCE": Meaning("its sender's address is no address a host may have"),
    "IP_INADDRERRORS": Meaning(
        "{who} does not forward what comes in through {link}", "sysctl -w net.ipv4.ip_forward=1"
    ),
    "IP_INNOROUTES": Meaning("{who} has no route to {to}", "ip route get {to}"),
    "IP_OUTNOROUTES": Meaning("{who} has no route to {to}", "ip route get {to}"),
    "IP_LOCALNET": Meaning("its address belongs to the loopback network"),
    "IPV6DISABLED": Meaning(
        "IPv6 is switched off on {link}", "sysctl -w net.ipv6.conf.{link}.disable_ipv6=0"
    ),
    "BRIDGE_INGRESS_STP_STATE": Meaning(
        "the bridge's port {link} is not forwarding (spanning tree)", "bridge link show dev {link}"
    ),
    "NO_TX_TARGET": Meaning(
        "the bridge has no port to send it to",
        "bridge link; bridge fdb show: is the destination plugged in, and its port forwarding?",
    ),
    "TC_INGRESS": Meaning(
        "a traffic control filter on {link} dropped it as it came in",
        "tc filter show dev {link} ingress",
    ),
    "TC_EGRESS": Meaning(
        "a traffic control filter dropped it on its way out", "tc filter show dev {link} egress"
    ),
    "XDP": Meaning("an XDP program on {link} dropped it", "ip -details link show dev {link}"),
    "QDISC_DROP": Meaning("a queue dropped it on its way out", "tc -s qdisc"),
    "NEIGH_FAILED": Meaning(
        "no neighbour: {hop} does not answer ARP or ND",
        "ip neigh show {hop}; is it up, and in the same VLAN?",
    ),
    "NEIGH_QUEUEFULL": Meaning("no neighbour: {hop} does not answer ARP or ND", "ip neigh"),
    "NEIGH_CREATEFAIL": Meaning("the table of neighbours is full", "ip -s neigh"),
    "OTHERHOST": Meaning("it is addressed to another machine's MAC"),
    "PKT_TOO_BIG": Meaning("it is larger than the next link's MTU", "ip link"),
    "DEV_READY": Meaning("the link that it was to leave by is down", "ip link"),
    "FULL_RING": Meaning("the guest does not read its NIC's queue: is it paused or hung?"),
    "TAP_FILTER": Meaning("a filter on the tap dropped it"),
    "TAP_TXFILTER": Meaning("the guest's NIC does not take frames for that MAC"),
    "XFRM_POLICY": Meaning("an IPsec policy forbids it", "ip xfrm policy"),
    "BPF_CGROUP_EGRESS": Meaning("a BPF program of a control group dropped it"),
    "SOCKET_RCVBUFF": Meaning("the program that it is for does not read fast enough"),
    "CPU_BACKLOG": Meaning("the host's queue for incoming packets is full"),
    "IP_NOPROTO": Meaning("{who} does not speak its protocol"),
    "UNHANDLED_PROTO": Meaning("{who} does not speak its protocol"),
    "MAC_INVALID_SOURCE": Meaning("its sender's MAC is not valid"),
    "LOCAL_MAC": Meaning("its sender's MAC is the bridge's own"),
}  # fmt: skip


def meaning(reason: str, values: Mapping[str, str]) -> Meaning:
    """For people; a reason that is not known is told by the kernel's name for it."""
    found = _MEANINGS.get(reason)
    if found is None:
        name = f"reason {reason}" if reason else "this kernel names no reason"
        return Meaning(f"the kernel dropped it: {name}")
    return Meaning(found.what.format(**values), found.hint.format(**values))
