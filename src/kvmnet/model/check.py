"""Checks: what must still work after a change of the host's own network, as it worked before."""

from __future__ import annotations

from msgspec import Struct

from kvmnet.model.values import Cidr, Ip


class AddressThere(Struct, frozen=True, kw_only=True, tag="address-there"):
    """The host still owns an address, and it is neither tentative nor a duplicate."""

    address: Cidr
    """With its prefix length, as `ip` prints it."""

    def __str__(self) -> str:
        return f"the host has {self.address}"


class GatewayAnswers(Struct, frozen=True, kw_only=True, tag="gateway-answers"):
    """A neighbour answers an ARP request (IPv4) or neighbour solicitation (IPv6)."""

    ip: Ip

    def __str__(self) -> str:
        return f"gateway {self.ip} answers"


class RouteLeads(Struct, frozen=True, kw_only=True, tag="route-leads"):
    """The kernel's choice of gateway and table for a destination is what it was."""

    destination: Ip
    gateway: Ip | None = None

    def __str__(self) -> str:
        by = f"by {self.gateway}" if self.gateway else "directly"
        return f"the way to {self.destination} leads {by}"


class ConnectionLives(Struct, frozen=True, kw_only=True, tag="connection-lives"):
    """The far end of an established TCP connection still acknowledges."""

    local: Ip
    local_port: int
    remote: Ip
    remote_port: int
    process: str | None = None

    def __str__(self) -> str:
        who = f" ({self.process})" if self.process else ""
        return f"TCP {self.local}:{self.local_port} to {self.remote}:{self.remote_port}{who} lives"


class DnsAnswers(Struct, frozen=True, kw_only=True, tag="dns-answers"):
    """A DNS server that the host uses answers a query."""

    server: Ip

    def __str__(self) -> str:
        return f"DNS server {self.server} answers"


class PingAnswers(Struct, frozen=True, kw_only=True, tag="ping-answers"):
    """`--check ping:HOST`: an echo request is answered."""

    host: str

    def __str__(self) -> str:
        return f"{self.host} answers a ping"


class TcpConnects(Struct, frozen=True, kw_only=True, tag="tcp-connects"):
    """`--check tcp:HOST:PORT`: a new TCP connection is accepted."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port} accepts a TCP connection"


Check = (
    AddressThere
    | GatewayAnswers
    | RouteLeads
    | ConnectionLives
    | DnsAnswers
    | PingAnswers
    | TcpConnects
)
