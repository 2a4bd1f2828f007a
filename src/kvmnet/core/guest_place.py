"""Where a guest's NIC is, and where it should be, by what the host tells: pure decisions."""

from __future__ import annotations

from msgspec import Struct

from kvmnet.model.host import Link
from kvmnet.model.state import State
from kvmnet.model.virt import Guest, GuestNic, Network


class GuestPlace(Struct, frozen=True, kw_only=True):
    """One NIC of a guest on this host."""

    guest: Guest
    number: int
    """Of the NIC, from 1."""
    nic: GuestNic
    network: Network | None = None
    """The libvirt network that it is on."""
    belongs_to: str | None = None
    """The bridge that its tap should be a port of; for a macvtap the NIC below it."""
    tap: Link | None = None
    """None: there is no such link."""
    by_macvtap: bool = False

    @property
    def is_there(self) -> bool:
        """The tap is on what it belongs to."""
        if self.tap is None or self.belongs_to is None:
            return False
        return self.belongs_to == (self.tap.parent if self.by_macvtap else self.tap.master)


def guest_place(state: State, guest: Guest, number: int) -> GuestPlace:
    """The NIC of that number, with what it is on and should be on."""
    nic = guest.nics[number - 1]
    network = None
    if nic.type == "network":
        network = next(
            (x for x in state.networks
             if x.name == nic.source and x.connection == guest.connection), None
        )  # fmt: skip
    tap = None if nic.target is None else state.link(nic.target)
    by_macvtap = nic.type == "direct" or (tap is not None and tap.kind == "macvtap")
    return GuestPlace(
        guest=guest, number=number, nic=nic, network=network, tap=tap, by_macvtap=by_macvtap,
        belongs_to=_belongs_to(nic, network, tap, by_macvtap=by_macvtap),
    )  # fmt: skip


def _belongs_to(
    nic: GuestNic, network: Network | None, tap: Link | None, *, by_macvtap: bool
) -> str | None:
    if nic.type in ("bridge", "direct"):
        return nic.source
    if nic.type != "network":
        return None
    if by_macvtap:
        return tap.parent if tap is not None else None
    config = network.config if network is not None else None
    return nic.bridge or (config.bridge if config is not None else None)
