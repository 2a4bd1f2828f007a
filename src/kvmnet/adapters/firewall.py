"""Reads the firewall: its rulesets, and which programs keep them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from kvmnet.adapters import libvirt_daemon, process
from kvmnet.adapters.files import read_optional
from kvmnet.adapters.run import find_program
from kvmnet.model.firewall import FirewallSet
from kvmnet.model.host import Firewall, FirewallChain
from kvmnet.model.state import Unread

_BACKEND = re.compile(r'^\s*firewall_backend\s*=\s*"([^"]+)"', re.MULTILINE)


def read_firewall(
    root: Path = Path("/"), *, with_sets: bool = False
) -> tuple[Firewall, tuple[Unread, ...]]:
    """All rulesets, and what could not be read of them.

    The elements of named sets that rules refer to are read only `with_sets`: they may be many.
    """
    missing: list[Unread] = []
    chains = _chains(root, missing)
    backend = _BACKEND.search(read_optional(root / "etc/libvirt/network.conf") or "")
    firewall = Firewall(
        known=not missing,
        chains=chains,
        sets=_sets(chains, missing) if with_sets else (),
        front_ends=_front_ends(chains, root),
        programs=_programs(),
        libvirt_daemon=_daemon(root),
        firewalld_late_s=_firewalld_late_s(root),
        libvirt_backend=backend[1] if backend else None,
    )
    return firewall, tuple(missing)


def _chains(root: Path, missing: list[Unread]) -> tuple[FirewallChain, ...]:
    """The parsers of rules are loaded where there can be any."""
    has_nft = not _has_no_nft()
    names = (root / f"proc/net/{x}_tables_names" for x in ("ip", "ip6"))
    if not has_nft and not any(map(read_optional, names)):
        return ()
    from kvmnet.adapters import rulesets

    chains = rulesets.read_nft(missing) if has_nft else ()
    return rulesets.with_iptables(chains, root, missing)


def _sets(chains: tuple[FirewallChain, ...], missing: list[Unread]) -> tuple[FirewallSet, ...]:
    from kvmnet.adapters.firewall_sets import read_sets

    return read_sets(chains, missing)


def _has_no_nft() -> bool:
    """Whether the kernel's part of nftables is not loaded, so that there are no rules.

    `nft` would load it only to find nothing. Where that can not be told for sure, `nft` is asked.
    """
    builtin = read_optional(Path("/lib/modules", os.uname().release, "modules.builtin"))
    loaded = read_optional(Path("/proc/modules"))
    if not builtin or loaded is None:
        return False
    return not re.search(r"^nf_tables ", loaded, re.MULTILINE) and "/nf_tables.ko" not in builtin


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
