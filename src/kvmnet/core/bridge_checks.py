"""What keeps a bridge from being made, changed or deleted, because somebody would be harmed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

from kvmnet.core.bridge_picture import default_gateways, global_addresses
from kvmnet.core.finding import command, some
from kvmnet.core.lan_range import is_lan_range
from kvmnet.core.network_find import network_with_bridge
from kvmnet.core.uplinks import shared_lan
from kvmnet.errors import InvalidInput, Refused
from kvmnet.model.arrangement import Arrangement
from kvmnet.model.desired import BridgeRequest
from kvmnet.model.host import Link
from kvmnet.model.state import State

_DOCKER = re.compile(r"docker0|br-[0-9a-f]{12}")
_UNSAFE = re.compile(r"[\"#'\\]")


def check_stp(request: BridgeRequest) -> None:
    """Raise `InvalidInput` for a forward delay that the kernel would refuse (br_stp.c)."""
    delay = request.forward_delay_s
    if delay is not None and request.stp and not 2 <= delay <= 30:
        raise InvalidInput(
            f"a forward delay of {delay:g} s can not be had with spanning tree on",
            why="IEEE 802.1D allows 2 to 30 seconds",
        )


def check_name(state: State, name: str) -> None:
    """Raise `Refused` if a new bridge can not have that name."""
    if _UNSAFE.search(name):
        raise InvalidInput(f"{name!a} can not be a bridge's name", why="it has quotes, # or \\")
    network = network_with_bridge(state, name)
    if network is not None:
        raise Refused(
            f"bridge {name} can not be made",
            why=f"libvirt's network {network.name} makes a bridge of that name",
            hint="choose another name",
        )
    link = state.link(name)
    if link is None:
        return
    if link.kind != "bridge":
        raise Refused(
            f"bridge {name} can not be made",
            why=f"there is a link of that name ({link.kind})",
            hint="choose another name",
        )
    ports = some(x.name for x in state.ports(link.name))
    raise Refused(
        f"bridge {name} can not be made",
        why=f"it is there already, {f'with the ports {ports}' if ports else 'without ports'}",
        hint=f"see it: {command('kvmnet', 'bridge', 'show', name)}; plug a NIC into it: "
        f"{command('kvmnet', 'bridge', 'add-port', name)} NIC",
    )


def check_parts(before: Arrangement, names: Iterable[str]) -> None:
    """Raise `Refused` for routes that kvmnet could not make again."""
    opaque = [x for x in before.routes if x.opaque]
    if opaque:
        raise Refused(
            f"{some(names)} can not be changed",
            why=f"its route to {opaque[0].destination} has parts that kvmnet can not move yet "
            "(a nexthop object or an encapsulation)",
            hint="ip -details route show table all",
        )
    for name in (x.name for x in before.links):
        if _UNSAFE.search(name):
            raise Refused(f"{name!a} can not be changed", why="its name has quotes, # or \\")


def lost_with_the_port(state: State, bridge: Link, ports: Iterable[Link]) -> tuple[str, ...]:
    """Notes on what the kernel forgets when a port leaves its bridge, and no undo brings back."""
    found = []
    for port in ports:
        static = sum(
            x.kind == "static" and (x.port, x.bridge) == (port.name, bridge.name)
            for x in state.forwarding
        )
        lost = [f"{static} static forwarding {'entry' if static == 1 else 'entries'}"] * (
            static > 0
        )
        options = port.port.options if port.port is not None else ()
        if ("vlan_tunnel", "on") in pairwise(options):
            lost.append("which VLAN is which tunnel's")
        if lost:
            found.append(
                f"{port.name} loses {' and '.join(lost)}: the kernel keeps that only while it is a "
                f"port of {bridge.name}, and an undo does not bring it back"
            )
    return tuple(found)


def check_loop(state: State, beside: Iterable[str], nic: str, bridge: str) -> None:
    """Raise `Refused` if the NIC is plugged into the LAN that the bridge is on already."""
    evidence = shared_lan(state, beside, nic)
    if evidence is not None:
        raise Refused(
            f"{nic} can not become a port of {bridge}",
            why=f"that would be a loop: {evidence}, so both are plugged into the same LAN",
            hint="unplug one of them, make a bond of them, or have the bridge find loops: --stp on",
        )


def check_cut_off(state: State, name: str, what: str) -> None:
    """Raise `Refused` if the host would be cut off without the addresses of that link."""
    addresses = global_addresses(state, name)
    gateways = default_gateways(state, name)
    others = [
        x for x in state.addresses
        if x.link != name and x.scope == "global" and not x.ip.startswith(("127.", "::1"))
    ]  # fmt: skip
    if not gateways and (others or not addresses):
        return
    why = "the host's default route leads out by it" if gateways else "it has the only address"
    raise Refused(
        what,
        why=f"{why}, so the host would be cut off",
        hint="have the bridge take it over: --address keep",
    )


def check_owned(state: State, bridge: Link) -> None:
    """Raise `Refused` for a bridge that libvirt, Docker or Open vSwitch made and cares for."""
    network = network_with_bridge(state, bridge.name)
    config = network.config if network is not None else None
    if network is not None and config is not None and config.mode != "bridge":
        raise Refused(
            f"bridge {bridge.name} can not be changed",
            why=f"it is that of libvirt's network {network.name}",
            hint=command("kvmnet", "network", "delete", network.name),
        )
    if _DOCKER.fullmatch(bridge.name):
        raise Refused(
            f"bridge {bridge.name} can not be changed",
            why="Docker made it and cares for it",
            hint="docker network ls",
        )


def check_networks(state: State, nic: str, bridge: str) -> None:
    """Raise `Refused` if guests of a network go out by that NIC only.

    libvirt binds a network that names a NIC to it: its rules match no other. One that is off now
    but starts with the host would be cut off at the next boot.
    """
    bound = [
        x
        for x in state.networks
        if (x.active or x.autostart) and x.config is not None and nic in x.config.uplinks
    ]
    if not bound:
        return
    first, names = bound[0], some(x.name for x in bound)
    if is_lan_range(state, first.config, nic):
        raise Refused(
            f"{nic} can not become a port of {bridge}",
            why=f"the guests of network {first.name} have addresses of its LAN, and this host "
            f"answers for them on {nic} only",
            hint=f"on {bridge} guests get LAN addresses without that: "
            f"{command('kvmnet', 'network', 'delete', first.name)} first",
        )
    raise Refused(
        f"{nic} can not become a port of {bridge}",
        why=f"the guests of network {names} go out by {nic} only, and would be cut off",
        hint=f"have it go out by {bridge}, or by any NIC, first: "
        f"{command('virsh', 'net-edit', first.name)}",
    )
