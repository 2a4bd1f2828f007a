"""Networks by the names that users give."""

from __future__ import annotations

from kvmnet.core.finding import command, some
from kvmnet.errors import NotFound
from kvmnet.model.state import State
from kvmnet.model.virt import Network


def find_network(state: State, name: str) -> Network:
    """The network of that name. Raises `NotFound`, naming those that exist."""
    network = state.network(name)
    if network is None:
        names = some(sorted(x.name for x in state.networks))
        raise NotFound(
            f"there is no network {command(name)}",
            why=f"there are: {names}" if names else "there is no network at all",
            hint="kvmnet network list" if names else "make one: kvmnet up",
        )
    return network


def network_with_bridge(state: State, bridge: str) -> Network | None:
    """The network that makes, or uses, a bridge of that name."""
    for network in state.networks:
        if bridge in {c.bridge for c in (network.live, network.saved) if c is not None}:
            return network
    return None
