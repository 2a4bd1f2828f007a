"""What users write to say where to probe and what to reach."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Literal

from kvmnet.core.finding import command
from kvmnet.errors import InvalidInput
from kvmnet.model.probe import Endpoint
from kvmnet.model.values import parse_domain_name, parse_nic_name

Kind = Literal["network", "bridge", "guest"]


def parse_target(text: str) -> tuple[Kind, str]:
    """`network:NAME`, `bridge:NAME` or `guest:NAME`. Raises `InvalidInput`."""
    kind, _, name = text.partition(":")
    kinds: dict[str, Kind] = {"network": "network", "bridge": "bridge", "guest": "guest"}
    if kind not in kinds or not name:
        raise InvalidInput(
            f"{text[:80]!a} is no target",
            why="network:NAME, bridge:NAME or guest:NAME is expected",
            hint=_target_hint(text),
        )
    return kinds[kind], name


def _target_hint(text: str) -> str:
    """A bare name is most likely a guest's, as `kvmnet doctor` and `kvmnet trace` take it."""
    if text and ":" not in text:
        return f"kvmnet probe {command(f'guest:{text[:80]}')}, or network:NAME, bridge:NAME"
    return "kvmnet probe network:default"


def parse_origin(text: str) -> str:
    """The NIC of `lan:NIC`. Raises `InvalidInput`."""
    kind, colon, name = text.partition(":")
    if kind != "lan" or not colon:
        raise InvalidInput(
            f"{text[:80]!a} is no place to probe from",
            why="lan:NIC is expected, the LAN that this NIC of the host leads to",
            hint="an example: --from lan:eth0",
        )
    return parse_nic_name(name)


def parse_endpoint(text: str) -> Endpoint:
    """`HOST`, `HOST:PORT` or `[IPv6]:PORT`. Raises `InvalidInput`."""
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise _bad_endpoint(text)
        port = rest[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if text.endswith(":") and text.count(":") < 2:
        raise _bad_endpoint(text)
    if "%" in host:  # a zone names a NIC of this host, which the stand-in does not have
        raise _bad_endpoint(text)
    if port and not (port.isdecimal() and port.isascii() and 0 < int(port[:6]) < 65536):
        raise _bad_endpoint(text)
    try:
        host = str(ip_address(host))
    except ValueError:
        if ":" in host or host.rsplit(".", 1)[-1].isdecimal():
            raise _bad_endpoint(text) from None
        try:
            host = parse_domain_name(host.rstrip("."))
        except InvalidInput:  # which speaks of a network's domain
            raise _bad_endpoint(text) from None
    return Endpoint(host=host, port=int(port) if port else None)


def _bad_endpoint(text: str) -> InvalidInput:
    return InvalidInput(
        f"{text[:80]!a} is nothing to connect to",
        why="a name or IP address is expected, with a port after a colon if it is to be TCP",
        hint="examples: example.org:443, 192.168.1.1, [2001:db8::1]:22",
    )
