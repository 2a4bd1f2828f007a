"""What the probe and its stand-in guest say to each other, a JSON document a line."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.model.probe import Advertiser, DhcpServer, Latency, ProbeLease, ProbeLease6
from kvmnet.model.reached import Answer, ConnectResult, MacResult, NameResult, PingResult
from kvmnet.model.values import Cidr, Ip


class Call(Struct, frozen=True, kw_only=True, tag_field="call"):
    """An order to the stand-in. Times are in seconds."""


class BringUp(Call, frozen=True, kw_only=True, tag=True):
    """Switch the NIC on, without the kernel's own delays for IPv6."""


class Solicit(Call, frozen=True, kw_only=True, tag=True):
    """Ask for IPv6 routers; `AwaitRouter` collects the answer."""


class AskLease(Call, frozen=True, kw_only=True, tag=True):
    lease_s: int
    wait_s: float
    """How long to wait for an offer, and then again for its confirmation at most."""


class CollectOffers(Call, frozen=True, kw_only=True, tag=True):
    """All offers that have come by now, or come until `linger_s` after the first one."""

    linger_s: float


class CheckAddress(Call, frozen=True, kw_only=True, tag=True):
    """Ask by ARP, or as IPv6 does before it takes an address, whether somebody else has it."""

    ip: Ip
    wait_s: float


class Configure(Call, frozen=True, kw_only=True, tag=True):
    """Give the kernel the leased address, the route and the MTU."""


class FindMac(Call, frozen=True, kw_only=True, tag=True):
    """Ask by ARP or ND who has the address."""

    ip: Ip
    wait_s: float


class Ping(Call, frozen=True, kw_only=True, tag=True):
    ip: Ip
    wait_s: float


class AskName(Call, frozen=True, kw_only=True, tag=True):
    """Ask a DNS server for a name's addresses, and for its own version to see if it lives."""

    server: Ip
    name: str
    wait_s: float


class Connect(Call, frozen=True, kw_only=True, tag=True):
    ip: Ip
    port: int
    wait_s: float


class MeasureMtu(Call, frozen=True, kw_only=True, tag=True):
    ip: Ip
    wait_s: float
    """For each round of echo requests."""


class MeasureLatency(Call, frozen=True, kw_only=True, tag=True):
    """Echo requests to several addresses at once."""

    ips: tuple[Ip, ...]
    count: int
    every_s: float
    wait_s: float
    """For answers, after the last request."""


class AddRoute(Call, frozen=True, kw_only=True, tag=True):
    """Send what is for `ip` to `via`, which is next door."""

    ip: Ip
    via: Ip


class AwaitRouter(Call, frozen=True, kw_only=True, tag=True):
    wait_s: float
    """Counted from `Solicit`."""


class CollectRouters(Call, frozen=True, kw_only=True, tag=True):
    """All IPv6 routers that have advertised themselves by now."""


class AskLease6(Call, frozen=True, kw_only=True, tag=True):
    """Ask by DHCPv6 for an address, or with `settings_only` for DNS servers."""

    settings_only: bool
    wait_s: float


class TakeAddress(Call, frozen=True, kw_only=True, tag=True):
    """Give the kernel an address that nobody gave out, and the way beyond its subnet."""

    address: Cidr
    """With the prefix length of its subnet: `192.168.122.77/24`."""
    router: Ip | None = None


class BeQuiet(Call, frozen=True, kw_only=True, tag=True):
    """Switch the NIC on so that nothing but `SendFrames` sends through it."""


class SendPackets(Call, frozen=True, kw_only=True, tag=True):
    """Send whole IP packets through the kernel, which finds the way and the neighbour."""

    packets: tuple[str, ...]
    """Hexadecimal."""
    gaps_s: tuple[float, ...]
    """How long to wait before each."""


class SendFrames(Call, frozen=True, kw_only=True, tag=True):
    """Send whole frames."""

    frames: tuple[str, ...]
    """Hexadecimal."""
    gaps_s: tuple[float, ...]


class GiveBack(Call, frozen=True, kw_only=True, tag=True):
    """Release the leases."""


AnyCall = (
    BringUp | Solicit | AskLease | CollectOffers | CheckAddress | Configure | FindMac | Ping
    | AskName | Connect | MeasureMtu | MeasureLatency | AddRoute | AwaitRouter | CollectRouters
    | AskLease6 | TakeAddress | BeQuiet | SendPackets | SendFrames | GiveBack
)  # fmt: skip


class Ready(Answer, frozen=True, kw_only=True, tag=True):
    """The stand-in has its own network namespace and waits for its NIC."""


class Done(Answer, frozen=True, kw_only=True, tag=True):
    """It was done; there is nothing to tell."""


class Fault(Answer, frozen=True, kw_only=True, tag=True):
    """The stand-in could not do it at all."""

    what: str
    why: str = ""


class LeaseResult(Answer, frozen=True, kw_only=True, tag=True):
    outcome: Literal["bound", "silent", "unconfirmed", "refused"]
    lease: ProbeLease | None = None
    """For unconfirmed and refused: what was offered."""
    offer_ms: float | None = None
    """From the first DISCOVER to the first offer."""
    discovers: int = 0
    requests: int = 0
    servers: tuple[DhcpServer, ...] = ()
    """Every server that had made an offer by then."""
    message: str = ""
    """The server's own words with a refusal (option 56)."""


class OffersResult(Answer, frozen=True, kw_only=True, tag=True):
    servers: tuple[DhcpServer, ...] = ()


class MtuResult(Answer, frozen=True, kw_only=True, tag=True):
    mtu: int | None = None
    """The largest packet that came back; None: the target answers no echo request."""
    first_hop: int = 0
    """The MTU of the stand-in's own NIC."""
    reported: bool = False
    """A router on the way said that packets were too big, as it should."""


class LatencyResult(Answer, frozen=True, kw_only=True, tag=True):
    latencies: tuple[Latency, ...] = ()


class RouterResult(Answer, frozen=True, kw_only=True, tag=True):
    router: Advertiser | None = None
    """The first that advertised itself."""
    addresses: tuple[Ip, ...] = ()
    """Global addresses that the kernel made from the prefixes."""
    waited_ms: float = 0.0


class RoutersResult(Answer, frozen=True, kw_only=True, tag=True):
    routers: tuple[Advertiser, ...] = ()


class Lease6Result(Answer, frozen=True, kw_only=True, tag=True):
    lease: ProbeLease6 | None = None
    solicits: int = 0
    refusal: str = ""
    """The server's own words, where it gives no address."""


class Sent(Answer, frozen=True, kw_only=True, tag=True):
    """When each packet was sent (monotonic seconds), and what the kernel said to it."""

    at: tuple[float, ...]
    errors: tuple[str, ...] = ()
    """One for each that it refused: `Network is unreachable`."""


AnyAnswer = (
    Ready | Done | Fault | LeaseResult | OffersResult | MacResult | PingResult | NameResult
    | ConnectResult | MtuResult | LatencyResult | RouterResult | RoutersResult | Lease6Result
    | Sent
)  # fmt: skip
