"""Routes and rules of an `Arrangement`: what differs from what the kernel has.

An IPv4 route is replaced in place, which no packet notices. IPv6 has no such thing where routes of
several NICs share a destination and metric (`replace` takes all of them for one), so there the new
one is added beside the old: both carry while the NIC is a port.

The kernel looks a new route's gateway up before it takes the route, by the rules too, as if it sent
to it by that link (`fib_check_nh`, `ip6_route_check_nh`). A rule for that link that leads to a
refusal makes it refuse the route: "Nexthop has invalid gateway". So such rules are away while
routes are made.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kvmnet.formats import ip_batch
from kvmnet.model.arrangement import Arrangement
from kvmnet.model.host import Address, Family, Route, Rule
from kvmnet.model.routes import Hops, connected_route, grouped, made_by_kernel, route_key
from kvmnet.model.state import State

_REFUSALS = frozenset({"blackhole", "unreachable", "prohibit"})


def _identity(hops: Hops) -> object:
    """All that a route says, but for how long."""
    return tuple(
        msgspec.structs.replace(
            x,
            expires_s=None,
            scope="",
            weight=(x.weight or 1) if len(hops) > 1 else None,
            preference=x.preference or ("medium" if x.family == 6 else None),
        )
        for x in hops
    )


def _on(hops: Hops, names: set[str]) -> bool:
    return any(x.link in names for x in hops)


def route_lines(now: State, target: Arrangement, names: set[str]) -> Iterator[tuple[str, str]]:
    """Lines of a batch, each with the link that it is about."""
    present = grouped(now.routes)
    addresses = _addresses(target)
    wanted = _wanted(now, target)
    kept = {_identity(x) for x in wanted}
    old = [
        x for x in present
        if _on(x, names) and _identity(x) not in kept and not made_by_kernel(x[0], addresses)
    ]  # fmt: skip
    for hops in _new(now, wanted):
        rivals = [x for x in present if route_key(x[0]) == route_key(hops[0])]
        fresh = _with_life(hops, present, names)
        if hops[0].family == 4 and len(rivals) == 1 and rivals[0] in old:
            old.remove(rivals[0])
            yield _about(hops), ip_batch.replace_route(fresh)
        else:
            yield _about(hops), ip_batch.append_route(fresh)
    for hops in old:
        yield _about(hops), ip_batch.delete_route(hops)


def _addresses(target: Arrangement) -> list[Address]:
    return [x for link in target.links for x in link.addresses if link.up]


def _wanted(now: State, target: Arrangement) -> tuple[Hops, ...]:
    """First the routes to prefixes, in which the gateways of the others have to be."""
    routes = sorted(grouped(target.routes), key=_needs_gateway)
    return (*_missing_prefixes(now, _addresses(target)), *routes)


def _needs_gateway(hops: Hops) -> bool:
    """Whether another route has to lead to its gateway first; `ip` lists a default route first."""
    return any(x.gateway is not None and not x.onlink for x in hops)


def _new(now: State, wanted: tuple[Hops, ...]) -> list[Hops]:
    have = {_identity(x) for x in grouped(now.routes)}
    return [x for x in wanted if _identity(x) not in have]


def _about(hops: Hops) -> str:
    return next((x.link for x in hops if x.link is not None), "")


def _missing_prefixes(now: State, addresses: list[Address]) -> Iterator[Hops]:
    """Routes to prefixes of addresses that are there, whose route somebody took away half-way."""
    there = {(x.link, x.ip, x.prefix_len) for x in now.addresses}
    found: list[Route] = []
    for address in addresses:
        route, link = connected_route(address), now.link(address.link)
        if route is None or link is None or not link.up:
            continue
        known = (x for x in now.routes if x.link == route.link)
        if (address.link, address.ip, address.prefix_len) not in there:
            continue
        if all(route_key(x) != route_key(route) for x in (*known, *found)):
            found.append(route)
            yield (route,)


def _with_life(hops: Hops, present: tuple[Hops, ...], names: set[str]) -> Hops:
    """The route with the lifetime that its twin on another link of the arrangement has by now."""
    first = hops[0]
    if first.expires_s is None:
        return hops
    lives = [
        x[0].expires_s for x in present
        if x[0].link in names
        and (route_key(x[0]), x[0].gateway) == (route_key(first), first.gateway)
    ]  # fmt: skip
    life = max((x for x in lives if x is not None), default=first.expires_s)
    return tuple(msgspec.structs.replace(x, expires_s=life) for x in hops)


def rules_in_the_way(now: State, target: Arrangement, names: set[str]) -> tuple[Rule, ...]:
    """Rules of the arrangement's links for which the kernel would refuse a route that is to be."""
    gateways = {
        (6 if ":" in hop.gateway else 4, hop.link)
        for hops in _new(now, _wanted(now, target)) for hop in hops
        if hop.gateway is not None and not hop.onlink
    }  # fmt: skip
    refusing = {x.table for x in now.routes if x.type in _REFUSALS}
    return tuple(
        x for x in now.rules
        if {x.iif, x.oif} & names
        and (x.family, x.oif) in gateways
        and (x.action in _REFUSALS or (x.action == "lookup" and x.table in refusing))
    )  # fmt: skip


def rule_lines(
    now: State, target: Arrangement, names: set[str], family: Family
) -> Iterator[tuple[str, str]]:
    """Lines of a batch of that family, each with the link that it is about."""
    wanted = [x for x in target.rules if x.family == family]
    have = [x for x in now.rules if x.family == family]
    for rule in wanted:
        if rule not in have:
            yield named(rule), ip_batch.add_rule(rule)
    for rule in have:
        if {rule.iif, rule.oif} & names and rule not in wanted:
            yield named(rule), ip_batch.delete_rule(rule)


def named(rule: Rule) -> str:
    return rule.iif or rule.oif or ""
