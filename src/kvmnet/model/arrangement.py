"""An arrangement: how some of the kernel's links are to be connected and addressed.

It is a target, not a list of commands: what has to be done is computed from what is there when it
is carried out. So the same value can be carried out twice, and the arrangement from before a change
undoes it, however far it came.
"""

from __future__ import annotations

from msgspec import Struct

from kvmnet.model.host import (
    Address,
    BridgeAttributes,
    Neighbour,
    PortAttributes,
    Route,
    Rule,
    Sysctl,
)
from kvmnet.model.setup import PortVlans
from kvmnet.model.values import Mac


class LinkTarget(Struct, frozen=True, kw_only=True):
    """One link as it is to be."""

    name: str
    bridge: BridgeAttributes | None = None
    """Not None: it is a bridge, and it is made if it is not there."""
    mac: Mac | None = None
    """None: whatever it has."""
    mtu: int | None = None
    up: bool = True
    promisc: bool = False
    """Made promiscuous by somebody, for reasons of their own."""
    allmulti: bool = False
    """The same, for multicast frames only."""
    master: str | None = None
    port: PortAttributes | None = None
    """As a port of that bridge; None: whatever it has. `state` is the kernel's own business."""
    vlans: PortVlans | None = None
    """Of a port, or a bridge's own; None: whatever it has."""
    addresses: tuple[Address, ...] = ()
    """All that it is to have. Lifetimes are those of the moment the arrangement was made; one that
    is still on any link of the arrangement goes over with the lifetime it has by then."""
    sysctls: tuple[Sysctl, ...] = ()


class Arrangement(Struct, frozen=True, kw_only=True):
    """The links named here, and every route, rule and neighbour entry that names one of them."""

    links: tuple[LinkTarget, ...]
    absent: tuple[str, ...] = ()
    """Bridges that are not to be there."""
    routes: tuple[Route, ...] = ()
    """Those that the kernel does not make by itself of the addresses."""
    rules: tuple[Rule, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
