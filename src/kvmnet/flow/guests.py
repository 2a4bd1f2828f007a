"""Guests that change networks: read, planned, moved, proven."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
from msgspec import Struct

from kvmnet.adapters import libvirt_guests
from kvmnet.adapters.libvirt_guests import GuestXml, Listed
from kvmnet.core import guest_choice, move_plan
from kvmnet.core.missing import elsewhere
from kvmnet.core.nic_choice import choose, new_addresses
from kvmnet.errors import KvmnetError, NotFound, Unavailable, Undone
from kvmnet.flow import user_networks
from kvmnet.flow.apply import Watcher, apply, changing
from kvmnet.flow.beside import Beside
from kvmnet.flow.observe import Part, observe
from kvmnet.formats import domain_edit, guest_xml
from kvmnet.formats.domain_edit import Converted, DomainText, NicChange, NicEdit
from kvmnet.model.guest_steps import MoveNic, ProveGuest
from kvmnet.model.move import GuestWork, MovePlan, MoveWish, NicWork
from kvmnet.model.nic_choice import MacWish, NicChoice
from kvmnet.model.plan import Plan
from kvmnet.model.state import State
from kvmnet.model.target import Target, is_on
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
    listed = libvirt_guests.listed(uri)
    wanted = guest_choice.matcher(request.patterns)
    meant = {x.uuid: x for x in listed if wanted(x.name, x.uuid)}
    _check_found(request, tuple(meant.values()), listed, uri)
    runs = any(x.active for x in meant.values())
    looking = Beside("this host", lambda: observe(uri, RUNNING_PARTS if runs else _PARTS))
    # Where none of them runs, what libvirt has saved of guests tells all that a plan needs; of
    # others the addresses count.
    read = libvirt_guests.read_all(uri, lambda _name, uuid: not runs or uuid in meant)
    found = [_Found.of(x) for x in read if x.uuid in meant]
    state = _checked(looking.value(), watcher)
    if not runs:
        others = (_guest(x, guest_xml.nics(_base(x))) for x in read if x.uuid not in meant)
        guests = (*(x.guest for x in found), *others)
        state = msgspec.structs.replace(state, guests=guests)
    known = {x.uuid: x for x in state.guests}
    target, notes = user_networks.chosen(request.target, uri)
    tried = [(x, _work(x, known[x.xml.uuid], request, target))
             for x in found if x.xml.uuid in known]  # fmt: skip
    works = [work for _, work in tried if work is not None]
    _tell_left_out(request, [x.guest.name for x, work in tried if work is None], watcher)
    plan = move_plan.plan_move(state, works, request.target, request.wish)
    return _with_notes(plan, notes)


def _tell_left_out(request: MoveRequest, names: Sequence[str], watcher: Watcher) -> None:
    """Guests that were named by patterns and of which no NIC is meant; with --all they are many."""
    where = f" on {request.origin}" if request.origin is not None else ""
    if request.patterns:
        for name in names:
            watcher.say(f"guest {name} is left alone: it has no such NIC{where}")
    elif names:
        watcher.say(f"{len(names)} guests are left alone: they have no NIC{where}")


def _checked(state: State, watcher: Watcher) -> State:
    """The state; what is not needed for a plan may be missing. Raises `Unavailable`."""
    for gap in state.unread:
        if gap.what.startswith("libvirt") or gap.what == "links and addresses":
            raise Unavailable(f"{gap.what} could not be read", why=gap.why, hint=gap.hint)
        watcher.say(f"not looked at: {gap.what} ({gap.why})")
    return state


def _check_found(
    request: MoveRequest, meant: Sequence[Listed], listed: Sequence[Listed], uri: str | None
) -> None:
    def other() -> str:  # which connection it was, the state tells
        return elsewhere(observe(uri, frozenset({Part.NETWORKS})))

    pairs = [(x.name, x.uuid) for x in meant]
    guest_choice.check_found(request.patterns, pairs, [x.name for x in listed], other)
    if not meant:
        raise NotFound("there is no guest at all", hint=other() or "kvmnet guest list")


class _Found(Struct, frozen=True, kw_only=True):
    """A guest that is meant, its definition understood."""

    xml: GuestXml
    domain: DomainText
    """Of the running guest, else of the saved one."""
    guest: Guest

    @classmethod
    def of(cls, xml: GuestXml) -> _Found:
        domain = domain_edit.read(_base(xml).encode())
        return cls(xml=xml, domain=domain, guest=_guest(xml, domain.nics))


def _base(xml: GuestXml) -> str:
    base = xml.live if xml.live is not None else xml.saved
    assert base is not None
    return base


def _guest(xml: GuestXml, nics: tuple[GuestNic, ...]) -> Guest:
    """As much of a guest as its definition tells; a running one is observed."""
    return Guest(
        connection="", name=xml.name, uuid=xml.uuid, state="running" if xml.active else "shut off",
        id=0 if xml.active else None, persistent=xml.saved is not None,
        saved_nics=nics if xml.live is None else (), live_nics=nics if xml.live is not None else (),
    )  # fmt: skip


def _work(found: _Found, guest: Guest, request: MoveRequest, target: Target) -> GuestWork | None:
    """What is to be done about one guest; None: with --all, one of which no NIC is meant.

    `target` is the one of the request with its backend.
    """
    xml, domain = found.xml, found.domain
    nics = domain.nics
    try:
        chosen = choose(nics, request.nic, request.origin, f"guest {guest.name}")
    except NotFound:
        if request.patterns and not any("*" in x or "?" in x for x in request.patterns):
            raise
        return None
    macs = new_addresses(nics, chosen, request.mac, os.urandom)
    if all(is_on(nics[x - 1], request.target) for x in chosen):
        target = request.target  # whatever its backend is
    edits = [NicEdit(number=x, target=target, mac=macs.get(x)) for x in chosen]
    first = domain_edit.convert(domain, edits)
    second = first
    if xml.saved is not None and xml.live is not None:
        second = _saved(xml.saved, [nics[x - 1].mac for x in chosen], target, macs, chosen)
    losses = {x.mac: _remarks(x) for x in second.nics}
    works = tuple(
        _nic_work(x, xml.live, first, losses.get(x.mac, ()))
        for x in first.nics
        if x.mac is not None
    )
    saved = None if xml.saved is None else second.data.decode()
    return GuestWork(guest=guest, saved_before=xml.saved, saved_after=saved, nics=works)


def _with_notes(plan: MovePlan, notes: tuple[str, ...]) -> MovePlan:
    if not notes or not plan.plan.steps:
        return plan
    whole = msgspec.structs.replace(plan.plan, notes=(*plan.plan.notes, *notes))
    return msgspec.structs.replace(plan, plan=whole)


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
    from kvmnet.adapters import guest_proof  # late: guests that are off need none of it

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
