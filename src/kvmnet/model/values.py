"""Names, MAC and IP addresses: the values that come in from users and from XML.

Each `parse_*` is a door: it takes text from outside, returns the canonical value, and raises
`InvalidInput` with what is wrong. Inside the project such a value is never checked again.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NewType

from kvmnet.errors import InvalidInput

Mac = NewType("Mac", str)
"""A MAC address in canonical form: six lower-case octets joined by colons."""

Ip = NewType("Ip", str)
"""An IPv4 or IPv6 address in canonical text form (RFC 5952 for IPv6), without a prefix."""

Cidr = NewType("Cidr", str)
"""An IP prefix in canonical text form, host bits zero: `192.168.122.0/24`."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_PREFIX = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){0,4}")
_NIC = re.compile(r"[!-.0-9;-~]{1,15}")
_OBJECT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+:@-]{0,63}")
_DOMAIN_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def _shown(text: str) -> str:
    """`text` made safe to print inside a message: escaped and cut."""
    cut = text if len(text) <= 60 else text[:57] + "..."
    return ascii(cut)


def parse_mac(text: str) -> Mac:
    """A unicast MAC address, in any of the usual spellings (`-` or `:` between octets)."""
    canonical = text.strip().lower().replace("-", ":")
    if not _MAC.fullmatch(canonical):
        raise InvalidInput(
            f"{_shown(text)} is not a MAC address",
            why="six pairs of hexadecimal digits joined by colons are expected",
            hint="an example: 52:54:00:12:34:56",
        )
    if int(canonical[:2], 16) & 1:
        raise InvalidInput(
            f"{canonical} can not be a NIC's address",
            why="the lowest bit of its first octet marks a multicast group (IEEE 802)",
            hint="use an even first octet, as in 52:54:00:12:34:56",
        )
    return Mac(canonical)


def parse_mac_prefix(text: str) -> str:
    """One to five leading octets for new addresses, for example `52:54:00` (QEMU's own)."""
    canonical = text.strip().lower().replace("-", ":").removesuffix(":")
    if not _PREFIX.fullmatch(canonical):
        raise InvalidInput(
            f"{_shown(text)} is not a MAC prefix",
            why="one to five pairs of hexadecimal digits joined by colons are expected",
            hint="QEMU's prefix is 52:54:00",
        )
    if int(canonical[:2], 16) & 1:
        raise InvalidInput(
            f"the prefix {canonical} makes multicast addresses",
            why="the lowest bit of the first octet marks a group, no NIC may own one (IEEE 802)",
            hint="use an even first octet; QEMU's prefix is 52:54:00",
        )
    return canonical


def parse_nic_name(text: str) -> str:
    """A name the kernel accepts for a link (`dev_valid_name`): 1 to 15 bytes, no `/` and no `:`."""
    if not _NIC.fullmatch(text) or text in {".", ".."}:
        raise InvalidInput(
            f"{_shown(text)} can not be the name of a bridge or NIC",
            why="the kernel takes 1 to 15 printable ASCII characters without space, / and :",
            hint="an example: br0",
        )
    if text.startswith("-"):
        raise InvalidInput(
            f"{_shown(text)} can not be the name of a bridge or NIC",
            why="a name that begins with a dash is read as an option by every tool",
        )
    return text


def parse_object_name(text: str, kind: str) -> str:
    """A name for a libvirt network or guest that is safe in files, logs and on command lines."""
    if not _OBJECT.fullmatch(text) or text in {".", ".."}:
        raise InvalidInput(
            f"{_shown(text)} can not be the name of a {kind}",
            why="1 to 64 letters, digits and . _ + : @ - are allowed, first a letter or digit",
            hint=f"an example: {'default' if kind == 'network' else 'web'}",
        )
    return text


def parse_domain_name(text: str) -> str:
    """A DNS domain for a network's guests (RFC 1035, section 2.3.1)."""
    if len(text) > 253 or not all(_DOMAIN_LABEL.fullmatch(label) for label in text.split(".")):
        raise InvalidInput(
            f"{_shown(text)} is not a DNS domain",
            why="labels of letters, digits and dashes joined by dots are expected",
            hint="an example: guests.example",
        )
    return text.lower()


def parse_ip(text: str) -> Ip:
    """An IPv4 or IPv6 address without prefix or zone."""
    try:
        return Ip(str(ipaddress.ip_address(text.strip())))
    except ValueError:
        raise InvalidInput(
            f"{_shown(text)} is not an IP address", hint="an example: 192.168.122.10"
        ) from None


def parse_cidr(text: str) -> Cidr:
    """An IP prefix such as `192.168.122.0/24`; an address inside it is taken for its prefix."""
    if "/" not in text:
        raise InvalidInput(
            f"{_shown(text)} is not a subnet",
            why="the length of the prefix is missing",
            hint="an example: 192.168.122.0/24",
        )
    try:
        return Cidr(str(ipaddress.ip_network(text.strip(), strict=False)))
    except ValueError:
        raise InvalidInput(
            f"{_shown(text)} is not a subnet", hint="an example: 192.168.122.0/24"
        ) from None


def parse_host_cidr(text: str) -> Cidr:
    """A host's own address with its prefix length, such as `192.168.1.5/24`; kept as it is."""
    try:
        if "/" not in text:
            raise ValueError
        address = ipaddress.ip_interface(text.strip())
    except ValueError:
        raise InvalidInput(
            f"{_shown(text)} is not an address with its prefix length",
            hint="an example: 192.168.1.5/24",
        ) from None
    if address.ip == address.network.network_address and address.network.num_addresses > 2:
        raise InvalidInput(
            f"{_shown(text)} is a subnet and not an address in it",
            hint=f"an example: {next(address.network.hosts())}/{address.network.prefixlen}",
        )
    return Cidr(str(address))
