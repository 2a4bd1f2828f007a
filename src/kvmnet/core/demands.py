"""Which of the checks that hold before a change of the host's links can be demanded after it."""

from __future__ import annotations

from ipaddress import ip_address

from kvmnet.model.arrangement import Arrangement
from kvmnet.model.check import (
    AddressThere,
    Check,
    ConnectionLives,
    GatewayAnswers,
    RouteLeads,
)
from kvmnet.model.host import Family
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
    gone = {cidr.partition("/")[0] for cidr in old - new}
    kept = [x for x in checks if not _is_taken_away(x, gone, old - new, after)]
    added = [AddressThere(address=x) for x in sorted(new - old)]
    return (*kept, *added)


def _addresses(arrangement: Arrangement) -> set[Cidr]:
    return {
        Cidr(f"{x.ip}/{x.prefix_len}")
        for link in arrangement.links
        for x in link.addresses
        if x.scope == "global"
    }


def _is_taken_away(check: Check, gone: set[str], gone_cidrs: set[Cidr], after: Arrangement) -> bool:
    match check:
        case AddressThere():
            return check.address in gone_cidrs
        case ConnectionLives():
            return check.local in gone
        case GatewayAnswers():
            return bool(gone) and not _leads_by(after, check.ip)
        case RouteLeads():
            return bool(gone) and not _leads_by(after, check.gateway, check.destination)
        case _:
            return False


def _leads_by(after: Arrangement, gateway: Ip | None, destination: Ip | None = None) -> bool:
    """Whether some route of the arrangement goes by that gateway; without one, of that family."""
    if gateway is not None:
        return any(x.gateway == gateway for x in after.routes)
    family: Family = 6 if destination is not None and ip_address(destination).version == 6 else 4
    return any(x.family == family for link in after.links for x in link.addresses)
