"""Routes and rules of an `Arrangement`: what differs from what the kernel has.

An IPv4 route is replaced in place, which no packet notices. IPv6 has no such thing where routes of
several NICs share a destination and metric (`replace` takes all of them for one), so there the new
one is added beside the old: both carry while the NIC is a port.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kvmnet.formats import ip_batch
from kvmnet.model.arrangement import Arrangement
from kvmnet.model.host import Address, Family, Route, Rule
from kvmnet.model.routes import Hops, connected_route, grouped, made_by_kernel, route_key
from kvmnet.model.state import State


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
    have = {_identity(x) for x in present}
    addresses = [x for link in target.links for x in link.addresses if link.up]
    # First the routes to prefixes, in which the gateways of the others have to be.
    wanted = (*_missing_prefixes(now, addresses), *grouped(target.routes))
    kept = {_identity(x) for x in wanted}
    old = [
        x for x in present
        if _on(x, names) and _identity(x) not in kept and not made_by_kernel(x[0], addresses)
    ]  # fmt: skip
    for hops in wanted:
        if _identity(hops) in have:
            continue
        rivals = [x for x in present if route_key(x[0]) == route_key(hops[0])]
        fresh = _with_life(hops, present, names)
        if hops[0].family == 4 and len(rivals) == 1 and rivals[0] in old:
            old.remove(rivals[0])
            yield _about(hops), ip_batch.replace_route(fresh)
        else:
            yield _about(hops), ip_batch.append_route(fresh)
    for hops in old:
        yield _about(hops), ip_batch.delete_route(hops)


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


def rule_lines(
    now: State, target: Arrangement, names: set[str], family: Family
) -> Iterator[tuple[str, str]]:
    """Lines of a batch of that family, each with the link that it is about."""
    wanted = [x for x in target.rules if x.family == family]
    have = [x for x in now.rules if x.family == family]
    for rule in wanted:
        if rule not in have:
            yield _named(rule), ip_batch.add_rule(rule)
    for rule in have:
        if {rule.iif, rule.oif} & names and rule not in wanted:
            yield _named(rule), ip_batch.delete_rule(rule)


def _named(rule: Rule) -> str:
    return rule.iif or rule.oif or ""
