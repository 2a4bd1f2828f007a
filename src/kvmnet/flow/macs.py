"""MAC addresses: look everywhere one could be in use, then make new ones, and ask the LAN."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

from msgspec import Struct

from kvmnet.adapters import libvirt_files
from kvmnet.adapters.connections import present_connections
from kvmnet.adapters.libvirt_files import (
    other_session_folders,
    own_session_folders,
    system_folders,
)
from kvmnet.core.macs import MacUse, generate, uses_in
from kvmnet.flow.observe import Part, observe
from kvmnet.model.state import State, Unread
from kvmnet.model.values import Mac

KERNEL_PARTS = frozenset({Part.LINKS, Part.NEIGHBOURS, Part.FORWARDING})
LIBVIRT_PARTS = frozenset({Part.NETWORKS, Part.GUESTS, Part.LEASES})

_DEFAULT = "libvirt (default connection)"
"""What could not be read where nobody named a connection: mostly one that has a name, too."""

PROBE_ROUNDS = 8
"""How often addresses that the LAN answers for are replaced by new ones before giving up."""


class KnownMacs(Struct, frozen=True, kw_only=True):
    """All addresses in use that could be found, and where nobody could look."""

    uses: tuple[MacUse, ...]
    unread: tuple[Unread, ...]

    def of(self, mac: Mac) -> tuple[MacUse, ...]:
        return tuple(use for use in self.uses if use.mac == mac)

    def under(self, prefix: str) -> int:
        """How many different addresses with that prefix are in use."""
        return len({use.mac for use in self.uses if use.mac.startswith(prefix + ":")})


def known_macs(uri: str | None) -> KnownMacs:
    """Look at the host and at every libvirt connection that is there, `uri`'s first.

    Of a connection that does not answer the definitions' files are read: its guests exist anyway.
    """
    states = [observe(uri, KERNEL_PARTS | LIBVIRT_PARTS)]
    seen = {connection.uri for connection in states[0].connections}
    states += [
        observe(other, LIBVIRT_PARTS) for other in present_connections() if other not in seen
    ]
    return known_in([*states, *_from_files(states)])


def _from_files(states: Sequence[State]) -> Iterator[State]:
    """What the files of those local connections tell that were not read to the end."""
    answered = {
        connection.uri
        for state in states
        if not any(gap.what.startswith("libvirt ") for gap in state.unread)
        for connection in state.connections
    }
    others = other_session_folders() if os.getuid() == 0 else ()
    for one in (system_folders(), own_session_folders(), *others):
        if any(one.is_of(uri) for uri in answered):
            continue
        found = libvirt_files.read(one)
        yield State(
            taken_at=int(time.time()), hostname="", networks=tuple(found.networks),
            guests=tuple(found.guests), unread=tuple(found.unread),
        )  # fmt: skip


def known_in(states: Sequence[State]) -> KnownMacs:
    """The same from States that were read before."""
    uses = dict.fromkeys(use for state in states for use in uses_in(state))
    gaps = dict.fromkeys(gap for state in states for gap in state.unread)
    named = {gap.why for gap in gaps if gap.what.startswith("libvirt ") and gap.what != _DEFAULT}
    unread = (gap for gap in gaps if gap.what != _DEFAULT or gap.why not in named)
    return KnownMacs(uses=tuple(uses), unread=tuple(unread))


def new_macs(
    prefix: str, count: int, known: KnownMacs, *, probe_nic: str | None, wait_s: float
) -> tuple[Mac, ...]:
    """`count` addresses nobody is known to use; with `probe_nic` the LAN is asked for each too.

    Raises `Refused` where the prefix has no room, `InvalidInput` for a senseless count.
    """
    taken = {use.mac for use in known.uses}
    chosen = generate(prefix, count, taken, os.urandom)
    if probe_nic is None:
        return chosen
    for _round in range(PROBE_ROUNDS):
        answered = {use.mac for use in lan_uses(probe_nic, chosen, wait_s)}
        if not answered:
            return chosen
        taken |= answered
        kept = tuple(mac for mac in chosen if mac not in answered)
        fresh = generate(prefix, count - len(kept), taken | set(kept), os.urandom)
        chosen = kept + fresh
    return chosen


def lan_uses(nic: str, macs: Sequence[Mac], wait_s: float) -> tuple[MacUse, ...]:
    """Which of the addresses somebody on the NIC's LAN answers for, or is heard using."""
    from kvmnet.flow.mac_probe import ask_lan

    return tuple(
        MacUse(mac=answer.mac, kind="lan", where=f"{answer.how} on {nic}")
        for answer in ask_lan(nic, macs, wait_s)
    )
