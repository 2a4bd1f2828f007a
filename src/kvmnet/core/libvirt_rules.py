"""libvirt's own rules for a network: whether they are there, and whether packets come to them.

Facts: libvirt's network driver, `network_iptables.c` (chains LIBVIRT_FWI, _FWO, _FWX, _INP, _OUT,
_PRT since 5.1) and `network_nftables.c` (the table libvirt_network since 10.4).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from kvmnet.core.firewall_match import address_bounds
from kvmnet.model.host import Firewall, FirewallChain

WRITES_RULES = frozenset({"nat", "route", "isolated"})
"""Modes for which libvirt writes rules; for `open` it writes none."""


def is_libvirts(chain: FirewallChain) -> bool:
    """Whether the chain is one of those that libvirt makes for its networks."""
    return chain.name.startswith("LIBVIRT_") or chain.table == "libvirt_network"


def forwards(chain: FirewallChain) -> bool:
    """Whether the chain is one of those for packets that the host forwards."""
    return chain.name.startswith("LIBVIRT_FW") or (
        chain.table == "libvirt_network" and chain.type in {None, "filter"}
        and chain.name not in {"guest_nat", "postroute_mangle"}
    )  # fmt: skip


def names_bridge(chain: FirewallChain, bridge: str) -> bool:
    """Whether a rule of the chain names the bridge: virbr1 is not virbr10."""
    name = re.compile(rf"(?<![\w.-]){re.escape(bridge)}(?![\w.-])")
    return any(name.search(rule.text) for rule in chain.rules)


_ZONES = frozenset({"INPUT_ZONES", "FORWARD_IN_ZONES"})
"""Where firewalld's iptables backend names the links of its zones."""


def late_firewalld(firewall: Firewall, bridge: str) -> tuple[str, ...]:
    """What shows that firewalld came after libvirt and has the bridge in no zone; empty: not so.

    libvirt puts its bridges into firewalld's zone `libvirt` when it starts a network, and only
    then; what is in no zone is treated as if it came from the LAN.
    """
    late = firewall.firewalld_late_s
    own = [x for x in firewall.chains if x.table == "firewalld" or x.name in _ZONES]
    if late is None or late <= 0 or not own or not firewall.known:
        return ()
    if any(names_bridge(x, bridge) for x in own):
        return ()
    daemon = firewall.libvirt_daemon or "libvirtd"
    return (f"/proc: firewalld was started {late:.0f} s after {daemon}",
            f"no chain of firewalld's names {bridge}")  # fmt: skip


def masquerades(chain: FirewallChain, subnet: str) -> bool:
    """Whether a rule of the chain masquerades that subnet."""
    own = address_bounds(subnet)
    return any(
        rule.verdict in {"masquerade", "snat"}
        and (rule.source is None or address_bounds(rule.source) == own)
        for rule in chain.rules
    )


def reached(firewall: Firewall) -> frozenset[tuple[str, str, str, str]]:
    """The places of all chains that packets can come to from a hook."""
    by_table: dict[tuple[str, str, str], dict[str, FirewallChain]] = {}
    for chain in firewall.chains:
        by_table.setdefault((chain.backend, chain.family, chain.table), {})[chain.name] = chain
    found: set[tuple[str, str, str, str]] = set()
    for table, chains in by_table.items():
        open_ = [x.name for x in chains.values() if x.hook is not None]
        while open_:
            name = open_.pop()
            if name in chains and (*table, name) not in found:
                found.add((*table, name))
                open_ += _targets(chains[name])
    return frozenset(found)


def _targets(chain: FirewallChain) -> Iterable[str]:
    for rule in chain.rules:
        if rule.target is not None:
            yield rule.target
        yield from (x.target for x in rule.branches if x.target is not None)
