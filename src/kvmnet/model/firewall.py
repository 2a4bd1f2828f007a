"""Parts of firewall rules that say more than one word for one condition: matches, sets, maps."""

from __future__ import annotations

from msgspec import Struct

MATCH_KEYS = frozenset({
    "iif", "oif", "physin", "physout", "nfproto", "protocol", "sport", "dport", "port", "source",
    "destination", "ct_state", "ct_status", "icmp_type", "tcp_flags", "dst_type", "src_type",
    "pkttype", "mac", "reverse_path", "bridged",
})  # fmt: skip
"""What a condition may look at. `nfproto` is ipv4 or ipv6; `port` either port; `tcp_flags` has
values `MASK/SET` as iptables' --tcp-flags; `dst_type` local, unicast, broadcast or multicast as the
routing table sees it; `reverse_path` is `exists` or `missing`; `bridged` is `yes` for a frame."""


class FirewallMatch(Struct, frozen=True, kw_only=True):
    """A condition: what the packet has under `keys` is one of `values`, or an element of a set."""

    keys: tuple[str, ...]
    """One of `MATCH_KEYS`, or several for a concatenation."""
    values: tuple[str, ...] = ()
    """Words, numbers, names (a last `*` or `+` stands for any rest), addresses, prefixes, ranges
    `A-B`; parts of a concatenation are joined by ` . `."""
    set_name: str | None = None
    """The named set (for iptables: of ipset) whose elements count instead of `values`."""
    negated: bool = False


class FirewallBranch(Struct, frozen=True, kw_only=True):
    """An entry of a verdict map."""

    value: str
    verdict: str
    target: str | None = None


class FirewallSet(Struct, frozen=True, kw_only=True):
    """A named set or verdict map, read only where a rule refers to it."""

    family: str
    """nft's word; empty for a set of ipset."""
    table: str
    """Empty for a set of ipset."""
    name: str
    elements: tuple[str, ...] = ()
    branches: tuple[FirewallBranch, ...] = ()
    complete: bool = True
    """False: it has more elements, or some of a kind that kvmnet does not understand."""
