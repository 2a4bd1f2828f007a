"""Where a probe is plugged in: the bridge behind a target, and what the host knows about it."""

from __future__ import annotations

import os
from typing import Literal

import msgspec
from msgspec import Struct

from kvmnet.adapters.netns import StandIn
from kvmnet.core.finding import command
from kvmnet.core.macs import QEMU_PREFIX, generate, uses_in
from kvmnet.core.missing import no_such
from kvmnet.core.vlans import host_link
from kvmnet.errors import Failed, NotFound, Refused, Unavailable
from kvmnet.flow.observe import Part, observe
from kvmnet.model.host import Family
from kvmnet.model.probe import ProbeTarget
from kvmnet.model.state import State
from kvmnet.model.values import Ip, Mac
from kvmnet.model.virt import Network, NetworkConfig

_KERNEL = frozenset({Part.LINKS, Part.ADDRESSES, Part.ROUTES, Part.NEIGHBOURS, Part.FORWARDING,
                     Part.VLANS})  # fmt: skip
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
    """A plain Linux bridge or a NIC of the host, ready for a stand-in guest."""

    bridge: str
    """With `beside` it is the NIC."""
    mac: Mac
    """The stand-in guest's address."""
    beside: str | None = None
    """Not a port of a bridge but a macvlan of this mode on the NIC."""
    mtu: int = 1500
    up: bool = True
    stp: bool = False
    forward_delay_s: float = 0.0
    host_ip: Ip | None = None
    """The host's own IPv4 address on the bridge."""
    waking_ipv6: bool = False
    """The host has IPv6 there but no port was up, or was just now: it first checks its own
    addresses, for a second or two, and advertises nothing meanwhile."""
    beyond: Ip | None = None
    """The host's default gateway."""
    bridge_mac: Mac | None = None
    gateway: Ip | None = None
    """The host's default gateway, where it is behind this very bridge; the same for IPv6."""
    gateway6: Ip | None = None
    dhcp_ip: Ip | None = None
    """Where the only DHCP server should answer, as the libvirt network's definition has it."""
    ipv4: bool = True
    """Whether IPv4 is to be expected at all."""
    ipv6: Literal["host", "none", "unknown"] = "unknown"
    """Who should advertise itself as IPv6 router, by the libvirt network's definition."""
    network: Network | None = None
    leases: int = 0
    """Leases of the network that are in force."""
    port_commands: tuple[str, ...] = ()

    mirrored: tuple[str, ...] = ()
    """What the stand-in's port has of the guest's that it stands beside."""

    @property
    def leads_out(self) -> bool:
        """Whether guests are to reach anything beyond the host."""
        return self.config is None or self.config.mode != "isolated"

    @property
    def config(self) -> NetworkConfig | None:
        return None if self.network is None else self.network.config


def plug_in(machine: StandIn, place: Place) -> None:
    """Put the stand-in there."""
    if place.beside is not None:
        machine.plug_in_beside(place.bridge, place.mac, place.mtu, place.beside)
    else:
        machine.plug_in(place.bridge, place.mac, place.mtu, commands=place.port_commands)


def find_place(target: ProbeTarget) -> Place:
    """Look at the host. Raises `NotFound`, `Refused`, `Failed` (inactive), `Unavailable`."""
    parts = _KERNEL | _LIBVIRT if target.kind == "network" else _KERNEL
    return place_for(observe(target.connection, parts), target)


def place_for(state: State, target: ProbeTarget) -> Place:
    """The same, of a host that was looked at. Raises the same."""
    if target.kind == "bridge":
        return in_default_vlan(state, place_on(state, target.name, None, target.mac))
    network = _network(state, target.name)
    config = network.config
    if config is None or config.bridge is None:
        raise Refused(
            f"network {target.name} can not be probed", why="it has no bridge to plug into"
        )
    return in_default_vlan(state, place_on(state, config.bridge, network, target.mac))


def _network(state: State, name: str) -> Network:
    network = state.network(name)
    if network is None:
        gap = next((x for x in state.unread if x.what == f"network {name}"), None)
        if gap is not None:
            raise Unavailable(f"network {name} can not be looked up: {gap.what}", why=gap.why,
                              hint=gap.hint)  # fmt: skip
        raise no_such(state, "network", name)
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


def place_on(state: State, bridge: str, network: Network | None, mac: Mac | None) -> Place:
    """A port of that bridge. Raises `NotFound`, `Refused` (no plain Linux bridge)."""
    link = state.link(bridge)
    if link is None:
        raise no_such(state, "bridge", bridge)
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
    config = None if network is None else network.config
    managed = config is not None and config.mac_table_manager == "libvirt"
    own = [x for x in state.addresses if x.link == link.name]
    has_ipv6 = any(x.family == 6 and x.scope == "global" for x in own)
    has_ipv4 = any(x.family == 4 for x in own)
    made = config if config is not None and config.mode != "bridge" else None
    four = None if made is None else next((x for x in made.ips if x.family == 4), None)
    serves = four is not None and bool(four.ranges or four.reservations)
    return Place(
        bridge=link.name,
        mac=mac or unused_mac(state),
        mtu=link.mtu,
        up=link.up,
        stp=link.bridge.stp,
        forward_delay_s=link.bridge.forward_delay_s,
        host_ip=next((x.ip for x in own if x.family == 4), None),
        waking_ipv6=has_ipv6
        and (
            any("tentative" in x.flags for x in own)
            or not any(x.up and x.carrier for x in state.ports(link.name))
        ),
        beyond=default_gateway(state, 4, None),
        bridge_mac=link.mac,
        gateway=default_gateway(state, 4, link.name),
        gateway6=default_gateway(state, 6, link.name),
        dhcp_ip=four.address if four is not None and serves else None,
        ipv4=has_ipv4 or not has_ipv6 if made is None else four is not None or not made.ips,
        ipv6="unknown"
        if made is None or not made.ips
        else "host"
        if any(x.family == 6 for x in made.ips)
        else "none",
        network=network,
        leases=sum(1 for x in state.leases if network is not None and x.network == network.name),
        port_commands=_STATIC_PORT if managed else (),
    )


def in_default_vlan(state: State, place: Place) -> Place:
    """The place of a port that stays where its bridge puts it. Raises `Refused`: in no VLAN."""
    link = state.link(place.bridge)
    if link is None or link.bridge is None or not link.bridge.vlan_filtering:
        return place
    vlan = link.bridge.default_pvid
    if not vlan:
        raise Refused(
            f"{place.bridge} can not be probed",
            why="it puts a new port into no VLAN (vlan_default_pvid 0)",
            hint="probe a guest on it, in the VLAN of its port: kvmnet probe guest:NAME",
        )
    mirrored = (*place.mirrored, f"VLAN {vlan} (vlan_default_pvid)") if vlan != 1 else ()
    return msgspec.structs.replace(in_vlan(state, place, vlan), mirrored=mirrored)


def in_vlan(state: State, place: Place, vlan: int) -> Place:
    """The place with the host's addresses and ways in that VLAN of its bridge."""
    here = host_link(state, place.bridge, vlan)
    if here == place.bridge:
        return place
    own = [x for x in state.addresses if x.link == here]
    has_ipv4 = any(x.family == 4 for x in own)
    return msgspec.structs.replace(
        place,
        host_ip=next((x.ip for x in own if x.family == 4), None),
        waking_ipv6=False,
        gateway=None if here is None else default_gateway(state, 4, here),
        gateway6=None if here is None else default_gateway(state, 6, here),
        ipv4=has_ipv4 or not any(x.family == 6 and x.scope == "global" for x in own),
    )


def place_beside(state: State, nic: str, mode: str, mac: Mac | None) -> Place:
    """On the LAN of a NIC that is no bridge's port. Raises `NotFound`, `Refused`, `Failed`."""
    link = state.link(nic)
    if link is None:
        raise NotFound(f"there is no NIC {command(nic)}", hint="list them: ip -br link")
    why = {"wireless": "an access point takes frames from the host's MAC alone",
           "loopback": "it leads to no LAN", "tun": "it carries no Ethernet frames",
           "bridge": "it is a bridge: probe bridge:NAME"}.get(link.kind, "")  # fmt: skip
    if why or link.mac is None:
        raise Refused(f"no stand-in can be put on the LAN of {nic}",
                      why=why or "it carries no Ethernet frames")  # fmt: skip
    if not link.up or not link.carrier:
        raise Failed(f"no stand-in can be put on the LAN of {nic}",
                     why="it has no carrier" if link.up else "it is down",
                     hint=f"look: ip link show {nic}")  # fmt: skip
    return Place(
        bridge=link.name,
        mac=mac or unused_mac(state),
        beside=mode,
        mtu=link.mtu,
        gateway=default_gateway(state, 4, link.name),
        gateway6=default_gateway(state, 6, link.name),
        beyond=default_gateway(state, 4, None),
    )


def unused_mac(state: State) -> Mac:
    """An address for a stand-in that nobody is known to use."""
    taken = {use.mac for use in uses_in(state)}
    return generate(QEMU_PREFIX, 1, taken, os.urandom)[0]


def default_gateway(state: State, family: Family, link: str | None) -> Ip | None:
    """The host's own, behind `link` if one is named."""
    routes = [
        x
        for x in state.routes
        if x.destination in ("0.0.0.0/0", "::/0")
        and (x.family, x.table) == (family, "main")
        and x.gateway is not None
        and link in (None, x.link)
    ]
    return min(routes, key=lambda x: x.metric).gateway if routes else None
