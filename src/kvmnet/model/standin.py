"""What the probe and its stand-in guest say to each other, a JSON document a line."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.model.probe import ProbeLease
from kvmnet.model.values import Cidr, Ip, Mac


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


class CheckAddress(Call, frozen=True, kw_only=True, tag=True):
    """Ask by ARP whether somebody else has the address."""

    ip: Ip
    wait_s: float


class Configure(Call, frozen=True, kw_only=True, tag=True):
    """Give the kernel the leased address, the route and the MTU."""


class FindMac(Call, frozen=True, kw_only=True, tag=True):
    """Ask by ARP who has the address."""

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


class AwaitRouter(Call, frozen=True, kw_only=True, tag=True):
    wait_s: float
    """Counted from `Solicit`."""


class GiveBack(Call, frozen=True, kw_only=True, tag=True):
    """Release the lease."""


AnyCall = (
    BringUp | Solicit | AskLease | CheckAddress | Configure | FindMac | Ping | AskName | Connect
    | MeasureMtu | AwaitRouter | GiveBack
)  # fmt: skip


class Answer(Struct, frozen=True, kw_only=True, tag_field="answer"):
    """What the stand-in answers."""


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
    servers: tuple[Ip, ...] = ()
    """Every server that made an offer."""
    message: str = ""
    """The server's own words with a refusal (option 56)."""


class MacResult(Answer, frozen=True, kw_only=True, tag=True):
    mac: Mac | None = None
    ms: float | None = None


class PingResult(Answer, frozen=True, kw_only=True, tag=True):
    ms: float | None = None
    sent: int = 0
    error: str = ""
    """What came instead of an answer: `No route to host`."""


class NameResult(Answer, frozen=True, kw_only=True, tag=True):
    alive_ms: float | None = None
    """Until the first answer of any kind."""
    ms: float | None = None
    """Until the answer about the name."""
    code: str = ""
    addresses: tuple[Ip, ...] = ()
    error: str = ""


class ConnectResult(Answer, frozen=True, kw_only=True, tag=True):
    ms: float | None = None
    error: str = ""


class MtuResult(Answer, frozen=True, kw_only=True, tag=True):
    mtu: int | None = None
    """The largest IPv4 packet that came back; None: the target answers no echo request."""
    first_hop: int = 0
    """The MTU of the stand-in's own NIC."""
    reported: bool = False
    """A router on the way said that packets were too big, as it should."""


class RouterResult(Answer, frozen=True, kw_only=True, tag=True):
    ip: Ip | None = None
    mac: Mac | None = None
    ms: float | None = None
    default: bool = False
    managed: bool = False
    mtu: int | None = None
    prefixes: tuple[Cidr, ...] = ()
    addresses: tuple[Ip, ...] = ()
    """Global addresses that the kernel made from the prefixes."""
    waited_ms: float = 0.0


AnyAnswer = (
    Ready | Done | Fault | LeaseResult | MacResult | PingResult | NameResult | ConnectResult
    | MtuResult | RouterResult
)  # fmt: skip
