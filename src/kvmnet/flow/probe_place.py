"""Where a probe is plugged in: the bridge behind a target, and what the host knows about it."""

from __future__ import annotations

import os

from msgspec import Struct

from kvmnet.core.finding import command
from kvmnet.core.macs import QEMU_PREFIX, generate, uses_in
from kvmnet.errors import Failed, NotFound, Refused, Unavailable
from kvmnet.flow.observe import Part, observe
from kvmnet.model.probe import ProbeTarget
from kvmnet.model.state import State
from kvmnet.model.values import Ip, Mac
from kvmnet.model.virt import Network, NetworkConfig

_KERNEL = frozenset({Part.LINKS, Part.ADDRESSES, Part.ROUTES, Part.NEIGHBOURS, Part.FORWARDING})
_LIBVIRT = frozenset({Part.NETWORKS, Part.GUESTS, Part.LEASES})
_NO_BRIDGE = {
    "private": "macvtap", "vepa": "macvtap", "passthrough": "macvtap", "hostdev": "a PCI device",
}  # fmt: skip
_STATIC_PORT = (
    "bridge link set dev {nic} learning off flood off",
    "bridge fdb add {mac} dev {nic} master static",
)
"""What libvirt does for a guest's tap where it manages the MAC table itself."""


class Place(Struct, frozen=True, kw_only=True):
    """A plain Linux bridge, ready for a stand-in guest."""

    bridge: str
    mac: Mac
    """The stand-in guest's address."""
    mtu: int = 1500
    up: bool = True
    stp: bool = False
    forward_delay_s: float = 0.0
    host_ip: Ip | None = None
    """The host's own IPv4 address on the bridge."""
    waking_ipv6: bool = False
    """The host has IPv6 there but no port was up: it first checks its own addresses, for a second
    or two, and advertises nothing meanwhile."""
    beyond: Ip | None = None
    """The host's default gateway."""
    network: Network | None = None
    leases: int = 0
    """Leases of the network that are in force."""
    port_commands: tuple[str, ...] = ()

    @property
    def config(self) -> NetworkConfig | None:
        return None if self.network is None else self.network.config


def find_place(target: ProbeTarget) -> Place:
    """Look at the host. Raises `NotFound`, `Refused`, `Failed` (inactive), `Unavailable`."""
    parts = _KERNEL | _LIBVIRT if target.kind == "network" else _KERNEL
    state = observe(target.connection, parts)
    if target.kind == "bridge":
        return _place(state, target, target.name, None)
    network = _network(state, target.name)
    config = network.config
    if config is None or config.bridge is None:
        raise Refused(
            f"network {target.name} can not be probed", why="it has no bridge to plug into"
        )
    return _place(state, target, config.bridge, network)


def _network(state: State, name: str) -> Network:
    network = state.network(name)
    if network is None:
        gap = next((x for x in state.unread if "libvirt" in x.what or "network" in x.what), None)
        if gap is not None:
            raise Unavailable(f"network {name} can not be looked up: {gap.what}", why=gap.why,
                              hint=gap.hint)  # fmt: skip
        raise NotFound(f"there is no network {command(name)}", hint="kvmnet network list")
    if not network.active:
        raise Failed(
            f"network {name} can not be probed",
            why="it is not active",
            hint=command("kvmnet", "network", "start", name),
        )
    config = network.config
    kind = None if config is None else _NO_BRIDGE.get(config.mode)
    if kind is None and config is not None and config.mode == "bridge" and not config.bridge:
        kind = "macvtap"
    if kind is not None:
        raise Refused(
            f"network {name} can not be probed",
            why=f"its guests get {kind}, there is no bridge to plug a stand-in guest into",
            hint="probe the host's bridge instead: kvmnet probe bridge:NAME",
        )
    if config is not None and config.virtualport:
        raise Refused(
            f"network {name} can not be probed",
            why=f"its ports are of type {config.virtualport}, only plain Linux bridges can be",
        )
    return network


def _place(state: State, target: ProbeTarget, bridge: str, network: Network | None) -> Place:
    link = state.link(bridge)
    if link is None:
        raise NotFound(f"there is no bridge {command(bridge)}", hint="kvmnet bridge list")
    if link.kind == "openvswitch":
        raise Refused(
            f"{bridge} can not be probed", why="it is an Open vSwitch bridge, not a Linux bridge"
        )
    if link.bridge is None:
        raise Refused(
            f"{bridge} can not be probed",
            why=f"it is no bridge but of kind {link.kind}",
            hint="list them: kvmnet bridge list",
        )
    taken = {use.mac for use in uses_in(state)}
    config = None if network is None else network.config
    managed = config is not None and config.mac_table_manager == "libvirt"
    own = [x for x in state.addresses if x.link == link.name]
    has_ipv6 = any(x.family == 6 and x.scope == "global" for x in own)
    return Place(
        bridge=link.name,
        mac=target.mac or generate(QEMU_PREFIX, 1, taken, os.urandom)[0],
        mtu=link.mtu,
        up=link.up,
        stp=link.bridge.stp,
        forward_delay_s=link.bridge.forward_delay_s,
        host_ip=next((x.ip for x in own if x.family == 4), None),
        waking_ipv6=has_ipv6 and not any(x.up and x.carrier for x in state.ports(link.name)),
        beyond=_default_gateway(state),
        network=network,
        leases=sum(1 for x in state.leases if network is not None and x.network == network.name),
        port_commands=_STATIC_PORT if managed else (),
    )


def _default_gateway(state: State) -> Ip | None:
    routes = [x for x in state.routes if x.destination == "0.0.0.0/0" and x.gateway is not None
              and x.table == "main"]  # fmt: skip
    return min(routes, key=lambda x: x.metric).gateway if routes else None
