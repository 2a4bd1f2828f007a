"""What is wrong with libvirt's own rules: firewall-flushed, firewall-backend, bad-checksum."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from kvmnet.core import mending
from kvmnet.core.finding import Finding, command, some
from kvmnet.core.libvirt_firewall import LIBVIRT_NFTABLES_SINCE, uses_iptables
from kvmnet.core.libvirt_rules import (
    WRITES_RULES,
    forwards,
    is_libvirts,
    late_firewalld,
    masquerades,
    names_bridge,
    reached,
)
from kvmnet.model.host import FirewallChain
from kvmnet.model.plan import PlannedStep, ReloadLibvirt
from kvmnet.model.state import State
from kvmnet.model.virt import Network, NetworkConfig

CHECKSUM_FIXED_SINCE = (11, 0)
"""From this version on libvirt's nftables backend has answers' checksums computed by tc(8)."""


def ruled_networks(state: State) -> Iterator[tuple[Network, NetworkConfig, str]]:
    """Active networks for which libvirt writes rules, with their bridges."""
    for network in state.networks:
        config = network.live
        if network.active and config is not None and config.mode in WRITES_RULES and config.bridge:
            yield network, config, config.bridge


def _version(state: State) -> tuple[int, ...]:
    text = next((x.libvirt_version for x in state.connections), "")
    return tuple(int(x) for x in text.split(".")[:2] if x.isdigit())


def firewall_flushed(state: State) -> Iterator[Finding]:
    """A network runs, but libvirt's rules for it are gone, or no packet comes to them."""
    firewall = state.firewall
    if not firewall.known or firewall.libvirt_backend == "none":
        return
    way_to = reached(firewall)
    own = [x for x in firewall.chains if is_libvirts(x)]
    for network, config, bridge in ruled_networks(state):
        missing = tuple(_missing(own, way_to, config, bridge))
        if missing:
            yield _flushed(state, network, config, bridge, missing)


def _missing(
    own: list[FirewallChain],
    way_to: frozenset[tuple[str, str, str, str]],
    config: NetworkConfig,
    bridge: str,
) -> Iterator[str]:
    naming = [x for x in own if forwards(x) and names_bridge(x, bridge)]
    if not naming:
        yield f"no chain of libvirt's for forwarded packets names {bridge}"
    for chain in naming:
        if _place(chain) not in way_to:
            yield f"{chain.family} {chain.table} {chain.name}: nothing jumps there from a hook"
    subnets = [
        ipaddress.ip_interface(f"{x.address}/{x.prefix_len}").network
        for x in config.ips if x.family == 4
    ] if config.mode == "nat" else []  # fmt: skip
    for subnet in subnets:
        found = [x for x in own if masquerades(x, str(subnet))]
        if not found:
            yield f"no chain of libvirt's masquerades {subnet}"
        elif not any(_place(x) in way_to for x in found):
            yield f"{some(x.name for x in found)}: nothing jumps there from a hook"


def _place(chain: FirewallChain) -> tuple[str, str, str, str]:
    return (chain.backend, chain.family, chain.table, chain.name)


def _flushed(
    state: State, network: Network, config: NetworkConfig, bridge: str, missing: tuple[str, ...]
) -> Finding:
    daemon = state.firewall.libvirt_daemon
    return Finding(
        name="firewall-flushed",
        severity="problem",
        subject=f"network {network.name}",
        what="libvirt's firewall rules for it are gone: something loaded the firewall anew",
        breaks=f"guests on {network.name} reach nothing beyond the host"
        if config.mode == "nat" else f"what libvirt allows and forbids on {bridge} is not in force",
        evidence=missing,
        # When it starts it writes the rules of all networks again; guests and networks go on.
        fix=(command("systemctl", "restart", daemon or "libvirtd"),),
        mend=(PlannedStep(step=ReloadLibvirt(daemon=daemon, bridge=bridge), undo=None),)
        if daemon is not None and uses_iptables(state) else (),
    )  # fmt: skip


def firewall_backend(state: State) -> Iterator[Finding]:
    """The firewall backend that libvirt is told to use, or could use, is not installed."""
    programs, version = state.firewall.programs, _version(state)
    if not programs or not version:
        return
    told = state.firewall.libvirt_backend
    able = version >= LIBVIRT_NFTABLES_SINCE
    there = {x for x, program in (("nftables", "nft"), ("iptables", "iptables"))
             if program in programs}  # fmt: skip
    wanted = {told} if told in {"nftables", "iptables"} else (
        {"nftables", "iptables"} if able else {"iptables"})  # fmt: skip
    if told == "none" or (wanted & there and (able or told != "nftables")):
        return
    package = "iptables" if wanted == {"iptables"} else "nftables"
    yield Finding(
        name="firewall-backend",
        severity="problem",
        subject="the host",
        what=f"libvirt has no firewall program to use: it needs {some(sorted(wanted))}",
        breaks="no network of mode nat, route or isolated can start",
        evidence=(
            f"libvirt {'.'.join(map(str, version))}, firewall_backend "
            f"{'is not set' if told is None else f'= {told}'} in /etc/libvirt/network.conf",
            f"installed: {some(sorted(there)) or 'neither nft nor iptables'}",
        ),
        fix=(command("apt-get", "install", package),)
        if able or told != "nftables" else (),
    )  # fmt: skip


def firewalld_late(state: State) -> Iterator[Finding]:
    """firewalld came after libvirt's daemon, and does not know a network's bridge.

    What it drops for that is a finding of its own, with this as its evidence.
    """
    daemon = state.firewall.libvirt_daemon or "libvirtd"
    for network, _, bridge in ruled_networks(state):
        lines = late_firewalld(state.firewall, bridge)
        if lines:
            yield Finding(
                name="firewall-backend",
                severity="warning",
                subject=f"network {network.name}",
                what=f"firewalld was started after {daemon} and has {bridge} in no zone",
                breaks=f"what guests on {network.name} ask this host for, as soon as firewalld's "
                "default zone refuses it",
                evidence=lines,
                fix=(command("systemctl", "restart", daemon),),
            )


def bad_checksum(state: State) -> Iterator[Finding]:
    """libvirt's nftables backend before 11.0 sends DHCP answers with unfinished checksums."""
    version = _version(state)
    if not LIBVIRT_NFTABLES_SINCE <= version < CHECKSUM_FIXED_SINCE:
        return
    tables = [x for x in state.firewall.chains if x.table == "libvirt_network"]
    rewrites = any("checksum" in rule.text.lower() for x in state.firewall.chains
                   for rule in x.rules)  # fmt: skip
    for network, config, bridge in ruled_networks(state):
        serves = any(x.ranges or x.reservations for x in config.ips if x.family == 4)
        link = state.link(bridge)
        if link is not None and link.tx_checksum is False:
            continue  # it computes them before they go to a guest
        sure = link is not None and link.tx_checksum is True
        if serves and not rewrites and any(names_bridge(x, bridge) for x in tables):
            yield Finding(
                name="bad-checksum",
                severity="note",
                subject=f"network {network.name}",
                what="some guests take no address from it: its DHCP answers have a checksum that "
                "only virtio drivers overlook",
                breaks=f"DHCP of guests on {network.name} that check it (BSDs, systemd-networkd)",
                evidence=(
                    f"libvirt {'.'.join(map(str, version))} uses its nftables backend for {bridge}",
                    "no rule computes the checksum (its iptables backend has CHECKSUM --fill)",
                    *((f"ethtool -k {bridge}: tx-checksumming: on",) if sure else ()),
                ),
                fix=(command("ethtool", "-K", bridge, "tx", "off"),),
                mend=(mending.switch_off(bridge, "tx"),) if sure else (),
            )
