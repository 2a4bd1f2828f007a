"""What is known about a trace when nothing more is sent: the ground of hops and verdict."""

from __future__ import annotations

import re
from functools import cached_property

from kvmnet.core.firewall_makers import BY_HAND, maker
from kvmnet.model.host import FirewallChain, FirewallRule, Neighbour
from kvmnet.model.state import State
from kvmnet.model.trace import (
    Flow,
    KernelDrop,
    Observed,
    Origin,
    Packet,
    Role,
    RouteChoice,
    RuleHit,
    Sighting,
    TraceRequest,
)

OWN_TABLES = "kvmnet_trace"


class Facts:
    """A request, what was seen, and the host as it is."""

    def __init__(
        self,
        request: TraceRequest,
        flow: Flow,
        origin: Origin,
        observed: Observed,
        state: State,
        *,
        route: RouteChoice | None = None,
        neighbours: tuple[Neighbour, ...] = (),
    ) -> None:
        self.request = request
        self.flow = flow
        self.origin = origin
        self.observed = observed
        self.state = state
        self.route = route
        self.neighbours = neighbours

    @cached_property
    def local(self) -> frozenset[str]:
        return frozenset(x.ip for x in self.state.addresses)

    @cached_property
    def indexes(self) -> dict[int, str]:
        return {x.index: x.name for x in self.state.links}

    @cached_property
    def _chains(self) -> dict[tuple[str, str, str], FirewallChain]:
        chains = (x for x in self.state.firewall.chains if x.backend != "iptables-legacy")
        return {(x.family, x.table, x.name): x for x in chains}

    @property
    def legacy(self) -> tuple[FirewallChain, ...]:
        """Chains of iptables-legacy that hold rules: the kernel does not trace them for nft."""
        every = self.state.firewall.chains
        return tuple(x for x in every if x.backend == "iptables-legacy" and
                     (x.rules or x.policy == "drop"))  # fmt: skip

    def chain(self, hit: RuleHit) -> FirewallChain | None:
        return self._chains.get((hit.family, hit.table, hit.chain))

    def rule(self, hit: RuleHit) -> FirewallRule | None:
        chain = self.chain(hit)
        if chain is None or hit.handle is None:
            return None
        return next((x for x in chain.rules if x.handle == hit.handle), None)

    def maker(self, hit: RuleHit) -> str:
        """The program that made the rule or set the policy; empty: no known one did."""
        chain = self.chain(hit)
        made = "" if chain is None else maker(chain, self.rule(hit))
        return "" if made in BY_HAND else made

    def port_of(self, link: str) -> str | None:
        """The bridge that the link is a port of."""
        found = self.state.link(link)
        if found is not None:
            return found.master
        # The stand-in's own cable came after the picture was taken.
        return self.origin.bridge if link == self.origin.link else None

    def is_bridge(self, link: str) -> bool:
        found = self.state.link(link)
        return found is not None and found.bridge is not None

    def behind(self, seen: Sighting) -> list[Neighbour]:
        """The neighbours that a frame went to; of many addresses the one that was meant."""
        known = [x for x in self.neighbours if x.mac == seen.mac_to and x.link == seen.link]
        return [x for x in known if x.ip == self.next_hop] or known

    @property
    def next_hop(self) -> str:
        gateway = None if self.route is None else self.route.gateway
        return gateway or self.flow.destination

    def values(self, packet: Packet | None, link: str, *, here: bool = True) -> dict[str, str]:
        """What a reason for a drop is told with; not `here`: in another network namespace."""
        return {
            "link": link or "the link",
            "to": packet.destination if packet is not None else self.flow.destination,
            "sender": packet.source if packet is not None else self.flow.source,
            "hop": self.next_hop,
            "who": "the host" if here else "it",
        }

    def owner(self, link: str) -> str:
        """The guest whose tap it is: `guest web`; empty for others."""
        for guest in self.state.guests:
            if any(nic.target == link for nic in guest.live_nics):
                return f"guest {guest.name}"
        return ""


class Passage:
    """All events of one role, of that packet of which most was seen."""

    def __init__(self, facts: Facts, *roles: Role) -> None:
        observed = facts.observed
        self.sightings = [x for x in observed.sightings if x.packet.role in roles]
        self.drops = [x for x in observed.drops if x.packet is None or x.packet.role in roles]
        self.walks = [x for x in walks(observed.hits) if x.packet.role in roles]

    def of(self, number: int | None) -> Passage:
        """Only what belongs to that packet."""
        chosen = Passage.__new__(Passage)
        chosen.sightings = [x for x in self.sightings if x.packet.number == number]
        chosen.walks = [x for x in self.walks if x.packet.number == number]
        chosen.drops = [x for x in self.drops if x.packet is None or x.packet.number == number]
        return chosen

    def richest(self) -> Passage:
        """Of the packet of which most was seen; the first of those."""
        numbers: dict[int | None, int] = {}
        for packet in (*(x.packet for x in self.sightings), *(x.packet for x in self.walks)):
            numbers[packet.number] = numbers.get(packet.number, 0) + 1
        if not numbers:
            return self
        if set(numbers) == {None}:
            return self._first()
        return self.of(max(numbers, key=lambda n: (numbers[n], -(n or 0))))

    def _first(self) -> Passage:
        """Answers that tell no number: the first at each link, the first walk of each chain."""
        chosen = self.of(None)
        chosen.sightings = list(
            {(x.link, x.out): x for x in sorted(self.sightings, key=lambda x: -x.at)}.values()
        )
        bases = {(w.base.family, w.base.table, w.base.chain): w for w in reversed(self.walks)}
        chosen.walks = list(reversed(bases.values()))
        return chosen

    def dying_hit(self) -> tuple[Walk, RuleHit] | None:
        """The first rule or policy that dropped a packet."""
        for walk in self.walks:
            for hit in walk.hits:
                if hit.verdict == "drop":
                    return walk, hit
        return None


class Walk:
    """A packet's way through one base chain, and the chains it jumps to."""

    def __init__(self, first: RuleHit, packet: Packet) -> None:
        self.packet = packet
        self.hits = [first]
        self.iif = first.iif
        self.oif = first.oif

    @property
    def base(self) -> RuleHit:
        return self.hits[0]


_COUNTED = re.compile(r"counter packets \d+ bytes \d+")


def rule_text(rule: FirewallRule | None) -> str:
    """A rule as its tool prints it, without counts: they are older than the packet."""
    return "a rule that is gone by now" if rule is None else _COUNTED.sub("counter", rule.text)


def walks(hits: tuple[RuleHit, ...]) -> list[Walk]:
    """The messages in groups: the first of each base chain carries the packet's headers."""
    found: list[Walk] = []
    running: dict[int, Walk] = {}
    for hit in hits:
        if hit.packet is not None:
            running[hit.id] = Walk(hit, hit.packet)
            found.append(running[hit.id])
        elif hit.id in running:
            running[hit.id].hits.append(hit)
    return found


def last_drop(drops: list[KernelDrop]) -> KernelDrop | None:
    return max(drops, key=lambda x: x.at, default=None)


def latest(sightings: list[Sighting]) -> Sighting | None:
    """The kernel may give a packet one time for its port and its bridge: they come in order."""
    return sorted(sightings, key=lambda x: x.at)[-1] if sightings else None
