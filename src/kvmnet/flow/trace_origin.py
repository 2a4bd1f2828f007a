"""Where a trace's packets enter the host: as a guest's, a stand-in's, the host's, or the LAN's."""

from __future__ import annotations

import os
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)

import msgspec

from kvmnet.core.finding import command
from kvmnet.core.guest_addresses import guest_addresses
from kvmnet.core.missing import no_such
from kvmnet.errors import Failed, InvalidInput, NotFound, Refused
from kvmnet.model.host import Address, Link
from kvmnet.model.state import State
from kvmnet.model.trace import Origin, TraceRequest
from kvmnet.model.values import Ip, Mac
from kvmnet.model.virt import Guest, GuestNic

_TRIES = 64


def find_origin(state: State, request: TraceRequest, to: Ip) -> Origin:
    """Decide how the packets are sent. Raises `NotFound`, `Refused`, `Failed`."""
    name = request.source.name
    match request.source.kind:
        case "host":
            return _host(request, to)
        case "bridge":
            return _plugged(state, request, to, name, f"a stand-in on bridge {name}")
        case "network":
            bridge = _bridge_of(state, name)
            return _plugged(state, request, to, bridge, f"a stand-in on network {name}")
        case "lan":
            return _from_lan(state, request, to)
        case "guest":
            return _as_guest(state, request, to)


def _host(request: TraceRequest, to: Ip) -> Origin:
    own = request.address or Ip("::" if ":" in to else "0.0.0.0")
    return Origin(how="host", sent_by="the host itself", address=own)


def _bridge_of(state: State, name: str) -> str:
    network = state.network(name)
    if network is None:
        raise no_such(state, "network", name)
    if not network.active:
        raise Failed(f"network {name} is not active",
                     hint=command("kvmnet", "network", "start", name))  # fmt: skip
    config = network.config
    if config is None or config.bridge is None:
        raise Refused(f"nothing can be sent on network {name}", why="it has no bridge on this host")
    return config.bridge


def _bridge(state: State, name: str) -> Link:
    link = state.link(name)
    if link is None:
        raise no_such(state, "bridge", name)
    if link.bridge is None:
        raise Refused(f"nothing can be plugged into {name}",
                      why=f"it is no Linux bridge but of kind {link.kind}",
                      hint="list them: kvmnet bridge list")  # fmt: skip
    return link


def own_address(state: State, link: str, family: int) -> Address | None:
    """The host's own address on a link, with its LAN's prefix; link-local ones lead nowhere.

    DHCPv6 gives an address alone (/128, RFC 5942): the prefix is another address's, or a route's.
    """
    every = [x for x in state.addresses
             if x.link == link and x.family == family and x.scope == "global"]  # fmt: skip
    alone = 128 if family == 6 else 32
    wide = next((x for x in every if x.prefix_len < alone), None)
    if wide is not None or not every:
        return wide
    lone = every[0]
    on_link = [
        subnet.prefixlen
        for x in state.routes
        if x.link == link and x.family == family and x.gateway is None and x.table == "main"
        and ip_address(lone.ip) in (subnet := ip_network(x.destination, strict=False))
        and subnet.prefixlen > 0
    ]  # fmt: skip
    return msgspec.structs.replace(lone, prefix_len=min(on_link, default=alone))


def _plugged(state: State, request: TraceRequest, to: Ip, name: str, who: str) -> Origin:
    bridge = _bridge(state, name)
    own = own_address(state, bridge.name, 6 if ":" in to else 4)
    if request.address is not None:
        length = own.prefix_len if own is not None else 24
        chosen = request.address
    elif own is None:
        raise Failed(
            f"no address is known for a stand-in on {name}",
            why=f"the host has none of its own there for IPv{6 if ':' in to else 4}",
            hint="name one that is free: --source ADDRESS",
        )
    else:
        chosen, length = free_address(state, own), own.prefix_len
    return Origin(
        how="plugged", sent_by=who, bridge=bridge.name, address=chosen, prefix_len=length,
        router=None if own is None else _router(state, own, to),
    )  # fmt: skip


def _router(state: State, own: Address, to: Ip) -> Ip | None:
    """Whom a machine in the subnet of this address asks to reach another one."""
    subnet = ip_interface(f"{own.ip}/{own.prefix_len}").network
    if ip_address(to) in subnet:
        return None
    default = "::/0" if ":" in to else "0.0.0.0/0"
    gateways = [
        x for x in state.routes
        if x.destination == default and x.table == "main" and x.link == own.link and x.gateway
    ]  # fmt: skip
    return min(gateways, key=lambda x: x.metric).gateway if gateways else own.ip


def free_address(state: State, own: Address) -> Ip:
    """An address of the subnet that nobody is known to use: outside DHCP's ranges if possible."""
    subnet = ip_network(f"{own.ip}/{own.prefix_len}", strict=False)
    taken = {x.ip for x in state.addresses} | {x.ip for x in state.leases}
    taken |= {x.ip for x in state.neighbours}
    taken |= {a.ip for g in state.guests for a in g.agent_addresses}
    ranges = [
        (ip_address(r.start).packed, ip_address(r.end).packed)
        for network in state.networks if network.config is not None
        for ip in network.config.ips for r in ip.ranges
    ]  # fmt: skip
    second: Ip | None = None
    for candidate in _candidates(subnet):
        if Ip(str(candidate)) in taken:
            continue
        if not any(
            a <= candidate.packed <= b for a, b in ranges if len(a) == len(candidate.packed)
        ):
            return Ip(str(candidate))
        second = second or Ip(str(candidate))
    if second is None:
        raise Failed(f"no free address was found in {subnet}", hint="name one: --source ADDRESS")
    return second


def _candidates(subnet: IPv4Network | IPv6Network) -> list[IPv4Address | IPv6Address]:
    """Addresses in the subnet's upper end first, where few DHCP ranges reach, then at random."""
    size = subnet.num_addresses
    if size <= 2:
        return [subnet[i] for i in range(size)]
    high = [subnet[size - i] for i in range(2, min(10, size - 1))] if subnet.version == 4 else []
    random = [subnet[1 + int.from_bytes(os.urandom(8)) % (size - 2)] for _ in range(_TRIES)]
    return [*high, *random]


def _as_guest(state: State, request: TraceRequest, to: Ip) -> Origin:
    name = request.source.name
    guest = state.guest(name)
    if guest is None:
        raise no_such(state, "guest", name)
    if not guest.active:
        raise Failed(f"guest {name} does not run", hint=command("virsh", "start", name))
    nic = _nic(state, guest, to)
    bridge = nic.bridge or nic.source or ""
    link = None if nic.target is None else state.link(nic.target)
    if link is None or link.master is None:
        at = f"its tap {nic.target}" if nic.target else f"a NIC of type {nic.type}"
        if link is not None:
            raise Failed(f"guest {name} is not plugged in", why=f"{at} is no port of a bridge",
                         hint=f"ip link set {nic.target} master {bridge or 'BRIDGE'}")  # fmt: skip
        raise Refused(f"packets of guest {name} can not be followed",
                      why=f"it has {at}, not one on a bridge of this host")  # fmt: skip
    address, length = _guest_address(state, guest, nic, to)
    address = request.address or address
    own = own_address(state, link.master, 6 if ":" in to else 4)
    if address is None:
        who = f"a stand-in beside guest {name}, whose own address is not known"
        return _plugged(state, request, to, link.master, who)
    return Origin(
        how="aimed", sent_by=f"kvmnet into the tap of guest {name}, as if by the guest",
        link=link.name,
        bridge=link.master, address=address,
        prefix_len=length or (own.prefix_len if own is not None else 24), mac=nic.mac,
        router=None if own is None else _router(state, own, to),
    )  # fmt: skip


def _nic(state: State, guest: Guest, to: Ip) -> GuestNic:
    """The guest's NIC on the host's own bridges that has an address of the right family, or any."""
    plugged = [x for x in guest.nics if x.target is not None and x.mac is not None]
    if not plugged:
        kinds = ", ".join(sorted({x.type for x in guest.nics})) or "none"
        raise Refused(f"packets of guest {guest.name} can not be followed",
                      why=f"it has no NIC on a bridge here; its NICs: {kinds}")  # fmt: skip
    known = (x for x in plugged if _guest_address(state, guest, x, to)[0] is not None)
    return next(known, plugged[0])


def _guest_address(
    state: State, guest: Guest, nic: GuestNic, to: Ip
) -> tuple[Ip | None, int | None]:
    family = 6 if ":" in to else 4
    every = next((x for x in guest_addresses(state)
                  if (x.connection, x.name) == (guest.connection, guest.name)), None)  # fmt: skip
    for found in () if every is None else every.nics:
        if found.mac == nic.mac:
            for address in found.addresses:
                if address.family == family and not address.ip.startswith("fe80:"):
                    return address.ip, address.prefix_len
    return None, None


def _from_lan(state: State, request: TraceRequest, to: Ip) -> Origin:
    name = request.source.name
    nic = state.link(name)
    if nic is None:
        raise NotFound(f"there is no NIC {command(name)}", hint="list them: ip link")
    if nic.kind == "loopback" or nic.bridge is not None:
        raise Refused(f"nothing comes in from a LAN through {name}", why=f"it is a {nic.kind}",
                      hint="name the NIC that the cable is in: kvmnet status")  # fmt: skip
    if not nic.up:
        raise Failed(f"{name} is down", hint=f"ip link set {name} up")
    place = nic.master or nic.name
    family = 6 if ":" in to else 4
    own = own_address(state, place, family)
    gateway = None if own is None else _gateway(state, place, family)
    source = request.address or gateway
    if source is None:
        raise Failed(
            f"no sender is known on the LAN behind {name}",
            why=f"the host has no default gateway there for IPv{family}",
            hint="name an address that such packets come from: --source ADDRESS",
        )
    mac = _mac_of(state, place, gateway or source)
    if request.address is not None and request.address != gateway:
        who = f"kvmnet into {name}, as if {source} had sent them"
    else:
        who = f"kvmnet into {name}, as if the LAN's gateway had sent them"
    return Origin(
        how="aimed", sent_by=who, link=nic.name, bridge=nic.master, address=source,
        prefix_len=own.prefix_len if own is not None else 24, mac=mac or _STRANGER,
        router=_by_host(state, own, to),
    )  # fmt: skip


_STRANGER = Mac("52:54:00:6b:76:6d")
"""The sender's MAC where it can not be known; from QEMU's prefix, so that no real NIC has it."""


def _gateway(state: State, link: str, family: int) -> Ip | None:
    default = "::/0" if family == 6 else "0.0.0.0/0"
    found = [x for x in state.routes if x.destination == default and x.link == link and x.gateway]
    return min(found, key=lambda x: x.metric).gateway if found else None


def _mac_of(state: State, link: str, ip: Ip) -> Mac | None:
    return next((x.mac for x in state.neighbours if x.link == link and x.ip == ip and x.mac), None)


def _by_host(state: State, own: Address | None, to: Ip) -> Ip | None:
    """From the LAN what is not in its subnet is sent by way of this host."""
    if own is None or any(x.ip == to for x in state.addresses):
        return None if own is None else own.ip
    subnet = ip_interface(f"{own.ip}/{own.prefix_len}").network
    return None if ip_address(to) in subnet else own.ip


def known_mac(state: State, origin: Origin, hop: Ip) -> Mac | None:
    """The MAC of the next hop, as far as the host knows it: its own, a neighbour's, a guest's."""
    place = origin.bridge or origin.link
    for address in state.addresses:
        if address.ip == hop:
            link = state.link(place or "") or state.link(address.link)
            return None if link is None else link.mac
    found = None if place is None else _mac_of(state, place, hop)
    if found is not None:
        return found
    for guest in guest_addresses(state):
        for nic in guest.nics:
            if any(x.ip == hop for x in nic.addresses):
                return nic.mac
    return None


def check_source(request: TraceRequest, to: Ip) -> None:
    """Raise `InvalidInput` where sender and destination are not of one family."""
    if request.address is not None and (":" in request.address) != (":" in to):
        raise InvalidInput(f"{request.address} can not send to {to}",
                           why="one is IPv4, the other IPv6")  # fmt: skip
