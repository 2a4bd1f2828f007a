"""The trace: one packet's way through the host, and where it ended."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.model.probe import Endpoint
from kvmnet.model.state import Unread
from kvmnet.model.values import Ip, Mac

SourceKind = Literal["guest", "network", "bridge", "host", "lan"]
Protocol = Literal["tcp", "udp", "icmp"]
Role = Literal["request", "reply", "error"]
"""What a packet is: one that was sent, the answer to it, or an ICMP error about it."""
Ending = Literal["answered", "arrived", "died", "lost"]
"""answered: the answer came back. arrived: it got where it was sent to, or left the host as it
should, and no answer is to be expected or was waited for. died: it is known where. lost: it was
last seen at a hop, and after that nothing was seen or heard of it."""


WAIT_S = 0.6
"""Answers from the other side of the world take half of it."""


class TraceSource(Struct, frozen=True, kw_only=True):
    """Where the packet comes from; `name` is empty for the host itself."""

    kind: SourceKind
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


class TraceRequest(Struct, frozen=True, kw_only=True):
    """What is to be followed."""

    source: TraceSource
    to: Endpoint
    protocol: Protocol
    reply: bool = False
    """Show the answer's way back too."""
    address: Ip | None = None
    """The sender's IP address; None: one that fits."""
    wait_s: float = WAIT_S
    """For an answer, after the last packet was sent."""
    connection: str | None = None
    """libvirt URI; None: libvirt's default."""


class Flow(Struct, frozen=True, kw_only=True):
    """The packets as they are sent: what tells them from all others."""

    protocol: Protocol
    source: Ip
    destination: Ip
    sport: int = 0
    dport: int = 0
    token: int
    """32 random bits that no router and no NAT changes: TCP's sequence number, the first bytes
    of a UDP datagram's or an echo request's data."""

    @property
    def family(self) -> Literal[4, 6]:
        return 6 if ":" in self.destination else 4

    def __str__(self) -> str:
        return (
            f"{self.protocol} {_with_port(self.source, self.sport)} > "
            f"{_with_port(self.destination, self.dport)}"
        )


def _with_port(ip: str, port: int) -> str:
    if not port:
        return ip
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


class Word(Struct, frozen=True, kw_only=True):
    """Four bytes of a packet, counted from its IP header, and what they have to be."""

    offset: int
    value: int
    mask: int = 0xFFFFFFFF


class Pattern(Struct, frozen=True, kw_only=True):
    """A kind of packet that belongs to the flow: all words have to fit."""

    role: Role
    words: tuple[Word, ...]


class Packet(Struct, frozen=True, kw_only=True):
    """A packet of ours, as it was when it was seen."""

    role: Role
    source: Ip
    destination: Ip
    protocol: str
    sport: int = 0
    dport: int = 0
    number: int | None = None
    """Which of those that were sent; None for answers that do not tell."""
    note: str = ""
    """SYN-ACK, RST, port unreachable …: what an answer says."""

    def __str__(self) -> str:
        ports = _with_port(self.source, self.sport), _with_port(self.destination, self.dport)
        return f"{ports[0]} > {ports[1]}"


class Sighting(Struct, frozen=True, kw_only=True):
    """A packet of ours passed a link."""

    at: float
    """Monotonic seconds, by the kernel's own clock."""
    link: str
    out: bool
    """It left the host's stack through the link; else it came in."""
    packet: Packet
    mac_from: Mac | None = None
    mac_to: Mac | None = None


class RuleHit(Struct, frozen=True, kw_only=True):
    """A rule, or a chain's policy or end, that the kernel says our packet met (nft trace)."""

    at: float
    """When it was read: a moment after it happened."""
    id: int
    """The kernel's number for the packet's way."""
    family: str
    """nft's word: ip, ip6, inet, bridge, arp, netdev."""
    table: str
    chain: str
    kind: Literal["rule", "return", "policy"]
    verdict: str
    """accept, drop, continue, jump, goto, return …"""
    handle: int | None = None
    target: str | None = None
    packet: Packet | None = None
    """Only with a chain's first: the kernel sends the packet's headers once."""
    iif: int | None = None
    oif: int | None = None
    mark: int = 0


class LoggedDrop(Struct, frozen=True, kw_only=True):
    """The kernel threw away a packet, and does not say which."""

    at: float
    reason: str
    function: str


class KernelDrop(Struct, frozen=True, kw_only=True):
    """The kernel threw away a packet of ours (tracepoint skb:kfree_skb)."""

    at: float
    reason: str
    """The kernel's name for it, or empty: older ones give none."""
    function: str
    """Where in the kernel: a function's name."""
    packet: Packet | None = None
    link: str | None = None
    here: bool = True
    """In this network namespace; False: in another one of the same machine."""
    tied_by: Literal["bpf", "pattern"] = "bpf"
    count: int = 1


HopKind = Literal["sent", "link", "rule", "policy", "route", "nat", "neighbour", "drop", "answer"]


class Hop(Struct, frozen=True, kw_only=True):
    """One station of the way."""

    kind: HopKind
    way: Literal["out", "back"] = "out"
    where: str
    """The link, the chain, the kernel's function."""
    what: str
    """One line for people."""
    at_ms: float | None = None
    """Milliseconds since the packet was sent; None where the kernel tells no time."""
    evidence: tuple[str, ...] = ()


class TraceReport(Struct, frozen=True, kw_only=True):
    """All that was seen of the packets."""

    request: TraceRequest
    flow: Flow
    sent_by: str
    """How the packets were sent, for people."""
    sent: int
    hops: tuple[Hop, ...]
    ending: Ending
    verdict: str
    """One sentence: where it died, or that it arrived."""
    hint: str = ""
    last_seen: str = ""
    """The last link at which the packets themselves were seen."""
    expected_next: str = ""
    """The link at which they were to be seen next, and were not."""
    drop: KernelDrop | None = None
    rule: RuleHit | None = None
    """The rule or policy that ended it."""
    missing: tuple[Unread, ...] = ()
    """What could not be watched, and why."""
    ms: float = 0.0

    @property
    def ok(self) -> bool:
        return self.ending in ("answered", "arrived")


class Origin(Struct, frozen=True, kw_only=True):
    """Where the packets enter the host, and as whose."""

    how: Literal["plugged", "aimed", "host"]
    """plugged: by a stand-in on the bridge. aimed: as if they came in through `link`. host: by a
    socket of the host's own."""
    sent_by: str
    """For people."""
    link: str | None = None
    """The first link that they pass; None for the host's own."""
    bridge: str | None = None
    address: Ip
    prefix_len: int = 32
    router: Ip | None = None
    """The next hop, where the destination is not a neighbour."""
    mac: Mac | None = None
    to_mac: Mac | None = None
    """aimed: whose frame it is."""


class Observed(Struct, frozen=True, kw_only=True):
    """Everything that was seen of the packets."""

    sent_at: tuple[float, ...] = ()
    refused: tuple[str, ...] = ()
    """What the kernel said to those that it did not send."""
    sightings: tuple[Sighting, ...] = ()
    hits: tuple[RuleHit, ...] = ()
    drops: tuple[KernelDrop, ...] = ()
    waited_s: float = 0.0
    """For an answer, since the last packet was sent."""


class RouteChoice(Struct, frozen=True, kw_only=True):
    """What the kernel decides for the packet: `ip route get` with its source, way in and mark."""

    command: str
    link: str | None = None
    gateway: Ip | None = None
    source: Ip | None = None
    is_local: bool = False
    error: str = ""
    """The kernel's words where it knows no way."""
