"""What a port had, set once more after its host network manager was told.

An undo puts a port's VLANs and flags back with the port. A manager that is told afterwards may set
those of its own files, or plug the port in anew (NetworkManager does): so the last step of the way
back sets them again. It is the undo of the first step of the way there, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kvmnet.core import bridge_picture
from kvmnet.model.arrangement import Arrangement, LinkTarget
from kvmnet.model.link_steps import SetPorts
from kvmnet.model.plan import Arrange, HandOver, Plan, PlannedStep
from kvmnet.model.state import State


def steps(before: Arrangement) -> tuple[PlannedStep, ...]:
    """The first step of a plan that takes these ports out of their bridges; none: nobody has set
    anything of them."""
    links = tuple(
        LinkTarget(name=x.name, bridge=x.bridge, master=x.master, port=x.port, vlans=x.vlans)
        for x in before.links
        if x.port is not None or x.vlans is not None
    )
    if not links:
        return ()
    return (PlannedStep(step=SetPorts(links=links), undo=SetPorts(links=links)),)


def of_now(state: State, back: Plan) -> Plan:
    """A plan that takes another back, undone to the flags and VLANs that ports have by now."""
    found = [_of_now(state, x) for x in back.steps]
    told = any(isinstance(x.step, HandOver) for x in found)
    if told and not any(isinstance(x.step, SetPorts) for x in found):
        found[:0] = [y for x in _undone(found) for y in steps(x)]
    return msgspec.structs.replace(back, steps=tuple(found))


def _undone(planned: list[PlannedStep]) -> Iterator[Arrangement]:
    for one in planned:
        if isinstance(one.undo, Arrange):
            yield one.undo.target


def _of_now(state: State, planned: PlannedStep) -> PlannedStep:
    match planned.undo:
        case Arrange() as undo:
            target = bridge_picture.with_ports_of(state, undo.target)
            undo = msgspec.structs.replace(undo, target=target)
            return msgspec.structs.replace(planned, undo=undo)
        case SetPorts() as undo:  # of ports that are to leave; those that are to come stay as noted
            links = bridge_picture.with_ports_of(state, Arrangement(links=undo.links)).links
            again = SetPorts(links=links)
            return msgspec.structs.replace(planned, step=again, undo=again)
        case _:
            return planned
