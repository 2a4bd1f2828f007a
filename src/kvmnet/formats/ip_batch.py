"""Lines for `ip -batch -`: what brings links, addresses, routes, rules and neighbours about.

Facts: ip(8), ip-address(8), ip-route(8), ip-rule(8), ip-neighbour(8). A batch has no shell, but
`ip` splits a line at blanks, takes quotes and backslashes away and stops at `#`
(iproute2's lib/utils.c, `makeargs`); words that hold any of these are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kvmnet.errors import InvalidInput
from kvmnet.model.host import Address, Neighbour, Route, Rule

_WORD = re.compile(r"[!$-&(-\[\]-~]+")
_CARRIED = ("home", "mngtmpaddr", "noprefixroute", "autojoin")
"""Flags of an address that people, or a manager, can give it."""
_USABLE = frozenset({"REACHABLE", "PERMANENT", "NOARP"})


def line(*words: str) -> str:
    """One command. Raises `InvalidInput` for a word that `ip` would not read as it is."""
    for word in words:
        if not _WORD.fullmatch(word):
            raise InvalidInput(
                f"{word!a} can not be given to `ip -batch`",
                why="quotes, backslashes, # and blanks have a meaning of their own there",
            )
    return " ".join(words)


def add_address(address: Address) -> str:
    """Make it; an IPv6 one without duplicate detection, which would silence it for a second."""
    nodad = ["nodad"] if address.family == 6 else []
    return line("address", "add", *_address(address), *nodad)


def change_address(address: Address) -> str:
    """Give one that is there these flags and lifetimes."""
    nodad = ["nodad"] if "nodad" in address.flags else []
    return line("address", "change", *_address(address), *nodad)


def delete_address(address: Address) -> str:
    return line("address", "delete", *_where(address), "dev", address.link)


def _where(address: Address) -> list[str]:
    if address.peer is not None:
        return [address.ip, "peer", f"{address.peer}/{address.prefix_len}"]
    return [f"{address.ip}/{address.prefix_len}"]


def _address(address: Address) -> list[str]:
    words = [*_where(address), "dev", address.link]
    if address.family == 4:
        words += ["scope", address.scope]
        words += ["broadcast", address.broadcast] if address.broadcast else []
        words += ["label", address.label] if address.label else []
    words += ["metric", str(address.metric)] if address.metric else []
    words += [flag for flag in _CARRIED if flag in address.flags]
    if address.valid_s is not None:
        preferred = address.preferred_s
        words += ["valid_lft", str(address.valid_s)]
        words += ["preferred_lft", "forever" if preferred is None else str(preferred)]
    elif address.preferred_s is not None:
        words += ["valid_lft", "forever", "preferred_lft", str(address.preferred_s)]
    return words


def set_neighbour(entry: Neighbour) -> str:
    """An entry of the ARP or ND cache; what was not confirmed lately is stale, and usable."""
    if entry.proxy:
        return line("neighbour", "replace", "proxy", entry.ip, "dev", entry.link)
    state = entry.state.lower() if entry.state in _USABLE else "stale"
    words = ["neighbour", "replace", entry.ip, "dev", entry.link, "nud", state]
    words += ["lladdr", entry.mac] if entry.mac else []
    return line(*words, *(["router"] if entry.router else []))


def delete_neighbour(entry: Neighbour) -> str:
    proxy = ["proxy"] if entry.proxy else []
    return line("neighbour", "delete", *proxy, entry.ip, "dev", entry.link)


def append_route(hops: Sequence[Route]) -> str:
    """A route, behind others of the same destination and metric."""
    return line("route", "append", *_route(hops))


def replace_route(hops: Sequence[Route]) -> str:
    """A route, in the place of the one with the same destination and metric."""
    return line("route", "replace", *_route(hops))


def delete_route(hops: Sequence[Route]) -> str:
    return line("route", "delete", *_route_key(hops[0]), *_hops(hops))


def _route_key(route: Route) -> list[str]:
    words = [] if route.type == "unicast" else [route.type]
    words += [route.destination]
    words += ["tos", route.tos] if route.tos else []
    words += ["table", route.table]
    words += ["proto", route.protocol] if route.protocol else []
    words += ["metric", str(route.metric)] if route.metric else []
    return words


def _route(hops: Sequence[Route]) -> list[str]:
    first = hops[0]
    words = _route_key(first)
    words += ["scope", first.scope] if first.scope and first.family == 4 else []
    words += ["src", first.source] if first.source else []
    words += ["pref", first.preference] if first.preference not in (None, "medium") else []
    words += ["expires", str(first.expires_s)] if first.expires_s is not None else []
    words += first.metrics
    return words + _hops(hops)


def _hops(hops: Sequence[Route]) -> list[str]:
    if len(hops) == 1 and hops[0].weight in (None, 1):
        return _hop(hops[0])
    return [
        word
        for hop in hops
        for word in ("nexthop", *_hop(hop), "weight", str(hop.weight or 1))
    ]  # fmt: skip


def _hop(hop: Route) -> list[str]:
    words: list[str] = []
    if hop.gateway is not None:
        crossed = hop.family == 4 and ":" in hop.gateway
        words += ["via", *(["inet6"] if crossed else []), hop.gateway]
    words += ["dev", hop.link] if hop.link else []
    return words + (["onlink"] if hop.onlink else [])


def add_rule(rule: Rule) -> str:
    """For a batch of the rule's family: no word of a rule tells it."""
    return line("rule", "add", *_rule(rule))


def delete_rule(rule: Rule) -> str:
    return line("rule", "delete", *_rule(rule))


def _rule(rule: Rule) -> list[str]:
    words = ["not"] if rule.inverted else []
    words += ["from", rule.source]
    words += ["to", rule.destination] if rule.destination != "all" else []
    words += ["iif", rule.iif] if rule.iif else []
    words += ["oif", rule.oif] if rule.oif else []
    words += ["fwmark", rule.fwmark] if rule.fwmark else []
    words += ["priority", str(rule.priority)]
    words += ["protocol", rule.protocol] if rule.protocol else []
    words += rule.options
    if rule.action not in {"lookup", "goto"}:
        return [*words, rule.action]
    return [*words, *(["table", rule.table] if rule.table and "goto" not in words else [])]
