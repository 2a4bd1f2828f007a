"""How the kernel sends to some destinations, and the addresses it has: all of it by one program."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from msgspec import Struct

from kvmnet.adapters import ip_program, kernel
from kvmnet.adapters.run import run
from kvmnet.errors import CommandFailed
from kvmnet.formats import iproute, route_get
from kvmnet.formats.route_get import Way
from kvmnet.model.host import Address
from kvmnet.model.values import Ip

_FAILED = re.compile(r"^Command failed -:(\d+)$", re.MULTILINE)


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
    done = ip_program.ask(["addr show", *(f"route get {x}" for x in known)])
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


def _is_plain(ip: Ip) -> bool:
    try:
        return "%" not in ip and bool(ip_address(ip))
    except ValueError:
        return False
