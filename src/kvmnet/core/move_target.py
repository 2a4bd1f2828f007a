"""Whether a target exists and carries, before any guest is put on it."""

from __future__ import annotations

import ipaddress

from msgspec import Struct

from kvmnet.core.finding import command, some
from kvmnet.core.network_find import find_network
from kvmnet.core.uplinks import find_nic
from kvmnet.errors import NotFound, Refused
from kvmnet.model.state import State
from kvmnet.model.target import BridgeTarget, DirectTarget, NetworkTarget, Target, UserTarget
from kvmnet.model.values import Cidr

BRIDGED_MODES = frozenset({"nat", "route", "open", "isolated"})
"""Networks that have a bridge of libvirt's own."""
_PLUGS = frozenset({"tap", "macvtap"})


class Carrier(Struct, frozen=True, kw_only=True):
    """What is known of a target."""

    bridge: str | None
    """The bridge that a guest's tap becomes a port of; None: there is none (macvtap, user)."""
    subnets: tuple[Cidr, ...] = ()
    """IPv4 subnets of its LAN, as far as the host knows them."""
    warnings: tuple[str, ...] = ()


def check(state: State, target: Target) -> Carrier:
    """What carries the target. Raises `NotFound`, `Refused`."""
    match target:
        case NetworkTarget():
            return _network(state, target.name)
        case BridgeTarget():
            return _bridge(state, target.name)
        case DirectTarget():
            return _direct(state, target)
        case UserTarget():
            return Carrier(
                bridge=None,
                warnings=(
                    "a user's network lets nobody in, and the host does not reach the guest",
                ),
            )


def _network(state: State, name: str) -> Carrier:
    network = find_network(state, name)
    config = network.config
    if not network.active or config is None:
        raise Refused(
            f"network {name} carries nobody",
            why="it is not active",
            hint=command("kvmnet", "network", "start", name),
        )
    if config.mode == "bridge" and config.bridge is not None:
        return _bridge(state, config.bridge)
    subnets = tuple(_subnet(x.address, x.prefix_len) for x in config.ips if x.family == 4)
    return Carrier(bridge=config.bridge if config.mode in BRIDGED_MODES else None, subnets=subnets)


def _subnet(ip: str, prefix_len: int) -> Cidr:
    return Cidr(str(ipaddress.ip_interface(f"{ip}/{prefix_len}").network))


def _bridge(state: State, name: str) -> Carrier:
    link = state.link(name)
    if link is None:
        names = some(x.name for x in state.links if x.bridge is not None)
        raise NotFound(
            f"there is no bridge {command(name)}",
            why=f"there are: {names}" if names else "there is no bridge at all",
            hint=f"make it: {command('kvmnet', 'bridge', 'create', name, '--port')} NIC",
        )
    if link.bridge is None:
        raise Refused(
            f"{link.name} is no bridge",
            why=f"it is a NIC of kind {link.kind}",
            hint=f"--to direct:{link.name}, or make a bridge of it: kvmnet bridge create br0 "
            f"--port {link.name}",
        )
    if not link.up:
        raise Refused(
            f"bridge {link.name} carries nobody", why="it is down",
            hint=f"ip link set {link.name} up",
        )  # fmt: skip
    subnets = tuple(
        _subnet(x.ip, x.prefix_len)
        for x in state.addresses
        if x.link == link.name and x.family == 4 and x.scope == "global"
    )
    return Carrier(bridge=link.name, subnets=subnets, warnings=_uplink_warnings(state, link.name))


def _uplink_warnings(state: State, bridge: str) -> tuple[str, ...]:
    owner = next(
        (x.name for x in state.networks
         if x.live is not None and x.live.bridge == bridge and x.live.mode != "bridge"), None
    )  # fmt: skip
    if owner is not None:
        return (f"bridge {bridge} is that of network {owner}, and goes when it stops: "
                f"--to network:{owner} is the same and lasts",)  # fmt: skip
    uplinks = [x for x in state.ports(bridge) if x.kind not in _PLUGS]
    if not uplinks:
        return (f"bridge {bridge} has no NIC of the host as its port: guests on it reach only "
                "each other and the host",)  # fmt: skip
    if all(x.carrier is False or not x.up for x in uplinks):
        return (f"no port of bridge {bridge} has a cable: {', '.join(x.name for x in uplinks)}",)
    return ()


def _direct(state: State, target: DirectTarget) -> Carrier:
    link = find_nic(state, target.nic)
    if link.bridge is not None:
        raise Refused(
            f"{link.name} is a bridge", why="a macvtap is made on a NIC",
            hint=f"--to bridge:{link.name}",
        )  # fmt: skip
    if link.master is not None:
        raise Refused(
            f"{link.name} takes no macvtap", why=f"it is a port of {link.master}",
            hint=f"--to bridge:{link.master}",
        )  # fmt: skip
    if link.kind == "wireless":
        raise Refused(
            f"{link.name} takes no guests", why="a wireless station sends frames of its own MAC "
            "only", hint="--to network:default",
        )  # fmt: skip
    warnings = [f"by a macvtap the guest and this host do not reach each other; the LAN of "
                f"{link.name} does"]  # fmt: skip
    if not link.up or link.carrier is False:
        warnings.append(f"{link.name} has no cable, or is down")
    return Carrier(bridge=None, warnings=tuple(warnings))
