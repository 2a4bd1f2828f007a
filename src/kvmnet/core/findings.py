"""What is wrong on a host, as far as a State tells it cheaply and surely.

Each check looks at one known problem, by its name in the field, and answers with findings: what,
the evidence, and the command that mends it. A part that was not read proves nothing: a check whose
parts are missing stays silent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kvmnet.core import address_checks, lan_checks, plug_checks
from kvmnet.core.finding import Finding
from kvmnet.model.state import State

CHECKS: tuple[Callable[[State], Iterator[Finding]], ...] = (
    plug_checks.network_inactive,
    plug_checks.bridges_of_guests,
    plug_checks.orphaned_tap,
    plug_checks.stp_delay,
    plug_checks.docker_forward_drop,
    address_checks.duplicate_identity,
    address_checks.subnet_overlap,
    address_checks.address_conflict,
    address_checks.accept_ra,
    plug_checks.live_differs,
    plug_checks.stale_bridge,
    lan_checks.lan_not_answered,
)


def find(state: State) -> tuple[Finding, ...]:
    """All findings, the worst first."""
    found = [finding for check in CHECKS for finding in check(state)]
    order = ("problem", "warning", "note")
    return tuple(sorted(found, key=lambda x: (order.index(x.severity), x.name, x.subject)))
