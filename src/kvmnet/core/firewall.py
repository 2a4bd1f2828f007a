"""What the host's firewall does with a guest's packets: a walk over its chains, without a packet.

Netfilter's rules, as nft(8) and its wiki state them: all base chains of a hook are passed in the
order of their priority; `drop` ends everything at once; `accept` ends only its own base chain, so a
later chain may still drop. That is why an accept in libvirt's own table can not help against a drop
in another. iptables' tables, both kinds, are such chains too.

A rule may have conditions that kvmnet does not understand, or that ask for something that nobody
knows (`core/firewall_match.py`). Such a rule may or may not match, so what comes after it is no
longer certain, and the answer says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from msgspec import Struct

from kvmnet.core.firewall_match import link_matches, look_up, protocol_matches, rule_matches
from kvmnet.core.firewall_packet import Packet
from kvmnet.model.host import Firewall, FirewallChain, FirewallRule

__all__ = ["Decision", "Packet", "Passage", "Ruleset", "passage"]

MAX_DEPTH = 16
"""netfilter's own limit of nested jumps (NFT_JUMP_STACK_SIZE)."""

_DROPS = frozenset({"drop", "reject", "tarpit", "steal", "stolen", "synproxy"})
_ACCEPTS = frozenset({"accept", "dnat", "snat", "masquerade", "redirect", "netmap", "tproxy"})
_EITHER = frozenset({"queue", "nfqueue"})
"""A program decides."""


class Decision(Struct, frozen=True, kw_only=True):
    """Where a packet's fate in one base chain is decided."""

    base: FirewallChain
    chain: FirewallChain
    """The base chain, or one that it jumps to."""
    rule: FirewallRule | None = None
    """None: the base chain's policy."""


class Passage(Struct, frozen=True, kw_only=True):
    """What happens to a packet, and the rule or policy that decides."""

    packet: Packet
    outcome: Literal["passes", "blocked", "unclear"]
    chain: FirewallChain | None = None
    rule: FirewallRule | None = None
    """The deciding rule; None with a chain: the chain's policy."""
    base: FirewallChain | None = None
    """The base chain in which it is decided; `chain` may be one that it jumps to."""
    drops: tuple[Decision, ...] = ()
    """All base chains of the hook that surely drop it, the first one included: mending one of them
    only hands the packet to the next."""
    accepts: tuple[Decision, ...] = ()
    """Rules of other base chains of the hook that surely accept it, which does not help."""

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


_Place = tuple[str, str, str, str]
_Endings = tuple[_Ending, ...]
_Key = tuple[_Place, str | None, str | None, str]


def _place(chain: FirewallChain) -> _Place:
    return (chain.backend, chain.family, chain.table, chain.name)


class Ruleset:
    """A firewall made ready for many walks: chains by place, rules by the links they ask for."""

    def __init__(self, firewall: Firewall) -> None:
        self.firewall = firewall
        self.places = {_place(chain): chain for chain in firewall.chains}
        self.sets = {(x.family, x.table, x.name): x for x in firewall.sets}
        self._rules: dict[_Key, tuple[FirewallRule, ...]] = {}
        self._bases: dict[tuple[str, str, str, str | None], tuple[FirewallChain, ...]] = {}

    def passage(self, packet: Packet, passed_over: Iterable[FirewallChain] = ()) -> Passage:
        """What the ruleset does with the packet; see `passage`."""
        known = set(map(_place, passed_over))
        doubt: Passage | None = None
        accepts: list[Decision] = []
        dropped: list[Decision] = []
        walk = _Walk(self, packet)
        for chain in self._base_chains(packet):
            if _place(chain) in known:
                continue
            endings = [_by_policy(e, chain) for e in walk.endings(chain, 0)]
            drops = [ending for ending in endings if ending.outcome == "drop"]
            if drops and len(drops) == len(endings):
                dropped.append(_decision(chain, drops[-1]))
            elif drops and doubt is None:
                end = drops[-1]
                doubt = Passage(packet=packet, outcome="unclear", chain=end.chain, rule=end.rule,
                                base=chain)  # fmt: skip
            elif not drops and len(endings) == 1 and endings[0].rule is not None:
                accepts.append(_decision(chain, endings[0]))
        if not dropped:
            return doubt or Passage(packet=packet, outcome="passes", accepts=tuple(accepts))
        first = dropped[0]
        return Passage(
            packet=packet, outcome="blocked", chain=first.chain, rule=first.rule, base=first.base,
            drops=tuple(dropped), accepts=tuple(accepts),
        )  # fmt: skip

    def _base_chains(self, packet: Packet) -> tuple[FirewallChain, ...]:
        """The base chains that see the packet, in the order in which they see it."""
        link = packet.oif if packet.hook == "egress" else packet.iif
        own = link if packet.layer == "netdev" else None
        key = (packet.hook, packet.layer, packet.family, own)
        if key not in self._bases:
            families = {"ip": (packet.family, "inet"), "bridge": ("bridge",),
                        "netdev": ("netdev", "inet")}[packet.layer]  # fmt: skip
            chosen = [
                chain
                for chain in self.firewall.chains
                if chain.hook == packet.hook
                and chain.family in families
                and (packet.layer != "netdev" or link in chain.devices)
            ]
            self._bases[key] = tuple(sorted(chosen, key=lambda chain: chain.priority or 0))
        # Chains of type nat see only the first packet of a connection.
        first = packet.ct_state == "new"
        return tuple(x for x in self._bases[key] if first or x.type != "nat")

    def rules_for(self, chain: FirewallChain, packet: Packet) -> tuple[FirewallRule, ...]:
        """The chain's rules without those that ask for other links or another protocol."""
        key = (_place(chain), packet.iif, packet.oif, packet.protocol)
        if key not in self._rules:
            self._rules[key] = tuple(
                rule
                for rule in chain.rules
                if link_matches(rule.iif, packet.iif)
                and link_matches(rule.oif, packet.oif)
                and protocol_matches(rule.protocol, packet)
            )
        return self._rules[key]


def passage(
    firewall: Firewall, packet: Packet, passed_over: Iterable[FirewallChain] = ()
) -> Passage:
    """What the firewall does with the packet.

    `passed_over` are base chains known to accept it, whatever they show now: those in which
    libvirt is going to put its own accept rules first.
    """
    return Ruleset(firewall).passage(packet, passed_over)


def _decision(base: FirewallChain, end: _Ending) -> Decision:
    return Decision(base=base, chain=end.chain, rule=end.rule)


def _by_policy(ending: _Ending, base: FirewallChain) -> _Ending:
    """At the end of a base chain its policy decides."""
    if ending.outcome != "fallthrough":
        return ending
    return _Ending("drop" if base.policy == "drop" else "accept", base)


class _Walk:
    """One packet on its way through chains; what a chain does with it is found out once."""

    def __init__(self, ruleset: Ruleset, packet: Packet) -> None:
        self.ruleset = ruleset
        self.packet = packet
        self._known: dict[_Place, _Endings] = {}

    def endings(self, chain: FirewallChain, depth: int) -> _Endings:
        """All ways in which the walk through a chain may end: one, unless rules are unclear.

        Of ways with the same outcome the last is given: it is the surest.
        """
        place = _place(chain)
        if place not in self._known:
            self._known[place] = self._through(chain, depth)
        return self._known[place]

    def _through(self, chain: FirewallChain, depth: int) -> _Endings:
        found: dict[str, _Ending] = {}
        for rule in self.ruleset.rules_for(chain, self.packet):
            matches = rule_matches(rule, chain, self.packet, self.ruleset.sets)
            if matches is False:
                continue
            possible, stays = self._follow(chain, rule, depth)
            for ending in possible:
                found.pop(ending.outcome, None)
                found[ending.outcome] = ending
            if matches and not stays:
                return tuple(found.values())
        return (*(x for x in found.values() if x.outcome != "fallthrough"),
                _Ending("fallthrough", chain))  # fmt: skip

    def _follow(
        self, chain: FirewallChain, rule: FirewallRule, depth: int
    ) -> tuple[list[_Ending], bool]:
        """How a matching rule may end the walk, and whether it may go on with the next rule."""
        if rule.verdict != "vmap":
            return self._verdict(chain, rule, rule.verdict, rule.target, depth)
        lookup = look_up(rule, chain, self.packet, self.ruleset.sets)
        endings: list[_Ending] = []
        stays = not lookup.surely
        if not lookup.complete:
            endings += _anything(chain, rule)
        for branch in lookup.branches:
            found, goes_on = self._verdict(chain, rule, branch.verdict, branch.target, depth)
            endings += found
            stays |= goes_on
        return endings, stays

    def _verdict(
        self, chain: FirewallChain, rule: FirewallRule, verdict: str, target: str | None, depth: int
    ) -> tuple[list[_Ending], bool]:
        if verdict in _ACCEPTS:
            return [_Ending("accept", chain, rule)], False
        if verdict in _DROPS:
            return [_Ending("drop", chain, rule)], False
        if verdict == "return":
            return [_Ending("fallthrough", chain, rule)], False
        if verdict in _EITHER:
            return [_Ending("accept", chain, rule), _Ending("drop", chain, rule)], False
        if verdict not in {"jump", "goto"} or target is None:
            return [], True
        next_chain = self.ruleset.places.get((chain.backend, chain.family, chain.table, target))
        if next_chain is None or depth >= MAX_DEPTH:
            return _anything(chain, rule), True
        endings = list(self.endings(next_chain, depth + 1))
        if verdict == "goto":
            return endings, False
        ends = [x for x in endings if x.outcome != "fallthrough"]
        return ends, len(ends) < len(endings)


def _anything(chain: FirewallChain, rule: FirewallRule) -> list[_Ending]:
    return [_Ending("accept", chain, rule), _Ending("drop", chain, rule),
            _Ending("fallthrough", chain, rule)]  # fmt: skip
