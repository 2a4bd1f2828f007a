"""From what was seen of the packets to the stations of their way, in order.

Rules come without a time of their own, so stations are ordered by where in the kernel they are: a
packet passes its port, the bridge's hooks, the routing decision, the hooks of IP and the link that
it leaves by always in the same order (https://wiki.nftables.org, "Netfilter hooks").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from kvmnet.core.drop_reasons import BENIGN, meaning
from kvmnet.core.finding import some
from kvmnet.core.trace_facts import OWN_TABLES, Facts, Passage, Walk, latest, rule_text
from kvmnet.model.trace import Hop, KernelDrop, Packet, RuleHit, Sighting

_PORT_IN, _LINK_IN, _ROUTE, _BRIDGE_OUT, _LINK_OUT, _NEIGHBOUR = 10, 40, 55, 80, 100, 110
_LOOP_IN = 47
_HOOKS = {
    ("netdev", "ingress"): 5, ("bridge", "prerouting"): 20, ("bridge", "input"): 30,
    ("ip", "output"): 45, ("ip", "prerouting"): 50, ("ip", "input"): 60, ("ip", "forward"): 60,
    ("bridge", "forward"): 62, ("ip", "postrouting"): 70, ("bridge", "output"): 85,
    ("bridge", "postrouting"): 90, ("netdev", "egress"): 95,
}  # fmt: skip
_MANY_PORTS = 3


class _Station(NamedTuple):
    rank: int
    order: int
    hop: Hop
    packet: Packet | None = None


def hops(facts: Facts) -> tuple[Hop, ...]:
    """The way out, and with `reply` the answer's way back."""
    begin = min(facts.observed.sent_at, default=0.0)
    out = Passage(facts, "request").richest()
    found = [_sent(facts)]
    packets = (*(x.packet for x in out.sightings), *(x.packet for x in out.walks))
    shown = next((x.number for x in packets), None) or 1
    if 0 < shown <= len(facts.observed.sent_at):
        begin = facts.observed.sent_at[shown - 1]
    found += _way(facts, out, begin, "out")
    if facts.request.reply:
        found += _way(facts, Passage(facts, "reply", "error").richest(), begin, "back")
    return tuple(found)


def _sent(facts: Facts) -> Hop:
    count = len(facts.observed.sent_at)
    packets = "1 packet" if count == 1 else f"{count} packets"
    evidence = tuple(f"the kernel said: {x}" for x in dict.fromkeys(facts.observed.refused))
    return Hop(
        kind="sent", where="sent", at_ms=0.0, evidence=evidence,
        what=f"{packets} by {facts.origin.sent_by}: {facts.flow}",
    )  # fmt: skip


def _way(facts: Facts, passage: Passage, begin: float, way: str) -> list[Hop]:
    stations = [*_links(facts, passage, begin), *_walls(facts, passage)]
    if way == "out" and facts.route is not None and _was_routed(facts, passage):
        stations.append(_Station(_ROUTE, 0, _route(facts)))
    stations.sort(key=lambda x: (x.rank, x.order))
    stations = _with_nat(stations)
    stations += [
        _Station(999, n, _drop(facts, x, begin, passage))
        for n, x in enumerate(_told(facts, passage.drops))
    ]
    if way == "back":
        return [_back(x.hop) for x in stations]
    return [x.hop for x in stations]


_BEFORE_ROUTING = frozenset({"TC_INGRESS", "XDP", "OTHERHOST", "BRIDGE_INGRESS_STP_STATE"})


def _was_routed(facts: Facts, passage: Passage) -> bool:
    """It got as far as the host's routing: a frame that is only bridged never does."""
    if facts.origin.how == "host":
        return bool(facts.observed.sent_at)
    if any(x.here and x.reason in _BEFORE_ROUTING for x in passage.drops):
        return False
    return any(not x.out and facts.port_of(x.link) is None for x in passage.sightings)


def _back(hop: Hop) -> Hop:
    return Hop(kind=hop.kind, way="back", where=hop.where, what=hop.what, at_ms=hop.at_ms,
               evidence=hop.evidence)  # fmt: skip


def _told(facts: Facts, drops: list[KernelDrop]) -> Iterator[KernelDrop]:
    """Each kind of drop once; how an answered packet ends in its receiver's kernel is no news."""
    came = any(x.packet.role != "request" for x in facts.observed.sightings)
    if came:
        drops = [x for x in drops if x.reason not in BENIGN and x.here and x.packet is not None]
    seen: set[tuple[str, str, bool]] = set()
    for drop in drops:
        key = (drop.reason, drop.function, drop.here)
        if key not in seen:
            seen.add(key)
            yield drop


def _drop(facts: Facts, drop: KernelDrop, begin: float, passage: Passage) -> Hop:
    before = latest([x for x in passage.sightings if x.at <= drop.at])
    link = drop.link or ("" if before is None else before.link)
    told = meaning(drop.reason, facts.values(drop.packet, link, here=drop.here))
    place = "" if drop.here else ", in another network namespace of this machine"
    proof = {
        "bpf": "the kernel's tracepoint skb:kfree_skb, for these very packets",
        "pattern": f"{drop.count} drops of this kind at skb:kfree_skb, one with each packet sent",
    }[drop.tied_by]
    return Hop(
        kind="drop", where=drop.function or "the kernel", what=told.what + place,
        at_ms=_ms(drop.at, begin), evidence=(f"{drop.reason or 'no reason given'}: {proof}",),
    )  # fmt: skip


def _ms(at: float, begin: float) -> float:
    return round((at - begin) * 1000, 3)


def _links(facts: Facts, passage: Passage, begin: float) -> Iterator[_Station]:
    """Every link that the packet passed; a frame flooded to many ports is told once."""
    ordered = sorted(passage.sightings, key=lambda x: x.at)
    ranked = [(_link_rank(facts, x), x) for x in ordered]
    order = 0
    for (rank, _), group in groupby(ranked, key=lambda x: (x[0], facts.port_of(x[1].link))):
        seen = list({x.link: x for _, x in group}.values())
        out_of_ports = rank == _LINK_OUT and facts.port_of(seen[0].link) is not None
        if out_of_ports and len(seen) > _MANY_PORTS:
            yield _Station(rank, order, _flooded(facts, seen, begin), seen[0].packet)
            order += 1
            continue
        for x in seen:
            yield _Station(rank, order, _link(facts, x, begin), x.packet)
            order += 1
            if x.out and x.mac_to is not None and rank == _LINK_OUT and not out_of_ports:
                yield _Station(_NEIGHBOUR, order, _neighbour(facts, x))


def _link_rank(facts: Facts, seen: Sighting) -> int:
    if seen.link == "lo":  # the host sends to itself: out of it and into it again
        return _LOOP_IN - 1 if seen.out else _LOOP_IN
    if seen.out:
        return _BRIDGE_OUT if facts.is_bridge(seen.link) else _LINK_OUT
    return _PORT_IN if facts.port_of(seen.link) is not None else _LINK_IN


def _link(facts: Facts, seen: Sighting, begin: float) -> Hop:
    bridge = facts.port_of(seen.link)
    link = facts.state.link(seen.link)
    owner = facts.owner(seen.link)
    if not owner and seen.link == facts.origin.link and facts.origin.how == "plugged":
        owner = "the stand-in"
    whose = f" ({owner})" if owner else ""
    state = link.port.state if link is not None and link.port is not None else ""
    what = "went out" if seen.out else "came in"
    if bridge is not None:
        what += f", port of {bridge}{f', {state}' if state else ''}"
    elif facts.is_bridge(seen.link):
        what += ", into the bridge" if seen.out else ", from the bridge to the host"
    note = f"{seen.packet}{f' {seen.packet.note}' if seen.packet.note else ''}"
    frame = f"frame {seen.mac_from} > {seen.mac_to}: {note}" if seen.mac_from else note
    return Hop(kind="link", where=f"{seen.link}{whose}", what=what, at_ms=_ms(seen.at, begin),
               evidence=(frame,))  # fmt: skip


def _flooded(facts: Facts, seen: list[Sighting], begin: float) -> Hop:
    bridge = facts.port_of(seen[0].link)
    return Hop(
        kind="link", where=str(bridge), at_ms=_ms(seen[0].at, begin),
        what=f"flooded to {len(seen)} ports: the bridge does not know where {seen[0].mac_to} is",
        evidence=(f"ports {some(x.link for x in seen)}",),
    )  # fmt: skip


def _neighbour(facts: Facts, seen: Sighting) -> Hop:
    known = facts.behind(seen)
    names = some(x.ip for x in known) if known else "a neighbour of unknown address"
    states = f", {known[0].state}" if known and known[0].state else ""
    rows = tuple(f"ip neigh: {x.ip} lladdr {x.mac} {x.state}" for x in known)
    what = f"sent to {names} at {seen.mac_to}{states}"
    return Hop(kind="neighbour", where=seen.link, what=what, evidence=rows)


def _route(facts: Facts) -> Hop:
    route = facts.route
    assert route is not None
    if route.error:
        what = f"no way: {route.error}"
    elif route.is_local:
        what = "for the host itself"
    else:
        what = f"by {route.link}{f' via {route.gateway}' if route.gateway else ', directly'}"
    return Hop(kind="route", where="routing", what=what, evidence=(route.command,))


def _walls(facts: Facts, passage: Passage) -> Iterator[_Station]:
    order = 0
    for walk in passage.walks:
        if walk.base.table.startswith(OWN_TABLES):
            # Its chains decide nothing, but they tell what the packet looked like there.
            yield _Station(_walk_rank(facts, walk), order, _NOTHING, walk.packet)
            continue
        for hit in walk.hits:
            hop = _wall(facts, hit)
            if hop is not None:
                yield _Station(_walk_rank(facts, walk), order, hop, walk.packet)
                order += 1


_NOTHING = Hop(kind="rule", where="", what="")


def _walk_rank(facts: Facts, walk: Walk) -> int:
    chain = facts.chain(walk.base)
    hook = walk.base.chain if chain is None or chain.hook is None else chain.hook
    family = walk.base.family if walk.base.family in ("bridge", "netdev") else "ip"
    return _HOOKS.get((family, hook.lower()), 60)


def _wall(facts: Facts, hit: RuleHit) -> Hop | None:
    """A rule that matched, or the policy that decided; the plain end of a chain is no news."""
    where = f"{hit.family} {hit.table} {hit.chain}"
    made = facts.maker(hit)
    by = f", made by {made}" if made else ""
    if hit.kind == "policy":
        return Hop(kind="policy", where=where, what=f"policy {hit.verdict}{by}",
                   evidence=("no rule of the chain decided",))  # fmt: skip
    if hit.kind != "rule" or hit.handle is None:
        return None
    rule = facts.rule(hit)
    text = rule_text(rule)
    target = f" {hit.target}" if hit.target else ""
    return Hop(kind="rule", where=where, what=f"{hit.verdict}{target}: {text}",
               evidence=(f"handle {hit.handle}{by}",))  # fmt: skip


def _with_nat(stations: Iterable[_Station]) -> list[_Station]:
    """A station of its own wherever the packet looks different from before."""
    found: list[_Station] = []
    before: Packet | None = None
    for station in stations:
        now = station.packet
        if now is not None and before is not None and str(now) != str(before):
            changed = [
                *_changed("source", before.source, before.sport, now.source, now.sport),
                *_changed("destination", before.destination, before.dport, now.destination,
                          now.dport),
            ]  # fmt: skip
            hop = Hop(kind="nat", where="NAT", what="; ".join(changed),
                      evidence=(f"before: {before}", f"after: {now}"))  # fmt: skip
            found.append(_Station(station.rank, station.order, hop))
        before = now or before
        if station.hop is not _NOTHING:
            found.append(station)
    return found


def _changed(what: str, ip: str, port: int, new_ip: str, new_port: int) -> Iterator[str]:
    if (ip, port) != (new_ip, new_port):
        ends = [
            f"{a}:{b}" if b and ":" not in a else a for a, b in ((ip, port), (new_ip, new_port))
        ]
        yield f"{what} {ends[0]} becomes {ends[1]}"
