"""Steps that are taken together, each with an outcome of its own."""

from __future__ import annotations

from collections.abc import Sequence

from kvmnet.adapters import steps
from kvmnet.errors import KvmnetError
from kvmnet.model.guest_steps import SaveGuest
from kvmnet.model.plan import Step


def take(batch: Sequence[Step], uri: str | None) -> tuple[KvmnetError | None, ...]:
    """For each step why it failed, or None. Definitions of guests are saved in one go."""
    saves = [x for x in batch if isinstance(x, SaveGuest)]
    if len(saves) == len(batch):
        from kvmnet.adapters import libvirt_guests  # late: few plans change guests

        try:
            return libvirt_guests.save(uri, saves)
        except KvmnetError as error:
            return (error,) * len(batch)
    return tuple(_taken(step, uri) for step in batch)


def _taken(step: Step, uri: str | None) -> KvmnetError | None:
    try:
        steps.take(step, uri)
    except KvmnetError as error:
        return error
    return None
