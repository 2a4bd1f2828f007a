"""The probe: what a stand-in guest went through on a network or bridge, step by step."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.model.nic_choice import NicChoice
from kvmnet.model.values import Cidr, Ip, Mac

StepName = Literal[
    "guest", "tap", "port", "cable", "traffic", "known", "answers",
    "agent", "inside-address", "inside-routes", "inside-dns", "inside-target",
    "link", "dhcp", "address", "gateway", "host", "dns", "target", "path-mtu", "latency",
    "dhcp-servers", "ipv6", "address6", "gateway6", "dns6", "target6", "path-mtu6",
    "ipv6-routers", "way-in", "way-in-by-host", "release",
]  # fmt: skip
"""Those of the first line are looked at from the host, `inside-…` comes from the guest's agent, all
others are done by the stand-in."""

Verdict = Literal["ok", "warn", "failed", "skipped"]
Measurer = Literal["stand-in", "host", "agent"]


class Endpoint(Struct, frozen=True, kw_only=True):
    """What the stand-in guest tries to reach: a name or address, by TCP if a port is given."""

    host: str
    port: int | None = None

    def __str__(self) -> str:
        if self.port is None:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ProbeTarget(Struct, frozen=True, kw_only=True):
    """Where the stand-in guest is plugged in and what it should reach."""

    kind: Literal["network", "bridge", "guest"]
    name: str
    to: Endpoint | None = None
    """None: the host's own default gateway, if the network leads beyond the host; with `lan` the
    guest's address, or the host's own on that network or bridge."""
    nic: NicChoice | None = None
    """Of a guest: which of its NICs; None: the only one."""
    lan: str | None = None
    """The way in: the stand-in is put on the LAN of this NIC of the host, and the target is what
    it tries to reach from there."""
    connection: str | None = None
    """libvirt URI for networks and guests; None: libvirt's default."""
    mac: Mac | None = None
    """None: a new one from QEMU's prefix that nobody is known to use."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


class ProbeLease(Struct, frozen=True, kw_only=True):
    """What the DHCP server gave (RFC 2132 option numbers in brackets)."""

    address: Ip
    prefix_len: int
    """From the subnet mask [1]; 32 if none came."""
    server: Ip
    server_mac: Mac
    router: Ip | None = None
    """The first of [3], or the default route of [121]."""
    dns: tuple[Ip, ...] = ()
    domain: str | None = None
    mtu: int | None = None
    lease_s: int | None = None
    bad_checksum: bool = False
    """The server's packets came with a UDP checksum that is wrong: some guests drop them."""


class DhcpServer(Struct, frozen=True, kw_only=True):
    """A DHCP server that made the stand-in an offer."""

    ip: Ip
    """Its own idea of its address: the server identifier [54]."""
    mac: Mac
    """Where its frames come from; a relay's where there is one."""
    offered: Ip
    router: Ip | None = None
    dns: tuple[Ip, ...] = ()
    bad_checksum: bool = False
    ms: float = 0.0
    """From the first DISCOVER to its offer."""
    expected: bool | None = None
    """Whether it is the one that should answer here; None: nothing tells which that is."""


class Advertiser(Struct, frozen=True, kw_only=True):
    """An IPv6 router that advertised itself (RFC 4861, RFC 8106)."""

    ip: Ip
    mac: Mac
    default: bool = False
    """It offers itself as default router."""
    managed: bool = False
    """It says that addresses come by DHCPv6 (flag M)."""
    other: bool = False
    """It says that DNS servers come by DHCPv6 (flag O)."""
    mtu: int | None = None
    prefixes: tuple[Cidr, ...] = ()
    """Those for autoconfiguration."""
    dns: tuple[Ip, ...] = ()
    ms: float = 0.0
    """From the solicitation to its first advertisement."""
    expected: bool | None = None
    """As in `DhcpServer`."""


class ProbeLease6(Struct, frozen=True, kw_only=True):
    """What a DHCPv6 server gave (RFC 8415)."""

    address: Ip | None
    """None: only settings were asked for."""
    server: Ip
    """Its link-local address."""
    server_id: str
    """Its DUID, in hexadecimal digits."""
    dns: tuple[Ip, ...] = ()
    valid_s: int | None = None


class PathMtu(Struct, frozen=True, kw_only=True):
    """How large a packet may be on the way to an address and back."""

    ip: Ip
    mtu: int | None
    """None: the address answers no echo requests."""
    first_hop: int
    """MTU of the stand-in's own NIC."""
    reported: bool
    """A router on the way says when a packet is too big, as it should."""

    @property
    def black_hole(self) -> bool:
        """Larger packets vanish without a word."""
        return self.mtu is not None and self.mtu < self.first_hop and not self.reported


class Latency(Struct, frozen=True, kw_only=True):
    """Some echo requests to one address; times in milliseconds, None without an answer."""

    ip: Ip
    sent: int
    received: int
    min_ms: float | None = None
    avg_ms: float | None = None
    max_ms: float | None = None

    @property
    def lost(self) -> int:
        return self.sent - self.received


class Conflict(Struct, frozen=True, kw_only=True):
    """Somebody else has an address too."""

    ip: Ip
    mac: Mac


class GuestSeen(Struct, frozen=True, kw_only=True):
    """A guest's NIC as it is seen from the host."""

    name: str
    uuid: str
    state: str
    nic: int
    """Its number in the definition, from 1."""
    type: str
    mac: Mac | None
    tap: str | None = None
    bridge: str | None = None
    """The bridge that the tap is a port of now."""
    belongs_to: str | None = None
    """The bridge that it should be a port of."""
    port_state: str = ""
    link_up: bool = True
    """Of its cable, as libvirt has it."""
    received: int | None = None
    """Packets that came from the guest through this NIC since it was plugged in."""
    sent: int | None = None
    addresses: tuple[Ip, ...] = ()
    """All that any source knows."""
    filter: str | None = None
    not_mirrored: tuple[str, ...] = ()
    """What this NIC has and the stand-in beside it has not: an nwfilter, a bandwidth limit."""


class GuestInside(Struct, frozen=True, kw_only=True):
    """What the guest's agent told about the NIC."""

    name: str
    """Inside the guest."""
    addresses: tuple[Cidr, ...] = ()
    """Each with its prefix length."""
    gateways: tuple[Ip, ...] = ()
    dns: tuple[Ip, ...] = ()
    can_execute: bool = False
    """Whether programs may be run through the agent."""


class ProbeStep(Struct, frozen=True, kw_only=True):
    """One step: what was expected, what came out, how long it took, what shows it."""

    name: StepName
    verdict: Verdict
    by: Measurer = "stand-in"
    """Who measured it."""
    expected: str = ""
    """One line for people."""
    ms: float = 0.0
    """Milliseconds that this step alone took."""
    detail: str = ""
    """One line for people."""
    evidence: tuple[str, ...] = ()
    reason: str = ""
    """Why it failed, was skipped or is doubtful."""
    hint: str = ""


class ProbeReport(Struct, frozen=True, kw_only=True):
    """All that the stand-in guest went through, and what was seen of a guest."""

    target: ProbeTarget
    bridge: str
    """Where the stand-in was plugged in; empty where there was none, or no bridge."""
    mac: Mac | None
    """The stand-in's; None: there was none."""
    steps: tuple[ProbeStep, ...]
    lease: ProbeLease | None = None
    lease6: ProbeLease6 | None = None
    dhcp_servers: tuple[DhcpServer, ...] = ()
    routers6: tuple[Advertiser, ...] = ()
    addresses6: tuple[Ip, ...] = ()
    """The stand-in's own, but for the link-local one."""
    path_mtus: tuple[PathMtu, ...] = ()
    latencies: tuple[Latency, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    guest: GuestSeen | None = None
    inside: GuestInside | None = None
    ms: float = 0.0
    """Milliseconds in all, set-up and clean-up included."""

    @property
    def ok(self) -> bool:
        """No step failed. Steps that were skipped or are doubtful do not count as failed."""
        return all(step.verdict != "failed" for step in self.steps)

    def step(self, name: StepName) -> ProbeStep | None:
        return next((x for x in self.steps if x.name == name), None)


class MacAnswer(Struct, frozen=True, kw_only=True):
    """Somebody on the LAN uses that address."""

    mac: Mac
    how: str
    """For people: `answered an echo request to ff02::1`."""
    ip: Ip | None = None
    """The IP address that the answer came from, if it had one."""
