"""A user's network with the program that carries it."""

from __future__ import annotations

from kvmnet.core import user_network
from kvmnet.model.target import Target, UserTarget


def chosen(target: Target, uri: str | None) -> tuple[Target, tuple[str, ...]]:
    """The target with its backend, and what to say about it. Raises `Refused` (no passt)."""
    if not isinstance(target, UserTarget):
        return target, ()
    from kvmnet.adapters.user_networks import why_no_passt  # late: few NICs go there

    why = why_no_passt(uri)
    ready = user_network.with_backend(target, why)
    return ready, user_network.note(target, ready, why)
