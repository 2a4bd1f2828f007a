"""Which NICs of a guest are meant, and which MAC addresses they get: pure decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kvmnet.core.macs import QEMU_PREFIX, generate
from kvmnet.errors import InvalidInput, NotFound, Refused
from kvmnet.model.nic_choice import AllNics, MacWish, NicChoice, NicWithMac, NumberedNic
from kvmnet.model.target import Target, is_on, place
from kvmnet.model.values import Mac
from kvmnet.model.virt import GuestNic


def choose(
    nics: Sequence[GuestNic], wanted: NicChoice | None, on: Target | None, guest: str
) -> tuple[int, ...]:
    """The numbers, from 1, of the NICs that `--nic` and `--from` mean together.

    Without either it is the only NIC. Raises `NotFound` if none is meant, `InvalidInput` if it is
    not clear which.
    """
    if not nics:
        raise NotFound(f"{guest} has no NIC", why="its definition has no <interface>")
    if wanted is None:
        wanted = _the_only(nics, guest) if on is None else AllNics()
    chosen = _named(nics, wanted, guest)
    if on is None:
        return chosen
    there = tuple(number for number in chosen if is_on(nics[number - 1], on))
    if not there:
        which = f"NIC {chosen[0]}" if len(chosen) == 1 else "no NIC"
        verb = "is not" if len(chosen) == 1 else "is"
        raise NotFound(f"{which} of {guest} {verb} on {on}", why=listed(nics))
    return there


def _the_only(nics: Sequence[GuestNic], guest: str) -> NicChoice:
    if len(nics) > 1:
        raise InvalidInput(
            f"which NIC of {guest} is meant is not clear",
            why=f"it has {listed(nics)}",
            hint="--nic 1, --nic MAC, --nic all, or --from TARGET",
        )
    return AllNics()


def _named(nics: Sequence[GuestNic], wanted: NicChoice, guest: str) -> tuple[int, ...]:
    match wanted:
        case AllNics():
            return tuple(range(1, len(nics) + 1))
        case NumberedNic():
            if wanted.number > len(nics):
                raise NotFound(f"{guest} has no NIC {wanted.number}", why=f"it has {listed(nics)}")
            return (wanted.number,)
        case NicWithMac():
            found = tuple(n for n, nic in enumerate(nics, 1) if nic.mac == wanted.mac)
            if not found:
                raise NotFound(
                    f"{guest} has no NIC with the address {wanted.mac}",
                    why=f"it has {listed(nics)}",
                )
            if len(found) > 1:
                raise InvalidInput(
                    f"{len(found)} NICs of {guest} have the address {wanted.mac}",
                    why=f"it has {listed(nics)}",
                    hint=f"--nic {found[0]}",
                )
            return found


def listed(nics: Sequence[GuestNic]) -> str:
    """The NICs on one line, for people."""
    return "; ".join(
        f"NIC {number}: {nic.mac or 'no address'} on {place(nic)}"
        for number, nic in enumerate(nics, 1)
    )


def new_addresses(
    nics: Sequence[GuestNic],
    chosen: Sequence[int],
    wish: MacWish,
    random_bytes: Callable[[int], bytes],
) -> Mapping[int, Mac]:
    """The MAC address that each chosen NIC gets, by its number; nothing for one that keeps its own.

    Raises `Refused` for an address that another NIC of the guest has, `InvalidInput` for one
    address and several NICs.
    """
    used = {nic.mac for nic in nics if nic.mac is not None}
    if wish.kind == "new":
        fresh = generate(QEMU_PREFIX, len(chosen), used, random_bytes)
        return dict(zip(chosen, fresh, strict=True))
    if wish.kind == "keep" or wish.mac is None:
        return {}
    if len(chosen) != 1:
        raise InvalidInput(
            f"{wish.mac} can not become the address of {len(chosen)} NICs",
            why="an address belongs to one NIC",
            hint="--mac new gives each its own",
        )
    others = [n for n, nic in enumerate(nics, 1) if nic.mac == wish.mac and n != chosen[0]]
    if others:
        raise Refused(
            f"{wish.mac} is the address of NIC {others[0]} of the same guest",
            why="two NICs with one address on a LAN take each other's packets",
        )
    if nics[chosen[0] - 1].mac == wish.mac:
        return {}
    return {chosen[0]: wish.mac}
