"""What `ip -json -details route` and `… rule` print, as model objects.

Facts: iproute2's `ip/iproute.c`, `ip/iprule.c`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from kvmnet.formats.iproute import decode
from kvmnet.model.host import Family, Route, Rule
from kvmnet.model.values import Cidr, Ip


class _NextHop(Struct):
    dev: str | None = None
    gateway: str | None = None
    via: dict[str, str] | None = None
    weight: int | None = None
    flags: list[str] = []


class _Route(Struct):
    dst: str = ""
    type: str = "unicast"
    dev: str | None = None
    gateway: str | None = None
    via: dict[str, str] | None = None
    prefsrc: str | None = None
    table: str = "main"
    protocol: str = ""
    scope: str = ""
    metric: int = 0
    tos: str | int | None = None
    flags: list[str] = []
    pref: str | None = None
    expires: int | None = None
    metrics: list[dict[str, Any]] = []
    nexthops: list[_NextHop] = []
    nhid: int | None = None
    encap: str | None = None
    sender: str | None = msgspec.field(name="from", default=None)


class _Rule(Struct):
    priority: int = 0
    table: str | None = None
    action: str | None = None
    src: str = "all"
    srclen: int | None = None
    dst: str = "all"
    dstlen: int | None = None
    iif: str | None = None
    oif: str | None = None
    fwmark: str | None = None
    fwmask: str | None = None
    protocol: str = ""
    inverted: UnsetType | None = msgspec.field(name="not", default=UNSET)
    l3mdev: UnsetType | None = UNSET
    tos: str | None = None
    ipproto: str | None = None
    tun_id: int | str | None = None
    sport: int | None = None
    sport_start: int | None = None
    sport_end: int | None = None
    dport: int | None = None
    dport_start: int | None = None
    dport_end: int | None = None
    uid_start: int | None = None
    uid_end: int | None = None
    suppress_prefixlen: int | None = None
    suppress_ifgrp: str | None = None
    goto: str | int | None = None


def _prefix(text: str, family: Family) -> Cidr:
    if text in {"default", "all", ""}:
        return Cidr("::/0" if family == 6 else "0.0.0.0/0")
    if "/" in text:
        return Cidr(text)
    return Cidr(f"{text}/{128 if family == 6 else 32}")


def parse_routes(text: str, family: Family) -> tuple[Route, ...]:
    """Routes of `ip -json -details -4|-6 route show table all`; one for each next hop."""
    raw = decode(text, list[_Route], "ip route")
    return tuple(route for x in raw for route in _routes(x, family))


def parse_all_routes(text: str) -> tuple[Route, ...]:
    """Routes of both families: `ip -json -details route show table all`.

    `ip` does not say which family a default route is of. Only IPv6 ones have a preference, and the
    kernel gives each of them one (net/ipv6/route.c, rt6_fill_node).
    """
    raw = decode(text, list[_Route], "ip route")
    # Without a link are the entries of multicast routing, which are no routes of these tables.
    known = [x for x in raw if x.type != "multicast" or x.dev is not None]
    four = [route for x in known if x.pref is None for route in _routes(x, 4)]
    return (*four, *(route for x in known if x.pref is not None for route in _routes(x, 6)))


def _routes(raw: _Route, family: Family) -> Iterable[Route]:
    one = _NextHop(dev=raw.dev, gateway=raw.gateway, via=raw.via, flags=raw.flags)
    for hop in raw.nexthops or [one]:
        gateway = hop.gateway or (hop.via or {}).get("host")
        yield Route(
            family=family,
            destination=_prefix(raw.dst, family),
            table=raw.table,
            link=hop.dev,
            gateway=Ip(gateway) if gateway else None,
            source=Ip(raw.prefsrc) if raw.prefsrc else None,
            protocol=raw.protocol,
            metric=raw.metric,
            scope=raw.scope,
            type=raw.type,
            tos=str(raw.tos) if raw.tos else None,
            weight=(hop.weight or 1) if raw.nexthops else None,
            onlink="onlink" in hop.flags,
            preference=raw.pref,
            expires_s=raw.expires,
            metrics=tuple(str(x) for pairs in raw.metrics for pair in pairs.items() for x in pair),
            opaque=raw.nhid is not None or bool(raw.encap or raw.sender),
        )


def parse_rules(text: str, family: Family) -> tuple[Rule, ...]:
    """Rules of `ip -json -details -4|-6 rule show`."""
    return tuple(
        Rule(
            family=family,
            priority=x.priority,
            table=x.table or "",
            action=x.action or "lookup",
            source=_selector(x.src, x.srclen),
            destination=_selector(x.dst, x.dstlen),
            iif=x.iif,
            oif=x.oif,
            fwmark=f"{x.fwmark}/{x.fwmask}" if x.fwmark and x.fwmask else x.fwmark,
            protocol=x.protocol,
            inverted=x.inverted is None,
            options=tuple(_rule_options(x)),
        )
        for x in decode(text, list[_Rule], "ip rule")
    )


def _rule_options(raw: _Rule) -> Iterable[str]:
    """What a rule has beside its usual parts, in the words of ip-rule(8)."""
    if raw.l3mdev is None:
        yield "l3mdev"
    pairs: tuple[tuple[str, object], ...] = (
        ("tos", raw.tos),
        ("ipproto", raw.ipproto),
        ("tun_id", raw.tun_id),
        ("sport", _range(raw.sport, raw.sport_start, raw.sport_end)),
        ("dport", _range(raw.dport, raw.dport_start, raw.dport_end)),
        ("uidrange", _range(None, raw.uid_start, raw.uid_end)),
        ("suppress_prefixlength", raw.suppress_prefixlen),
        ("suppress_ifgroup", raw.suppress_ifgrp),
        ("goto", raw.goto),
    )
    for word, value in pairs:
        if value is not None:
            yield from (word, str(value))


def _range(one: int | None, start: int | None, end: int | None) -> str | None:
    if one is not None:
        return str(one)
    return None if start is None else f"{start}-{end}"


def _selector(address: str, length: int | None) -> str:
    return address if length is None else f"{address}/{length}"
