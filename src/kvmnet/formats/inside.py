"""What Linux tells inside a guest: routes of /proc/net, DNS servers of resolv.conf.

The texts come from inside a guest and are not to be trusted: lines that are not understood are left
out, and nothing is taken that is no address.
"""

from __future__ import annotations

import ipaddress

import msgspec
from msgspec import Struct

from kvmnet.errors import InvalidInput
from kvmnet.model.values import Ip

MAX_SERVERS = 8


class InsideRoute(Struct, frozen=True, kw_only=True):
    """A default route of a guest."""

    nic: str
    """Inside the guest."""
    gateway: Ip | None
    metric: int = 0


def default_routes4(text: str) -> tuple[InsideRoute, ...]:
    """Default routes of /proc/net/route (hexadecimal, in the guest's byte order: little)."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) < 8 or words[1] != "00000000" or words[7] != "00000000":
            continue
        try:
            raw = int(words[2], 16).to_bytes(4, "little")
            metric = int(words[6])
        except (ValueError, OverflowError):
            continue
        gateway = Ip(str(ipaddress.IPv4Address(raw)))
        found.append(
            InsideRoute(
                nic=words[0][:64], gateway=None if gateway == "0.0.0.0" else gateway, metric=metric
            )
        )
    return tuple(found)


def default_routes6(text: str) -> tuple[InsideRoute, ...]:
    """Default routes of /proc/net/ipv6_route; those that only say "unreachable" are left out."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) != 10 or words[0] != "0" * 32 or words[1] != "00" or words[9] == "lo":
            continue
        try:
            gateway = Ip(str(ipaddress.IPv6Address(bytes.fromhex(words[4]))))
            metric = int(words[5], 16)
        except ValueError:
            continue
        found.append(
            InsideRoute(
                nic=words[9][:64], gateway=None if gateway == "::" else gateway, metric=metric
            )
        )
    return tuple(found)


class _AgentRoute(Struct):
    iface: str = ""
    destination: str = ""
    gateway: str = ""
    mask: str = ""
    prefixlen: int | None = None
    metric: int = 0


def agent_routes(raw: object) -> tuple[InsideRoute, ...]:
    """Default routes of the agent's `guest-network-get-route` (QEMU 9.1 and later).

    Raises `InvalidInput` for an answer of another form.
    """
    try:
        routes = msgspec.convert(raw, list[_AgentRoute], strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInput("the guest agent's routes are not understood", why=str(error)) from None
    return tuple(
        InsideRoute(nic=x.iface[:64], gateway=_ip(x.gateway), metric=x.metric)
        for x in routes
        if x.destination in ("0.0.0.0", "::", "default")
        and (x.prefixlen or 0) == 0
        and x.mask in ("", "0.0.0.0")
    )


def dns_servers(text: str) -> tuple[Ip, ...]:
    """The servers of a resolv.conf (resolv.conf(5)), in their order."""
    words = [line.split() for line in text.splitlines()]
    named = [x[1] for x in words if len(x) >= 2 and x[0] == "nameserver"]
    found = [ip for name in named[:MAX_SERVERS] if (ip := _ip(name.partition("%")[0])) is not None]
    return tuple(dict.fromkeys(found))


def _ip(text: str) -> Ip | None:
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if ip.is_unspecified else Ip(str(ip))
