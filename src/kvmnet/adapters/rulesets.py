"""Rulesets: nftables, the tables that iptables keeps in it, and iptables-legacy's own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from kvmnet.adapters.files import read_optional
from kvmnet.adapters.run import run
from kvmnet.errors import CommandFailed, InvalidInput, KvmnetError, Unavailable
from kvmnet.formats import iptables, nft
from kvmnet.model.host import FirewallChain
from kvmnet.model.state import Unread

_IPTABLES_TABLES = frozenset({"filter", "nat", "mangle", "raw", "security"})
_FAMILIES: tuple[tuple[Literal["ip", "ip6"], str], ...] = (("ip", "iptables"), ("ip6", "ip6tables"))
_AS_ROOT = "run it again as root"


def read_nft(missing: list[Unread]) -> tuple[FirewallChain, ...]:
    """The chains of nftables; why they can not be read is added to `missing`."""
    return _attempt("firewall (nft)", _nft, missing)


def with_iptables(
    chains: tuple[FirewallChain, ...], root: Path, missing: list[Unread]
) -> tuple[FirewallChain, ...]:
    """nftables' chains, those of iptables among them in its own words, and the legacy ones."""
    for family, program in _FAMILIES:
        if any(x.family == family and x.table in _IPTABLES_TABLES for x in chains):
            saved = _attempt(
                f"firewall ({program})", functools.partial(_read_saved, family), missing
            )
            chains = merged(chains, saved, family)
        names = read_optional(root / f"proc/net/{family}_tables_names")
        if names:
            chains += _attempt(
                f"firewall ({program}-legacy)", functools.partial(_read_legacy, family), missing
            )
    return chains


def _attempt(
    what: str, read: Callable[[], tuple[FirewallChain, ...]], missing: list[Unread]
) -> tuple[FirewallChain, ...]:
    try:
        return read()
    except CommandFailed as error:
        denied = "permitted" in error.stderr or "Permission denied" in error.stderr
        missing.append(Unread(what=what, why=error.why, hint=_AS_ROOT if denied else error.hint))
    except (Unavailable, InvalidInput) as error:
        missing.append(Unread(what=what, why=error.why or error.what, hint=error.hint))
    return ()


def _nft() -> tuple[FirewallChain, ...]:
    # --terse leaves out the elements of named sets: there may be a hundred thousand.
    answer = run(["nft", "--json", "--terse", "list", "ruleset"]).stdout
    if '"rule"' not in answer:
        return nft.parse(answer, {})
    texts = run(["nft", "--handle", "--terse", "list", "ruleset"]).stdout
    return nft.parse(answer, nft.parse_texts(texts))


def _save(family: Literal["ip", "ip6"], variant: str) -> str:
    """What `-save` of that variant prints; distributions without the long name have only one."""
    program = dict(_FAMILIES)[family]
    try:
        return run([f"{program}-{variant}-save", "--counters"]).stdout
    except Unavailable:
        return run([f"{program}-save", "--counters"]).stdout


def _read_saved(family: Literal["ip", "ip6"]) -> tuple[FirewallChain, ...]:
    text = _save(family, "nft")
    if "nf_tables" not in text:
        return ()  # only the legacy variant is installed
    return iptables.parse(text, backend="iptables-nft", family=family)


def _read_legacy(family: Literal["ip", "ip6"]) -> tuple[FirewallChain, ...]:
    text = _save(family, "legacy")
    if "nf_tables" in text:
        raise KvmnetError(
            "legacy tables are in use", why="iptables-legacy is not installed",
            hint="install the package iptables",
        )  # fmt: skip
    return iptables.parse(text, backend="iptables-legacy", family=family)


def merged(
    chains: tuple[FirewallChain, ...], saved: tuple[FirewallChain, ...], family: str
) -> tuple[FirewallChain, ...]:
    """Tables that iptables can tell about are taken from it: nft hides its matches.

    It prints all built-in chains; those that nft does not have do not exist. Only nft knows
    handles.
    """
    real = {(x.table, x.name): x for x in chains if x.family == family}
    told = {(x.table, x.name) for x in saved}
    kept = tuple(x for x in chains if x.family != family or (x.table, x.name) not in told)
    return kept + tuple(
        _with_handles(x, real[x.table, x.name]) for x in saved if (x.table, x.name) in real
    )


def _with_handles(chain: FirewallChain, listed: FirewallChain) -> FirewallChain:
    """The rules stand in the same order in both, unless somebody changed them in between."""
    if len(chain.rules) != len(listed.rules):
        return chain
    rules = tuple(
        msgspec.structs.replace(rule, handle=other.handle)
        for rule, other in zip(chain.rules, listed.rules, strict=True)
    )
    return msgspec.structs.replace(chain, rules=rules)
