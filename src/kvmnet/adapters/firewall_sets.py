"""Reads the elements of named sets and maps that firewall rules refer to, within bounds."""

from __future__ import annotations

from kvmnet.adapters.run import run
from kvmnet.errors import CommandFailed, InvalidInput, TimedOut, Unavailable
from kvmnet.formats import ipset, nft_values
from kvmnet.model.firewall import FirewallSet
from kvmnet.model.host import FirewallChain
from kvmnet.model.state import Unread

MAX_SETS = 32
MAX_ELEMENTS = 20_000
"""Of larger sets nothing is kept: whether an address is in them stays unknown."""
TIMEOUT_S = 3.0

_Place = tuple[str, str, str]


def read_sets(chains: tuple[FirewallChain, ...], missing: list[Unread]) -> tuple[FirewallSet, ...]:
    """The sets that the rules of these chains name; what can't be read adds to `missing`."""
    wanted = _wanted(chains)
    if len(wanted) > MAX_SETS:
        missing.append(
            Unread(what="firewall (sets)", why=f"rules name {len(wanted)}, the first {MAX_SETS} "
                   "are read")
        )  # fmt: skip
    found: list[FirewallSet] = []
    own = [x for x in wanted if not x[0]]
    for place in [x for x in wanted if x[0]][:MAX_SETS]:
        found += _attempt(f"firewall (set {' '.join(place)})", place, missing)
    if own:
        names = {x[2] for x in own}
        found += [x for x in _attempt("firewall (ipset)", None, missing) if x.name in names]
    return tuple(_bounded(x) for x in found)


def _wanted(chains: tuple[FirewallChain, ...]) -> list[_Place]:
    """Where the named sets are: family, table and name; for those of ipset only a name."""
    names: dict[_Place, None] = {}
    for chain in chains:
        scope = (chain.family, chain.table) if chain.backend == "nft" else ("", "")
        for rule in chain.rules:
            for name in (*(x.set_name for x in rule.more), rule.branch_set):
                if name is not None:
                    names[(*scope, name)] = None
    return list(names)


def _attempt(what: str, place: _Place | None, missing: list[Unread]) -> list[FirewallSet]:
    try:
        return _read_ipsets() if place is None else _read_set(place)
    except (CommandFailed, Unavailable, InvalidInput, TimedOut) as error:
        missing.append(Unread(what=what, why=error.why or error.what, hint=error.hint))
        return []


def _read_set(place: _Place) -> list[FirewallSet]:
    words = ["nft", "--json", "list"]
    answer = run([*words, "set", *place], timeout=TIMEOUT_S, accept=(0, 1))
    if answer.status != 0:
        answer = run([*words, "map", *place], timeout=TIMEOUT_S)
    found = nft_values.parse_set(answer.stdout)
    return [] if found is None else [found]


def _read_ipsets() -> list[FirewallSet]:
    return list(ipset.parse(run(["ipset", "save"], timeout=TIMEOUT_S).stdout))


def _bounded(found: FirewallSet) -> FirewallSet:
    if len(found.elements) + len(found.branches) <= MAX_ELEMENTS:
        return found
    return FirewallSet(family=found.family, table=found.table, name=found.name, complete=False)
