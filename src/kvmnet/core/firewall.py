"""What the host's firewall does with a guest's packets: a walk over its chains, without a packet.

Netfilter's rules, as nft(8) and its wiki state them: all base chains of a hook are passed in the
order of their priority; `drop` ends everything at once; `accept` ends only its own base chain, so a
later chain may still drop. That is why an accept in libvirt's own table can not help against a drop
in another. iptables' tables, both kinds, are such chains too.

A rule may have conditions that kvmnet does not understand (`opaque`). Such a rule may or may not
match, so what comes after it is no longer certain, and the answer says so.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from msgspec import Struct

from kvmnet.model.host import Firewall, FirewallChain, FirewallRule

MAX_DEPTH = 16
"""netfilter's own limit of nested jumps (NFT_JUMP_STACK_SIZE)."""


class Packet(Struct, frozen=True, kw_only=True):
    """The first packet of something a guest does, as the host's firewall sees it."""

    hook: Literal["prerouting", "input", "forward", "output"]
    what: str
    """For people: `a guest's DHCP request`."""
    family: Literal["ip", "ip6"] = "ip"
    iif: str | None = None
    oif: str | None = None
    protocol: Literal["udp", "tcp", "ipv6-icmp"] = "udp"
    dport: int = 0
    source: str | None = None
    destination: str | None = None
    ct_state: str = "new"


class Passage(Struct, frozen=True, kw_only=True):
    """What happens to a packet, and the rule or policy that decides."""

    packet: Packet
    outcome: Literal["passes", "blocked", "unclear"]
    chain: FirewallChain | None = None
    rule: FirewallRule | None = None
    """The deciding rule; None with a chain: the chain's policy."""
    base: FirewallChain | None = None
    """The base chain in which it is decided; `chain` may be one that it jumps to."""

    @property
    def evidence(self) -> str:
        """The chain and the rule that decide, as their own tool prints them."""
        if self.chain is None:
            return "no chain drops it"
        where = f"{self.chain.family} {self.chain.table} {self.chain.name}"
        if self.rule is None:
            return f"chain {where}: policy {self.chain.policy}"
        return f"chain {where}: {self.rule.text}"


class _Ending(NamedTuple):
    """One way in which a walk through a chain may end, and the rule that would end it so."""

    outcome: Literal["accept", "drop", "fallthrough"]
    chain: FirewallChain
    rule: FirewallRule | None = None


_Places = Mapping[tuple[str, str, str, str], FirewallChain]


def passage(
    firewall: Firewall, packet: Packet, passed_over: Iterable[FirewallChain] = ()
) -> Passage:
    """What the ruleset does with the packet.

    `passed_over` are base chains known to accept it, whatever they show now: those in which
    libvirt is going to put its own accept rules first.
    """
    known = set(map(_place, passed_over))
    by_place = {_place(chain): chain for chain in firewall.chains}
    doubt: Passage | None = None
    for chain in _base_chains(firewall, packet):
        if _place(chain) in known:
            continue
        endings = [_by_policy(e, chain) for e in _walk(chain, packet, by_place, 0)]
        drops = [ending for ending in endings if ending.outcome == "drop"]
        if drops and len(drops) == len(endings):
            end = drops[-1]
            return _decided("blocked", packet, end, chain)
        if drops and doubt is None:
            doubt = _decided("unclear", packet, drops[-1], chain)
    return doubt or Passage(packet=packet, outcome="passes")


def _decided(
    outcome: Literal["blocked", "unclear"], packet: Packet, end: _Ending, base: FirewallChain
) -> Passage:
    return Passage(packet=packet, outcome=outcome, chain=end.chain, rule=end.rule, base=base)


def _place(chain: FirewallChain) -> tuple[str, str, str, str]:
    return (chain.backend, chain.family, chain.table, chain.name)


def _base_chains(firewall: Firewall, packet: Packet) -> list[FirewallChain]:
    """The filtering base chains that see the packet, in the order in which they see it."""
    chosen = [
        chain
        for chain in firewall.chains
        if chain.hook == packet.hook
        and chain.family in (packet.family, "inet")
        and chain.type in (None, "filter")
    ]
    return sorted(chosen, key=lambda chain: chain.priority or 0)


def _by_policy(ending: _Ending, base: FirewallChain) -> _Ending:
    """At the end of a base chain its policy decides."""
    if ending.outcome != "fallthrough":
        return ending
    return _Ending("drop" if base.policy == "drop" else "accept", base)


def _walk(chain: FirewallChain, packet: Packet, places: _Places, depth: int) -> list[_Ending]:
    """All ways in which the walk through one chain may end: one, unless rules are opaque."""
    endings: list[_Ending] = []
    for rule in chain.rules:
        if not _may_match(rule, packet):
            continue
        possible = _follow(chain, rule, packet, places, depth)
        leaves = rule.verdict in {"return", "goto"}
        endings += [e for e in possible if e.outcome != "fallthrough" or leaves]
        stays = not possible or (not leaves and any(e.outcome == "fallthrough" for e in possible))
        if not stays and not rule.opaque:
            return endings
    return [*endings, _Ending("fallthrough", chain)]


def _follow(
    chain: FirewallChain, rule: FirewallRule, packet: Packet, places: _Places, depth: int
) -> list[_Ending]:
    """How a matching rule may end the walk; empty if it decides nothing (counters, marks, logs)."""
    if rule.verdict == "accept":
        return [_Ending("accept", chain, rule)]
    if rule.verdict in {"drop", "reject"}:
        return [_Ending("drop", chain, rule)]
    if rule.verdict == "return":
        return [_Ending("fallthrough", chain, rule)]
    if rule.verdict in {"jump", "goto"} and rule.target is not None:
        target = places.get((chain.backend, chain.family, chain.table, rule.target))
        if target is None or depth >= MAX_DEPTH:
            return [_Ending(o, chain, rule) for o in ("accept", "drop", "fallthrough")]
        return _walk(target, packet, places, depth + 1)
    return []


def _may_match(rule: FirewallRule, packet: Packet) -> bool:
    """Whether the conditions that kvmnet understands all hold for the packet."""
    return (
        _link_matches(rule.iif, packet.iif)
        and _link_matches(rule.oif, packet.oif)
        and _protocol_matches(rule.protocol, packet.protocol)
        and _port_matches(rule.dports, packet.dport)
        and _address_matches(rule.source, packet.source)
        and _address_matches(rule.destination, packet.destination)
        and (not rule.ct_states or packet.ct_state in rule.ct_states)
    )


def _link_matches(pattern: str | None, link: str | None) -> bool:
    if pattern is None:
        return True
    if pattern.startswith("!"):
        return not _link_matches(pattern[1:], link)
    if link is None:
        return False
    if pattern.endswith(("*", "+")):
        return link.startswith(pattern[:-1])
    return link == pattern


_PROTOCOL_ALIASES = {"icmpv6": "ipv6-icmp", "17": "udp", "6": "tcp", "58": "ipv6-icmp"}


def _protocol_matches(pattern: str | None, protocol: str) -> bool:
    if pattern is None or pattern == "all":
        return True
    if pattern.startswith("!"):
        return not _protocol_matches(pattern[1:], protocol)
    return _PROTOCOL_ALIASES.get(pattern, pattern) == protocol


def _port_matches(ports: tuple[str, ...], port: int) -> bool:
    if not ports:
        return True
    for item in ports:
        first, _, last = item.replace(":", "-").partition("-")
        if first.isdigit() and int(first) <= port <= int(last or first):
            return True
    return False


def _address_matches(pattern: str | None, address: str | None) -> bool:
    if pattern is None:
        return True
    if pattern.startswith("!"):
        return not _address_matches(pattern[1:].strip(), address)
    if address is None:
        return False
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        return False


def guest_packets(
    bridge: str, uplink: str | None, guest: str | None, family: Literal["ip", "ip6"] = "ip"
) -> tuple[Packet, ...]:
    """The packets that a guest behind `bridge` needs to get through, in the order of its life.

    `guest` is an address inside the network's subnet; `uplink` the host's way out, if it has one.
    """
    packets = [*(_first_packets_v6(bridge) if family == "ip6" else _first_packets_v4(bridge))]
    packets += [
        Packet(hook="input", what="a guest's DNS query", family=family, iif=bridge, dport=53,
               source=guest),
        Packet(hook="input", what="a guest's DNS query over TCP", family=family, iif=bridge,
               protocol="tcp", dport=53, source=guest),
    ]  # fmt: skip
    if uplink is not None:
        outside = "192.0.2.1" if family == "ip" else "2001:db8::1"
        packets += [
            Packet(hook="forward", what="a guest's connection to the outside", family=family,
                   iif=bridge, oif=uplink, protocol="tcp", dport=443, source=guest,
                   destination=outside),
            Packet(hook="forward", what="the answer from the outside", family=family, iif=uplink,
                   oif=bridge, protocol="tcp", dport=50000, source=outside, destination=guest,
                   ct_state="established"),
        ]  # fmt: skip
    return tuple(packets)


def _first_packets_v4(bridge: str) -> tuple[Packet, ...]:
    return (
        Packet(hook="prerouting", what="a guest's DHCP request", iif=bridge, dport=67),
        Packet(hook="input", what="a guest's DHCP request", iif=bridge, dport=67),
        Packet(hook="output", what="the DHCP answer", oif=bridge, dport=68),
    )


def _first_packets_v6(bridge: str) -> tuple[Packet, ...]:
    return (
        Packet(hook="input", what="a guest's router solicitation", family="ip6", iif=bridge,
               protocol="ipv6-icmp"),
        Packet(hook="output", what="the router advertisement", family="ip6", oif=bridge,
               protocol="ipv6-icmp"),
    )  # fmt: skip
