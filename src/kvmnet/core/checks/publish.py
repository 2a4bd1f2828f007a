"""Ports of guests that are led in from outside: publish-rejected, publish-incomplete.

A published port is four rules (libvirt's wiki, Networking, "Forwarding Incoming Connections"): DNAT
of what comes in, an accept before libvirt's own reject, DNAT of what the host itself sends, and
SNAT for guests of the same network, whose answers would else go past the host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from kvmnet.core.checks.firewall import is_meant
from kvmnet.core.checks.libvirt import ruled_networks
from kvmnet.core.finding import Finding, command
from kvmnet.core.firewall import Passage, Ruleset
from kvmnet.core.firewall_evidence import decided_by, evidence
from kvmnet.core.firewall_fix import opening_command
from kvmnet.core.firewall_packet import Packet
from kvmnet.core.firewall_places import uplinks
from kvmnet.core.firewall_ways import Family
from kvmnet.core.libvirt_rules import reached
from kvmnet.core.openings import blockades
from kvmnet.model.host import FirewallChain, FirewallRule
from kvmnet.model.plan import CloseOpening, MakeOpening, PlannedStep
from kvmnet.model.state import State
from kvmnet.model.virt import Network, NetworkConfig


class _Published(Struct, frozen=True, kw_only=True):
    """A rule that leads what comes from outside to a guest."""

    network: Network
    config: NetworkConfig
    bridge: str
    uplink: str
    chain: FirewallChain
    rule: FirewallRule
    family: Family
    address: str
    """The guest's."""
    port: int
    """The guest's; 0: all of them."""

    @property
    def protocol(self) -> str:
        return "udp" if self.rule.protocol == "udp" else "tcp"

    @property
    def subject(self) -> str:
        return f"network {self.network.name}"

    @property
    def shown(self) -> str:
        """The rule with its place."""
        chain = self.chain
        return f"{chain.family} {chain.table} {chain.name} leads it there: {self.rule.text}"

    def packet(self, **more: object) -> Packet:
        """A connection to it, with what `more` says."""
        base = Packet(hook="forward", what="", family=self.family, protocol="tcp", sport=40000)
        own = {"protocol": self.protocol, **more}
        return msgspec.convert({**msgspec.structs.asdict(base), **own}, Packet)


def _published(state: State) -> Iterator[_Published]:
    way_to = reached(state.firewall)
    for network, config, bridge in ruled_networks(state):
        subnets = [
            ipaddress.ip_interface(f"{x.address}/{x.prefix_len}").network for x in config.ips
        ]
        ways = uplinks(state, config)
        for chain in state.firewall.chains:
            place = (chain.backend, chain.family, chain.table, chain.name)
            if chain.hook not in {None, "prerouting"} or place not in way_to:
                continue
            for rule in chain.rules:
                to = _target(rule)
                if to is None or not any(to[0] in x for x in subnets):
                    continue
                family: Family = "ip6" if to[0].version == 6 else "ip"
                uplink = ways.get(family)
                if uplink is not None:
                    yield _Published(
                        network=network, config=config, bridge=bridge, uplink=uplink, chain=chain,
                        rule=rule, family=family, address=str(to[0]), port=to[1],
                    )  # fmt: skip


def _target(rule: FirewallRule) -> (
    tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int] | None
):  # fmt: skip
    """The address and port that a DNAT rule leads to."""
    if rule.verdict != "dnat" or rule.to is None:
        return None
    host, _, port = rule.to.rpartition(":") if rule.to.count(":") in {1} or "]" in rule.to else (
        rule.to, "", "")  # fmt: skip
    first = rule.dports[0].replace(":", "-").partition("-")[0] if rule.dports else ""
    number = port.partition("-")[0] or first
    try:
        return ipaddress.ip_address(host.strip("[]")), int(number) if number.isdecimal() else 0
    except ValueError:
        return None


def publish_rejected(state: State) -> Iterator[Finding]:
    """A port is led to a guest, but a rule behind that refuses the connection."""
    ruleset = Ruleset(state.firewall)
    found = [y for x in _published(state) if (y := _refused(state, ruleset, x)) is not None]
    # All of a network's are one finding, which is mended as a whole or not at all.
    left = {x.subject for x in found if not x.mend}
    for one in found:
        yield msgspec.structs.replace(one, mend=()) if one.subject in left else one


def _refused(state: State, ruleset: Ruleset, published: _Published) -> Finding | None:
    address, port = published.address, published.port
    packet = published.packet(
        hook="forward", what=f"a connection to the published port {port or 'of the guest'}",
        iif=published.uplink, oif=published.bridge, dport=port, destination=address,
        destination_type="unicast", ct_status=("dnat",),
    )  # fmt: skip
    passage = ruleset.passage(packet)
    if passage.outcome != "blocked":
        return None
    several = blockades(state.firewall, [packet], f"kvmnet:{published.network.name}")
    openings = [x for y in several for x in y.openings]
    meant = any(is_meant(x.rule, decided_by(x)) for x in passage.drops)
    return Finding(
        name="publish-rejected",
        severity="problem",
        subject=published.subject,
        what=f"the port that is published to {address} is refused",
        breaks=f"connections from outside to {address}{f' port {port}' if port else ''}: refused",
        evidence=(published.shown, *evidence([passage])),
        fix=tuple(map(opening_command, openings)) or _all_of_it(passage, published),
        mend=() if meant else tuple(
            PlannedStep(step=MakeOpening(opening=x), undo=CloseOpening(opening=x)) for x in openings
        ),
    )  # fmt: skip


def _all_of_it(passage: Passage, published: _Published) -> tuple[str, ...]:
    """A rule before each one that refuses, for a guest of which all ports are published."""
    found: dict[str, None] = {}
    for drop in passage.drops:
        base = drop.base
        six = published.family == "ip6"
        if base.backend == "nft":
            words = ["nft", "insert", "rule", base.family, base.table, base.name]
            words += ["oifname", published.bridge]
            words += ["ip6" if six else "ip", "daddr", published.address]
            found[command(*words, "accept")] = None
        else:
            words = [*_iptables(base.backend, six), "-I", base.name, "-o", published.bridge,
                     "-d", published.address]  # fmt: skip
            found[command(*words, "-j", "ACCEPT")] = None
    return tuple(found)


def _iptables(backend: str, six: bool) -> list[str]:
    program = "ip6tables" if six else "iptables"
    return [program if backend == "iptables-nft" else f"{program}-legacy"]


def publish_incomplete(state: State) -> Iterator[Finding]:
    """A published port that works from outside only: not from the host, or not from guests."""
    ruleset = Ruleset(state.firewall)
    for published in _published(state):
        public = _public(state, published)
        if public is None or not published.port:
            continue
        missing = tuple(_missing(ruleset, published, *public))
        if missing:
            yield Finding(
                name="publish-incomplete",
                severity="note",
                subject=published.subject,
                what=f"{public[0]} port {public[1]}, published to {published.address}, does not "
                f"work from {' and '.join(x.where for x in missing)}",
                breaks="connections to the published port from "
                + " and ".join(x.where for x in missing),
                evidence=(published.shown, *(y for x in missing for y in x.evidence)),
                fix=tuple(y for x in missing for y in x.fix),
            )


def _public(state: State, published: _Published) -> tuple[str, int] | None:
    """The address and port by which it is asked for; None: not one of each."""
    rule = published.rule
    ports = rule.dports
    if len(ports) != 1 or not ports[0].isdecimal():
        return None
    address = (rule.destination or "").partition("/")[0]
    if not address:
        family = 6 if published.family == "ip6" else 4
        own = (x.ip for x in state.addresses if x.link == published.uplink
               and x.family == family and x.scope == "global")  # fmt: skip
        address = next(own, "")
    try:
        return str(ipaddress.ip_address(address)), int(ports[0])
    except ValueError:  # a negation, or no address at all
        return None


class _Missing(Struct, frozen=True, kw_only=True):
    """From where it does not work, and why."""

    where: str
    evidence: tuple[str, ...]
    fix: tuple[str, ...]


def _missing(ruleset: Ruleset, published: _Published, ip: str, port: int) -> Iterator[_Missing]:
    asked = {"destination": ip, "dport": port, "destination_type": "local"}
    target = f"{published.address}:{published.port}" if published.family == "ip" else (
        f"[{published.address}]:{published.port}")  # fmt: skip
    by_host = published.packet(hook="output", oif="lo", source=ip, **asked)
    if not _changes(ruleset, by_host, {"dnat"}):
        yield _Missing(
            where="the host itself",
            evidence=(f"no rule of the hook output leads {ip} port {port} to {target}",),
            fix=_nat(published, "output", -100, ("-d", ip), ("--dport", str(port)),
                     ("DNAT", "--to-destination", target), ()),
        )  # fmt: skip
    subnet = _subnet(published)
    if subnet is None:
        return
    lines: list[str] = []
    fixes: tuple[str, ...] = ()
    other = _another(subnet, published)
    by_guest = published.packet(hook="prerouting", iif=published.bridge, source=other, **asked)
    if not _changes(ruleset, by_guest, {"dnat"}):
        lines.append(f"no rule of the hook prerouting leads {ip} port {port} to {target} for what "
                     f"comes in by {published.bridge}")  # fmt: skip
        fixes += _nat(published, "prerouting", -100, ("-d", ip), ("--dport", str(port)),
                      ("DNAT", "--to-destination", target), ("-i", published.bridge))  # fmt: skip
    back = published.packet(
        hook="postrouting", iif=published.bridge, oif=published.bridge, source=other,
        destination=published.address, dport=published.port, destination_type="unicast",
        ct_status=("dnat",),
    )  # fmt: skip
    if not _changes(ruleset, back, {"masquerade", "snat"}):
        lines.append(f"no rule of the hook postrouting changes the source of {subnet} towards "
                     f"{published.address}: the answer goes past the host")  # fmt: skip
        fixes += _nat(published, "postrouting", 100, ("-s", subnet, "-d", published.address),
                      ("--dport", str(published.port)), ("MASQUERADE",), ())  # fmt: skip
    if lines:
        yield _Missing(where=f"guests on {published.network.name}", evidence=tuple(lines),
                       fix=fixes)  # fmt: skip


def _subnet(published: _Published) -> str | None:
    """The network's subnet that the guest is in."""
    guest = ipaddress.ip_address(published.address)
    every = (
        ipaddress.ip_interface(f"{x.address}/{x.prefix_len}").network
        for x in published.config.ips
    )  # fmt: skip
    return next((str(x) for x in every if guest in x), None)


def _another(subnet: str, published: _Published) -> str:
    """An address of the network that is neither the host's nor the published guest's."""
    taken = {published.address, *(x.address for x in published.config.ips)}
    network = ipaddress.ip_network(subnet)
    return next(str(network[x]) for x in range(2, 5) if str(network[x]) not in taken)


def _changes(ruleset: Ruleset, packet: Packet, verdicts: set[str]) -> bool:
    """Whether a rule changes the packet so, or may: what is not understood proves nothing."""
    passage = ruleset.passage(packet)
    if passage.outcome == "unclear":
        return True
    if any(x.rule is not None and x.rule.verdict in verdicts for x in passage.accepts):
        return True
    return any(
        rule.opaque and rule.verdict in verdicts
        for chain in ruleset.firewall.chains for rule in chain.rules
    )  # fmt: skip


def _nat(
    published: _Published,
    hook: str,
    priority: int,
    addresses: tuple[str, ...],
    port: tuple[str, str],
    action: tuple[str, ...],
    link: tuple[str, ...],
) -> tuple[str, ...]:
    """Commands that add a rule of NAT, in the words of the tool that made the published one."""
    chain, protocol = published.chain, published.protocol
    six = published.family == "ip6"
    if chain.backend != "nft":
        words = [*_iptables(chain.backend, six), "-t", "nat", "-A", hook.upper(), *link]
        return (command(*words, *addresses, "-p", protocol, *port, "-j", *action),)
    daddr = "ip6" if six else "ip"
    table = (chain.family, chain.table)
    told = {"-d": (daddr, "daddr"), "-s": (daddr, "saddr"), "-i": ("iifname",)}
    flags = (*link, *addresses)
    words = [y for x in range(0, len(flags), 2) for y in (*told[flags[x]], flags[x + 1])]
    if action[0] == "MASQUERADE":
        what = ["masquerade"]
    else:
        what = ["dnat", *((daddr,) if chain.family == "inet" else ()), "to", action[2]]
    name = chain.name if hook == "prerouting" else f"published_{hook}"
    made = () if hook == "prerouting" else (
        command("nft", "add", "chain", *table, name,
                f"{{ type nat hook {hook} priority {priority}; }}"),
    )  # fmt: skip
    return (*made, command("nft", "add", "rule", *table, name, *words, protocol, "dport", port[1],
                           *what))  # fmt: skip
