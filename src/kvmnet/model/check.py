"""Checks: what must still work after a change of the host's own network, as it worked before."""

from __future__ import annotations

import re
from ipaddress import ip_address

from msgspec import Struct

from kvmnet.errors import InvalidInput
from kvmnet.model.values import Cidr, Ip

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?",
                   re.ASCII | re.IGNORECASE)  # fmt: skip


class AddressThere(Struct, frozen=True, kw_only=True, tag="address-there"):
    """The host still owns an address, and it is neither tentative nor a duplicate."""

    address: Cidr
    """With its prefix length, as `ip` prints it."""

    def __str__(self) -> str:
        return f"the host has {self.address}"


class LinkAddressed(Struct, frozen=True, kw_only=True, tag="link-addressed"):
    """A link has got a global IPv4 address, from whomever."""

    link: str

    def __str__(self) -> str:
        return f"{self.link} has an IPv4 address"


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
    | LinkAddressed
    | GatewayAnswers
    | RouteLeads
    | ConnectionLives
    | DnsAnswers
    | PingAnswers
    | TcpConnects
)

_FORMS = "--check takes ping:HOST or tcp:HOST:PORT, for example tcp:192.168.1.10:443"


def parse_check(text: str) -> Check:
    """A check as people write it: `ping:HOST` or `tcp:HOST:PORT`, `[…]` around IPv6 with a port.

    Raises `InvalidInput`.
    """
    kind, _, rest = text.partition(":")
    if kind == "ping":
        return PingAnswers(host=_host(rest, text))
    if kind != "tcp":
        raise InvalidInput(f"{text[:60]!a} is not a check", why=_FORMS)
    host, _, port = rest.rpartition(":")
    if not port.isascii() or not port.isdigit() or not 1 <= int(port[:6]) <= 65535:
        raise InvalidInput(f"{text[:60]!a} has no port of 1 to 65535", why=_FORMS)
    return TcpConnects(host=_host(host, text), port=int(port))


def _host(text: str, whole: str) -> str:
    """A name or an address, the brackets taken off."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ip_address(host))
    except ValueError:
        pass
    if not _NAME.fullmatch(host) or len(host) > 253 or host.replace(".", "").isdigit():
        raise InvalidInput(f"{whole[:60]!a} names no host: {host[:60]!a} is none", why=_FORMS)
    return host
