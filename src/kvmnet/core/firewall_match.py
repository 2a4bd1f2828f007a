"""Whether a rule's conditions hold for a packet: yes, no, or not known.

Not known is what decides honesty here: an address that nobody told, a set that was not read, a
condition that kvmnet does not understand. Such a rule may or may not match.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from kvmnet.core.firewall_packet import Packet
from kvmnet.model.firewall import FirewallBranch, FirewallMatch, FirewallSet
from kvmnet.model.host import FirewallChain, FirewallRule

Sets = Mapping[tuple[str, str, str], FirewallSet]
"""By family, table and name."""

_STATUS = frozenset({"dnat", "snat"})
_ALIASES = {"icmpv6": "ipv6-icmp", "icmp6": "ipv6-icmp", "17": "udp", "6": "tcp", "1": "icmp",
            "58": "ipv6-icmp"}  # fmt: skip


def rule_matches(rule: FirewallRule, chain: FirewallChain, packet: Packet, sets: Sets) -> (
    bool | None
):  # fmt: skip
    """Whether the rule is taken; None: not known."""
    surely = not rule.opaque
    for answer in _answers(rule, chain, packet, sets):
        if answer is False:
            return False
        surely &= answer is True
    return True if surely else None


def _answers(
    rule: FirewallRule, chain: FirewallChain, packet: Packet, sets: Sets
) -> Iterable[bool | None]:
    yield link_matches(rule.iif, packet.iif)
    yield link_matches(rule.oif, packet.oif)
    yield protocol_matches(rule.protocol, packet)
    if rule.dports:
        yield _any(_port(x, packet, packet.dport) for x in rule.dports)
    yield address_matches(rule.source, packet.source)
    yield address_matches(rule.destination, packet.destination)
    if rule.ct_states:
        yield packet.ct_state in rule.ct_states
    for match in rule.more:
        yield holds(match, chain, packet, sets)


def holds(match: FirewallMatch, chain: FirewallChain, packet: Packet, sets: Sets) -> bool | None:
    """Whether one further condition holds."""
    values, complete = match.values, True
    if match.set_name is not None:
        named = _named(match.set_name, chain, sets)
        if named is None:
            return None
        values, complete = named.elements, named.complete
    found = _any(_fits(match.keys, value, packet) for value in values)
    if found is False and not complete:
        return None
    return found if found is None or not match.negated else not found


class Lookup(NamedTuple):
    """What a verdict map may lead a packet to."""

    branches: tuple[FirewallBranch, ...]
    surely: bool
    """It is the one branch given."""
    complete: bool
    """All that the map leads to is known."""


def look_up(rule: FirewallRule, chain: FirewallChain, packet: Packet, sets: Sets) -> Lookup:
    """The entries of the rule's verdict map that the packet may lead to."""
    entries, complete = rule.branches, True
    if rule.branch_set is not None:
        named = _named(rule.branch_set, chain, sets)
        if named is None:
            return Lookup((), surely=False, complete=False)
        entries, complete = named.branches, named.complete
    possible: list[FirewallBranch] = []
    for entry in entries:
        fits = _fits(rule.branch_keys, entry.value, packet)
        if fits is True:
            return Lookup((entry,), surely=True, complete=True)
        if fits is None:
            possible.append(entry)
    return Lookup(tuple(possible), surely=False, complete=complete)


def _named(name: str, chain: FirewallChain, sets: Sets) -> FirewallSet | None:
    if chain.backend == "nft":
        return sets.get((chain.family, chain.table, name))
    return sets.get(("", "", name))


def _any(answers: Iterable[bool | None]) -> bool | None:
    unknown = False
    for answer in answers:
        if answer:
            return True
        unknown |= answer is None
    return None if unknown else False


def _fits(keys: tuple[str, ...], value: str, packet: Packet) -> bool | None:
    if len(keys) == 1:
        return _compare(keys[0], value, packet)
    parts = value.split(" . ")
    if len(parts) != len(keys):
        return None
    answers = [_compare(key, part, packet) for key, part in zip(keys, parts, strict=True)]
    return False if False in answers else None if None in answers else True


def _compare(key: str, value: str, packet: Packet) -> bool | None:
    if value == "*" and key not in {"iif", "oif", "physin", "physout"}:
        return True  # a map's entry for all that no other names
    compare = _COMPARE.get(key)
    return None if compare is None or value == "?" else compare(value, packet)


def link_matches(pattern: str | None, link: str | None) -> bool:
    """Whether a link has the name that a rule asks for; no link has no name."""
    if pattern is None:
        return True
    if pattern.startswith("!"):
        return not link_matches(pattern[1:], link)
    if link is None:
        return False
    if pattern.endswith(("*", "+")):
        return link.startswith(pattern[:-1])
    return link == pattern


def protocol_matches(pattern: str | None, packet: Packet) -> bool:
    """Whether a packet's protocol above IP is the one that a rule asks for."""
    if pattern is None or pattern == "all":
        return True
    if pattern.startswith("!"):
        return not protocol_matches(pattern[1:], packet)
    return _ALIASES.get(pattern, pattern) == packet.protocol


def ports_match(pattern: str, port: int) -> bool:
    """Whether a port is the one, or one of a range."""
    if pattern == str(port):
        return True
    first, _, last = pattern.replace(":", "-").partition("-")
    return first.isdecimal() and last.isdecimal() and int(first) <= port <= int(last)


def _port(pattern: str, packet: Packet, *ports: int) -> bool | None:
    if packet.protocol not in {"udp", "tcp"}:
        return False
    answers = (None if port == 0 else ports_match(pattern, port) for port in ports)
    return _any(answers)


def address_matches(pattern: str | None, address: str | None) -> bool | None:
    """Whether an address lies in a prefix or range; None where it is not known."""
    if pattern is None:
        return True
    if address is None:
        return None
    if pattern.startswith("!"):
        inside = address_matches(pattern[1:].strip(), address)
        return None if inside is None else not inside
    bounds, own = address_bounds(pattern), address_bounds(address)
    if bounds is None or own is None:
        return None
    return bounds[0] == own[0] and bounds[1] <= own[1] <= bounds[2]


@functools.lru_cache(maxsize=65536)
def address_bounds(pattern: str) -> tuple[int, int, int] | None:
    """IP version, first and last address of an address, prefix or range."""
    try:
        if "/" in pattern or "-" not in pattern:
            block = ipaddress.ip_network(pattern, strict=False)
            return block.version, int(block.network_address), int(block.broadcast_address)
        first, last = map(ipaddress.ip_address, pattern.split("-", 1))
    except ValueError:
        return None
    return first.version, int(first), int(last)


_ICMP = {
    "icmp": {"echo-reply": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5,
             "echo-request": 8, "router-advertisement": 9, "router-solicitation": 10,
             "time-exceeded": 11, "parameter-problem": 12, "timestamp-request": 13,
             "timestamp-reply": 14, "info-request": 15, "info-reply": 16},
    "ipv6-icmp": {"destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3,
                  "parameter-problem": 4, "echo-request": 128, "echo-reply": 129,
                  "mld-listener-query": 130, "mld-listener-report": 131, "mld-listener-done": 132,
                  "mld-listener-reduction": 132, "nd-router-solicit": 133, "nd-router-advert": 134,
                  "nd-neighbor-solicit": 135, "nd-neighbor-advert": 136, "nd-redirect": 137,
                  "router-solicitation": 133, "router-advertisement": 134,
                  "neighbour-solicitation": 135, "neighbour-advertisement": 136,
                  "neighbor-solicitation": 135, "neighbor-advertisement": 136,
                  "ind-neighbor-solicit": 141, "ind-neighbor-advert": 142,
                  "mld2-listener-report": 143},
}  # fmt: skip
"""The words that nft(8) and ip6tables(8) print for types (RFC 792, RFC 4443, RFC 4861)."""


def _icmp(value: str, packet: Packet) -> bool | None:
    if packet.protocol not in _ICMP:
        return False
    if packet.icmp_type is None:
        return None
    if value in {"any", "255"} and packet.protocol == "icmp":
        return True
    kind, _, code = value.partition("/")
    number = _ICMP[packet.protocol].get(kind)
    if number is None and not kind.replace("-", "").isdecimal():
        return None
    same = ports_match(kind if number is None else str(number), packet.icmp_type)
    return same if not code or code == "0" else False if not same else None


def _flags(value: str, packet: Packet) -> bool | None:
    """`MASK/SET`: of the flags in MASK exactly those in SET are set."""
    if packet.protocol != "tcp":
        return False
    has = {"new": {"syn"}, "established": {"ack"}}.get(packet.ct_state)
    mask, _, wanted = (set(x.split(",")) for x in value.lower().partition("/"))
    if has is None or "psh" in mask or not wanted:
        return None
    if "all" in mask:
        return None
    return has & mask == wanted - {"none"}


def _status(value: str, packet: Packet) -> bool | None:
    return value in packet.ct_status if value in _STATUS else None


def _type(value: str, packet: Packet) -> bool | None:
    known = packet.destination_type
    return None if known is None else known == value


def _pkttype(value: str, packet: Packet) -> bool | None:
    known = packet.destination_type
    if packet.iif is None or known is None:
        return None
    kind = known if known in {"broadcast", "multicast"} else "unicast"
    return kind == ("unicast" if value == "host" else value)


_COMPARE: dict[str, Callable[[str, Packet], bool | None]] = {
    "iif": lambda value, packet: link_matches(value, packet.iif),
    "oif": lambda value, packet: link_matches(value, packet.oif),
    "physin": lambda value, packet: link_matches(value, packet.physin),
    "physout": lambda value, packet: link_matches(value, packet.physout),
    "bridged": lambda _, packet: packet.physin is not None and packet.physout is not None,
    "nfproto": lambda value, packet: value == ("ipv6" if packet.family == "ip6" else "ipv4"),
    "protocol": lambda value, packet: protocol_matches(value, packet),
    "dport": lambda value, packet: _port(value, packet, packet.dport),
    "sport": lambda value, packet: _port(value, packet, packet.sport),
    "port": lambda value, packet: _port(value, packet, packet.sport, packet.dport),
    "source": lambda value, packet: address_matches(value, packet.source),
    "destination": lambda value, packet: address_matches(value, packet.destination),
    "ct_state": lambda value, packet: value == packet.ct_state,
    "ct_status": _status,
    "icmp_type": _icmp,
    "tcp_flags": _flags,
    "dst_type": _type,
    "pkttype": _pkttype,
    "mac": lambda value, packet: None if packet.mac is None else value.lower() == packet.mac,
    # A guest's own packets have a source that the host would route back the same way; where that
    # is not so, the kernel's rp_filter is the check that tells.
    "reverse_path": lambda value, _: value == "exists",
}
