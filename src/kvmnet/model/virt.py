"""What libvirt knows: networks, guests, their NICs, leases."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.model.host import Family
from kvmnet.model.values import Ip, Mac

FORWARD_MODES = ("nat", "route", "open", "isolated", "bridge")
"""The forward modes that kvmnet makes. libvirt has more (private, vepa, passthrough, hostdev)."""


class DhcpRange(Struct, frozen=True, kw_only=True):
    """Dynamic addresses from `start` to `end`, both included."""

    start: Ip
    end: Ip


class Reservation(Struct, frozen=True, kw_only=True):
    """A `<host>` entry: this MAC (IPv6: DUID `id`) always gets this address."""

    ip: Ip
    mac: Mac | None = None
    name: str | None = None
    id: str | None = None


class NetworkIp(Struct, frozen=True, kw_only=True):
    """An `<ip>` of a network: the host's own address on it, and what DHCP gives out."""

    family: Family
    address: Ip
    prefix_len: int
    ranges: tuple[DhcpRange, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    lease_s: int | None = None
    """Lease time in seconds; None: dnsmasq's default of one hour; 0: infinite."""


class NetworkConfig(Struct, frozen=True, kw_only=True):
    """One definition of a libvirt network (https://libvirt.org/formatnetwork.html)."""

    mode: str
    """nat, route, open, isolated, bridge; or libvirt's private, vepa, passthrough, hostdev."""
    bridge: str | None = None
    bridge_mac: Mac | None = None
    stp: bool = True
    """libvirt's default is on; meaningless for mode bridge."""
    forward_delay_s: int = 0
    mtu: int | None = None
    uplinks: tuple[str, ...] = ()
    """`dev` of `<forward>` and its `<interface>`s."""
    domain: str | None = None
    dns: bool = True
    ips: tuple[NetworkIp, ...] = ()
    routes: tuple[str, ...] = ()
    virtualport: str | None = None
    """openvswitch, midonet, 802.1Qbg …; None: a plain Linux bridge."""
    mac_table_manager: str | None = None
    portgroups: tuple[str, ...] = ()
    dnsmasq_options: tuple[str, ...] = ()
    """Extra lines for dnsmasq.conf, from the dnsmasq namespace."""


class Network(Struct, frozen=True, kw_only=True):
    """A libvirt virtual network: what runs (`live`) and what is saved (`saved`)."""

    connection: str
    name: str
    uuid: str
    active: bool
    persistent: bool
    autostart: bool
    live: NetworkConfig | None = None
    saved: NetworkConfig | None = None

    @property
    def config(self) -> NetworkConfig | None:
        """The definition in force: the running one, else the saved one."""
        return self.live or self.saved


class Lease(Struct, frozen=True, kw_only=True):
    """A DHCP lease that libvirt's dnsmasq gave out."""

    connection: str
    network: str
    mac: Mac | None
    ip: Ip
    family: Family
    prefix_len: int | None = None
    hostname: str | None = None
    client_id: str | None = None
    expires_at: int | None = None
    """Seconds since the epoch; None: never."""


class GuestNic(Struct, frozen=True, kw_only=True):
    """One `<interface>` of a guest (https://libvirt.org/formatdomain.html#network-interfaces)."""

    mac: Mac | None
    type: str
    """network, bridge, direct, user, ethernet, hostdev, vhostuser, vdpa, server, client, mcast,
    udp, internal."""
    source: str | None = None
    """The network's, bridge's or NIC's name."""
    bridge: str | None = None
    """Live only: the bridge that a NIC of type network really is on."""
    source_mode: str | None = None
    """macvtap: vepa, bridge, private, passthrough."""
    portgroup: str | None = None
    target: str | None = None
    """Live only, as a rule: the host's end, for example `vnet0`."""
    model: str | None = None
    alias: str | None = None
    link_up: bool = True
    mtu: int | None = None
    boot_order: int | None = None
    filter: str | None = None
    filter_ips: tuple[str, ...] = ()
    """What the filter's parameter `IP` allows."""
    trusts_guest_filters: bool = False
    """macvtap: whether the guest's own multicast filter is taken over (trustGuestRxFilters)."""
    virtualport: str | None = None
    vlans: tuple[int, ...] = ()
    backend: str | None = None
    """`passt` for a NIC of type user that uses it."""


class AgentAddress(Struct, frozen=True, kw_only=True):
    """An address that the QEMU guest agent reported from inside a guest."""

    mac: Mac
    ip: Ip
    prefix_len: int
    family: Family
    nic: str
    """The NIC's name inside the guest."""


class Guest(Struct, frozen=True, kw_only=True):
    """A libvirt domain, as far as networking is concerned."""

    connection: str
    name: str
    uuid: str
    state: str
    """libvirt's words: running, paused, shut off, in shutdown, crashed, pmsuspended, idle."""
    id: int | None = None
    autostart: bool = False
    persistent: bool = True
    live_nics: tuple[GuestNic, ...] = ()
    saved_nics: tuple[GuestNic, ...] = ()
    agent: Literal["none", "disconnected", "connected", "silent"] = "none"
    """Whether the guest has an agent's channel, whether one is behind it, whether it answered."""
    agent_addresses: tuple[AgentAddress, ...] = ()

    @property
    def active(self) -> bool:
        return self.id is not None

    @property
    def nics(self) -> tuple[GuestNic, ...]:
        """The NICs in force: the running ones, else the saved ones."""
        return self.live_nics if self.active else self.saved_nics
