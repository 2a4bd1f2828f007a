"""State: one immutable picture of one host, from every source, read in one pass."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from kvmnet.model.host import (
    Address,
    DockerNetwork,
    Firewall,
    ForwardingEntry,
    Link,
    Listener,
    Neighbour,
    NicOwner,
    Route,
    Rule,
    Sysctl,
    SysctlFile,
)
from kvmnet.model.setup import (
    BridgeHelper,
    BridgeMulticast,
    ConfiguredBridge,
    Machine,
    PortVlans,
)
from kvmnet.model.virt import Guest, Lease, Network

STATE_VERSION = 2
"""Version of State's JSON form. A change that old readers can't ignore raises it.

2: a firewall rule may have further conditions (`more`, `branches`), without which it says too much.
"""


class Unread(Struct, frozen=True, kw_only=True):
    """Something that could not be read, why, and what helps."""

    what: str
    """For people and programs: `libvirt qemu:///system`, `firewall (nft)`, `guest web: agent`."""
    why: str
    hint: str = ""
    absent: bool = False
    """Whether this host has no such thing at all, so that nothing can be wrong with it."""


class Connection(Struct, frozen=True, kw_only=True):
    """A libvirt connection that was read."""

    uri: str
    libvirt_version: str
    hypervisor: str
    """The driver's name: QEMU, Test …"""
    read_only: bool = False


def only_sessions(connections: Sequence[Connection]) -> bool:
    """Whether all that were read are users' sessions, and there is one."""
    uris = [x.uri.partition("?")[0] for x in connections]
    return bool(uris) and all(x.endswith("/session") for x in uris)


class State(Struct, frozen=True, kw_only=True):
    """One host. Empty tuples mean: read, and there is none; what was not read is in `unread`."""

    version: int = STATE_VERSION
    taken_at: int
    """Seconds since the epoch."""
    hostname: str
    kernel: str = ""
    privileged: bool = False
    """Whether it was read as root."""
    connections: tuple[Connection, ...] = ()
    system_libvirt: bool | None = None
    """Where users' sessions alone were read: whether the system's libvirt is there too."""
    links: tuple[Link, ...] = ()
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    forwarding: tuple[ForwardingEntry, ...] = ()
    sysctls: tuple[Sysctl, ...] = ()
    sysctl_files: tuple[SysctlFile, ...] = ()
    """What files set at boot, of the settings that concern networks."""
    firewall: Firewall = Firewall()
    listeners: tuple[Listener, ...] = ()
    docker_networks: tuple[DockerNetwork, ...] = ()
    networks: tuple[Network, ...] = ()
    guests: tuple[Guest, ...] = ()
    leases: tuple[Lease, ...] = ()
    owners: tuple[NicOwner, ...] = ()
    port_vlans: tuple[PortVlans, ...] = ()
    multicast: tuple[BridgeMulticast, ...] = ()
    configured_bridges: tuple[ConfiguredBridge, ...] | None = None
    """In the files of managers that run; None: not asked for."""
    bridge_helper: BridgeHelper | None = None
    """None: not asked for; the same for what follows."""
    machine: Machine | None = None
    rp_filter_drops: int | None = None
    """Packets dropped because their sender is reached another way (IPReversePathFilter)."""
    failed_units: tuple[str, ...] | None = None
    """Services of systemd that have failed."""
    unread: tuple[Unread, ...] = ()

    def link(self, name: str) -> Link | None:
        """The link of that name or altname."""
        return next((x for x in self.links if x.name == name or name in x.altnames), None)

    def network(self, name: str) -> Network | None:
        return next((x for x in self.networks if x.name == name), None)

    def guest(self, name_or_uuid: str) -> Guest | None:
        return next((x for x in self.guests if name_or_uuid in (x.name, x.uuid)), None)

    def ports(self, bridge: str) -> tuple[Link, ...]:
        """The links enslaved to that bridge, in the kernel's order."""
        return tuple(x for x in self.links if x.master == bridge)

    def sysctl(self, name: str) -> str | None:
        return next((x.value for x in self.sysctls if x.name == name), None)
