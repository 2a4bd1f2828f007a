"""What is wanted of guests that change networks, and what was read about them."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmnet.model.plan import Plan
from kvmnet.model.target import Target
from kvmnet.model.values import Mac
from kvmnet.model.virt import Guest

How = Literal["auto", "live", "offline", "replug", "next-boot"]
"""auto: live where that is possible without a new NIC in the guest, else at its next start."""


class MoveWish(Struct, frozen=True, kw_only=True):
    """What the user wants besides the target."""

    how: How = "auto"
    force: bool = False
    """Also where the guest's address would not fit."""
    together: bool = False
    """One guest that fails takes the others back with it."""


class NicWork(Struct, frozen=True, kw_only=True):
    """One NIC that moves."""

    number: int
    """Counted from 1 in the definition that holds it."""
    mac: Mac
    new_mac: Mac | None = None
    before: str
    """Where it is: `network:default`."""
    after: str
    before_xml: str | None = None
    """The running NIC; None: the guest does not run, or has no such NIC."""
    after_xml: str | None = None
    remarks: tuple[str, ...] = ()
    """What it loses, and what there is to know about it."""


class GuestWork(Struct, frozen=True, kw_only=True):
    """One guest of which NICs move."""

    guest: Guest
    saved_before: str | None
    """None: a transient guest."""
    saved_after: str | None
    nics: tuple[NicWork, ...]


class GuestMove(Struct, frozen=True, kw_only=True):
    """What will become of one guest."""

    guest: str
    uuid: str
    how: Literal["offline", "live", "replug", "next-boot", "nothing", "refused"]
    notices: str
    """What the guest notices, or why it is refused."""


class MovePlan(Struct, frozen=True, kw_only=True):
    """The plan, and what it means for each guest."""

    target: Target
    guests: tuple[GuestMove, ...]
    plan: Plan

    @property
    def refused(self) -> tuple[GuestMove, ...]:
        return tuple(x for x in self.guests if x.how == "refused")
