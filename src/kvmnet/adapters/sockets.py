"""Reads who listens on the ports that libvirt's dnsmasq needs."""

from __future__ import annotations

from kvmnet.adapters.run import run
from kvmnet.formats import sockets
from kvmnet.model.host import Listener
from kvmnet.model.state import Unread

_FILTER = ["(", "sport", "=", ":53", "or", "sport", "=", ":67", "or", "sport", "=", ":547", ")"]


def read_listeners() -> tuple[tuple[Listener, ...], tuple[Unread, ...]]:
    """Sockets bound to DNS or DHCP ports. Their processes' names need root."""
    found = sockets.parse(run(["ss", "-H", "-lnptu", *_FILTER]).stdout)
    if all(x.process is not None for x in found):
        return found, ()
    nameless = Unread(
        what="processes behind ports 53 and 67",
        why="only root sees the processes of other users",
        hint="run it again as root",
    )
    return found, (nameless,)
