"""Which of the checks that hold before a change of the host's links can be demanded after it."""

from __future__ import annotations

from typing import NamedTuple

from kvmnet.model.arrangement import Arrangement
from kvmnet.model.check import (
    AddressThere,
    Check,
    ConnectionLives,
    GatewayAnswers,
    RouteLeads,
)
from kvmnet.model.plan import Arrange, Plan
from kvmnet.model.values import Cidr, Ip


def demanded_after(plan: Plan, checks: tuple[Check, ...]) -> tuple[Check, ...]:
    """What of the checks can be demanded once the plan is carried out."""
    for one in plan.steps:
        if isinstance(one.step, Arrange) and isinstance(one.undo, Arrange):
            checks = demanded(checks, one.undo.target, one.step.target)
    return checks


def demanded(
    checks: tuple[Check, ...], before: Arrangement, after: Arrangement
) -> tuple[Check, ...]:
    """The checks without those that speak of an address or a way that the user takes away.

    An address that is new is demanded instead.
    """
    old, new = _addresses(before), _addresses(after)
    gone = _Gone(
        cidrs=old - new,
        gateways={x.gateway for x in before.routes} - {x.gateway for x in after.routes} - {None},
    )
    kept = [x for x in checks if not _is_taken_away(x, gone)]
    return (*kept, *(AddressThere(address=x) for x in sorted(new - old)))


class _Gone(NamedTuple):
    """What the user takes away."""

    cidrs: set[Cidr]
    gateways: set[Ip | None]


def _addresses(arrangement: Arrangement) -> set[Cidr]:
    return {
        Cidr(f"{x.ip}/{x.prefix_len}")
        for link in arrangement.links
        for x in link.addresses
        if x.scope == "global"
    }


def _is_taken_away(check: Check, gone: _Gone) -> bool:
    match check:
        case AddressThere():
            return check.address in gone.cidrs
        case ConnectionLives():
            return check.local in {x.partition("/")[0] for x in gone.cidrs}
        case GatewayAnswers():
            return check.ip in gone.gateways
        case RouteLeads():
            return check.gateway in gone.gateways
        case _:
            return False
