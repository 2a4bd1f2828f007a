"""What is read from libvirt: from itself, or from its files."""

from __future__ import annotations

import enum

from msgspec import Struct

from kvmnet.errors import KvmnetError, NotInstalled
from kvmnet.model.state import Connection, Unread
from kvmnet.model.virt import Guest, Lease, Network


class Kind(enum.Enum):
    """What to read from libvirt."""

    NETWORKS = "networks"
    LEASES = "leases"
    GUESTS = "guests"
    AGENTS = "agents"


class VirtRead(Struct):
    """What was read so far. A time-out leaves what came before it."""

    connections: list[Connection] = []
    networks: list[Network] = []
    leases: list[Lease] = []
    guests: list[Guest] = []
    unread: list[Unread] = []


def named(uri: str | None) -> str:
    """A connection for people."""
    return f"libvirt {uri or '(default connection)'}"


def unread(what: str, error: KvmnetError) -> Unread:
    """An error as a line of the State."""
    absent = isinstance(error, NotInstalled)
    return Unread(what=what, why=error.why or error.what, hint=error.hint, absent=absent)
