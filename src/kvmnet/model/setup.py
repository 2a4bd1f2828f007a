"""How a host is set up to be, which `kvmnet doctor` compares with how it is."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.model.values import Cidr


class VlanRange(Struct, frozen=True, kw_only=True):
    """VLANs from `first` to `last`, both included."""

    first: int
    last: int
    untagged: bool = False
    """Their frames go out without a tag."""


class PortVlans(Struct, frozen=True, kw_only=True):
    """The VLANs that a port of a bridge takes part in (bridge(8), vlan)."""

    port: str
    ranges: tuple[VlanRange, ...] = ()
    pvid: int | None = None
    """The VLAN of frames that come in without a tag."""

    def has(self, vlan: int) -> bool:
        return any(x.first <= vlan <= x.last for x in self.ranges)


class AclRule(Struct, frozen=True, kw_only=True):
    """One line of a bridge.conf: whether a bridge, or `all`, may be used."""

    path: str
    allowed: bool
    bridge: str


class BridgeHelper(Struct, frozen=True, kw_only=True):
    """QEMU's program that plugs guests of ordinary users into bridges, and whom it lets in."""

    path: str | None = None
    """None: it is not installed in any of the usual places."""
    privileged: bool = False
    """Whether it may make taps: setuid root, or by a file capability."""
    acl: str = "/etc/qemu/bridge.conf"
    rules: tuple[AclRule, ...] | None = None
    """Of that file and all that it includes; None: the file is absent."""
    unreadable: tuple[str, ...] = ()
    """Files of it that this user may not read."""


class Machine(Struct, frozen=True, kw_only=True):
    """What the host runs on."""

    vendor: str = ""
    """The firmware's words (DMI sys_vendor): `VMware, Inc.`; empty where it has none."""
    product: str = ""
    hypervisor: bool = False
    """Whether the CPU says that there is one below this host."""


class ConfiguredPort(Struct, frozen=True, kw_only=True):
    """A port that a bridge is to have."""

    name: str
    """As it is written: a NIC's name, a pattern of names, or a MAC address."""
    path: str
    """The file that says so."""
    link: str | None = None
    """The link that it names; None: there is no such link."""


class ConfiguredBridge(Struct, frozen=True, kw_only=True):
    """A bridge in a host network manager's files."""

    name: str
    manager: Literal["netplan", "NetworkManager", "systemd-networkd", "ifupdown"]
    path: str
    ports: tuple[ConfiguredPort, ...] = ()
    at_boot: bool = True
    """Whether the manager makes it when the host starts."""
    addresses: tuple[Cidr, ...] = ()
    """Static ones."""
    needs_carrier: bool = False
    """Whether its static addresses come and go with the carrier: with the first port that is up."""


class MulticastListener(Struct, frozen=True, kw_only=True):
    """Somebody behind a port of a bridge wants the frames of a group."""

    port: str
    group: str
    """An address, or a MAC."""


class BridgeMulticast(Struct, frozen=True, kw_only=True):
    """What a bridge has learnt of multicast listeners (bridge(8), mdb)."""

    bridge: str
    querier6: bool = False
    """Whether somebody on it asks for IPv6 listeners: only then frames go to listeners alone."""
    routers: tuple[str, ...] = ()
    """Ports that get all multicast frames."""
    listeners: tuple[MulticastListener, ...] = ()
    """Those that reported."""
