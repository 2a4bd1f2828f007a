"""Openings that guests with LAN addresses need in the firewall that the host has already."""

from __future__ import annotations

import ipaddress
from typing import Literal

from kvmnet.core.firewall import Packet
from kvmnet.core.firewall_fix import in_docker_user, keep_in_docker, not_docker, own_file
from kvmnet.core.firewall_ways import dhcp_request
from kvmnet.core.libvirt_firewall import chains_libvirt_will_fill
from kvmnet.core.openings import DOCKER_USER, blockades
from kvmnet.model.host import FirewallChain, FirewallRule
from kvmnet.model.opening import Opening
from kvmnet.model.plan import CloseOpening, MakeOpening, PlannedStep
from kvmnet.model.state import State
from kvmnet.model.virt import NetworkConfig, NetworkIp


def _mark(network: str) -> str:
    return f"kvmnet:{network}"


def opening_steps(state: State, name: str, config: NetworkConfig) -> tuple[PlannedStep, ...]:
    """Openings for what the LAN and the guests say to each other, where the firewall stops it."""
    found = blockades(
        state.firewall, _packets(config), _mark(name), chains_libvirt_will_fill(state)
    )
    return tuple(
        PlannedStep(step=MakeOpening(opening=one), undo=CloseOpening(opening=one))
        for blockade in found
        for one in blockade.openings
    )


def opening_notes(state: State, steps: tuple[PlannedStep, ...]) -> tuple[str, ...]:
    """That openings do not outlast the ruleset."""
    openings = [x.step.opening for x in steps if isinstance(x.step, MakeOpening)]
    docker, others = in_docker_user(openings), not_docker(openings)
    notes = (f"the openings in {DOCKER_USER} {keep_in_docker(docker)}",) if docker else ()
    if not others:
        return notes
    owners = ", ".join(x for x in state.firewall.front_ends if x != "docker")
    return (
        *notes,
        "the openings last until the firewall is loaded anew; to keep them, put the rules marked "
        f"kvmnet into its own files ({owners or f'often {own_file(others)}'})",
    )


def _packets(config: NetworkConfig) -> tuple[Packet, ...]:
    bridge = config.bridge or ""
    return (
        dhcp_request("prerouting", bridge),
        dhcp_request("input", bridge),
        Packet(hook="output", what="the DHCP answer", oif=bridge, sport=67, dport=68,
               destination=_guest(config.ips[0])),
        Packet(hook="input", what="a guest's DNS query", iif=bridge, dport=53,
               source=_guest(config.ips[0])),
        *_forwarded(config, config.ips[0], "192.0.2.1"),
        *(x for ip in config.ips if ip.family == 6 for x in _packets6(config, ip)),
    )  # fmt: skip


def _packets6(config: NetworkConfig, ip: NetworkIp) -> tuple[Packet, ...]:
    bridge = config.bridge
    return (
        Packet(hook="input", what="a guest's DHCPv6 request", family="ip6", iif=bridge, dport=547),
        Packet(hook="output", what="the DHCPv6 answer", family="ip6", oif=bridge, dport=546),
        *_forwarded(config, ip, "2001:db8::1"),
    )


def _forwarded(config: NetworkConfig, ip: NetworkIp, outside: str) -> tuple[Packet, ...]:
    bridge, uplink = config.bridge, config.uplinks[0]
    guest = _guest(ip)
    family: Literal["ip", "ip6"] = "ip6" if ip.family == 6 else "ip"
    return (
        Packet(hook="forward", what="a guest's connection to the LAN", family=family, iif=bridge,
               oif=uplink, protocol="tcp", dport=443, source=guest, destination=outside),
        Packet(hook="forward", what="the answer from the LAN", family=family, iif=uplink,
               oif=bridge, protocol="tcp", dport=50000, source=outside, destination=guest,
               ct_state="established"),
        Packet(hook="forward", what="a connection from the LAN to a guest", family=family,
               iif=uplink, oif=bridge, protocol="tcp", dport=443, source=outside,
               destination=guest),
        Packet(hook="forward", what="the guest's answer", family=family, iif=bridge, oif=uplink,
               protocol="tcp", dport=50000, source=guest, destination=outside,
               ct_state="established"),
    )  # fmt: skip


def _guest(ip: NetworkIp) -> str:
    block = ipaddress.ip_interface(f"{ip.address}/{ip.prefix_len}").network
    return str(block.network_address + 2)


def closing_steps(state: State, name: str) -> tuple[PlannedStep, ...]:
    """The steps that close what was opened for a network, as far as the firewall was read."""
    mark = _mark(name)
    openings = [
        opening
        for chain in state.firewall.chains
        for rule in chain.rules
        if rule.comment == mark and (opening := _opening(chain, rule)) is not None
    ]
    return tuple(
        PlannedStep(step=CloseOpening(opening=one), undo=MakeOpening(opening=one))
        for one in dict.fromkeys(openings)
    )


def _opening(chain: FirewallChain, rule: FirewallRule) -> Opening | None:
    """The opening that made the rule; None if it is not one that kvmnet makes."""
    family = chain.family
    if family not in {"ip", "ip6", "inet"} or rule.verdict != "accept" or len(rule.dports) > 1:
        return None
    protocol = rule.protocol
    if protocol not in {None, "udp", "tcp", "ipv6-icmp"}:
        return None
    return Opening(
        backend=chain.backend,
        family="ip6" if family == "ip6" else "ip" if family == "ip" else "inet",
        table=chain.table,
        chain=chain.name,
        comment=rule.comment or "",
        iif=rule.iif,
        oif=rule.oif,
        protocol="udp" if protocol == "udp" else "tcp" if protocol == "tcp"
        else None if protocol is None else "ipv6-icmp",
        dport=int(rule.dports[0]) if rule.dports and rule.dports[0].isdigit() else None,
        established=bool(rule.ct_states),
    )  # fmt: skip
