"""Addresses that are lent to the loopback for a moment, as lines for `ip -batch`.

A manager that adopts a link takes its addresses off and puts them on again, which takes from 50 ms
to seconds. The host goes on answering meanwhile where the addresses are the loopback's too, with
routes of their own: an address is the host's and not the link's (RFC 1122, section 3.3.4.2, the
weak model, which is Linux's).
"""

from __future__ import annotations

import ipaddress

import msgspec
from msgspec import Struct

from kvmnet.formats.ip_batch import line

PROTOCOL = "159"
"""Marks the routes (rtnetlink(7), rtm_protocol): nobody's in iproute2's rt_protos. NetworkManager
leaves routes alone that some routing daemon made."""
_LAST = 4_000_000
"""A metric so high that routes count only while there are no others."""


class _Address(Struct, frozen=True):
    local: str = ""
    prefixlen: int = 0
    scope: str = ""
    tentative: bool = False


class _Link(Struct, frozen=True):
    ifname: str = ""
    addr_info: tuple[_Address, ...] = ()


class _Route(Struct, frozen=True):
    dev: str | None = None
    dst: str = ""
    gateway: str | None = None
    prefsrc: str | None = None
    type: str = "unicast"
    metric: int = 0


def addresses(shown: str, link: str) -> tuple[str, ...]:
    """The usable addresses of a link in what `ip -j address show` prints, without link-local ones.

    In their order, without prefix lengths.
    """
    rows = msgspec.json.decode(shown or "[]", type=tuple[_Link, ...])
    return tuple(
        x.local
        for row in rows
        if row.ifname == link
        for x in row.addr_info
        if x.local and x.scope != "link" and not x.tentative
    )


def lend(names: tuple[str, ...]) -> tuple[str, ...]:
    """Lines that put these addresses on the loopback."""
    lines = []
    for name in names:
        size, options = (32, ()) if ipaddress.ip_address(name).version == 4 else (128, ("nodad",))
        lines.append(line("address", "add", f"{name}/{size}", "dev", "lo", *options))
    return tuple(lines)


def routes(shown: str, source: str, link: str, version: int) -> tuple[str, ...]:
    """Lines that make the routes of `source` that `ip -j route show` prints, over `link`.

    Those that are there already fail, and nobody hears of it.
    """
    return _routes(shown, source, link, version, before=False)


def routes_before(shown: str, source: str, link: str, version: int) -> tuple[str, ...]:
    """The same, each counting just before the one that it is made after: whatever else comes before
    that still does. Where that can't be, it comes last.
    """
    return _routes(shown, source, link, version, before=True)


def _routes(shown: str, source: str, link: str, version: int, *, before: bool) -> tuple[str, ...]:
    lines = []
    everywhere = {4: "0.0.0.0/0", 6: "::/0"}[version]
    for number, route in enumerate(msgspec.json.decode(shown or "[]", type=tuple[_Route, ...])):
        if (
            route.dev != source
            or route.type != "unicast"
            or not route.dst
            or route.dst.startswith(("fe80", "ff00"))
        ):
            continue
        to = everywhere if route.dst == "default" else route.dst
        metric = route.metric - 1 if before and route.metric > 1 else _LAST + number
        words = ["route", "add", to]
        words += ["via", route.gateway] if route.gateway else []
        words += ["dev", link, "proto", PROTOCOL, "metric", str(metric)]
        words += ["src", route.prefsrc] if route.prefsrc else []
        words += ["onlink"] if route.gateway else []
        lines.append(line(*words))
    return tuple(lines)


def back(names: tuple[str, ...]) -> tuple[str, ...]:
    """Lines that take lent addresses back."""
    sizes = ((x, 32 if ipaddress.ip_address(x).version == 4 else 128) for x in names)
    return tuple(line("address", "delete", f"{x}/{size}", "dev", "lo") for x, size in sizes)
