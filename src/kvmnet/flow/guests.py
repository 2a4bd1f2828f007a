"""Guests that change networks: read, planned, moved, proven."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
from msgspec import Struct

from kvmnet.adapters import guest_proof, libvirt_guests
from kvmnet.adapters.libvirt import knows_passt
from kvmnet.adapters.libvirt_guests import GuestXml
from kvmnet.core import guest_choice, move_plan
from kvmnet.core.nic_choice import choose, new_addresses
from kvmnet.errors import KvmnetError, NotFound, Unavailable, Undone
from kvmnet.flow.apply import Watcher, apply, changing
from kvmnet.flow.observe import Part, observe
from kvmnet.formats import domain_edit, guest_xml
from kvmnet.formats.domain_edit import Converted, NicChange, NicEdit
from kvmnet.model.guest_steps import MoveNic, ProveGuest
from kvmnet.model.move import GuestWork, MovePlan, MoveWish, NicWork
from kvmnet.model.nic_choice import MacWish, NicChoice
from kvmnet.model.plan import Plan
from kvmnet.model.target import Target, UserTarget, is_on
from kvmnet.model.transaction import LeftOut
from kvmnet.model.values import Mac
from kvmnet.model.virt import Guest, GuestNic

Consent = Callable[[MovePlan], None]

_PARTS = frozenset({Part.LINKS, Part.ADDRESSES, Part.NETWORKS, Part.FORWARDING})
RUNNING_PARTS = _PARTS | {Part.GUESTS, Part.AGENTS, Part.LEASES, Part.NEIGHBOURS}


_LOOKED_AT = 5
_BACK_S = 10.0


class MoveRequest(Struct, frozen=True, kw_only=True):
    """What the user asked for."""

    patterns: tuple[str, ...]
    """Names, UUIDs and patterns of guests; none: all."""
    target: Target
    nic: NicChoice | None = None
    origin: Target | None = None
    """Only NICs that are on it."""
    mac: MacWish = MacWish()
    wish: MoveWish = MoveWish()


def propose(request: MoveRequest, uri: str | None, watcher: Watcher) -> MovePlan:
    """Read the guests and plan; changes nothing. Raises `NotFound`, `Refused`, `InvalidInput`."""
    # With --all every guest is looked at, and those that have a NIC on --from are meant.
    wanted = guest_choice.matcher(request.patterns)
    found = libvirt_guests.read_all(uri, wanted)
    _check_found(request, found, uri)
    state = observe(uri, RUNNING_PARTS if any(x.active for x in found) else _PARTS)
    for gap in state.unread:
        if gap.what.startswith("libvirt") or gap.what == "links and addresses":
            raise Unavailable(f"{gap.what} could not be read", why=gap.why, hint=gap.hint)
        watcher.say(f"not looked at: {gap.what} ({gap.why})")
    guests = {x.uuid: x for x in state.guests}
    if not guests:  # none of them runs: what was read of them tells all that a plan needs
        guests = {x.uuid: _understood(x) for x in libvirt_guests.read_all(uri, _anyone(found))}
        guests |= {x.uuid: _understood(x) for x in found}
        state = msgspec.structs.replace(state, guests=tuple(guests.values()))
    works = [_work(x, guests[x.uuid], request) for x in found if x.uuid in guests]
    return move_plan.plan_move(state, [x for x in works if x], request.target, request.wish)


def _anyone(found: Sequence[GuestXml]) -> Callable[[str, str], bool]:
    """All guests but those that were read already: their addresses count too."""
    known = {x.uuid for x in found}
    return lambda _name, uuid: uuid not in known


def _check_found(request: MoveRequest, found: Sequence[GuestXml], uri: str | None) -> None:
    pairs = [(x.name, x.uuid) for x in found]
    everyone: list[str] = []
    if not all(any(guest_choice.matcher([x])(*pair) for pair in pairs) for x in request.patterns):
        everyone = [x.name for x in libvirt_guests.read_all(uri, lambda _name, _uuid: True)]
    guest_choice.check_found(request.patterns, pairs, everyone)
    if not found:
        raise NotFound("there is no guest at all", hint="kvmnet guest list")


def _understood(xml: GuestXml) -> Guest:
    nics = guest_xml.nics(xml.saved) if xml.saved is not None else ()
    return Guest(
        connection="", name=xml.name, uuid=xml.uuid, state="running" if xml.active else "shut off",
        id=0 if xml.active else None, persistent=xml.saved is not None, saved_nics=nics,
        live_nics=guest_xml.nics(xml.live) if xml.live is not None else (),
    )  # fmt: skip


def _work(xml: GuestXml, guest: Guest, request: MoveRequest) -> GuestWork | None:
    """What is to be done about one guest; None: with --all, one of which no NIC is meant."""
    base = xml.live if xml.live is not None else xml.saved
    assert base is not None
    domain = domain_edit.read(base.encode())
    nics = domain.nics
    try:
        chosen = choose(nics, request.nic, request.origin, f"guest {guest.name}")
    except NotFound:
        if request.patterns and not any("*" in x or "?" in x for x in request.patterns):
            raise
        return None
    macs = new_addresses(nics, chosen, request.mac, os.urandom)
    target = _target(request.target, [nics[x - 1] for x in chosen])
    edits = [NicEdit(number=x, target=target, mac=macs.get(x)) for x in chosen]
    first = domain_edit.convert(domain, edits)
    second = first
    if xml.saved is not None and xml.saved is not base:
        second = _saved(xml.saved, [nics[x - 1].mac for x in chosen], target, macs, chosen)
    losses = {x.mac: _remarks(x) for x in second.nics}
    works = tuple(
        _nic_work(x, xml.live, first, losses.get(x.mac, ()))
        for x in first.nics
        if x.mac is not None
    )
    saved = None if xml.saved is None else second.data.decode()
    return GuestWork(guest=guest, saved_before=xml.saved, saved_after=saved, nics=works)


def _target(target: Target, nics: Sequence[GuestNic]) -> Target:
    if target == UserTarget() and not all(is_on(x, target) for x in nics):
        return UserTarget(backend="slirp" if knows_passt() is False else "passt")
    return target


def _remarks(change: NicChange) -> tuple[str, ...]:
    """Of the definition: what a running NIC loses of libvirt's own making is no news."""
    lost = tuple(f"NIC {change.mac} loses {x.what}: {x.why}" for x in change.removed)
    return (*lost, *change.remarks)


def _nic_work(
    change: NicChange, live: str | None, first: Converted, remarks: tuple[str, ...]
) -> NicWork:
    assert change.mac is not None
    before = guest_xml.find(live, change.mac) if live is not None else None
    mac = change.new_mac or change.mac
    after = guest_xml.find(first.data.decode(), mac) if before is not None else None
    return NicWork(
        number=change.number, mac=change.mac, new_mac=change.new_mac, before=change.before,
        after=change.after, before_xml=before[1] if before else None,
        after_xml=after[1] if after else None, remarks=remarks,
    )  # fmt: skip


def _saved(
    saved: str,
    chosen: Sequence[Mac | None],
    target: Target,
    macs: Mapping[int, Mac],
    numbers: Sequence[int],
) -> Converted:
    """The saved definition with the same NICs moved; one that is not in it stays out."""
    by_mac = {x.mac: number for number, x in enumerate(guest_xml.nics(saved), 1)}
    edits = [
        NicEdit(number=by_mac[mac], target=target, mac=macs.get(number))
        for mac, number in zip(chosen, numbers, strict=True)
        if mac in by_mac
    ]
    return guest_xml.converted(saved, edits)


class Moved(Struct, frozen=True, kw_only=True):
    """How a move ended."""

    plan: MovePlan
    left_out: tuple[LeftOut, ...] = ()
    """Guests that failed and are where they were."""


def carry_out(
    request: MoveRequest,
    *,
    uri: str | None,
    command: str,
    consent: Consent,
    watcher: Watcher,
) -> Moved:
    """Plan under the lock, ask, move, verify. Raises what `propose` and `apply` raise."""
    with changing(command, watcher):
        proposed = propose(request, uri, watcher)
        consent(proposed)
        if not proposed.plan.steps:
            return Moved(plan=proposed)
        try:
            left_out = apply(
                proposed.plan, uri=uri, command=command, watcher=watcher, verify=lambda: None
            )
        except Undone as error:
            back = _back(proposed.plan, uri)
            why = "; ".join((error.why, *back))
            raise Undone(error.what, why=why, hint=error.hint) from None
        return Moved(plan=proposed, left_out=left_out)


def _back(plan: Plan, uri: str | None) -> Iterator[str]:
    """Where running guests that had to go back answer now, in sentences; a few are looked at."""
    moves = [x.undo for x in plan.steps if isinstance(x.undo, MoveNic)]
    for move in moves[:_LOOKED_AT]:
        proof = ProveGuest(
            guest=move.guest, uuid=move.uuid, mac=move.mac, place=move.place, demands="address",
            within_s=_BACK_S,
        )  # fmt: skip
        try:
            yield f"guest {move.guest} answers at {guest_proof.prove(uri, proof)} again"
        except KvmnetError:
            yield f"guest {move.guest} has not asked for an address there again yet"
