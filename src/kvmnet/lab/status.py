"""What `kvmnet lab status` tells: plain data, quick to import."""

from __future__ import annotations

from msgspec import Struct


class PlaceStatus(Struct, frozen=True, kw_only=True):
    """One place of a lab."""

    where: str
    meaning: str
    pid: int
    """The process that holds its namespaces open, for `nsenter -t PID -m -n -u -p -i`."""
    addresses: tuple[str, ...]
    """`NIC ADDRESS/LENGTH`, without loopback and link-local ones."""
    daemons: tuple[str, ...]
    """Names of the programs that run there."""


class GuestStatus(Struct, frozen=True, kw_only=True):
    """One guest of a lab."""

    name: str
    state: str
    nics: tuple[str, ...]
    """`TYPE:SOURCE` of each NIC."""
    addresses: tuple[str, ...]
    """What its agent reports, without link-local ones."""
