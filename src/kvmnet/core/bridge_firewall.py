"""What the host's firewall will do once a NIC is a bridge's port: said and mended beforehand.

Two things change. The host's own packets come and go by the bridge, so a rule that names the NIC
no longer matches them. And where br_netfilter is on, the frames that guests exchange with the LAN
pass the chains of the forward hook, in and out by the bridge (kernel:
Documentation/networking/ip-sysctl.rst, `bridge-nf-call-iptables`; Docker switches it on).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
from msgspec import Struct

from kvmnet.core.firewall import Packet, Passage, passage
from kvmnet.core.firewall_fix import in_docker_user, keep_in_docker, not_docker
from kvmnet.core.openings import DOCKER_USER, MAX_CHAINS, place_for_rule, with_opening
from kvmnet.errors import Refused
from kvmnet.model.host import Firewall, FirewallChain, FirewallRule
from kvmnet.model.opening import Opening
from kvmnet.model.plan import CloseOpening, MakeOpening, PlannedStep
from kvmnet.model.state import State

IpFamily = Literal["ip", "ip6"]

_NF_CALL: tuple[tuple[IpFamily, str], ...] = (
    ("ip", "net.bridge.bridge-nf-call-iptables"),
    ("ip6", "net.bridge.bridge-nf-call-ip6tables"),
)
_PROTOCOLS: dict[str, Literal["udp", "tcp", "ipv6-icmp"]] = {
    "tcp": "tcp",
    "udp": "udp",
    "ipv6-icmp": "ipv6-icmp",
    "icmpv6": "ipv6-icmp",
}


class BridgeFirewall(Struct, frozen=True, kw_only=True):
    """What has to be done to the firewall, and what people should know."""

    steps: tuple[PlannedStep, ...] = ()
    notes: tuple[str, ...] = ()


def prepare(state: State, nic: str | None, bridge: str) -> BridgeFirewall:
    """What a bridge that takes the place of `nic` (None: of none) needs of the firewall.

    Raises `Refused` where the host itself would be cut off.
    """
    if nic is not None:
        _check_own_packets(state.firewall, nic, bridge)
    openings: list[Opening] = []
    notes: list[str] = []
    for family, setting in _NF_CALL:
        if state.sysctl(setting) == "1":
            found, told = _guests_frames(state.firewall, bridge, family)
            openings += found
            notes += told
    steps = tuple(
        PlannedStep(step=MakeOpening(opening=x), undo=CloseOpening(opening=x))
        for x in dict.fromkeys(openings)  # one of both families is needed by each of them
    )
    return BridgeFirewall(steps=steps, notes=tuple(notes))


def _check_own_packets(firewall: Firewall, nic: str, bridge: str) -> None:
    """Packets of the host itself that pass now because a rule names the NIC must pass later."""
    lost: list[str] = []
    for chain, rule in _rules_naming(firewall, nic):
        packet = _packet_of(chain, rule, nic)
        if packet is None or passage(firewall, packet).outcome != "passes":
            continue
        after = passage(firewall, _by_bridge(packet, nic, bridge))
        if after.outcome == "blocked":
            lost.append(f"{chain.family} {chain.table} {chain.name}: {rule.text}")
    if lost:
        raise Refused(
            f"{nic} can not become a port of {bridge}",
            why=f"the firewall lets these packets of the host in or out by {nic} only, and they "
            f"will come by {bridge}: {'; '.join(lost)}",
            hint=f"add the same rules for {bridge} first (a rule may name a NIC that is not there)",
        )


def _rules_naming(firewall: Firewall, nic: str) -> Iterator[tuple[FirewallChain, FirewallRule]]:
    return (
        (chain, rule)
        for chain in firewall.chains
        if chain.type in (None, "filter") and chain.family in {"ip", "ip6", "inet"}
        for rule in chain.rules
        if nic in {rule.iif, rule.oif} and rule.verdict in {"accept", "jump", "goto"}
    )


def _packet_of(chain: FirewallChain, rule: FirewallRule, nic: str) -> Packet | None:
    """A packet of the host itself that the rule is made for; None where kvmnet can't make one."""
    protocol = _PROTOCOLS.get(rule.protocol or "tcp")
    if protocol is None:
        return None
    port = rule.dports[0].replace(":", "-").partition("-")[0] if rule.dports else "22"
    incoming = rule.iif == nic
    return Packet(
        hook="input" if incoming else "output",
        what="a packet of the host itself",
        family="ip6" if chain.family == "ip6" or protocol == "ipv6-icmp" else "ip",
        iif=nic if incoming else None,
        oif=None if incoming else nic,
        protocol=protocol,
        dport=int(port) if port.isdecimal() else 0,
        source=rule.source,
        destination=rule.destination,
        ct_state=rule.ct_states[0] if rule.ct_states and "new" not in rule.ct_states else "new",
    )


def _by_bridge(packet: Packet, nic: str, bridge: str) -> Packet:
    return msgspec.structs.replace(
        packet,
        iif=bridge if packet.iif == nic else packet.iif,
        oif=bridge if packet.oif == nic else packet.oif,
    )


def _guests_frames(
    firewall: Firewall, bridge: str, family: IpFamily
) -> tuple[list[Opening], list[str]]:
    """The openings without which frames between guests and the LAN would be dropped."""
    packet = Packet(
        hook="forward", what="a frame between a guest and the LAN", family=family,
        iif=bridge, oif=bridge, protocol="tcp", dport=443,
    )  # fmt: skip
    first = passage(firewall, packet)
    if first.outcome == "passes":
        return [], []
    if first.outcome == "unclear":
        return [], [f"the firewall may drop guests' frames on {bridge}: {first.evidence}"]
    openings: list[Opening] = []
    now, blocked = firewall, first
    while blocked.outcome == "blocked" and len(openings) < MAX_CHAINS:
        opening = _opening(now, blocked, bridge)
        if opening is None or opening in openings:
            break
        openings.append(opening)
        now = with_opening(now, opening)
        blocked = passage(now, packet)
    if blocked.outcome == "blocked":
        return [], [f"the firewall drops guests' frames on {bridge}: {first.evidence}"]
    docker = in_docker_user(openings)
    notes = [
        f"without an opening the firewall would drop guests' frames on {bridge} "
        f"({first.evidence}); the openings in {DOCKER_USER} {keep_in_docker(docker)}"
    ] if docker else []  # fmt: skip
    if not_docker(openings):
        notes.append(_how_to_keep(firewall, first, bridge))
    return openings, notes


def frame_openings(firewall: Firewall, bridge: str, family: IpFamily) -> tuple[Opening, ...]:
    """The openings without which frames through a bridge would be dropped; none that do not do."""
    return tuple(_guests_frames(firewall, bridge, family)[0])


def _opening(firewall: Firewall, blocked: Passage, bridge: str) -> Opening | None:
    base = blocked.base
    if base is None or base.family not in {"ip", "ip6", "inet"}:
        return None
    return Opening(
        backend=base.backend,
        family="ip6" if base.family == "ip6" else "ip" if base.family == "ip" else "inet",
        table=base.table,
        chain=place_for_rule(firewall, base),
        comment=f"kvmnet:{bridge}",
        iif=bridge,
        oif=bridge,
    )


def _how_to_keep(firewall: Firewall, blocked: Passage, bridge: str) -> str:
    told = (
        f"without its opening the firewall would drop guests' frames on {bridge} "
        f"({blocked.evidence}); the opening is lost when the firewall is loaded anew"
    )
    if "ufw" in firewall.front_ends:
        return f"{told}; to keep it: ufw route allow in on {bridge} out on {bridge}"
    if "firewalld" in firewall.front_ends and blocked.base and blocked.base.backend == "nft":
        # What its direct rules accept, in iptables, its own chains reject all the same.
        return (
            f"{told}; to keep it, in a zone that may forward: "
            f"firewall-cmd --permanent --add-interface={bridge}; firewall-cmd --permanent "
            "--add-forward"
        )
    if "firewalld" in firewall.front_ends:
        return (
            f"{told}; to keep it: firewall-cmd --permanent --direct --add-passthrough "
            f"{'ipv6' if blocked.packet.family == 'ip6' else 'ipv4'} "
            f"-I FORWARD -i {bridge} -o {bridge} -j ACCEPT"
        )
    return f"{told}; to keep it, add the rule to your own firewall's files"
