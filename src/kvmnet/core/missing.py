"""A guest, network or bridge that nobody has: the error says which there are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from kvmnet.core.finding import command, some
from kvmnet.errors import NotFound, Unavailable
from kvmnet.model.state import State, only_sessions

Kind = Literal["guest", "network", "bridge"]


def no_such(
    state: State, kind: Kind, name: str, names: Iterable[str] | None = None
) -> NotFound | Unavailable:
    """`Unavailable` where libvirt, which would know, was not read. `names`: of those there are."""
    lost = next((x for x in state.unread if x.what.startswith("libvirt")), None)
    if lost is not None and kind != "bridge":
        return Unavailable(
            f"{kind} {command(name)} can not be looked up",
            why=f"{lost.what} was not read: {lost.why}",
            hint=lost.hint,
        )
    other = elsewhere(state) if kind != "bridge" else ""
    known = some(sorted(_names(state, kind) if names is None else names))
    return NotFound(
        f"there is no {kind} {command(name)}",
        why=f"there are: {known}" if known else f"there is no {kind} at all",
        hint=other or f"kvmnet {kind} list",
    )


def elsewhere(state: State) -> str:
    """What helps where users' sessions alone were read, and the system's libvirt is there too.

    Without root that is libvirt's default: the commonest surprise of all.
    """
    if state.system_libvirt is False or not only_sessions(state.connections):
        return ""
    return "for the system's libvirt: --connect qemu:///system, or sudo"


def _names(state: State, kind: Kind) -> Iterable[str]:
    match kind:
        case "guest":
            return (x.name for x in state.guests)
        case "network":
            return (x.name for x in state.networks)
        case "bridge":
            return (x.name for x in state.links if x.kind == "bridge")
