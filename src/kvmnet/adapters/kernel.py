"""Reads links, addresses, routes, neighbours and forwarding databases from the kernel.

`ip` and `bridge` cost 2 ms each. All of it works without root.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from kvmnet.adapters import ip_program
from kvmnet.adapters.files import read_optional
from kvmnet.adapters.run import run
from kvmnet.errors import KvmnetError
from kvmnet.formats import iproute, iproute_routes, ports, rtnetlink
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


def carries(link: str) -> bool | None:
    """Whether the link is up and sends what it is given; None: there is none.

    Asked by a system call, not by `ip`: who asks this waits, and the host may be silent meanwhile.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
            kernel.send(rtnetlink.one_link_request(socket.if_nametoindex(link)))
            return rtnetlink.is_operating(kernel.recv(65536))
    except OSError:
        return None


def read_routes() -> tuple[Route, ...]:
    """Routes of all tables and both families."""
    command = ["route", "show", "table", "all"]
    four = run(["ip", "-4", "-json", "-details", *command]).stdout
    six = run(["ip", "-6", "-json", "-details", *command]).stdout
    return (*iproute_routes.parse_routes(four, 4), *iproute_routes.parse_routes(six, 6))


def read_rules() -> tuple[Rule, ...]:
    """Routing policy rules of both families."""
    four = run(["ip", "-4", "-json", "-details", "rule", "show"]).stdout
    # A kernel booted with ipv6.disable=1 has no such family.
    six = run(["ip", "-6", "-json", "-details", "rule", "show"], accept=(0, 1, 2, 255)).stdout
    return (*iproute_routes.parse_rules(four, 4), *iproute_routes.parse_rules(six, 6))


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


_EVERYTHING = ("addr show", "neigh show", "neigh show proxy", "route show table all", "rule show")
NOTHING = Network(links=(), addresses=(), routes=(), rules=(), neighbours=())


def read_network() -> Network:
    """What the other readers tell, by two programs instead of seven: each costs its start.

    Of rules `ip` shows one family a call, whatever else it is asked.
    """
    try:
        found = _read_at_once()
        if _names_what_is_not_there(found):  # renamed since the program that answers was started
            ip_program.start_anew()
            found = _read_at_once()
    except (KvmnetError, ValueError):
        return _one_by_one()
    return found


def _names_what_is_not_there(found: Network) -> bool:
    names = {x.name for x in found.links}
    return any(x.link is not None and x.link not in names for x in found.routes)


def _read_at_once() -> Network:
    """Raises `KvmnetError`, `ValueError` where it can not be told what answers which question."""
    with ip_program.kept_to_answer():
        told, six = ip_program.ask(_EVERYTHING), ip_program.ask_ipv6(["rule show"])
    if told.status or six.status:
        raise ValueError("not all of it can be answered")
    # `ip` prints a line for each, unless one fails.
    shown, known, proxies, routes, rules = told.stdout.splitlines()
    links, addresses = _links(shown, SYS_NET)
    return Network(
        links=links,
        addresses=addresses,
        routes=iproute_routes.parse_all_routes(routes),
        rules=(*iproute_routes.parse_rules(rules, 4), *iproute_routes.parse_rules(six.stdout, 6)),
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


def read_forwarding() -> tuple[ForwardingEntry, ...]:
    """The forwarding databases of all bridges."""
    text = run(["bridge", "-json", "-statistics", "-details", "fdb", "show"]).stdout
    return iproute.parse_forwarding(text)


def read_counters(link: str) -> ports.Counters | None:
    """How many packets passed a link; None if it is gone."""
    done = run(["ip", "-json", "-statistics", "link", "show", "dev", link], accept=(0, 1))
    return ports.counters(done.stdout) if done.status == 0 else None


def read_vlans(port: str) -> tuple[ports.PortVlan, ...]:
    """The VLANs of a bridge's port; none on a bridge without VLAN filtering."""
    done = run(["bridge", "-json", "vlan", "show", "dev", port], accept=(0, 1, 255))
    return ports.vlans(done.stdout) if done.status == 0 else ()
