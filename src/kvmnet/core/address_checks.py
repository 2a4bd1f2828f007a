"""Checks of addresses: twice the same, overlapping subnets, taken out of a DHCP range."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterator

from kvmnet.core.finding import Finding, command, some
from kvmnet.core.subnets import clashes
from kvmnet.model.host import Neighbour
from kvmnet.model.state import State
from kvmnet.model.values import Mac
from kvmnet.model.virt import Guest, NetworkIp


def duplicate_identity(state: State) -> Iterator[Finding]:
    """One MAC in two guests; one DHCP client-id with two MACs (clones of one image)."""
    owners: defaultdict[Mac, list[Guest]] = defaultdict(list)
    for guest in state.guests:
        for mac in [x.mac for x in guest.nics if x.mac is not None]:
            owners[mac].append(guest)
    for mac, guests in owners.items():
        if len(guests) > 1:
            both = sum(x.active for x in guests) > 1
            yield Finding(
                name="duplicate-identity", severity="problem" if both else "warning",
                subject=f"guest {guests[-1].name}",
                what=f"the MAC address {mac} is used {len(guests)} times",
                evidence=(f"NICs of: {some(x.name for x in guests)}",),
                fix=("kvmnet mac",),
            )  # fmt: skip
    clients: defaultdict[tuple[str, str], set[Mac]] = defaultdict(set)
    for lease in state.leases:
        if lease.client_id is not None and lease.mac is not None and lease.family == 4:
            clients[lease.network, lease.client_id].add(lease.mac)
    for (network, client), macs in clients.items():
        if len(macs) > 1:
            names = {x.name for mac in macs for x in owners.get(mac, ())}
            yield Finding(
                name="duplicate-identity", severity="problem", subject=f"network {network}",
                what=f"{len(macs)} NICs ask for addresses as one and the same client",
                evidence=(f"client-id {client}: {some(sorted(macs))}",
                          *((f"guests: {some(sorted(names))}",) if names else ()),
                          "clones of one image ask alike while they share one /etc/machine-id"),
            )  # fmt: skip


def subnet_overlap(state: State) -> Iterator[Finding]:
    """A network whose subnet the host already reaches otherwise."""
    for clash in clashes(state):
        network, subnet, other = clash.network, clash.subnet, clash.other
        yield Finding(
            name="subnet-overlap",
            severity="problem" if network.active else "warning",
            subject=f"network {network.name}",
            what=f"its subnet {subnet} overlaps {other.by}",
            evidence=(f"network {network.name}: {subnet}", f"{other.by}: {other.subnet}"),
            fix=(command("kvmnet", "network", "create", f"{network.name}2", "--subnet", "auto"),),
        )


def address_conflict(state: State) -> Iterator[Finding]:
    """Somebody on a network uses an address of its DHCP range without having leased it."""
    unread = {x.what for x in state.unread}
    leases = {(x.network, x.ip): x for x in state.leases}
    heard = {(x.mac, x.bridge) for x in state.forwarding if x.kind == "learned"}
    neighbours: defaultdict[str, list[Neighbour]] = defaultdict(list)
    for entry in state.neighbours:
        neighbours[entry.link].append(entry)
    for network in state.networks:
        config = network.live
        if config is None or not config.bridge or f"network {network.name}: leases" in unread:
            continue
        fixed = {x.ip for ip in config.ips for x in ip.reservations}
        for entry in neighbours[config.bridge]:
            lease = leases.get((network.name, entry.ip))
            alive = entry.state in {"REACHABLE", "DELAY", "PROBE"} or (
                (entry.mac, config.bridge) in heard and entry.state == "STALE"
            )
            if entry.mac is None or not alive or (lease and lease.mac == entry.mac):
                continue
            if entry.ip in fixed or not any(_in_range(ip, entry.ip) for ip in config.ips):
                continue
            holder = f"leased to {lease.mac}" if lease else "leased to nobody"
            yield Finding(
                name="address-conflict", severity="problem" if lease else "warning",
                subject=f"network {network.name}",
                what=f"{entry.mac} uses {entry.ip}, which is {holder}",
                evidence=(f"{entry.ip} dev {config.bridge} lladdr {entry.mac} {entry.state}",
                          "it is in the network's DHCP range"),
                fix=(command("virsh", "-c", network.connection, "net-update", network.name, "add",
                             "ip-dhcp-host", f"<host mac='{entry.mac}' ip='{entry.ip}'/>",
                             "--live", "--config"),)
                if not lease else (),
            )  # fmt: skip


def _in_range(config: NetworkIp, text: str) -> bool:
    address = ipaddress.ip_address(text)
    if address.version != config.family:
        return False
    value = int(address)
    return any(
        int(ipaddress.ip_address(x.start)) <= value <= int(ipaddress.ip_address(x.end))
        for x in config.ranges
    )


def accept_ra(state: State) -> Iterator[Finding]:
    """The host's own IPv6 address and route come from router advertisements that it ignores now."""
    settings = {x.name: x.value for x in state.sysctls}
    learnt = {x.link for x in state.routes if x.protocol == "ra" and x.link is not None}
    for nic in sorted(learnt):
        prefix = f"net.ipv6.conf.{nic}"
        if (
            settings.get(f"{prefix}.forwarding") == "1"
            and settings.get(f"{prefix}.accept_ra") == "1"
        ):
            yield Finding(
                name="accept-ra", severity="problem", subject=f"NIC {nic}",
                what=f"{nic} will lose its IPv6 route: forwarding is on, so router "
                "advertisements are ignored",
                evidence=(f"{prefix}.forwarding = 1", f"{prefix}.accept_ra = 1",
                          f"a route over {nic} is of protocol ra"),
                fix=(command("sysctl", "-w", f"net/ipv6/conf/{nic}/accept_ra=2"),),
            )  # fmt: skip
