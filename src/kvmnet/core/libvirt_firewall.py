"""What libvirt itself will write into the host's firewall when it starts a network."""

from __future__ import annotations

from kvmnet.model.host import FirewallChain
from kvmnet.model.state import State

LIBVIRT_NFTABLES_SINCE = (10, 4)
"""From this version on libvirt prefers its nftables backend, which opens nothing for guests."""

_IPTABLES_CHAINS = frozenset({"INPUT", "FORWARD", "OUTPUT"})


def chains_libvirt_will_fill(state: State) -> tuple[FirewallChain, ...]:
    """The chains at whose head libvirt's iptables backend puts its own accept rules at start."""
    if not uses_iptables(state):
        return ()
    return tuple(
        chain
        for chain in state.firewall.chains
        if chain.backend != "nft" and chain.table == "filter" and chain.name in _IPTABLES_CHAINS
    )


def uses_iptables(state: State) -> bool:
    """Whether libvirt writes its rules with iptables, as told or by its version."""
    configured = state.firewall.libvirt_backend
    if configured is not None:
        return configured == "iptables"
    version = next((c.libvirt_version for c in state.connections), "0.0")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return numbers < LIBVIRT_NFTABLES_SINCE
