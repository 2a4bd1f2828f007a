"""What the kernel decides about one packet of a trace."""

from __future__ import annotations

from kvmnet.adapters.run import run
from kvmnet.errors import CommandFailed
from kvmnet.formats import route_get
from kvmnet.model.trace import RouteChoice
from kvmnet.model.values import Ip


def choice(
    destination: Ip, *, source: Ip | None = None, iif: str | None = None, mark: int = 0
) -> RouteChoice:
    """What the kernel decides for one packet; its own words where it knows no way."""
    words = ["ip", "-json", "route", "get", destination]
    words += ["from", source] if source is not None else []
    words += ["iif", iif] if iif is not None else []
    words += ["mark", str(mark)] if mark else []
    shown = " ".join(x for x in words if x != "-json")
    try:
        way = route_get.parse(run(words).stdout)
    except CommandFailed as error:
        reason = error.why.removeprefix("RTNETLINK answers: ")
        return RouteChoice(command=shown, error=reason or "no route")
    if way is None:
        return RouteChoice(command=shown, error="its answer is not understood")
    return RouteChoice(
        command=shown, link=way.link, gateway=way.gateway, is_local=way.is_local, source=way.source
    )
