"""Plans that make, start, stop and delete libvirt networks: pure functions of the State."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable
from uuid import UUID

from msgspec import Struct

from kvmnet.core.accept_ra import accept_ra_steps
from kvmnet.core.macs import QEMU_PREFIX, generate, uses_in
from kvmnet.core.subnets import Occupied, check_subnet, free_subnet, occupied, overlap
from kvmnet.errors import InvalidInput, NotFound, Refused
from kvmnet.model.desired import NetworkRequest
from kvmnet.model.host import Family
from kvmnet.model.plan import (
    DefineNetwork,
    Plan,
    PlannedStep,
    RestoreNetwork,
    SetAutostart,
    StartNetwork,
    StopNetwork,
    UndefineNetwork,
)
from kvmnet.model.state import State
from kvmnet.model.values import Cidr, Ip
from kvmnet.model.virt import DhcpRange, Guest, Network, NetworkConfig, NetworkIp

RandomBytes = Callable[[int], bytes]

NO_PING = "no-ping"
"""dnsmasq's option that leaves out the three seconds it waits for a ping's answer."""

LONGEST_RANGE = 65535
"""Addresses in one DHCP range at most (libvirt: virSocketAddrGetRange)."""

ROUTED = frozenset({"nat", "route", "open"})
"""Modes for which libvirt turns packet forwarding on."""


class Saved(Struct, frozen=True, kw_only=True):
    """What was read beside the State, so that undo restores it exactly."""

    network_xml: str | None = None
    """The network's saved definition, as libvirt printed it."""
    accept_ra_file: str | None = None
    """The text of kvmnet's own sysctl file, if there is one."""


def plan_create(
    state: State, request: NetworkRequest, saved: Saved, random_bytes: RandomBytes
) -> Plan:
    """The plan that makes the network. Raises `InvalidInput` or `Refused`, with what is free."""
    existing = state.network(request.name)
    if existing is not None:
        raise Refused(
            f"there is a network {request.name} already",
            why=f"on {existing.connection}, {'active' if existing.active else 'not active'}",
            hint=f"look at it: kvmnet network show {request.name}",
        )
    config = (
        _bridged_config(state, request)
        if request.mode == "bridge"
        else _own_config(state, request, random_bytes)
    )
    name = request.name
    uuid = str(UUID(bytes=random_bytes(16), version=4))
    steps = [
        *(accept_ra_steps(state, saved.accept_ra_file) if forwards_ipv6(config) else ()),
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
    return Plan(title=f"create network {name}", steps=tuple(steps), notes=_notes(config))


def forwards_ipv6(config: NetworkConfig) -> bool:
    """Whether libvirt turns IPv6 forwarding on for such a network when it starts."""
    return config.mode in ROUTED and any(ip.family == 6 for ip in config.ips)


def _notes(config: NetworkConfig) -> tuple[str, ...]:
    notes = [
        f"dynamic addresses: {one.start} to {one.end}; addresses set by hand belong outside of it"
        for ip in config.ips
        for one in ip.ranges
    ]
    if config.mode == "route":
        subnets = ", ".join(f"{ip.address}/{ip.prefix_len}" for ip in config.ips)
        notes.append(f"the LAN's router needs a route to {subnets} by way of this host")
    return tuple(notes)


def _bridged_config(state: State, request: NetworkRequest) -> NetworkConfig:
    """A network that puts guests on a bridge that the host has already."""
    for value, option in (
        (request.subnet, "--subnet"), (request.dhcp_range, "--dhcp-range"),
        (request.domain, "--domain"), (request.mtu, "--mtu"), (request.uplink, "--uplink"),
        (None if request.ipv6 == "off" else request.ipv6, "--ipv6"),
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
        raise Refused(
            f"there is no bridge {request.bridge}", hint="these are there: kvmnet bridge list"
        )
    if link.kind != "bridge":
        why = f"{link.name} is a NIC of kind {link.kind}"
        if link.kind == "wireless":
            why += ", and a wireless NIC can not be put into a bridge either"
        raise Refused(
            f"{link.name} is not a bridge", why=why,
            hint="guests behind NAT need no bridge: --mode nat",
        )  # fmt: skip
    holder = _network_with_bridge(state, link.name)
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
        ips=tuple(ips),
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
    least = 576 if request.ipv6 == "off" else 1280
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
        raise Refused(f"there is no NIC {request.uplink}", hint=f"these are there: {names}")


def _network_with_bridge(state: State, bridge: str) -> Network | None:
    for network in state.networks:
        if bridge in {c.bridge for c in (network.live, network.saved) if c is not None}:
            return network
    return None


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
    network = _network_with_bridge(state, name)
    if network is not None:
        return f"it is the bridge of network {network.name}"
    return None if link is None else f"the host has a NIC of that name (kind {link.kind})"


def find_network(state: State, name: str) -> Network:
    """The network of that name. Raises `NotFound`, naming those that exist."""
    network = state.network(name)
    if network is None:
        names = ", ".join(sorted(x.name for x in state.networks))
        raise NotFound(
            f"there is no network {name}",
            hint=f"these are there: {names}" if names else "make one: kvmnet up",
        )
    return network


def plan_start(state: State, name: str, saved: Saved) -> Plan:
    """The plan that starts a network; no steps if it is active. Raises `NotFound`, `Refused`."""
    network = find_network(state, name)
    title = f"start network {name}"
    config = network.saved
    if network.active or config is None:
        return Plan(title=title, notes=(f"network {name} is active already",))
    taken = occupied(state, except_network=name)
    for ip in config.ips:
        subnet = Cidr(str(ipaddress.ip_interface(f"{ip.address}/{ip.prefix_len}").network))
        clash = overlap(subnet, tuple(x for x in taken if "(not active)" not in x.by))
        if clash is not None:
            raise Refused(
                f"network {name} can not start", why=f"its {subnet} overlaps {clash.by}",
                hint=f"give it another subnet: virsh net-edit {name}; `kvmnet network create` "
                "finds a free one",
            )  # fmt: skip
    _check_stale_bridge(state, name, config)
    extra = accept_ra_steps(state, saved.accept_ra_file) if forwards_ipv6(config) else ()
    start = PlannedStep(step=StartNetwork(name=name), undo=StopNetwork(name=name))
    return Plan(title=title, steps=(*extra, start))


def _check_stale_bridge(state: State, name: str, config: NetworkConfig) -> None:
    """libvirt makes the bridge itself: one that is there already stops it (`File exists`)."""
    if config.mode not in ROUTED | {"isolated"} or config.bridge is None:
        return
    link = state.link(config.bridge)
    if link is None:
        return
    ports = [port.name for port in state.ports(link.name)]
    way = f"if nobody needs it: ip link delete {link.name}" if not ports else (
        f"name another bridge in the network: virsh net-edit {name}"
    )  # fmt: skip
    raise Refused(
        f"network {name} can not start",
        why=f"a {link.kind} {link.name} is there already"
        + (f", with ports {', '.join(ports)}" if ports else ", without ports"),
        hint=way,
    )


def running_users(state: State, network: Network) -> tuple[Guest, ...]:
    """The running guests that are plugged into the network or straight into its bridge."""
    config = network.live
    bridge = config.bridge if config is not None and config.mode != "bridge" else None
    return tuple(
        guest
        for guest in state.guests
        if guest.active
        and any(
            (nic.type == "network" and nic.source == network.name)
            or (bridge is not None and nic.type == "bridge" and nic.source == bridge)
            for nic in guest.live_nics
        )
    )


def defined_users(state: State, network: Network) -> tuple[Guest, ...]:
    """The guests whose saved definition names the network."""
    return tuple(
        guest
        for guest in state.guests
        if any(nic.type == "network" and nic.source == network.name for nic in guest.saved_nics)
    )


def plan_stop(state: State, name: str, *, even_in_use: bool) -> Plan:
    """The plan that stops a network. Raises `NotFound`; `Refused` while guests use it."""
    network = find_network(state, name)
    title = f"stop network {name}"
    if not network.active:
        return Plan(title=title, notes=(f"network {name} is not active",))
    users = running_users(state, network)
    if users and not even_in_use:
        raise _in_use(name, users, "stopped", f"kvmnet network stop {name} --force")
    return Plan(title=title, steps=(_stop_step(network, users),), notes=_orphans(users))


def _stop_step(network: Network, users: tuple[Guest, ...]) -> PlannedStep:
    names = ", ".join(guest.name for guest in users)
    return PlannedStep(
        step=StopNetwork(name=network.name),
        undo=StartNetwork(name=network.name) if network.persistent else None,
        disturbs=f"guests {names}: cut off from the network" if users else "nobody",
    )


def _in_use(name: str, users: tuple[Guest, ...], verb: str, force: str) -> Refused:
    names = ", ".join(guest.name for guest in users)
    return Refused(
        f"network {name} is not {verb}", why=f"guests use it: {names}",
        hint=f"shut them down first, or cut them off: {force}",
    )  # fmt: skip


def _orphans(users: tuple[Guest, ...]) -> tuple[str, ...]:
    if not users:
        return ()
    return (
        f"{', '.join(guest.name for guest in users)}: the NIC stays in the guest but its tap has "
        "no bridge any more (orphaned tap); it is plugged in again when the guest is started "
        "anew, or when libvirtd is restarted after the network was started again",
    )


def plan_delete(state: State, name: str, saved: Saved, *, even_in_use: bool) -> Plan:
    """The plan that stops and forgets a network. Raises `NotFound`; `Refused` while in use."""
    network = find_network(state, name)
    running = running_users(state, network)
    users = tuple(dict.fromkeys((*running, *defined_users(state, network))))
    if users and not even_in_use:
        raise _in_use(name, users, "deleted", f"kvmnet network delete {name} --force")
    steps: list[PlannedStep] = []
    if network.active:
        steps.append(_stop_step(network, running))
    if network.persistent and saved.network_xml is not None:
        if network.autostart:
            steps.append(
                PlannedStep(
                    step=SetAutostart(name=name, on=False), undo=SetAutostart(name=name, on=True)
                )
            )
        steps.append(
            PlannedStep(
                step=UndefineNetwork(name=name),
                undo=RestoreNetwork(name=name, xml=saved.network_xml),
            )
        )
    notes = _orphans(running)
    left = [guest.name for guest in users if guest not in running]
    if left:
        notes += (f"{', '.join(left)} can not start until they get another network",)
    return Plan(title=f"delete network {name}", steps=tuple(steps), notes=notes)
