"""What stands behind `nothing is wrong`: what was looked at, in numbers, and what was not."""

from __future__ import annotations

from kvmnet.model.state import State


def looked_at(state: State, checks: int) -> str:
    """`12 checks of 9 links, 2 networks, 50 guests and 1,000 firewall rules`."""
    rules = sum(len(x.rules) for x in state.firewall.chains)
    counts = [
        _count(len(state.links), "link"),
        _count(len(state.networks), "network"),
        _count(len(state.guests), "guest"),
    ]
    return f"{checks} checks of {', '.join(counts)} and {_count(rules, 'firewall rule')}"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def unknown(state: State) -> tuple[str, ...]:
    """What could not be read although guests' networks depend on it: nobody can call them healthy.

    Sets that rules name are not among it: they are read up to a bound, and checks know of that.
    """
    return tuple(
        x.what for x in state.unread
        if not x.absent and x.what.startswith(("firewall", "libvirt", "links"))
        and not x.what.startswith(("firewall (set", "firewall (ipset"))
    )  # fmt: skip


def not_looked_at(state: State) -> tuple[str, ...]:
    """What could not be read, why, and what helps."""
    lines = [f"{x.what}: {x.why}" + (f" (try: {x.hint})" if x.hint else "") for x in state.unread]
    if not state.privileged and not any("firewall" in x.what for x in state.unread):
        lines.append("what only root may see (try: sudo kvmnet doctor)")
    if not state.privileged and any(x.uri.endswith("/session") for x in state.connections):
        lines.append(
            "the system's networks and guests: this is a user's own libvirt "
            "(try: sudo kvmnet doctor, or kvmnet doctor --connect qemu:///system)"
        )
    return tuple(lines)
