"""Whether guests are still as a kept change left them: what its undo needs."""

from __future__ import annotations

from collections.abc import Iterator

from kvmnet.adapters.libvirt_guests import GuestXml, read_all
from kvmnet.formats import guest_xml
from kvmnet.model.guest_steps import (
    GUEST_STEPS,
    MoveNic,
    PlugNic,
    RestoreGuest,
    SaveGuest,
    UnplugNic,
)
from kvmnet.model.plan import Plan, PlannedStep
from kvmnet.model.target import place
from kvmnet.model.values import Mac


def is_about_guests(plan: Plan) -> bool:
    """Whether any step changes a guest."""
    return any(isinstance(x.step, GUEST_STEPS) for x in plan.steps)


def changes(plan: Plan, uri: str | None) -> tuple[str, ...]:
    """What somebody else has changed since, in sentences; a guest that is gone needs no undo."""
    uuids = {x.step.uuid for x in plan.steps if isinstance(x.step, GUEST_STEPS)}
    if not uuids:
        return ()
    now = {x.uuid: x for x in read_all(uri, lambda _name, uuid: uuid in uuids)}
    moved = {
        x.step.uuid
        for x in plan.steps
        if isinstance(x.step, MoveNic | PlugNic | UnplugNic)
        and getattr(x.step, "where", "running") == "running"
    }
    return tuple(text for one in plan.steps for text in _changes(one, now, moved))


def _changes(one: PlannedStep, now: dict[str, GuestXml], moved: set[str]) -> Iterator[str]:
    step, undo = one.step, one.undo
    if isinstance(step, MoveNic) and step.uuid in now:
        guest = now[step.uuid]
        found = guest_xml.find(guest.live, step.mac) if guest.live is not None else None
        if guest.live is not None and (found is None or place(found[0]) != step.place):
            where = place(found[0]) if found is not None else "gone"
            yield f"NIC {step.mac} of running guest {guest.name} is {where}"
    if not isinstance(step, SaveGuest | PlugNic | UnplugNic) or not isinstance(undo, RestoreGuest):
        return
    found_guest = now.get(step.uuid)
    if found_guest is None or found_guest.saved is None:
        return
    yield from _saved_changes(step, undo, found_guest, found_guest.saved)
    stayed = found_guest.live is not None and step.uuid not in moved
    if stayed and _places(found_guest.live or "") != _places(undo.xml):
        yield f"guest {found_guest.name} was started with it"


def _saved_changes(
    step: SaveGuest | PlugNic | UnplugNic, undo: RestoreGuest, guest: GuestXml, saved: str
) -> Iterator[str]:
    places, before = _places(saved), _places(undo.xml)
    match step:
        case SaveGuest():
            expected = _places(step.xml)
        case PlugNic():
            expected = [*before, (step.mac, step.place)]
        case UnplugNic():
            expected = [x for x in before if x[0] != step.mac]
    if sorted(map(str, places)) != sorted(map(str, expected)):
        yield f"the definition of guest {guest.name} has other NICs"
    elif isinstance(step, SaveGuest) and guest_xml.rest(saved) != guest_xml.rest(undo.xml):
        yield f"the definition of guest {guest.name} has changed"


def _places(xml: str) -> list[tuple[Mac | None, str]]:
    return [(x.mac, place(x)) for x in guest_xml.nics(xml)]
