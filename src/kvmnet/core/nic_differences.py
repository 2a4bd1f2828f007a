"""How a running guest's NICs differ from what is saved, which the next start will use."""

from __future__ import annotations

from msgspec import Struct

from kvmnet.model.virt import Guest, GuestNic

COMPARED = ("type", "source", "source_mode", "portgroup", "model", "link_up", "mtu", "filter",
            "virtualport", "vlans", "backend")  # fmt: skip
"""What a user sets. Target, alias and bridge are libvirt's own choice at each start."""


class NicDifference(Struct, frozen=True, kw_only=True):
    """One difference of one NIC."""

    nic: str
    """The NIC's MAC; where it has none, its place: `#2`."""
    what: str
    """An attribute's name; or `only running`, `only saved`."""
    running: str | None = None
    saved: str | None = None


def nic_differences(guest: Guest) -> tuple[NicDifference, ...]:
    """All differences; none for a guest that is shut off or has no saved definition."""
    if not guest.active or not guest.persistent:
        return ()
    running = {_key(i, x): x for i, x in enumerate(guest.live_nics, 1)}
    saved = {_key(i, x): x for i, x in enumerate(guest.saved_nics, 1)}
    found: list[NicDifference] = []
    for key, nic in running.items():
        other = saved.get(key)
        if other is None:
            found.append(NicDifference(nic=key, what="only running", running=_place(nic)))
        elif other != nic:
            found.extend(_compare(key, nic, other))
    found.extend(
        NicDifference(nic=key, what="only saved", saved=_place(nic))
        for key, nic in saved.items()
        if key not in running
    )
    return tuple(found)


def _key(place: int, nic: GuestNic) -> str:
    return nic.mac or f"#{place}"


def _place(nic: GuestNic) -> str:
    return f"{nic.type}:{nic.source}" if nic.source else nic.type


def _compare(key: str, running: GuestNic, saved: GuestNic) -> list[NicDifference]:
    return [
        NicDifference(nic=key, what=name, running=_text(ours), saved=_text(theirs))
        for name in COMPARED
        if (ours := getattr(running, name)) != (theirs := getattr(saved, name))
    ]


def _text(value: object) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return None if value is None else str(value)
