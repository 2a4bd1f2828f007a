"""The plan that makes a libvirt network: a pure function of the State and what was asked for."""

from __future__ import annotations

import ipaddress
import itertools
from uuid import UUID

import msgspec

from kvmnet.core import lan_range6
from kvmnet.core.accept_ra import accept_ra_steps
from kvmnet.core.finding import command
from kvmnet.core.lan_firewall import opening_notes, opening_steps
from kvmnet.core.lan_range import (
    check_options,
    check_range,
    check_uplink,
    range_notes,
    with_range,
)
from kvmnet.core.lan_settings import answer_steps
from kvmnet.core.macs import QEMU_PREFIX, generate, uses_in
from kvmnet.core.missing import no_such
from kvmnet.core.network_find import network_with_bridge
from kvmnet.core.network_plan import RandomBytes, Saved, check_understood, forwards_ipv6
from kvmnet.core.subnets import Occupied, check_subnet, free_subnet, occupied, overlap
from kvmnet.errors import InvalidInput, NotFound, Refused
from kvmnet.model.desired import NetworkRequest
from kvmnet.model.host import Family
from kvmnet.model.plan import (
    DefineNetwork,
    Plan,
    PlannedStep,
    SetAutostart,
    StartNetwork,
    StopNetwork,
    UndefineNetwork,
)
from kvmnet.model.state import State
from kvmnet.model.values import Cidr, Ip
from kvmnet.model.virt import DhcpRange, NetworkConfig, NetworkIp

NO_PING = "no-ping"
"""dnsmasq's option that leaves out the three seconds it waits for a ping's answer."""

LONGEST_RANGE = 65535
"""Addresses in one DHCP range at most (libvirt: virSocketAddrGetRange)."""


def plan_create(
    state: State, request: NetworkRequest, saved: Saved, random_bytes: RandomBytes
) -> Plan:
    """The plan that makes the network.

    Raises `InvalidInput`, `NotFound` (no such bridge or NIC), `Refused`, with what is free.
    """
    existing = state.network(request.name)
    if existing is not None:
        raise Refused(
            f"there is a network {request.name} already",
            why=f"on {existing.connection}, {'active' if existing.active else 'not active'}",
            hint=f"look at it: kvmnet network show {request.name}",
        )
    check_understood(state, request.name)
    if request.lan_range is not None:
        return _plan_lan_range(state, request, request.lan_range, saved, random_bytes)
    config = (
        _bridged_config(state, request)
        if request.mode == "bridge"
        else _own_config(state, request, random_bytes)
    )
    extra = accept_ra_steps(state, saved.accept_ra_file) if forwards_ipv6(config) else ()
    steps = (*extra, *_made(request, config, random_bytes))
    return Plan(title=f"create network {request.name}", steps=steps, notes=_notes(config))


def _plan_lan_range(
    state: State,
    request: NetworkRequest,
    wanted: DhcpRange,
    saved: Saved,
    random_bytes: RandomBytes,
) -> Plan:
    """The plan of a routed network that lives in a part of its uplink's LAN."""
    check_options(request)
    if request.lan_range6 is not None:
        lan_range6.check_with(wanted)
    _check_mtu(request)
    uplink = check_uplink(state, request).name
    check_range(state, uplink, wanted, saved.lan)
    base = msgspec.structs.replace(_base_config(state, request, random_bytes), uplinks=(uplink,))
    notes = range_notes(state, uplink, wanted)
    more: tuple[NetworkIp, ...] = ()
    if request.lan_range6 is not None:
        lan_range6.check_range(state, uplink, request.lan_range6, saved.lan.in_use6)
        more = (lan_range6.range_ip(request.lan_range6),)
        notes += lan_range6.range_notes(request.lan_range6)
    config = with_range(base, wanted, more)
    openings = opening_steps(state, request.name, config)
    steps = (
        *(accept_ra_steps(state, saved.accept_ra_file) if more else ()),
        *answer_steps(state, request.name, config, saved.lan, saved.lan_file),
        *openings,
        *lan_range6.hook_steps(request.name, config),
        *_made(request, config, random_bytes),
        *lan_range6.answer_steps(config),
    )
    return Plan(
        title=f"create network {request.name}",
        steps=steps,
        notes=(*notes, *opening_notes(state, openings)),
    )


def _made(
    request: NetworkRequest, config: NetworkConfig, random_bytes: RandomBytes
) -> tuple[PlannedStep, ...]:
    """Defined, started, and started with the host."""
    name = request.name
    uuid = str(UUID(bytes=random_bytes(16), version=4))
    steps = [
        PlannedStep(
            step=DefineNetwork(name=name, uuid=uuid, config=config),
            undo=UndefineNetwork(name=name, uuid=uuid),
        ),
        PlannedStep(step=StartNetwork(name=name), undo=StopNetwork(name=name, uuid=uuid)),
    ]
    if request.autostart:
        steps.append(
            PlannedStep(
                step=SetAutostart(name=name, on=True), undo=SetAutostart(name=name, on=False)
            )
        )
    return tuple(steps)


def _notes(config: NetworkConfig) -> tuple[str, ...]:
    notes = [
        f"dynamic addresses: {one.start} to {one.end}; addresses set by hand belong outside of it"
        for ip in config.ips
        for one in ip.ranges
    ]
    networks = [
        ipaddress.ip_interface(f"{ip.address}/{ip.prefix_len}").network for ip in config.ips
    ]
    notes += [
        f"{one} is no private subnet: unless it is yours and led to this host, whoever has its "
        "addresses elsewhere is not reached from here while the network is active"
        for one in networks
        if one.is_global
    ]
    if config.mode == "route":
        subnets = ", ".join(map(str, networks))
        notes.append(f"the LAN's router needs a route to {subnets} by way of this host")
    return tuple(notes)


def _bridged_config(state: State, request: NetworkRequest) -> NetworkConfig:
    """A network that puts guests on a bridge that the host has already."""
    for value, option in (
        (request.subnet, "--subnet"), (request.dhcp_range, "--dhcp-range"),
        (request.domain, "--domain"), (request.mtu, "--mtu"), (request.uplink, "--uplink"),
        (None if request.ipv6 == "off" else request.ipv6, "--ipv6"),
        (request.lan_range, "--lan-range"),
    ):  # fmt: skip
        if value is not None:
            raise InvalidInput(
                f"{option} does not go with --mode bridge",
                why="addresses, DHCP, DNS and MTU come from the LAN that the bridge is on",
            )
    if request.bridge is None:
        raise InvalidInput(
            "--mode bridge needs the host's bridge", hint="--bridge br0; see: kvmnet bridge list"
        )
    link = state.link(request.bridge)
    if link is None:
        raise no_such(state, "bridge", request.bridge)
    if link.kind != "bridge":
        why = f"{link.name} is a NIC of kind {link.kind}"
        if link.kind == "wireless":
            why += ", and a wireless NIC can not be put into a bridge either"
        raise Refused(
            f"{link.name} is not a bridge", why=why,
            hint="guests behind NAT need no bridge: --mode nat",
        )  # fmt: skip
    holder = network_with_bridge(state, link.name)
    if holder is not None and holder.config is not None and holder.config.mode != "bridge":
        raise Refused(
            f"{link.name} belongs to the network {holder.name}",
            why="libvirt makes and removes that bridge itself",
            hint=f"plug the guests into it: network:{holder.name}",
        )
    return NetworkConfig(mode="bridge", bridge=link.name)


def _own_config(state: State, request: NetworkRequest, random_bytes: RandomBytes) -> NetworkConfig:
    """A network with a bridge of its own, made by libvirt."""
    taken = occupied(state)
    ips = [_ip_v4(request, taken, random_bytes)]
    if request.ipv6 != "off":
        ips.append(_ip_v6(request, taken, random_bytes))
    _check_mtu(request)
    _check_uplink(state, request)
    return msgspec.structs.replace(_base_config(state, request, random_bytes), ips=tuple(ips))


def _base_config(state: State, request: NetworkRequest, random_bytes: RandomBytes) -> NetworkConfig:
    """All of such a network but its subnets."""
    known = {use.mac for use in uses_in(state)}
    return NetworkConfig(
        mode=request.mode,
        bridge=_bridge_name(state, request.bridge),
        # A bridge without a fixed MAC takes its lowest port's, and guests' ARP entries go stale.
        bridge_mac=generate(QEMU_PREFIX, 1, known, random_bytes)[0],
        stp=False,
        forward_delay_s=0,
        mtu=request.mtu,
        uplinks=() if request.uplink is None else (request.uplink,),
        domain=request.domain,
        dnsmasq_options=() if request.dhcp_ping else (NO_PING,),
    )


def _ip_v4(
    request: NetworkRequest, taken: tuple[Occupied, ...], random_bytes: RandomBytes
) -> NetworkIp:
    subnet = _chosen(request.subnet or "auto", 4, taken, random_bytes)
    network = check_subnet(subnet, 4)
    first = network.network_address + 1
    if request.dhcp_range is not None:
        _check_range(request.dhcp_range, subnet)
    return NetworkIp(
        family=4,
        address=Ip(str(first)),
        prefix_len=network.prefixlen,
        ranges=(request.dhcp_range or dynamic_range(subnet),),
    )


def _ip_v6(
    request: NetworkRequest, taken: tuple[Occupied, ...], random_bytes: RandomBytes
) -> NetworkIp:
    network = check_subnet(_chosen(request.ipv6, 6, taken, random_bytes), 6)
    return NetworkIp(family=6, address=Ip(str(network.network_address + 1)), prefix_len=64)


def _chosen(
    wanted: str, family: Family, taken: tuple[Occupied, ...], random_bytes: RandomBytes
) -> Cidr:
    if wanted == "auto":
        return free_subnet(family, taken, random_bytes)
    subnet = Cidr(wanted)
    check_subnet(subnet, family)
    clash = overlap(subnet, taken)
    if clash is not None:
        free = free_subnet(family, taken, random_bytes)
        option = "--subnet" if family == 4 else "--ipv6"
        raise Refused(
            f"{subnet} is in use", why=f"it overlaps {clash.subnet}: {clash.by}",
            hint=f"this one is free: {option} {free}",
        )  # fmt: skip
    return subnet


def dynamic_range(subnet: Cidr) -> DhcpRange:
    """The part of a subnet that DHCP gives out: what is above its first 100 of 256.

    Below stays room for addresses set by hand and for reservations, where DHCP never collides
    with them: in a /24 .2 to .99, while .100 to .254 are dynamic. A large subnet's range is its
    last part, no longer than libvirt allows.
    """
    network = ipaddress.ip_network(subnet)
    size = network.num_addresses
    offset = max(2, size * 100 // 256, size - 1 - LONGEST_RANGE)
    return DhcpRange(
        start=Ip(str(network.network_address + offset)),
        end=Ip(str(network.broadcast_address - 1)),
    )


def _check_range(wanted: DhcpRange, subnet: Cidr) -> None:
    network = ipaddress.ip_network(subnet)
    start, end = ipaddress.ip_address(wanted.start), ipaddress.ip_address(wanted.end)
    first, last = network.network_address + 2, network.broadcast_address - 1
    problem = ""
    if start.version != 4 or end.version != 4 or start not in network or end not in network:
        problem = f"it is not inside {subnet}"
    elif int(start) > int(end):
        problem = "its end comes before its start"
    elif int(start) < int(first) or int(end) > int(last):
        problem = "it contains the host's own, the network's or the broadcast address"
    elif int(end) - int(start) >= LONGEST_RANGE:
        problem = f"libvirt gives out at most {LONGEST_RANGE} addresses a range"
    if problem:
        raise InvalidInput(
            f"the DHCP range {wanted.start} - {wanted.end} can not be used", why=problem,
            hint=f"{first} to {last} may be given out",
        )  # fmt: skip


def _check_mtu(request: NetworkRequest) -> None:
    least = 576 if request.ipv6 == "off" and request.lan_range6 is None else 1280
    if request.mtu is not None and not least <= request.mtu <= 65535:
        raise InvalidInput(
            f"an MTU of {request.mtu} can not be used",
            why=f"{least} to 65535 are possible (RFC 791, RFC 8200)",
        )


def _check_uplink(state: State, request: NetworkRequest) -> None:
    if request.uplink is None:
        return
    if request.mode in {"isolated", "open"}:
        raise InvalidInput(
            f"--uplink does not go with --mode {request.mode}",
            why="libvirt ties only nat and route networks to one NIC",
        )
    if state.link(request.uplink) is None:
        names = ", ".join(x.name for x in state.links if x.kind != "loopback")
        raise NotFound(f"there is no NIC {command(request.uplink)}", hint=f"there are: {names}")


def _bridge_name(state: State, wanted: str | None) -> str:
    if wanted is None:
        return free_bridge_name(state)
    holder = _bridge_holder(state, wanted)
    if holder is not None:
        free = free_bridge_name(state)
        raise Refused(
            f"the bridge name {wanted} is taken", why=holder, hint=f"this is free: --bridge {free}"
        )
    return wanted


def free_bridge_name(state: State) -> str:
    """The first of virbr0, virbr1 … that neither a link nor a network has."""
    names = (f"virbr{number}" for number in itertools.count())
    return next(name for name in names if _bridge_holder(state, name) is None)


def _bridge_holder(state: State, name: str) -> str | None:
    """Who has that name: a link of the host, or a network, active or not."""
    link = state.link(name)
    network = network_with_bridge(state, name)
    if network is not None:
        return f"it is the bridge of network {network.name}"
    return None if link is None else f"the host has a NIC of that name (kind {link.kind})"
