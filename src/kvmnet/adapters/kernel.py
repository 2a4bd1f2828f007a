"""Reads links, addresses, routes, neighbours and forwarding databases from the kernel.

`ip` and `bridge` cost 2 ms each. All of it works without root.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

from kvmnet.adapters.files import read_optional
from kvmnet.adapters.run import run
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
    text = run(["ip", "-json", "-details", "addr", "show"]).stdout
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


def read_forwarding() -> tuple[ForwardingEntry, ...]:
    """The forwarding databases of all bridges."""
    text = run(["bridge", "-json", "-statistics", "-details", "fdb", "show"]).stdout
    return iproute.parse_forwarding(text)
