"""Reads the firewall: nftables, the tables that iptables keeps in it, and iptables-legacy's own."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from kvmnet.adapters import firewall_sets, libvirt_daemon, process
from kvmnet.adapters.files import read_optional
from kvmnet.adapters.run import find_program, run
from kvmnet.errors import CommandFailed, InvalidInput, KvmnetError, Unavailable
from kvmnet.formats import iptables, nft
from kvmnet.model.host import Firewall, FirewallChain
from kvmnet.model.state import Unread

_IPTABLES_TABLES = frozenset({"filter", "nat", "mangle", "raw", "security"})
_FAMILIES: tuple[tuple[Literal["ip", "ip6"], str], ...] = (("ip", "iptables"), ("ip6", "ip6tables"))
_BACKEND = re.compile(r'^\s*firewall_backend\s*=\s*"([^"]+)"', re.MULTILINE)
_AS_ROOT = "run it again as root"


def read_firewall(
    root: Path = Path("/"), *, with_sets: bool = False
) -> tuple[Firewall, tuple[Unread, ...]]:
    """All rulesets, and what could not be read of them.

    The elements of named sets that rules refer to are read only `with_sets`: they may be many.
    """
    missing: list[Unread] = []
    chains = () if _has_no_nft() else _attempt("firewall (nft)", _read_nft, missing)
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
    backend = _BACKEND.search(read_optional(root / "etc/libvirt/network.conf") or "")
    firewall = Firewall(
        known=not missing,
        chains=chains,
        sets=firewall_sets.read_sets(chains, missing) if with_sets else (),
        front_ends=_front_ends(chains, root),
        programs=_programs(),
        libvirt_daemon=_daemon(root),
        firewalld_late_s=_firewalld_late_s(root),
        libvirt_backend=backend[1] if backend else None,
    )
    return firewall, tuple(missing)


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


def _has_no_nft() -> bool:
    """Whether the kernel's part of nftables is not loaded, so that there are no rules.

    `nft` would load it only to find nothing. Where that can not be told for sure, `nft` is asked.
    """
    builtin = read_optional(Path("/lib/modules", os.uname().release, "modules.builtin"))
    loaded = read_optional(Path("/proc/modules"))
    if not builtin or loaded is None:
        return False
    return not re.search(r"^nf_tables ", loaded, re.MULTILINE) and "/nf_tables.ko" not in builtin


def _read_nft() -> tuple[FirewallChain, ...]:
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


def _front_ends(chains: tuple[FirewallChain, ...], root: Path) -> tuple[str, ...]:
    """The programs that manage rules here, told by what they put into them, or by their files."""
    tables = {x.table for x in chains}
    names = {x.name for x in chains}
    ufw = read_optional(root / "etc/ufw/ufw.conf") or ""
    active = {
        "firewalld": "firewalld" in tables
        or "FWDI_public" in names
        or (root / "run/firewalld.pid").exists(),
        "ufw": "ufw-user-input" in names or re.search(r"(?m)^ENABLED=yes", ufw) is not None,
        "docker": bool(names & {"DOCKER", "DOCKER-USER"}) or "docker-bridges" in tables,
    }
    return tuple(name for name, is_active in active.items() if is_active)


def _programs() -> tuple[str, ...]:
    """Which programs are there, without running them: `iptables` is a link to one of two kinds."""
    found = [x for x in ("nft", "iptables") if find_program(x) is not None]
    path = find_program("iptables")
    if path is not None:
        kind = "nft" if "nft" in os.path.realpath(path) else "legacy"
        found.append(f"iptables-{kind}")
    return tuple(found)


def _daemon(root: Path) -> Literal["virtnetworkd", "libvirtd"] | None:
    found = libvirt_daemon.running(root)
    return None if found is None else found[0]


def _firewalld_late_s(root: Path) -> float | None:
    """How long after libvirt's daemon firewalld was started, in seconds."""
    daemon = libvirt_daemon.running(root)
    text = (read_optional(root / "run/firewalld.pid") or "").strip()
    if daemon is None or not text.isdecimal():
        return None
    first, second = process.started(daemon[1]), process.started(int(text))
    if first is None or second is None:
        return None
    return (second - first) / os.sysconf("SC_CLK_TCK")
