"""What libvirt and the guest agent answer about addresses, as model objects."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from kvmnet.errors import InvalidInput
from kvmnet.formats.iproute import mac_or_none
from kvmnet.model.values import Ip
from kvmnet.model.virt import AgentAddress, Lease


def lease(raw: Mapping[str, Any], *, connection: str, network: str) -> Lease:
    """One entry of `virNetworkGetDHCPLeases`; `type` 0 is IPv4, an expiry of 0 is never."""
    hostname, client_id = raw.get("hostname"), raw.get("clientid")
    return Lease(
        connection=connection,
        network=network,
        mac=mac_or_none(raw.get("mac")),
        ip=Ip(str(raw.get("ipaddr", ""))),
        family=6 if raw.get("type") == 1 else 4,
        prefix_len=raw.get("prefix"),
        hostname=hostname if hostname and hostname != "*" else None,
        client_id=client_id if client_id and client_id != "*" else None,
        expires_at=raw.get("expirytime") or None,
    )


class _AgentIp(Struct, rename="kebab"):
    ip_address: str = ""
    ip_address_type: str = ""
    prefix: int = 0


class _AgentNic(Struct, rename="kebab"):
    name: str = ""
    hardware_address: str = ""
    ip_addresses: list[_AgentIp] = []


class _AgentAnswer(Struct):
    # `return` is the name of the key in QEMU's protocol.
    nics: list[_AgentNic] = msgspec.field(name="return", default_factory=list)


def agent_addresses(text: str) -> tuple[AgentAddress, ...]:
    """The answer to `guest-network-get-interfaces`: addresses of NICs that have a MAC.

    The text comes from inside a guest and is not to be trusted: what is no address raises
    `InvalidInput`.
    """
    try:
        answer = msgspec.json.decode(text.encode("utf-8", "replace"), type=_AgentAnswer)
        return tuple(
            AgentAddress(
                mac=mac,
                ip=Ip(str(ipaddress.ip_address(ip.ip_address.partition("%")[0]))),
                prefix_len=ip.prefix,
                family=6 if ip.ip_address_type == "ipv6" else 4,
                nic=nic.name[:64],
            )
            for nic in answer.nics
            if (mac := mac_or_none(nic.hardware_address)) is not None
            for ip in nic.ip_addresses
        )
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidInput("the guest agent's answer is not understood", why=str(error)) from None
