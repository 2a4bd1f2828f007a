"""Checks of addresses: twice the same, overlapping subnets, taken out of a DHCP range."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterator

from kvmnet.core import mending
from kvmnet.core.finding import MANY, Finding, command, some
from kvmnet.core.subnets import Clash, clashes
from kvmnet.model.host import Neighbour
from kvmnet.model.state import State
from kvmnet.model.values import Mac
from kvmnet.model.virt import Guest, NetworkIp

FLAPPING_S = 60
"""A bridge that heard a MAC elsewhere so long ago hears it there now and then."""


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
                breaks=f"guests {some(x.name for x in guests)} take each other's frames and "
                "addresses as soon as two of them run",
                evidence=(f"NICs of: {some(x.name for x in guests)}",),
                fix=("kvmnet mac",),
            )  # fmt: skip
    yield from _also_elsewhere(state)
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
                breaks="they get one address in turn: one of them is always offline",
                evidence=(f"client-id {client}: {some(sorted(macs))}",
                          *((f"guests: {some(sorted(names))}",) if names else ()),
                          "clones of one image ask alike while they share one /etc/machine-id"),
            )  # fmt: skip


def _also_elsewhere(state: State) -> Iterator[Finding]:
    """A guest's MAC that the host has too, or that a bridge hears behind another port as well."""
    hosts: dict[Mac | None, str] = {
        x.mac: x.name for x in state.links if x.mac and x.kind not in {"tap", "macvtap"}
    }
    learnt = [x for x in state.forwarding if x.kind == "learned" and (x.age_s or 0) <= FLAPPING_S]
    ports = {(x.bridge, x.mac): x for x in learnt}
    masters = {x.name: x.master for x in state.links}
    for guest in state.guests:
        own = {x.target for x in guest.live_nics}
        for nic in guest.live_nics:
            other, bridge = hosts.get(nic.mac), masters.get(nic.target or "")
            seen = ports.get((bridge, nic.mac)) if bridge and nic.mac else None
            if nic.type in {"network", "bridge"} and other is not None:
                where, evidence = f"the host's {other}", f"ip link show {other}: {nic.mac}"
            elif seen is not None and seen.port not in own:
                where = f"something behind {seen.port}"
                evidence = f"bridge fdb: {nic.mac} dev {seen.port} master {bridge}"
            else:
                continue
            yield Finding(
                name="duplicate-identity", severity="problem", subject=f"guest {guest.name}",
                what=f"its MAC {nic.mac} is also that of {where}",
                breaks=f"frames for guest {guest.name} go to either of them",
                evidence=(f"guest {guest.name}: NIC {nic.mac}, tap {nic.target}", evidence),
                fix=("kvmnet mac", command("virsh", "edit", guest.name)),
            )  # fmt: skip


def subnet_overlap(state: State) -> Iterator[Finding]:
    """A network whose subnets the host already reaches otherwise: one finding for each network."""
    found: defaultdict[tuple[str, str], list[Clash]] = defaultdict(list)
    for clash in clashes(state):
        found[clash.network.connection, clash.network.name].append(clash)
    for several in found.values():
        network, first = several[0].network, several[0]
        more = f" and {len(several) - 1} more" if len(several) > 1 else ""
        yield Finding(
            name="subnet-overlap",
            severity="problem" if network.active else "warning",
            subject=f"network {network.name}",
            what=f"its subnet {first.subnet} overlaps {first.other.by}{more}",
            breaks=f"guests on {network.name} do not reach what is really there, or the host "
            "does not reach them" if network.active
            else f"the network {network.name} can not start while {first.other.subnet} is in use",
            evidence=(*dict.fromkeys(f"network {network.name}: {x.subnet}" for x in several),
                      *(f"{x.other.by}: {x.other.subnet}" for x in several[:MANY])),
            fix=(command("kvmnet", "network", "create", f"{network.name}2", "--subnet", "auto"),),
        )  # fmt: skip


_ANSWERED = frozenset({"REACHABLE", "DELAY", "PROBE"})


def address_conflict(state: State) -> Iterator[Finding]:
    """Somebody on a network uses an address of its DHCP range without having leased it."""
    unread = {x.what for x in state.unread}
    leases = {(x.network, x.ip): x for x in state.leases}
    heard = {(x.mac, x.bridge) for x in state.forwarding if x.kind != "local"}
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
            # The host remembers who left (a stand-in guest, too); its bridge forgets with the port.
            alive = entry.state in _ANSWERED if not state.forwarding else (
                (entry.mac, config.bridge) in heard and entry.state in {*_ANSWERED, "STALE"}
            )  # fmt: skip
            if entry.mac is None or not alive or (lease and lease.mac == entry.mac):
                continue
            if entry.ip in fixed or not any(_in_range(ip, entry.ip) for ip in config.ips):
                continue
            holder = f"leased to {lease.mac}" if lease else "leased to nobody"
            yield Finding(
                name="address-conflict", severity="problem" if lease else "warning",
                subject=f"network {network.name}",
                what=f"{entry.mac} uses {entry.ip}, which is {holder}",
                breaks="two guests with one address: connections to it go to either"
                if lease else "the next guest that is given this address shares it",
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
    # The kernel throws its routes away at once when forwarding is switched on, addresses later.
    formed = {x.link for x in state.addresses
              if x.family == 6 and x.dynamic and "mngtmpaddr" in x.flags}  # fmt: skip
    for nic in sorted(learnt | formed):
        prefix = f"net.ipv6.conf.{nic}"
        if (
            settings.get(f"{prefix}.forwarding") == "1"
            and settings.get(f"{prefix}.accept_ra") == "1"
        ):
            yield Finding(
                name="accept-ra", severity="problem", subject=f"NIC {nic}",
                what=f"{nic} {'will lose' if nic in learnt else 'has lost'} its IPv6 route: "
                "forwarding is on, so router advertisements are ignored",
                evidence=(f"{prefix}.forwarding = 1", f"{prefix}.accept_ra = 1",
                          f"a route over {nic} is of protocol ra" if nic in learnt else
                          f"{nic} has an address by router advertisement, and no route by it"),
                breaks="the host's own IPv6, and what guests reach by it, once the route runs out",
                fix=(command("sysctl", "-w", f"net/ipv6/conf/{nic}/accept_ra=2"),),
                mend=(mending.set_sysctl(f"net/ipv6/conf/{nic}/accept_ra", "2", "1"),),
            )  # fmt: skip
