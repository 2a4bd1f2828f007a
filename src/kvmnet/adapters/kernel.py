"""Reads links, addresses, routes, neighbours and forwarding databases from the kernel.

`ip` and `bridge` cost 2 ms each. All of it works without root.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from kvmnet.adapters.files import read_optional
from kvmnet.adapters.run import run
from kvmnet.errors import Failed, KvmnetError
from kvmnet.formats import iproute
from kvmnet.model.host import Address, ForwardingEntry, Link, Neighbour, Route, Rule

SYS_NET = Path("/sys/class/net")

_ASSIGNED: dict[str, Literal["permanent", "random", "stolen", "set"]] = {
    "0": "permanent",
    "1": "random",
    "2": "stolen",
    "3": "set",
}
_REAL = frozenset({"ethernet", "wireless"})
_PLUGS = frozenset({"tap", "macvtap", "loopback"})
"""Links of which sysfs knows nothing that `ip` did not say; there can be hundreds."""


def read_links(sys_net: Path = SYS_NET) -> tuple[tuple[Link, ...], tuple[Address, ...]]:
    """All links with their attributes, and their addresses, out of one call."""
    return _links(run(["ip", "-json", "-details", "addr", "show"]).stdout, sys_net)


def _links(text: str, sys_net: Path) -> tuple[tuple[Link, ...], tuple[Address, ...]]:
    links = tuple(_with_sysfs(x, sys_net) for x in iproute.parse_links(text))
    return links, iproute.parse_addresses(text)


def _with_sysfs(link: Link, sys_net: Path) -> Link:
    """The link with what only sysfs tells: driver, speed, wireless, origin of the MAC."""
    if link.kind in _PLUGS or "/" in link.name:
        return link
    folder = sys_net / link.name
    # sysfs shows the namespace it was mounted in, which need not be ours.
    if read_optional(folder / "ifindex") != str(link.index):
        return link
    assigned = _ASSIGNED.get(read_optional(folder / "addr_assign_type") or "", "unknown")
    if link.kind not in _REAL and link.kind != "bond":
        return msgspec.structs.replace(link, mac_assigned=assigned)
    return msgspec.structs.replace(
        link,
        mac_assigned=assigned,
        kind="wireless" if (folder / "phy80211").exists() else link.kind,
        speed_mbit=_speed(folder),
        driver=_driver(folder),
    )


def _speed(folder: Path) -> int | None:
    """Mbit/s; the kernel says -1 or refuses (EINVAL) where it does not know."""
    text = read_optional(folder / "speed") or ""
    return int(text) if text.isdecimal() else None


def _driver(folder: Path) -> str | None:
    try:
        return os.path.basename(os.readlink(folder / "device" / "driver"))
    except OSError:
        return None  # a software device has none


def read_routes() -> tuple[Route, ...]:
    """Routes of all tables and both families."""
    command = ["route", "show", "table", "all"]
    four = run(["ip", "-4", "-json", "-details", *command]).stdout
    six = run(["ip", "-6", "-json", "-details", *command]).stdout
    return (*iproute.parse_routes(four, 4), *iproute.parse_routes(six, 6))


def read_rules() -> tuple[Rule, ...]:
    """Routing policy rules of both families."""
    four = run(["ip", "-4", "-json", "-details", "rule", "show"]).stdout
    # A kernel booted with ipv6.disable=1 has no such family.
    six = run(["ip", "-6", "-json", "-details", "rule", "show"], accept=(0, 1, 2, 255)).stdout
    return (*iproute.parse_rules(four, 4), *iproute.parse_rules(six, 6))


def read_neighbours() -> tuple[Neighbour, ...]:
    """ARP and ND caches, proxy entries included."""
    cache = run(["ip", "-json", "-statistics", "neigh", "show"]).stdout
    proxies = run(["ip", "-json", "neigh", "show", "proxy"]).stdout
    return (*iproute.parse_neighbours(cache), *iproute.parse_neighbours(proxies))


class Network(Struct, frozen=True, kw_only=True):
    """Links and all that is on them, read in one go."""

    links: tuple[Link, ...]
    addresses: tuple[Address, ...]
    routes: tuple[Route, ...]
    rules: tuple[Rule, ...]
    neighbours: tuple[Neighbour, ...]


def read_network() -> Network:
    """What the other readers tell, by three programs instead of seven: each costs its start."""
    both, four, six = ["-details", "-statistics"], ["-4", "-details"], ["-6", "-details"]
    routing = ("route show table all", "rule show")
    try:
        shown, known, proxies = _batch(both, "addr show", "neigh show", "neigh show proxy")
        (routes4, rules4), (routes6, rules6) = _batch(four, *routing), _batch(six, *routing)
    except KvmnetError:
        return _one_by_one()
    links, addresses = _links(shown, SYS_NET)
    return Network(
        links=links,
        addresses=addresses,
        routes=(*iproute.parse_routes(routes4, 4), *iproute.parse_routes(routes6, 6)),
        rules=(*iproute.parse_rules(rules4, 4), *iproute.parse_rules(rules6, 6)),
        neighbours=(*iproute.parse_neighbours(known), *iproute.parse_neighbours(proxies)),
    )


def _one_by_one() -> Network:
    links, addresses = read_links()
    return Network(
        links=links,
        addresses=addresses,
        routes=read_routes(),
        rules=read_rules(),
        neighbours=read_neighbours(),
    )


def _batch(options: list[str], *commands: str) -> list[str]:
    """What `ip` prints for each of some commands, in one process: a line for each.

    Raises `KvmnetError` where one fails (a kernel booted with ipv6.disable=1 has no such rules) or
    prints no line, so that nobody knows what is what.
    """
    asked = "".join(f"{x}\n" for x in commands)
    lines = run(["ip", "-json", *options, "-batch", "-"], stdin=asked).stdout.splitlines()
    if len(lines) != len(commands):
        raise Failed("`ip` did not print a line for each command", why=asked)
    return lines


def read_forwarding() -> tuple[ForwardingEntry, ...]:
    """The forwarding databases of all bridges."""
    text = run(["bridge", "-json", "-statistics", "-details", "fdb", "show"]).stdout
    return iproute.parse_forwarding(text)
