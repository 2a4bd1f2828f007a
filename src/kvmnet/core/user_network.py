"""Which program carries a user's network: passt where that can be had, else QEMU's own."""

from __future__ import annotations

from kvmnet.errors import Refused
from kvmnet.model.target import Target, UserTarget


def with_backend(target: UserTarget, why_no_passt: str | None) -> UserTarget:
    """The target with its backend. Raises `Refused` for passt where there is none."""
    if target.backend is None:
        return UserTarget(backend="passt" if why_no_passt is None else "slirp")
    if target.backend == "passt" and why_no_passt is not None:
        raise Refused(
            "no NIC can be put on user:passt here", why=why_no_passt,
            hint="user:slirp is what QEMU has built in",
        )  # fmt: skip
    return target


def note(asked: Target, chosen: Target, why_no_passt: str | None) -> tuple[str, ...]:
    """What to say about the choice; nothing where it is passt, or was the user's own."""
    if asked != UserTarget() or chosen != UserTarget(backend="slirp"):
        return ()
    return (f"it is QEMU's own user network (user:slirp): {why_no_passt}",)
