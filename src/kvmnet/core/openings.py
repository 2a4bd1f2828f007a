"""Which openings a network's guests need in the firewall that the host has now."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from kvmnet.core.firewall import Packet, Passage, passage
from kvmnet.model.host import Firewall, FirewallChain, FirewallRule
from kvmnet.model.opening import Opening
from kvmnet.model.values import Ip

MAX_CHAINS = 8
"""A packet that is still stopped after this many openings is left to people."""

DOCKER_USER = "DOCKER-USER"
"""The chain that Docker leaves to the administrator, passed before its own rules
(https://docs.docker.com/engine/network/packet-filtering-firewalls/)."""


class Blockade(Struct, frozen=True, kw_only=True):
    """A packet that the firewall stops, and the openings that would let it through."""

    passage: Passage
    openings: tuple[Opening, ...]
    """Empty where kvmnet knows none."""


def blockades(
    firewall: Firewall,
    packets: Iterable[Packet],
    comment: str,
    passed_over: Iterable[FirewallChain] = (),
) -> tuple[Blockade, ...]:
    """Each of the packets that is surely stopped, with what would let it through.

    One opening may serve several packets: it is named at the first of them only.
    """
    trusted = tuple(passed_over)
    found: list[Blockade] = []
    current = firewall
    for packet in packets:
        first = passage(current, packet, trusted)
        if first.outcome != "blocked":
            continue
        made: list[Opening] = []
        verdict = first
        while verdict.outcome == "blocked" and len(made) < MAX_CHAINS:
            opening = _opening_for(current, verdict, comment)
            if opening is None or opening in made:
                break
            made.append(opening)
            current = with_opening(current, opening)
            verdict = passage(current, packet, trusted)
        solved = verdict.outcome != "blocked"
        found.append(Blockade(passage=first, openings=tuple(made) if solved else ()))
    return tuple(found)


def _opening_for(firewall: Firewall, blocked: Passage, comment: str) -> Opening | None:
    """The narrowest rule that lets such packets of the network through the chain that stops one."""
    base = blocked.base
    if base is None:
        return None
    packet = blocked.packet
    if packet.layer != "ip" or packet.protocol == "icmp":
        return None
    answer = packet.ct_state != "new"
    forwarded = packet.hook == "forward"
    if forwarded and not answer and "dnat" in packet.ct_status:
        return _to_published(firewall, base, packet, comment)
    return Opening(
        backend=base.backend,
        family="ip6" if base.family == "ip6" else "ip" if base.family == "ip" else "inet",
        table=base.table,
        chain=place_for_rule(firewall, base),
        comment=comment,
        iif=None if forwarded and answer else packet.iif,
        oif=None if forwarded and not answer else packet.oif,
        protocol=None if forwarded else packet.protocol,
        dport=None if forwarded or not packet.dport else packet.dport,
        established=answer,
    )


def _to_published(
    firewall: Firewall, base: FirewallChain, packet: Packet, comment: str
) -> Opening | None:
    """For one port of one guest, from wherever it is asked for."""
    if packet.destination is None or not packet.dport or packet.protocol not in {"udp", "tcp"}:
        return None
    return Opening(
        backend=base.backend,
        family="ip6" if base.family == "ip6" else "ip" if base.family == "ip" else "inet",
        table=base.table,
        chain=place_for_rule(firewall, base),
        comment=comment,
        oif=packet.oif,
        protocol="udp" if packet.protocol == "udp" else "tcp",
        dport=packet.dport,
        destination=Ip(packet.destination),
    )


def place_for_rule(firewall: Firewall, base: FirewallChain) -> str:
    """The chain that the rule belongs into: Docker's own rules come and go, DOCKER-USER stays."""
    jumps_to_user = any(rule.target == DOCKER_USER for rule in base.rules)
    table = (base.backend, base.family, base.table)
    exists = any(
        chain.name == DOCKER_USER and (chain.backend, chain.family, chain.table) == table
        for chain in firewall.chains
    )
    return DOCKER_USER if jumps_to_user and exists else base.name


def with_opening(firewall: Firewall, opening: Opening) -> Firewall:
    """The firewall as it will be with the opening made."""
    rule = FirewallRule(
        text=f"(opening {opening.comment})",
        verdict="accept",
        iif=opening.iif,
        oif=opening.oif,
        protocol=opening.protocol,
        dports=() if opening.dport is None else (str(opening.dport),),
        destination=opening.destination,
        ct_states=("established", "related") if opening.established else (),
        comment=opening.comment,
    )
    place = (opening.backend, opening.family, opening.table, opening.chain)
    chains = tuple(
        msgspec.structs.replace(chain, rules=(rule, *chain.rules))
        if (chain.backend, chain.family, chain.table, chain.name) == place
        else chain
        for chain in firewall.chains
    )
    return msgspec.structs.replace(firewall, chains=chains)
