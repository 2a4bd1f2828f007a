"""The answer to Docker's `GET /networks` (https://docs.docker.com/reference/api/engine/)."""

from __future__ import annotations

import contextlib
import ipaddress

import msgspec
from msgspec import Struct

from kvmnet.errors import InvalidInput
from kvmnet.model.host import DockerNetwork
from kvmnet.model.values import Cidr


class _Subnet(Struct, rename="pascal"):
    subnet: str = ""


class _Ipam(Struct, rename="pascal"):
    config: list[_Subnet] | None = None


class _Network(Struct):
    name: str = msgspec.field(name="Name", default="")
    ipam: _Ipam | None = msgspec.field(name="IPAM", default=None)


def parse(text: str) -> tuple[DockerNetwork, ...]:
    """All networks that have a subnet. Raises `InvalidInput`."""
    try:
        networks = msgspec.json.decode(text.encode("utf-8", "replace"), type=list[_Network])
    except msgspec.MsgspecError as error:
        raise InvalidInput("the answer of Docker is not understood", why=str(error)) from None
    found = (DockerNetwork(name=x.name, subnets=_subnets(x)) for x in networks)
    return tuple(x for x in found if x.subnets)


def _subnets(network: _Network) -> tuple[Cidr, ...]:
    subnets: list[Cidr] = []
    for entry in (network.ipam.config or []) if network.ipam else []:
        with contextlib.suppress(ValueError):  # a plugin's own notion of a subnet
            subnets.append(Cidr(str(ipaddress.ip_network(entry.subnet, strict=False))))
    return tuple(subnets)
