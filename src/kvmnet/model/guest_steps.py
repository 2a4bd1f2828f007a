"""Steps that change guests. They name a guest by its UUID: its name may change meanwhile.

Their XML is libvirt's own and may hold secrets (the password of a guest's screen): the journal
keeps it, nothing shows it. `shown` is what people and documents get.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from kvmnet.model.values import Cidr, Ip, Mac

Where = Literal["running", "saved"]
"""The NICs that a running guest has now, or those of its definition for its next start."""

PROOF_S = 30.0
"""Seconds for a guest to ask for an address and to use it."""


class SaveGuest(Struct, frozen=True, kw_only=True, tag="save-guest"):
    """Change a guest's saved definition. It fails if the guest was started or ended meanwhile."""

    guest: str
    uuid: str
    what: str
    """For people: `NIC 1 (52:54:00:…): network:default becomes bridge:br0`."""
    xml: str
    active: bool
    """Whether the guest runs; a running one uses its definition from its next start on."""

    def __str__(self) -> str:
        return f"save the definition of guest {self.guest}: {self.what}"


class RestoreGuest(Struct, frozen=True, kw_only=True, tag="restore-guest"):
    """Save a guest's definition as it was; nothing to do for one that nobody has any more."""

    guest: str
    uuid: str
    xml: str

    def __str__(self) -> str:
        return f"save the definition of guest {self.guest} as it was"


class MoveNic(Struct, frozen=True, kw_only=True, tag="move-nic"):
    """Put a NIC of a running guest on something else; the guest keeps it."""

    guest: str
    uuid: str
    mac: Mac
    place: str
    """Where to: `bridge:br0`."""
    xml: str
    """The `<interface>` as it is to be."""
    cable: Literal["kept", "pulled"] = "pulled"
    """pulled: the guest sees its cable pulled and plugged in, so it asks for an address again."""
    if_off: Literal["fail", "skip"] = "fail"
    """What a guest means that was shut down meanwhile."""

    def __str__(self) -> str:
        cable = ", and pull its cable for a moment" if self.cable == "pulled" else ""
        return f"put NIC {self.mac} of running guest {self.guest} on {self.place}{cable}"


class PlugNic(Struct, frozen=True, kw_only=True, tag="plug-nic"):
    """Give a guest a NIC; nothing to do if it has one of that address."""

    guest: str
    uuid: str
    mac: Mac
    place: str
    xml: str
    where: Where
    if_off: Literal["fail", "skip"] = "fail"

    def __str__(self) -> str:
        if self.where == "saved":
            return f"save NIC {self.mac} on {self.place} in the definition of guest {self.guest}"
        return f"plug NIC {self.mac} on {self.place} into running guest {self.guest}"


class UnplugNic(Struct, frozen=True, kw_only=True, tag="unplug-nic"):
    """Take a NIC from a guest; nothing to do if it has none of that address."""

    guest: str
    uuid: str
    mac: Mac
    where: Where

    def __str__(self) -> str:
        if self.where == "saved":
            return f"take NIC {self.mac} out of the definition of guest {self.guest}"
        return f"unplug NIC {self.mac} from running guest {self.guest}"


class ProveGuest(Struct, frozen=True, kw_only=True, tag="prove-guest"):
    """Go on only if packets show that a running guest's NIC is where it should be."""

    guest: str
    uuid: str
    mac: Mac
    place: str
    demands: Literal["port", "address"]
    """port: its port forwards in the right bridge; address: and its MAC is learnt there, and it
    answers at an address of the place."""
    subnets: tuple[Cidr, ...] = ()
    """Those of the place, where they are known: an address of none of them does not count."""
    old: tuple[Ip, ...] = ()
    """Addresses that it had elsewhere: they do not count where `subnets` is empty."""
    within_s: float = PROOF_S
    if_off: Literal["fail", "skip"] = "fail"

    def __str__(self) -> str:
        what = {"port": "its port forwards", "address": "it answers at its address there"}
        return (
            f"prove that NIC {self.mac} of guest {self.guest} is on {self.place}: "
            + (what[self.demands])
        )


GuestStep = SaveGuest | RestoreGuest | MoveNic | PlugNic | UnplugNic | ProveGuest

GUEST_STEPS = (SaveGuest, RestoreGuest, MoveNic, PlugNic, UnplugNic, ProveGuest)


def shown(step: GuestStep) -> GuestStep:
    """The step without its XML, for terminals and documents."""
    match step:
        case SaveGuest() | RestoreGuest() | MoveNic() | PlugNic():
            return msgspec.structs.replace(step, xml="")
        case UnplugNic() | ProveGuest():
            return step
