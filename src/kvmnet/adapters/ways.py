"""How the kernel sends to some destinations, and the addresses it has: all of it by one program."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from msgspec import Struct

from kvmnet.adapters import kernel
from kvmnet.adapters.run import run
from kvmnet.errors import CommandFailed
from kvmnet.formats import iproute, route_get
from kvmnet.formats.route_get import Way
from kvmnet.model.host import Address
from kvmnet.model.trace import RouteChoice
from kvmnet.model.values import Ip

_FAILED = re.compile(r"^Command failed -:(\d+)$", re.MULTILINE)
_STATUSES = (0, 1, 2, 255)


class Seen(Struct, frozen=True, kw_only=True):
    """The kernel at one moment."""

    addresses: tuple[Address, ...]
    ways: Mapping[Ip, Way | None]
    """None: it knows no way."""


def look(destinations: Iterable[Ip]) -> Seen:
    """All addresses, and the kernel's choice for each destination. Raises `KvmnetError`."""
    asked = tuple(dict.fromkeys(destinations))
    # Of an address that it can not read, `ip` would end, and not only fail.
    known = [x for x in asked if _is_plain(x)]
    text = "".join(f"{x}\n" for x in ("addr show", *(f"route get {x}" for x in known)))
    words = ["ip", "-json", "-details", "-force", "-batch", "-"]
    done = run(words, stdin=text, accept=_STATUSES)
    failed = {int(x) for x in _FAILED.findall(done.stderr)}
    answered = [x for number, x in enumerate(known, start=2) if number not in failed]
    lines = done.stdout.splitlines()
    if 1 in failed or len(lines) != len(answered) + 1:  # nobody knows which line answers what
        ways = {x: way_to(x) for x in known}
        return Seen(addresses=kernel.read_links()[1], ways={x: ways.get(x) for x in asked})
    ways = dict(zip(answered, map(route_get.parse, lines[1:]), strict=True))
    return Seen(addresses=iproute.parse_addresses(lines[0]), ways={x: ways.get(x) for x in asked})


def way_to(destination: Ip) -> Way | None:
    """How the kernel sends to a destination now; None: it does not know."""
    try:
        return route_get.parse(run(["ip", "-json", "route", "get", destination]).stdout)
    except CommandFailed:
        return None


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


def _is_plain(ip: Ip) -> bool:
    try:
        return "%" not in ip and bool(ip_address(ip))
    except ValueError:
        return False
