"""IPv6 addresses of others that the kernel answers for (ip-neighbour(8), proxy)."""

from __future__ import annotations

from kvmnet.adapters.run import run
from kvmnet.formats import iproute
from kvmnet.model.values import Ip


def answer(nic: str, addresses: tuple[Ip, ...]) -> None:
    """List the addresses as proxies; those that are listed stay so. Raises `CommandFailed`."""
    _batch([f"neighbour replace proxy {x} dev {nic}" for x in addresses])


def ignore(nic: str, addresses: tuple[Ip, ...]) -> None:
    """Take the addresses from the list, as far as they are there. Raises `CommandFailed`."""
    shown = run(["ip", "-6", "-json", "neigh", "show", "proxy"]).stdout
    listed = {x.ip for x in iproute.parse_neighbours(shown) if x.link == nic}
    _batch([f"neighbour delete proxy {x} dev {nic}" for x in addresses if x in listed])


def _batch(lines: list[str]) -> None:
    if lines:
        run(["ip", "-6", "-batch", "-"], stdin="\n".join(lines) + "\n")
